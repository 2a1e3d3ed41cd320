//! Entries: what a conversation's log consists of.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::IgnoredAny};

use crate::{
    clock::UnixMillis,
    ids::{ClientMsgId, ConversationId, Seq, UserId},
};

/// One position of a conversation's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The log.
    pub conv: ConversationId,
    /// The position.
    pub seq: Seq,
    /// When a node numbered it; for people, not for ordering.
    pub at: UnixMillis,
    /// Who did it.
    pub from: UserId,
    /// That user's name.
    pub name: String,
    /// With which idempotency key.
    pub mid: ClientMsgId,
    /// What it says.
    pub body: EntryBody,
}

/// What an entry says. By itself it has the form that serde derives; on the wire it is a part of [`Entry`]'s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryBody {
    /// Direct, group: a message.
    Message {
        /// Its text.
        text: String,
    },
    /// Direct, group: a message whose text was deleted.
    Erased,
    /// Direct: both are friends.
    Befriended,
    /// Direct: neither is a friend.
    Unfriended,
    /// Direct: the other can no longer send.
    Blocked,
    /// Direct: ends that.
    Unblocked,
    /// Group: created by its first member.
    Created {
        /// The group's name.
        title: String,
    },
    /// Group: a new member.
    Joined,
    /// Group: a member quit.
    Left,
    /// Group: the creator removed a member.
    Removed {
        /// Whom.
        user: UserId,
        /// Their name.
        user_name: String,
    },
    /// Group: nothing follows.
    Deleted,
    /// Notices: the user is a member of a conversation.
    Opened {
        /// Which one.
        opened: ConversationId,
        /// From the entry after this one on.
        after: Seq,
        /// The group's or the other user's name.
        title: String,
    },
    /// Notices: the user has another password, and no session but the one that changed it.
    PasswordChanged,
    /// Notices: an operator has ended every session of the user.
    SessionsEnded,
    /// A kind that this version does not know.
    Other {
        /// Its name.
        kind: String,
    },
}

impl EntryBody {
    /// Its name on the wire.
    pub fn kind(&self) -> &str {
        match self {
            Self::Message { .. } => "message",
            Self::Erased => "erased",
            Self::Befriended => "befriended",
            Self::Unfriended => "unfriended",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
            Self::Created { .. } => "created",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Removed { .. } => "removed",
            Self::Deleted => "deleted",
            Self::Opened { .. } => "opened",
            Self::PasswordChanged => "password_changed",
            Self::SessionsEnded => "sessions_ended",
            Self::Other { kind } => kind,
        }
    }
}

/// The flat form of an entry, borrowed.
#[derive(Serialize)]
struct Outgoing<'a> {
    conv: ConversationId,
    seq: Seq,
    at: UnixMillis,
    from: UserId,
    name: &'a str,
    mid: ClientMsgId,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<ConversationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Seq>,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = Outgoing {
            conv: self.conv,
            seq: self.seq,
            at: self.at,
            from: self.from,
            name: &self.name,
            mid: self.mid,
            kind: self.body.kind(),
            text: None,
            title: None,
            user: None,
            user_name: None,
            opened: None,
            after: None,
        };
        match &self.body {
            EntryBody::Message { text } => out.text = Some(text),
            EntryBody::Created { title } => out.title = Some(title),
            EntryBody::Removed { user, user_name } => {
                out.user = Some(*user);
                out.user_name = Some(user_name);
            }
            EntryBody::Opened { opened, after, title } => {
                out.opened = Some(*opened);
                out.after = Some(*after);
                out.title = Some(title);
            }
            _ => {}
        }
        out.serialize(to)
    }
}

/// The flat form of an entry, owned.
#[derive(Deserialize)]
struct Incoming {
    /// Named, so that a line that has two is no entry, as it is none to whoever looks at `push` first.
    #[serde(default, rename = "push")]
    _push: Option<IgnoredAny>,
    conv: ConversationId,
    seq: Seq,
    at: UnixMillis,
    from: UserId,
    name: String,
    mid: ClientMsgId,
    kind: String,
    text: Option<String>,
    title: Option<String>,
    user: Option<UserId>,
    user_name: Option<String>,
    opened: Option<ConversationId>,
    after: Option<Seq>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let flat = Incoming::deserialize(from)?;
        let missing = serde::de::Error::missing_field;
        let body = match flat.kind.as_str() {
            "message" => EntryBody::Message { text: flat.text.ok_or_else(|| missing("text"))? },
            "erased" => EntryBody::Erased,
            "befriended" => EntryBody::Befriended,
            "unfriended" => EntryBody::Unfriended,
            "blocked" => EntryBody::Blocked,
            "unblocked" => EntryBody::Unblocked,
            "created" => EntryBody::Created { title: flat.title.ok_or_else(|| missing("title"))? },
            "joined" => EntryBody::Joined,
            "left" => EntryBody::Left,
            "removed" => EntryBody::Removed {
                user: flat.user.ok_or_else(|| missing("user"))?,
                user_name: flat.user_name.ok_or_else(|| missing("user_name"))?,
            },
            "deleted" => EntryBody::Deleted,
            "opened" => EntryBody::Opened {
                opened: flat.opened.ok_or_else(|| missing("opened"))?,
                after: flat.after.ok_or_else(|| missing("after"))?,
                title: flat.title.ok_or_else(|| missing("title"))?,
            },
            "password_changed" => EntryBody::PasswordChanged,
            "sessions_ended" => EntryBody::SessionsEnded,
            _ => EntryBody::Other { kind: flat.kind },
        };
        let Incoming { conv, seq, at, from, name, mid, .. } = flat;
        Ok(Self { conv, seq, at, from, name, mid, body })
    }
}
