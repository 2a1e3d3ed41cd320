//! How an entry is stored: a number for its kind, and a text.

use protocol::{ConversationId, EntryBody, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// Kinds below this number do not affect rights; those from it on do (SPEC.md, section 11).
pub const FIRST_RIGHTS_KIND: u8 = 128;

/// A message's number.
pub(super) const MESSAGE: u8 = 1;
const OPENED: u8 = 2;
/// An erased message's number.
pub(super) const ERASED: u8 = 3;
const CREATED: u8 = 128;
const JOINED: u8 = 129;
const LEFT: u8 = 130;
const REMOVED: u8 = 131;
const DELETED: u8 = 132;
const BEFRIENDED: u8 = 144;
const UNFRIENDED: u8 = 145;
const BLOCKED: u8 = 146;
const UNBLOCKED: u8 = 147;
const PASSWORD_CHANGED: u8 = 160;
const SESSIONS_ENDED: u8 = 161;

#[derive(Serialize, Deserialize)]
struct Removed {
    user: UserId,
    user_name: String,
}

#[derive(Serialize, Deserialize)]
struct Opened {
    opened: ConversationId,
    after: Seq,
    title: String,
}

/// The stored form of what an entry says: its kind, and its text, borrowed where it can be.
pub fn encode(body: &EntryBody) -> (u8, std::borrow::Cow<'_, str>) {
    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("our own types have a JSON form")
    }
    match body {
        EntryBody::Message { text } => (MESSAGE, text.into()),
        EntryBody::Erased => (ERASED, "".into()),
        EntryBody::Opened { opened, after, title } => {
            (OPENED, json(&Opened { opened: *opened, after: *after, title: title.clone() }).into())
        }
        EntryBody::Created { title } => (CREATED, title.into()),
        EntryBody::Joined => (JOINED, "".into()),
        EntryBody::Left => (LEFT, "".into()),
        EntryBody::Removed { user, user_name } => {
            (REMOVED, json(&Removed { user: *user, user_name: user_name.clone() }).into())
        }
        EntryBody::Deleted => (DELETED, "".into()),
        EntryBody::Befriended => (BEFRIENDED, "".into()),
        EntryBody::Unfriended => (UNFRIENDED, "".into()),
        EntryBody::Blocked => (BLOCKED, "".into()),
        EntryBody::Unblocked => (UNBLOCKED, "".into()),
        EntryBody::PasswordChanged => (PASSWORD_CHANGED, "".into()),
        EntryBody::SessionsEnded => (SESSIONS_ENDED, "".into()),
        // A node writes only kinds that it knows.
        EntryBody::Other { .. } => unreachable!("an unknown kind is never written"),
    }
}

/// What a stored entry says.
///
/// # Errors
/// The text is not what the kind calls for, or the kind is unknown and affects rights: then this version must not serve
/// the conversation.
pub fn decode(kind: u8, text: String) -> Result<EntryBody, StoreError> {
    let corrupt = |e: serde_json::Error| StoreError::Corrupt(format!("an entry of kind {kind}: {e}"));
    Ok(match kind {
        MESSAGE => EntryBody::Message { text },
        ERASED => EntryBody::Erased,
        OPENED => {
            let Opened { opened, after, title } = serde_json::from_str(&text).map_err(corrupt)?;
            EntryBody::Opened { opened, after, title }
        }
        CREATED => EntryBody::Created { title: text },
        JOINED => EntryBody::Joined,
        LEFT => EntryBody::Left,
        REMOVED => {
            let Removed { user, user_name } = serde_json::from_str(&text).map_err(corrupt)?;
            EntryBody::Removed { user, user_name }
        }
        DELETED => EntryBody::Deleted,
        BEFRIENDED => EntryBody::Befriended,
        UNFRIENDED => EntryBody::Unfriended,
        BLOCKED => EntryBody::Blocked,
        UNBLOCKED => EntryBody::Unblocked,
        PASSWORD_CHANGED => EntryBody::PasswordChanged,
        SESSIONS_ENDED => EntryBody::SessionsEnded,
        4..FIRST_RIGHTS_KIND => EntryBody::Other { kind: format!("kind{kind}") },
        _ => {
            return Err(StoreError::Corrupt(format!(
                "an entry of unknown kind {kind}, which affects rights"
            )));
        }
    })
}

/// Whether an entry changes who may read or write its conversation.
pub fn affects_rights(body: &EntryBody) -> bool {
    !matches!(
        body,
        EntryBody::Message { .. } | EntryBody::Erased | EntryBody::Opened { .. } | EntryBody::Other { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let user = UserId::new(7).unwrap();
        let bodies = [
            EntryBody::Message { text: "a\0b".into() },
            EntryBody::Erased,
            EntryBody::Opened { opened: "g1".parse().unwrap(), after: Seq(3), title: "t".into() },
            EntryBody::Created { title: "t".into() },
            EntryBody::Joined,
            EntryBody::Left,
            EntryBody::Removed { user, user_name: "kir".into() },
            EntryBody::Deleted,
            EntryBody::Befriended,
            EntryBody::Unfriended,
            EntryBody::Blocked,
            EntryBody::Unblocked,
            EntryBody::PasswordChanged,
            EntryBody::SessionsEnded,
        ];
        for body in bodies {
            let (kind, text) = encode(&body);
            assert_eq!(affects_rights(&body), kind >= FIRST_RIGHTS_KIND);
            assert_eq!(decode(kind, text.into_owned()).unwrap(), body);
        }
    }

    #[test]
    fn an_unknown_kind_is_shown_or_not_served() {
        assert!(matches!(decode(99, String::new()), Ok(EntryBody::Other { .. })));
        assert!(matches!(decode(200, String::new()), Err(StoreError::Corrupt(_))));
        assert!(matches!(decode(0, String::new()), Err(StoreError::Corrupt(_))));
    }
}
