//! Whether the same scenario gives the same trace, in one process and in another, and if not, where it first differs.

use crate::trace::{Event, Finished, first_difference};

/// Two runs of the same thing were not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// How many events they have in common.
    pub after: usize,
    /// What the one has then.
    pub one: String,
    /// What the other has then.
    pub other: String,
}

/// Plays something a few times, and compares the traces. `play` is told whether to keep the events.
///
/// # Errors
/// The first difference. If it does not show again when events are kept, only that there was one.
pub fn check(times: usize, play: impl Fn(bool) -> Finished) -> Result<[u8; 32], Difference> {
    let first = play(false);
    for _ in 1..times {
        if play(false).hash != first.hash {
            return Err(find(times, &play));
        }
    }
    Ok(first.hash)
}

/// Plays it again, with all its events, until two runs differ.
fn find(times: usize, play: &impl Fn(bool) -> Finished) -> Difference {
    let first = play(true);
    for _ in 0..times.max(10) {
        let other = play(true);
        if let Some(difference) = compare(&first.events, &other.events) {
            return difference;
        }
    }
    Difference { after: 0, one: "a trace".into(), other: "another one, once".into() }
}

/// Where two traces first differ.
pub fn compare(one: &[Event], other: &[Event]) -> Option<Difference> {
    first_difference(one, other).map(|(after, one, other)| Difference { after, one, other })
}

/// Where two traces, as texts of a line each, first differ.
pub fn compare_texts(one: &str, other: &str) -> Option<Difference> {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
    let after = (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))?;
    let show = |lines: &[&str]| lines.get(after).map_or("the end", |line| *line).to_owned();
    Some(Difference { after, one: show(&one), other: show(&other) })
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} events:\n  one:   {}\n  other: {}", self.after, self.one, self.other)
    }
}
