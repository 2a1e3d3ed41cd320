//! The messages and their JSON (SPEC.md, sections 3 to 6).

mod entry;
mod request;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::{
    entry::{Entry, EntryBody},
    request::{
        Account, ChangePassword, CreateGroup, GroupTarget, History, Login, Members, Op, Page,
        ParseRequestError, Password, Register, RemoveMember, Request, Resume, Send, SetCursors, UserTarget,
    },
};
use crate::{
    clock::UnixMillis,
    error::ErrorBody,
    ids::{ConversationId, GroupId, RequestId, Seq, Token, UserId},
    limits::Limits,
};

/// The protocol's version.
pub const PROTOCOL_VERSION: u32 = 1;

/// Positions in conversations, as `ack`, `resume` and `cursors` carry them.
pub type Cursors = BTreeMap<ConversationId, Seq>;

/// Whether a user has a session anywhere, as far as the answering node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// At least one session.
    Online,
    /// None.
    Offline,
    /// The node cannot know.
    #[serde(other)]
    Unknown,
}

/// A member's role in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Who created it: may remove members and delete it.
    Creator,
    /// Anyone else.
    Member,
}

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosingCode {
    /// The client asked for it.
    LoggedOut,
    /// The node is draining.
    GoingAway,
    /// No login in time.
    LoginTimeout,
    /// The client was silent for too long.
    Idle,
    /// The client did not read for too long.
    SlowReader,
    /// The node has as many connections as it takes.
    TooManyConnections,
    /// Too many bad lines before a login.
    TooManyErrors,
    /// The session's token is no longer valid: another session changed the password, or an operator ended the user's sessions.
    Revoked,
    /// The port speaks TLS, and the client does not.
    TlsRequired,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ClosingCode {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::GoingAway => "going_away",
            Self::LoginTimeout => "login_timeout",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyErrors => "too_many_errors",
            Self::Revoked => "revoked",
            Self::TlsRequired => "tls_required",
            Self::Unknown => "unknown",
        }
    }
}

/// What the server says unasked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "push", rename_all = "snake_case")]
pub enum Push {
    /// The greeting.
    Hello {
        /// The protocol's version.
        protocol: u32,
        /// Program and version.
        server: String,
        /// What a client has to know.
        limits: Limits,
    },
    /// Where a conversation's entries start on this connection.
    Open {
        /// The conversation.
        conv: ConversationId,
        /// The next entry has the seq after this one.
        after: Seq,
    },
    /// An entry.
    Entry(Entry),
    /// Every conversation has reached the head it had at the login.
    CaughtUp,
    /// A friend's state changed.
    Presence {
        /// The friend.
        user: UserId,
        /// The new state.
        state: PresenceState,
    },
    /// The store misses entries: this conversation is not delivered further.
    Lost {
        /// The conversation.
        conv: ConversationId,
        /// The last entry there was.
        after: Seq,
    },
    /// The server ends the connection after this line.
    Closing {
        /// Why.
        code: ClosingCode,
        /// How long to wait before connecting again, in milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
    /// A push that this version does not know.
    Unknown,
}

/// The pushes other than entries, to be parsed by their tag.
#[derive(Deserialize)]
#[serde(tag = "push", rename_all = "snake_case")]
enum PlainPush {
    Hello {
        protocol: u32,
        server: String,
        limits: Limits,
    },
    Open {
        conv: ConversationId,
        after: Seq,
    },
    CaughtUp,
    Presence {
        user: UserId,
        state: PresenceState,
    },
    Lost {
        conv: ConversationId,
        after: Seq,
    },
    Closing {
        code: ClosingCode,
        reconnect_after_ms: Option<u64>,
    },
    #[serde(other)]
    Unknown,
}

impl From<PlainPush> for Push {
    fn from(push: PlainPush) -> Self {
        match push {
            PlainPush::Hello { protocol, server, limits } => Self::Hello { protocol, server, limits },
            PlainPush::Open { conv, after } => Self::Open { conv, after },
            PlainPush::CaughtUp => Self::CaughtUp,
            PlainPush::Presence { user, state } => Self::Presence { user, state },
            PlainPush::Lost { conv, after } => Self::Lost { conv, after },
            PlainPush::Closing { code, reconnect_after_ms } => Self::Closing { code, reconnect_after_ms },
            PlainPush::Unknown => Self::Unknown,
        }
    }
}

/// A line from the server.
#[derive(Debug)]
pub enum ServerLine {
    /// Unasked.
    Push(Push),
    /// The answer to a request.
    Reply {
        /// The request's id; `None` if the server could not read it.
        id: Option<RequestId>,
        /// The answer, still as JSON: its type depends on the request.
        result: Result<Box<RawValue>, ErrorBody>,
    },
}

impl ServerLine {
    /// Parses a line from the server.
    ///
    /// # Errors
    /// The line is not a push and not a reply.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Probe<'a> {
            #[serde(borrow)]
            push: Option<std::borrow::Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        struct Reply {
            id: Option<RequestId>,
            ok: Option<Box<RawValue>>,
            error: Option<ErrorBody>,
        }
        if !is_object(line) {
            return Err(serde::de::Error::custom("not an object"));
        }
        let probe: Probe<'_> = serde_json::from_slice(line)?;
        match probe.push.as_deref() {
            Some("entry") => Ok(Self::Push(Push::Entry(serde_json::from_slice(line)?))),
            Some(_) => Ok(Self::Push(serde_json::from_slice::<PlainPush>(line)?.into())),
            None => {
                let reply: Reply = serde_json::from_slice(line)?;
                let result = match (reply.ok, reply.error) {
                    (Some(ok), None) => Ok(ok),
                    (None, Some(error)) => Err(error),
                    _ => return Err(serde::de::Error::custom("neither a push nor a reply")),
                };
                Ok(Self::Reply { id: reply.id, result })
            }
        }
    }
}

