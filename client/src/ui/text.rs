//! The form for people: lines of text.

use client::DisconnectReason;

use super::{say, screen, tell::Tell};

/// The lines that tell it. They are not yet safe to show.
pub(crate) fn lines(tell: &Tell<'_>) -> Vec<String> {
    match tell {
        Tell::Menu => screen::menu(),
        Tell::Registered(user) => vec![screen::registered(*user)],
        Tell::Lists(roster) => screen::lists(roster),
        Tell::Help => screen::help(),
        Tell::Away => vec!["while you were away:".into()],
        Tell::CaughtUp => Vec::new(),
        Tell::Entry(entry, roster) => say::entry(entry, roster).into_iter().collect(),
        Tell::Members { group, members, roster } => screen::members(*group, members, roster),
        Tell::History { conv, entries: [], roster, .. } => {
            vec![format!("nothing was said in the conversation with {}", roster.conversation(*conv))]
        }
        Tell::History { entries, roster, .. } => {
            entries.iter().filter_map(|entry| say::entry(entry, roster)).collect()
        }
        Tell::Done { message, .. } if message.is_empty() => Vec::new(),
        Tell::Done { message, .. } => vec![message.clone()],
        Tell::Failed(failure) => vec![failure.message.clone()],
        Tell::Presence { user, state, roster } => {
            vec![format!("{} is {}", roster.user(*user), screen::state(*state))]
        }
        // How it broke says nothing to people.
        Tell::Disconnected(DisconnectReason::Lost(_)) => vec!["connection lost; reconnecting".into()],
        Tell::Disconnected(reason) => vec![format!("{reason}; reconnecting")],
        Tell::Reconnected => vec!["reconnected".into()],
        Tell::Lost { conv, roster, .. } => vec![format!(
            "the server misses messages of the conversation with {} and cannot go on with it now",
            roster.conversation(*conv)
        )],
        Tell::SessionEnded(reason) => vec![reason.clone()],
        Tell::Note(note) => vec![(*note).into()],
    }
}
