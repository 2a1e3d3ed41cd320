//! Requests: their fields, and parsing them with an error that names what is wrong.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::Cursors;
use crate::{
    error::{ErrorBody, ErrorCode},
    ids::{ClientMsgId, ConversationId, GroupId, RequestId, Seq, Token, UserId},
};

/// A password on its way in. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What `login` takes: an account number or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// All digits.
    Number(UserId),
    /// Anything else.
    Name(String),
}

impl Account {
    /// Reads what a person typed; `None` if it can be no account.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok().map(Self::Number)
        } else {
            Some(Self::Name(text.into()))
        }
    }
}

/// `register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The name wanted.
    pub name: String,
    /// The password.
    pub password: Password,
}

/// `login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// An account number or a name: see [`Account::parse`].
    pub account: String,
    /// The password.
    pub password: Password,
}

/// `passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePassword {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The password so far.
    pub old: Password,
    /// The password from now on.
    pub new: Password,
}

/// `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// From the login's reply.
    pub token: Token,
    /// What the client has seen.
    #[serde(default)]
    pub cursors: Cursors,
    /// Whether more cursors follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// `cursors` and `ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCursors {
    /// Positions.
    pub cursors: Cursors,
    /// `cursors` only: whether more follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// `befriend`, `unfriend`, `block`, `unblock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserTarget {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The other user.
    pub user: UserId,
}

/// `create_group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroup {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The group's name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// `join`, `quit`, `delete_group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTarget {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The group.
    pub group: GroupId,
}

/// `remove_member`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMember {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// The group.
    pub group: GroupId,
    /// Whom.
    pub user: UserId,
}

/// `friends`, `groups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Page {
    /// The number after which the page starts.
    #[serde(default)]
    pub after: u64,
}

/// `members`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The group.
    pub group: GroupId,
    /// The user number after which the page starts.
    #[serde(default)]
    pub after: u64,
}

/// `send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The idempotency key.
    pub mid: ClientMsgId,
    /// Where to.
    pub conv: ConversationId,
    /// The message.
    pub text: String,
}

/// `history`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The log.
    pub conv: ConversationId,
    /// Only what is below; past the head if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Seq>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Which operation a request asks for.
///
/// A line is parsed by what [`Self::ALL`] lists, and by nothing else: an operation that is not listed does not exist, so whatever goes through
/// the list has met all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the operations of SPEC.md, section 4")]
pub enum Op {
    Send,
    Ack,
    Ping,
    Register,
    Login,
    Resume,
    Cursors,
    Logout,
    Passwd,
    Befriend,
    Unfriend,
    Block,
    Unblock,
    Friends,
    CreateGroup,
    Join,
    Quit,
    DeleteGroup,
    RemoveMember,
    Groups,
    Members,
    History,
}

