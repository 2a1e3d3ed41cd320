//! What a message of a load run says: enough to tell, at whatever device it arrives, where it comes from, when it
//! should have been sent, and whether anything of it was changed.

use std::{fmt::Write as _, time::Duration};

use protocol::{ClientMsgId, ConversationId};

/// One sender's way into one conversation: its messages are counted on their own.
pub(super) type LineId = u32;

/// The origin of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Of which run.
    pub(super) run: u64,
    /// On which line.
    pub(super) line: LineId,
    /// The line's first message has 0, and each further one the next number.
    pub(super) counter: u32,
    /// When it should have been sent, since the run began; whole microseconds.
    pub(super) intended: Duration,
}

/// Why a message carries no stamp of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unstamped {
    /// Another run, or somebody else, has sent it.
    Foreign,
    /// It is of this run, and its text is not what was sent.
    Altered,
}

impl Stamp {
    /// The message's idempotency key: it says who sent it, and which one of theirs it is.
    pub(super) fn mid(self) -> ClientMsgId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.line.to_be_bytes());
        bytes[12..].copy_from_slice(&self.counter.to_be_bytes());
        ClientMsgId(bytes)
    }

    /// The text, of `body` bytes if the stamp has room in them.
    pub(super) fn text(self, conv: ConversationId, body: usize) -> String {
        let mut text = String::with_capacity(body.max(STAMP_BYTES_MAX));
        let Self { line, counter, .. } = self;
        let intended = micros(self.intended);
        // Writing to a string does not fail.
        let _ = write!(text, "{line:x}.{counter:x}.{intended:x}.{:08x}", self.check(conv));
        let padding = PADDING.iter().cycle().take(body.saturating_sub(text.len()));
        text.extend(padding.map(|byte| char::from(*byte)));
        text
    }

    /// Reads a message of the run back, and compares it with what was sent.
    pub(super) fn read(
        run: u64,
        mid: ClientMsgId,
        conv: ConversationId,
        text: &str,
        body: usize,
    ) -> Result<Self, Unstamped> {
        let stamp = Self::glance(run, mid, text)?;
        if stamp.is_text(conv, text, body) { Ok(stamp) } else { Err(Unstamped::Altered) }
    }

    /// What [`Self::read`] finds, without comparing anything.
    pub(super) fn glance(run: u64, mid: ClientMsgId, text: &str) -> Result<Self, Unstamped> {
        let [of_run, of_line] = number(&mid.0);
        if of_run != run {
            return Err(Unstamped::Foreign);
        }
        let (line, counter) = split(of_line);
        let intended = text.split('.').nth(2).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let intended = Duration::from_micros(intended.ok_or(Unstamped::Altered)?);
        Ok(Self { run, line, counter, intended })
    }

    fn is_text(self, conv: ConversationId, text: &str, body: usize) -> bool {
        self.text(conv, body) == text
    }

    /// Depends on everything that the text means.
    fn check(self, conv: ConversationId) -> u32 {
        let parts = [
            self.run,
            u64::from(self.line) << 32 | u64::from(self.counter),
            micros(self.intended),
            conv.key().cast_unsigned(),
        ];
        let all = parts.iter().fold(0x9e37_79b9_7f4a_7c15, |sum, part| mix(sum ^ part));
        // The upper half is as good as all of it.
        (all >> 32) as u32
    }
}

/// One step of splitmix64: every bit of the input changes about half of the output's.
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whole microseconds; a run is shorter than half a million years.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn number(bytes: &[u8; 16]) -> [u64; 2] {
    let all = u128::from_be_bytes(*bytes);
    [(all >> 64) as u64, all as u64]
}

fn split(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

/// What fills a text up.
const PADDING: &[u8] = b" abcdefghijklmnopqrstuvwxyz0123456789";
/// Two numbers of 32 bits, one of 64 and the check, in hexadecimal, and three full stops.
const STAMP_BYTES_MAX: usize = 8 + 8 + 16 + 8 + 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_no_other_text_passes() {
        let (conv, other): (ConversationId, ConversationId) =
            ("d1-2".parse().unwrap(), "d1-3".parse().unwrap());
        let stamp = Stamp { run: 7, line: 3, counter: 9, intended: Duration::from_micros(1_234_567) };
        for body in [0, 32, 200] {
            let (mid, text) = (stamp.mid(), stamp.text(conv, body));
            assert!(text.len() >= body && text.len() <= body.max(STAMP_BYTES_MAX));
            let read = |conv, mid, text: &str| Stamp::read(7, mid, conv, text, body);
            assert_eq!(read(conv, mid, &text), Ok(stamp));
            assert_eq!(read(other, mid, &text), Err(Unstamped::Altered), "another conversation's words");
            let next = Stamp { counter: 10, ..stamp };
            assert_eq!(read(conv, next.mid(), &text), Err(Unstamped::Altered), "another message's words");
            assert_eq!(read(conv, Stamp { run: 8, ..stamp }.mid(), &text), Err(Unstamped::Foreign));
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(read(conv, mid, &changed), Err(Unstamped::Altered), "{changed}");
            }
            assert_eq!(read(conv, mid, &text[1..]), Err(Unstamped::Altered));
            assert_eq!(read(conv, mid, &format!("{text} ")), Err(Unstamped::Altered));
            assert_eq!(read(conv, mid, ""), Err(Unstamped::Altered));
        }
    }
}
