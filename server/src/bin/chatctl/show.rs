//! Tables, times and sentences for people.

use protocol::UnixMillis;
use unicode_width::UnicodeWidthStr as _;

/// Lines of cells, under a head.
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { lines: vec![head.iter().map(|cell| plain(cell)).collect()] }
    }

    pub(crate) fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.lines.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// As text: each column as wide as its widest cell.
    pub(crate) fn text(&self) -> String {
        let width = |at: usize| {
            self.lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.width()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for line in &self.lines {
            let mut shown = String::new();
            for (at, cell) in line.iter().enumerate() {
                shown.push_str(cell);
                shown.extend(std::iter::repeat_n(' ', width(at) + 2 - cell.width()));
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What a terminal shows as it is, whoever wrote it.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c| if protocol::text::is_control_or_format(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// A user, by name and number.
pub(crate) fn user(name: &str, number: impl std::fmt::Display) -> String {
    plain(&format!("{name} ({number})"))
}

/// A time, in UTC: `2026-11-24 04:05:06.789`.
pub(crate) fn time(at: UnixMillis) -> String {
    let (days, millis) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000));
    // Years begin in March here, so that a leap day is a year's last; 400 of them are an era.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, millis) = (millis / 1000 % 60, millis % 1000);
    format!("{year:04}-{month:02}-{date:02} {hours:02}:{minutes:02}:{seconds:02}.{millis:03}")
}

/// A time that need not be exact: `2026-11-24 04:05:06`.
pub(crate) fn second(at: UnixMillis) -> String {
    let mut text = time(at);
    text.truncate(text.len() - 4);
    text
}

/// How long something has lasted: its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01 00:00:00.000");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59.999");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(time(1_709_251_199_000), "2024-02-29 23:59:59.000");
        assert_eq!(time(1_795_493_106_789), "2026-11-24 04:05:06.789");
        assert_eq!(second(1_795_493_106_789), "2026-11-24 04:05:06");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00.000");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999");
    }

    #[test]
    fn durations() {
        let shown = [59, 61, 3_661, 90_061].map(duration);
        assert_eq!(shown, ["59s", "1m 1s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(&["NAME", "N"]);
        table.line(["你好".into(), "1".into()]);
        table.line(["a\u{1b}[2J\u{202e}".into(), "22".into()]);
        assert_eq!(table.text(), "NAME    N\n你好    1\na\u{fffd}[2J\u{fffd}  22\n");
    }
}
