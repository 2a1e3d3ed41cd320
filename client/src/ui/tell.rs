//! Everything that the program can tell.

use client::DisconnectReason;
use protocol::{
    ConversationId, Entry, GroupId, Seq, UserId,
    message::{MemberInfo, PresenceState},
};
use serde_json::{Map, Value};

use super::roster::Roster;

/// One thing to tell. `text` and `json` give it its form.
#[derive(Debug)]
pub(crate) enum Tell<'a> {
    /// The menu.
    Menu,
    /// An account was made.
    Registered(UserId),
    /// The user, the friends and the groups.
    Lists(&'a Roster),
    /// The commands.
    Help,
    /// What comes now was missed while away.
    Away,
    /// All of that was told.
    CaughtUp,
    /// An entry of a conversation.
    Entry(&'a Entry, &'a Roster),
    /// A group's members.
    Members { group: GroupId, members: &'a [MemberInfo], roster: &'a Roster },
    /// A piece of a log.
    History { conv: ConversationId, entries: &'a [Entry], more: bool, roster: &'a Roster },
    /// A command was carried out. The message is empty where something else has told it.
    Done { command: &'static str, message: String, details: Map<String, Value> },
    /// A command failed.
    Failed(Failure),
    /// A friend's state changed.
    Presence { user: UserId, state: PresenceState, roster: &'a Roster },
    /// The connection is lost.
    Disconnected(DisconnectReason),
    /// And there again.
    Reconnected,
    /// A conversation cannot be delivered further.
    Lost { conv: ConversationId, after: Seq, roster: &'a Roster },
    /// The session ended, and not because the user asked.
    SessionEnded(String),
    /// A word to the person at the terminal.
    Note(&'static str),
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The command's name.
    pub(crate) command: &'static str,
    /// The server's error code, or one of our own.
    pub(crate) code: String,
    /// Whether it certainly did not happen.
    pub(crate) definite: bool,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Failure {
    /// One that never reached a server.
    pub(crate) fn local(command: &'static str, code: &str, message: impl Into<String>) -> Self {
        Self { command, code: code.into(), definite: true, message: message.into() }
    }
}