impl Op {
    /// Every operation. The commonest come first: they are looked for in this order.
    pub const ALL: [Self; 22] = [
        Self::Send,
        Self::Ack,
        Self::Ping,
        Self::Register,
        Self::Login,
        Self::Resume,
        Self::Cursors,
        Self::Logout,
        Self::Passwd,
        Self::Befriend,
        Self::Unfriend,
        Self::Block,
        Self::Unblock,
        Self::Friends,
        Self::CreateGroup,
        Self::Join,
        Self::Quit,
        Self::DeleteGroup,
        Self::RemoveMember,
        Self::Groups,
        Self::Members,
        Self::History,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Ack => "ack",
            Self::Ping => "ping",
            Self::Register => "register",
            Self::Login => "login",
            Self::Resume => "resume",
            Self::Cursors => "cursors",
            Self::Logout => "logout",
            Self::Passwd => "passwd",
            Self::Befriend => "befriend",
            Self::Unfriend => "unfriend",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Friends => "friends",
            Self::CreateGroup => "create_group",
            Self::Join => "join",
            Self::Quit => "quit",
            Self::DeleteGroup => "delete_group",
            Self::RemoveMember => "remove_member",
            Self::Groups => "groups",
            Self::Members => "members",
            Self::History => "history",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named after the operations of SPEC.md, section 4")]
pub enum Request {
    Ping,
    Register(Register),
    Login(Login),
    Resume(Resume),
    Cursors(SetCursors),
    Logout,
    Passwd(ChangePassword),
    Ack(SetCursors),
    Befriend(UserTarget),
    Unfriend(UserTarget),
    Block(UserTarget),
    Unblock(UserTarget),
    Friends(Page),
    CreateGroup(CreateGroup),
    Join(GroupTarget),
    Quit(GroupTarget),
    DeleteGroup(GroupTarget),
    RemoveMember(RemoveMember),
    Groups(Page),
    Members(Members),
    Send(Send),
    History(History),
}

/// Why a line is not a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRequestError {
    /// The request's id, if that much could be read.
    pub id: Option<RequestId>,
    /// What the reply says.
    pub error: Box<ErrorBody>,
}

impl Request {
    /// Parses a line: the id (which only `ack` may leave out) and the request.
    ///
    /// # Errors
    /// What is wrong with the line, ready to be sent back.
    pub fn parse(line: &[u8]) -> Result<(Option<RequestId>, Self), ParseRequestError> {
        #[derive(Deserialize)]
        struct Head<'a> {
            id: Option<RequestId>,
            #[serde(borrow)]
            op: Cow<'a, str>,
        }
        let malformed = || ParseRequestError { id: None, error: Box::new(ErrorCode::Malformed.into()) };
        // Serde also takes a list of the fields' values.
        if !super::is_object(line) {
            return Err(malformed());
        }
        let head: Head<'_> = serde_json::from_slice(line).map_err(|_| malformed())?;
        if head.id.is_none() && head.op != "ack" {
            let error = ErrorBody::field(ErrorCode::BadRequest, "id", "missing");
            return Err(ParseRequestError { id: None, error: Box::new(error) });
        }
        match Self::parse_op(&head.op, line) {
            Ok(request) => Ok((head.id, request)),
            Err(error) => Err(ParseRequestError { id: head.id, error: Box::new(error) }),
        }
    }

    fn parse_op(op: &str, line: &[u8]) -> Result<Self, ErrorBody> {
        Ok(match Op::named(op).ok_or(ErrorCode::UnknownOp)? {
            Op::Send => Self::Send(fields(line)?),
            Op::Ack => Self::Ack(fields(line)?),
            Op::Ping => Self::Ping,
            Op::Register => Self::Register(fields(line)?),
            Op::Login => Self::Login(fields(line)?),
            Op::Resume => Self::Resume(fields(line)?),
            Op::Cursors => Self::Cursors(fields(line)?),
            Op::Logout => Self::Logout,
            Op::Passwd => Self::Passwd(fields(line)?),
            Op::Befriend => Self::Befriend(fields(line)?),
            Op::Unfriend => Self::Unfriend(fields(line)?),
            Op::Block => Self::Block(fields(line)?),
            Op::Unblock => Self::Unblock(fields(line)?),
            Op::Friends => Self::Friends(fields(line)?),
            Op::CreateGroup => Self::CreateGroup(fields(line)?),
            Op::Join => Self::Join(fields(line)?),
            Op::Quit => Self::Quit(fields(line)?),
            Op::DeleteGroup => Self::DeleteGroup(fields(line)?),
            Op::RemoveMember => Self::RemoveMember(fields(line)?),
            Op::Groups => Self::Groups(fields(line)?),
            Op::Members => Self::Members(fields(line)?),
            Op::History => Self::History(fields(line)?),
        })
    }