/// Whether a line can be a JSON object.
fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{")
}

/// Appends a push as a line.
pub fn write_push(out: &mut Vec<u8>, push: &Push) {
    write_line(out, push);
}

/// Appends a reply as a line.
pub fn write_reply(out: &mut Vec<u8>, id: RequestId, ok: &impl Serialize) {
    #[derive(Serialize)]
    struct Reply<'a, T> {
        id: RequestId,
        ok: &'a T,
    }
    write_line(out, &Reply { id, ok });
}

/// Appends an error reply as a line.
pub fn write_error(out: &mut Vec<u8>, id: Option<RequestId>, error: &ErrorBody) {
    #[derive(Serialize)]
    struct Reply<'a> {
        id: Option<RequestId>,
        error: &'a ErrorBody,
    }
    write_line(out, &Reply { id, error });
}

fn write_line(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory cannot fail, and neither do our own types: their keys are strings.
    serde_json::to_writer(&mut *out, value).expect("a message has a JSON form");
    out.push(b'\n');
}

/// The reply without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The reply to `register`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The account number.
    pub user: UserId,
}

/// The reply to `login` and `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// The account number.
    pub user: UserId,
    /// The account's name.
    pub name: String,
    /// What resumes this session on another connection; from `login` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// When the token ends; from `login` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<UnixMillis>,
    /// Cursors that were not taken, and why: `no_such_conversation` or `cursor_ahead`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: Refused,
}

/// Cursors that were not taken, and why.
pub type Refused = BTreeMap<ConversationId, CursorRefusal>;

/// Why a cursor was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorRefusal {
    /// No such conversation, or not one the user may read.
    NoSuchConversation,
    /// Above the head.
    CursorAhead,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The reply to the last `cursors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorsSet {
    /// Cursors that were not taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: Refused,
}

/// The reply to what appends an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The entry's position.
    pub seq: Seq,
}

/// The reply to `create_group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCreated {
    /// The group's number.
    pub group: GroupId,
    /// The position of the `created` entry: 1.
    pub seq: Seq,
}