    /// Which operation it is.
    pub const fn op(&self) -> Op {
        match self {
            Self::Send(_) => Op::Send,
            Self::Ack(_) => Op::Ack,
            Self::Ping => Op::Ping,
            Self::Register(_) => Op::Register,
            Self::Login(_) => Op::Login,
            Self::Resume(_) => Op::Resume,
            Self::Cursors(_) => Op::Cursors,
            Self::Logout => Op::Logout,
            Self::Passwd(_) => Op::Passwd,
            Self::Befriend(_) => Op::Befriend,
            Self::Unfriend(_) => Op::Unfriend,
            Self::Block(_) => Op::Block,
            Self::Unblock(_) => Op::Unblock,
            Self::Friends(_) => Op::Friends,
            Self::CreateGroup(_) => Op::CreateGroup,
            Self::Join(_) => Op::Join,
            Self::Quit(_) => Op::Quit,
            Self::DeleteGroup(_) => Op::DeleteGroup,
            Self::RemoveMember(_) => Op::RemoveMember,
            Self::Groups(_) => Op::Groups,
            Self::Members(_) => Op::Members,
            Self::History(_) => Op::History,
        }
    }

    /// The operation's name on the wire.
    pub const fn name(&self) -> &'static str {
        self.op().name()
    }

    /// Appends the request as a line. Only `ack` goes without an id.
    pub fn write(&self, out: &mut Vec<u8>, id: Option<RequestId>) {
        #[derive(Serialize)]
        struct Framed<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<RequestId>,
            #[serde(flatten)]
            request: &'a Request,
        }
        super::write_line(out, &Framed { id, request: self });
    }

    /// The idempotency key, if the request has one.
    pub fn mid(&self) -> Option<ClientMsgId> {
        match self {
            Self::Register(r) => Some(r.mid),
            Self::Passwd(r) => Some(r.mid),
            Self::Befriend(r) | Self::Unfriend(r) | Self::Block(r) | Self::Unblock(r) => Some(r.mid),
            Self::CreateGroup(r) => Some(r.mid),
            Self::Join(r) | Self::Quit(r) | Self::DeleteGroup(r) => Some(r.mid),
            Self::RemoveMember(r) => Some(r.mid),
            Self::Send(r) => Some(r.mid),
            _ => None,
        }
    }
}

/// The fields of an operation, or which of them is wrong.
fn fields<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, ErrorBody> {
    serde_json::from_slice(line).map_err(|_| {
        // Only now, since tracking the path costs.
        let mut json = serde_json::Deserializer::from_slice(line);
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
            return ErrorCode::Malformed.into();
        };
        let path = error.path().iter().next().map(ToString::to_string);
        let message = error.inner().to_string();
        // A field that is absent has no path, but serde names it.
        let named = || message.split('`').nth(1).map(str::to_owned);
        match path.filter(|path| path != ".").or_else(named) {
            Some(field) => {
                let reason = message.split(" at line ").next().unwrap_or_default();
                ErrorBody::field(ErrorCode::BadRequest, &field, shortened(reason))
            }
            None => ErrorCode::BadRequest.into(),
        }
    })
}

/// A reason with both its ends: it repeats the value that was wrong, which may be as long as a line, and longer once it is escaped.
fn shortened(reason: &str) -> Cow<'_, str> {
    if reason.len() <= REASON_BYTES_MAX {
        return Cow::Borrowed(reason);
    }
    let half = REASON_BYTES_MAX / 2;
    let (head, tail) = (reason.floor_char_boundary(half), reason.ceil_char_boundary(reason.len() - half));
    Cow::Owned(format!("{}…{}", &reason[..head], &reason[tail..]))
}