/// A line of the friend list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Friend {
    /// The other user.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Their state; unknown of users who are not friends.
    pub state: PresenceState,
    /// Whether they are a friend.
    pub friend: bool,
    /// Whether the caller has blocked them.
    pub blocked: bool,
}

/// The reply to `friends`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FriendsPage {
    /// By number.
    pub friends: Vec<Friend>,
    /// Where the next page starts, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A line of the group list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its number.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The caller's role.
    pub role: Role,
    /// How many members it has.
    pub members: u64,
}

/// The reply to `groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsPage {
    /// By number.
    pub groups: Vec<GroupInfo>,
    /// Where the next page starts, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A line of the member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The user.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// Their state.
    pub state: PresenceState,
}

/// The reply to `members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// By number.
    pub members: Vec<MemberInfo>,
    /// Where the next page starts, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// The reply to `history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// In ascending order.
    pub entries: Vec<Entry>,
    /// Whether older ones are left.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ClientMsgId;

    fn entry(text: String) -> Entry {
        Entry {
            conv: "g7".parse().unwrap(),
            seq: Seq(5),
            at: 1_700_000_000_000,
            from: UserId::new(2019).unwrap(),
            name: "kirito".into(),
            mid: ClientMsgId([7; 16]),
            body: EntryBody::Message { text },
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(text: String) {
            let mut line = Vec::new();
            write_push(&mut line, &Push::Entry(entry(text.clone())));
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            match ServerLine::parse(&line) {
                Ok(ServerLine::Push(Push::Entry(parsed))) => prop_assert_eq!(parsed, entry(text)),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn hostile_lines_never_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ServerLine::parse(&line);
            let _ = Request::parse(&line);
        }

        #[test]
        fn near_lines_never_panic(line in r#"\{("id":[0-9]{1,3},)?"(op|push)":"(send|entry|ack|login|hello)"(,"(conv|mid|text|cursors|seq)":("[a-z0-9-]{0,33}"|[0-9]{1,20}|\{\}|null|\[\])){0,4}\}"#) {
            let _ = ServerLine::parse(line.as_bytes());
            let _ = Request::parse(line.as_bytes());
        }
    }

    /// An erased message keeps everything but its text (SPEC.md, section 4.5).
    #[test]
    fn an_erased_message_has_no_text() {
        let mut line = Vec::new();
        let erased = Entry { body: EntryBody::Erased, ..entry(String::new()) };
        write_push(&mut line, &Push::Entry(erased.clone()));
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            concat!(
                r#"{"push":"entry","conv":"g7","seq":5,"at":1700000000000,"from":2019,"name":"kirito","#,
                r#""mid":"07070707070707070707070707070707","kind":"erased"}"#,
                "\n"
            )
        );
        let Ok(ServerLine::Push(Push::Entry(parsed))) = ServerLine::parse(&line) else { panic!("{line:?}") };
        assert_eq!(parsed, erased);
    }

    #[test]
    fn unknown_pushes_codes_and_kinds_are_kept_apart() {
        let parse = |line: &str| ServerLine::parse(line.as_bytes()).unwrap();
        assert!(matches!(parse(r#"{"push":"sparkle","x":1}"#), ServerLine::Push(Push::Unknown)));
        assert!(matches!(
            parse(r#"{"push":"closing","code":"sun_went_out"}"#),
            ServerLine::Push(Push::Closing { code: ClosingCode::Unknown, .. })
        ));
        let line = r#"{"push":"entry","conv":"g1","seq":1,"at":0,"from":1,"name":"a","mid":"00000000000000000000000000000000","kind":"sticker","text":"x"}"#;
        let ServerLine::Push(Push::Entry(entry)) = parse(line) else { panic!("{line}") };
        assert_eq!(entry.body, EntryBody::Other { kind: "sticker".into() });
        assert!(ServerLine::parse(b"{}").is_err());
        assert!(ServerLine::parse(br#"["sparkle"]"#).is_err(), "not an object");
        assert!(ServerLine::parse(br#"{"id":1,"ok":{},"error":{}}"#).is_err());
    }
}