/// What a refusal says of a field, at most, but for a mark where something is left out.
const REASON_BYTES_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let found = match Request::parse(line.as_bytes()) {
            Ok((id, request)) => format!("{id:?} {request:?}"),
            Err(e) => format!("{:?} {} {:?}", e.id, e.error.code, e.error.field),
        };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn bad_lines_name_what_is_wrong() {
        check("", "None malformed None");
        check("{}", "None malformed None");
        check("[1]", "None malformed None");
        check(r#"[1,"ping"]"#, "None malformed None");
        check("null", "None malformed None");
        check(r#"{"id":-1,"op":"ping"}"#, "None malformed None");
        check(r#"{"id":1,"op":"ping"} x"#, "None malformed None");
        check(r#"{"id":1}"#, "None malformed None");
        check(r#"{"id":1,"op":"pong"}"#, "Some(1) unknown_op None");
        check(r#"{"op":"ping"}"#, r#"None bad_request Some("id")"#);
        check(r#"{"id":1,"op":"join","group":1}"#, r#"Some(1) bad_request Some("mid")"#);
        let mid = "00000000000000000000000000000001";
        check(
            &format!(r#"{{"id":1,"op":"join","mid":"{mid}","group":0}}"#),
            r#"Some(1) bad_request Some("group")"#,
        );
        check(
            &format!(r#"{{"id":1,"op":"join","mid":"{mid}","group":"1"}}"#),
            r#"Some(1) bad_request Some("group")"#,
        );
        check(r#"{"id":1,"op":"join","mid":5,"group":1}"#, r#"Some(1) bad_request Some("mid")"#);
        check(r#"{"id":1,"op":"ack","cursors":{"x":1}}"#, r#"Some(1) bad_request Some("cursors")"#);
        check(r#"{"id":1,"op":"ack","cursors":[1]}"#, r#"Some(1) bad_request Some("cursors")"#);
        check(&format!(r#"{{"id":1,"op":"ack","cursors":{}"#, "[".repeat(3000)), "None malformed None");
    }

    /// SPEC.md, section 8: a line from the server is never over its limit, so a refusal does not repeat all that it refuses.
    #[test]
    fn a_refusal_is_short_whatever_it_refuses() {
        for value in ["\u{7f}".repeat(120_000), "\\\\".repeat(60_000), "é".repeat(60_000)] {
            let line = format!(r#"{{"id":1,"op":"members","group":"{value}"}}"#);
            let error = Request::parse(line.as_bytes()).unwrap_err().error;
            assert_eq!(error.field.as_deref(), Some("group"));
            assert!(error.message.ends_with(", expected u64"), "{}", error.message);
            let mut reply = Vec::new();
            super::super::write_error(&mut reply, Some(1), &error);
            assert!(reply.len() < 600, "{} bytes", reply.len());
        }
    }

    /// Each name leads to its own operation, whatever else the line lacks.
    #[test]
    fn every_operation_has_a_name_of_its_own() {
        for (at, op) in Op::ALL.into_iter().enumerate() {
            assert!(!Op::ALL[..at].iter().any(|other| other.name() == op.name()), "{op:?}");
            match Request::parse(format!(r#"{{"id":1,"op":"{}"}}"#, op.name()).as_bytes()) {
                Ok((_, request)) => assert_eq!(request.op(), op),
                Err(e) => assert_eq!(e.error.code, ErrorCode::BadRequest, "{op:?}"),
            }
        }
    }

    #[test]
    fn what_is_written_is_parsed() {
        let requests = [
            Request::Ping,
            Request::Friends(Page::default()),
            Request::Send(Send {
                mid: ClientMsgId([1; 16]),
                conv: "d1-2".parse().unwrap(),
                text: "a \"b\" \u{1} \u{2028} 👋".into(),
            }),
            Request::Ack(SetCursors { cursors: [("g1".parse().unwrap(), Seq(4))].into(), more: false }),
            Request::Resume(Resume { token: Token([2; 32]), cursors: Cursors::new(), more: true }),
        ];
        for request in requests {
            let mut line = Vec::new();
            request.write(&mut line, Some(9));
            assert_eq!(Request::parse(&line), Ok((Some(9), request)));
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let line = br#"{"id":1,"op":"login","account":"kirito","password":"asuna"}"#;
        assert!(!format!("{:?}", Request::parse(line)).contains("asuna"));
        let mid = ClientMsgId([1; 16]);
        let (old, new) = (Password("asuna".into()), Password("asuna2".into()));
        let mut line = Vec::new();
        let request = Request::Passwd(ChangePassword { mid, old, new });
        request.write(&mut line, Some(1));
        assert!(!format!("{:?}", Request::parse(&line)).contains("asuna"));
        assert_eq!(Request::parse(&line), Ok((Some(1), request)));
    }
}
