//! What goes over the channels.
//!
//! Every payload, in this version and in all to come, starts with the same header; numbers are big-endian:
//!
//! | Bytes | Meaning |
//! |---|---|
//! | 1 | version |
//! | 16 | the deployment's id |
//! | 8 | the node that says it |
//! | 8 | of a hint: the conversation's key; of presence: the node's incarnation |
//! | 8 | of a hint: the log's head; of presence: the change's number |
//!
//! So a node makes something of a version that it does not know: the head moved, or the presence of that node has to be read. In
//! version 1 a hint's header is followed by the entries up to the head as the lines that clients get, or by nothing; that of presence by
//! a byte (see [`Change`]) and five bytes for each user: whether online, and the number. A canary is a header alone, with its number; only the
//! node that said it hears it.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use bytes::Bytes;
use protocol::{ConversationId, Entry, EntryBody, Seq, UserId};
use thiserror::Error;

use crate::{
    feed::Line,
    relay::{Hint, RelayEvent},
};

/// The longest payload that carries entries; about two of the longest messages. A longer one says only how far the log reaches.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 << 10;
/// Users in one payload.
pub(super) const USERS_MAX: usize = 1000;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 41;
/// No log gets longer, and numbers up to it are exact everywhere.
const SEQ_MAX: u64 = 1 << 53;
const ENTRY_PREFIX: &[u8] = br#"{"push":"entry","#;

/// One process's use of one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

/// A node's claim to presence: a new one after each time it lost its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Incarnation {
    pub(super) node: NodeId,
    pub(super) number: u64,
}

/// Who says something, and to which system it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) deployment: [u8; 16],
    pub(super) node: NodeId,
}

/// What changed in a node's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// These users came or went.
    Users(Vec<(UserId, bool)>),
    /// Everything was written anew: read it.
    Rewritten,
    /// The incarnation ended.
    Gone,
}

/// Why a payload says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum WireError {
    #[error("shorter than its header")]
    Short,
    #[error("another deployment's")]
    Foreign,
    #[error("our own")]
    Own,
    #[error("not what its version calls for")]
    Malformed,
}

type Result<T> = std::result::Result<T, WireError>;

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.node.0, self.number)
    }
}

impl Incarnation {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (node, number) = text.split_once('-')?;
        let node = NodeId(u64::from_str_radix(node, 16).ok()?);
        Some(Self { node, number: number.parse().ok()? })
    }
}

impl Origin {
    /// A hint, as a payload.
    pub(super) fn hint(&self, hint: &Hint) -> Vec<u8> {
        let head = hint.lines.last().map_or(Seq::ZERO, |line| line.seq);
        let bytes = hint.lines.iter().map(|line| line.bytes.len()).sum::<usize>();
        let fits = HEADER_BYTES + bytes <= PAYLOAD_BYTES_MAX;
        let mut payload = Vec::with_capacity(HEADER_BYTES + if fits { bytes } else { 0 });
        self.header(&mut payload, hint.conv.key() as u64, head.0);
        for line in hint.lines.iter().filter(|_| fits) {
            payload.extend_from_slice(&line.bytes);
        }
        payload
    }

    /// What a payload tells of a log.
    pub(super) fn read_hint(&self, payload: &[u8]) -> Result<RelayEvent> {
        let header = self.read_header(payload)?;
        let conv = ConversationId::from_key(header.subject as i64).ok_or(WireError::Malformed)?;
        if !(1..=SEQ_MAX).contains(&header.number) {
            return Err(WireError::Malformed);
        }
        let head = Seq(header.number);
        if header.version != VERSION || header.body.is_empty() {
            return Ok(RelayEvent::Head(conv, head));
        }
        let mut lines = Vec::new();
        for text in header.body.split_inclusive(|byte| *byte == b'\n') {
            let entry = text.starts_with(ENTRY_PREFIX).then(|| serde_json::from_slice::<Entry>(text));
            let Some(Ok(entry)) = entry else { return Err(WireError::Malformed) };
            let in_range = (1..=header.number).contains(&entry.seq.0);
            let follows = lines.last().is_none_or(|last: &std::sync::Arc<Line>| last.seq.next() == entry.seq);
            if entry.conv != conv || !in_range || !follows || text.last() != Some(&b'\n') {
                return Err(WireError::Malformed);
            }
            if matches!(entry.body, EntryBody::Other { .. }) {
                // A newer node's: it may affect rights, and the store says whether it does.
                return Ok(RelayEvent::Head(conv, head));
            }
            lines.push(std::sync::Arc::new(Line::of(entry, Bytes::copy_from_slice(text))));
        }
        if lines.last().is_none_or(|last| last.seq != head) {
            return Err(WireError::Malformed);
        }
        Ok(RelayEvent::Hint(Hint { conv, lines }))
    }

    /// A change of this node's presence, as a payload.
    pub(super) fn presence(&self, incarnation: u64, number: u64, change: &Change) -> Vec<u8> {
        let mut payload = Vec::new();
        self.header(&mut payload, incarnation, number);
        match change {
            Change::Users(users) => {
                payload.push(0);
                for (user, online) in users {
                    payload.push(u8::from(*online));
                    // An account number has 31 bits.
                    payload.extend_from_slice(&(user.number() as u32).to_be_bytes());
                }
            }
            Change::Rewritten => payload.push(1),
            Change::Gone => payload.push(2),
        }
        payload
    }

    /// What a payload tells of another node's presence: whose, the change's number, and the change.
    pub(super) fn read_presence(&self, payload: &[u8]) -> Result<(Incarnation, u64, Change)> {
        let header = self.read_header(payload)?;
        let change = match (header.version, header.body.split_first()) {
            (VERSION, Some((0, users))) if users.len() % 5 == 0 => {
                let users = users.chunks_exact(5).map(|user| {
                    let number = u64::from_be_bytes([0, 0, 0, 0, user[1], user[2], user[3], user[4]]);
                    Some((UserId::new(number)?, user[0] == 1))
                });
                Change::Users(users.collect::<Option<_>>().ok_or(WireError::Malformed)?)
            }
            (VERSION, Some((1, []))) => Change::Rewritten,
            (VERSION, Some((2, []))) => Change::Gone,
            (VERSION, _) => return Err(WireError::Malformed),
            _ => Change::Rewritten,
        };
        Ok((Incarnation { node: header.node, number: header.subject }, header.number, change))
    }

    /// What a node says to itself, as a payload.
    pub(super) fn canary(&self, number: u64) -> Vec<u8> {
        let mut payload = Vec::with_capacity(HEADER_BYTES);
        self.header(&mut payload, 0, number);
        payload
    }

    /// The number of a canary of this node.
    pub(super) fn read_canary(&self, payload: &[u8]) -> Result<u64> {
        let header = self.read_any_header(payload)?;
        if header.node == self.node { Ok(header.number) } else { Err(WireError::Foreign) }
    }

    fn header(&self, payload: &mut Vec<u8>, subject: u64, number: u64) {
        payload.push(VERSION);
        payload.extend_from_slice(&self.deployment);
        for value in [self.node.0, subject, number] {
            payload.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn read_header<'a>(&self, payload: &'a [u8]) -> Result<Header<'a>> {
        let header = self.read_any_header(payload)?;
        if header.node == self.node { Err(WireError::Own) } else { Ok(header) }
    }

    fn read_any_header<'a>(&self, payload: &'a [u8]) -> Result<Header<'a>> {
        let (header, body) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Short)?;
        let number = |at: usize| {
            let bytes = header[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        let node = NodeId(number(17));
        if header[1..17] != self.deployment {
            Err(WireError::Foreign)
        } else {
            Ok(Header { version: header[0], node, subject: number(25), number: number(33), body })
        }
    }
}

struct Header<'a> {
    version: u8,
    node: NodeId,
    subject: u64,
    number: u64,
    body: &'a [u8],
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use protocol::ClientMsgId;

    use super::*;

    const HERE: Origin = Origin { deployment: [7; 16], node: NodeId(1) };
    const THERE: Origin = Origin { deployment: [7; 16], node: NodeId(2) };

    fn line(seq: u64, body: EntryBody) -> Arc<Line> {
        Arc::new(Line::new(Entry {
            conv: "g7".parse().unwrap(),
            seq: Seq(seq),
            at: 0,
            from: UserId::new(1).unwrap(),
            name: "kirito".into(),
            mid: ClientMsgId([seq as u8; 16]),
            body,
        }))
    }

    fn message(seq: u64, text: &str) -> Arc<Line> {
        line(seq, EntryBody::Message { text: text.into() })
    }

    fn hint(lines: Vec<Arc<Line>>) -> Vec<u8> {
        THERE.hint(&Hint { conv: "g7".parse().unwrap(), lines })
    }

    fn read(payload: &[u8]) -> String {
        match HERE.read_hint(payload) {
            Ok(RelayEvent::Hint(hint)) => {
                format!("{} {:?}", hint.conv, hint.lines.iter().map(|line| line.seq.0).collect::<Vec<_>>())
            }
            Ok(RelayEvent::Head(conv, head)) => format!("{conv} to {}", head.0),
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_hint_is_read_as_it_was_sent() {
        let lines = vec![message(3, "a\nb"), line(4, EntryBody::Joined), message(5, "")];
        let Ok(RelayEvent::Hint(read)) = HERE.read_hint(&hint(lines.clone())) else { panic!() };
        assert_eq!(read.lines, lines);
    }

    #[test]
    fn what_cannot_be_carried_or_understood_is_a_head() {
        let long = "x".repeat(60 << 10);
        assert_eq!(read(&hint(vec![message(3, &long), message(4, &long)])), "g7 [3, 4]");
        assert_eq!(read(&hint(vec![message(3, &long), message(4, &long), message(5, &long)])), "g7 to 5");
        let mut newer = hint(vec![message(3, "a")]);
        newer[0] = 2;
        assert_eq!(read(&newer), "g7 to 3");
        let unknown = line(3, EntryBody::Message { text: String::new() });
        let text = String::from_utf8(unknown.bytes.to_vec()).unwrap().replace("\"message\"", "\"sticker\"");
        let unknown = Arc::new(Line { bytes: text.into(), ..(*unknown).clone() });
        assert_eq!(read(&hint(vec![unknown, message(4, "a")])), "g7 to 4");
    }

    #[test]
    fn what_is_not_for_us_is_refused() {
        let payload = hint(vec![message(3, "a")]);
        assert_eq!(THERE.read_hint(&payload).unwrap_err(), WireError::Own);
        let other = Origin { deployment: [8; 16], ..HERE };
        assert_eq!(other.read_hint(&payload).unwrap_err(), WireError::Foreign);
        assert_eq!(read(&payload[..40]), "shorter than its header");
        assert_eq!(read(&payload[..payload.len() - 1]), "not what its version calls for");
        assert_eq!(read(&hint(vec![message(3, "a"), message(5, "b")])), "not what its version calls for");
        assert_eq!(read(&hint(vec![])), "not what its version calls for");
        assert_eq!(read(&hint(vec![message(u64::MAX, "a")])), "not what its version calls for");
        let elsewhere = THERE.hint(&Hint { conv: "g8".parse().unwrap(), lines: vec![message(3, "a")] });
        assert_eq!(read(&elsewhere), "not what its version calls for");
        // It goes to clients as it is, and they would not take it for an entry.
        let (mut twice, line) = (hint(vec![message(3, "a")]), message(3, "a"));
        twice.truncate(HEADER_BYTES);
        twice.extend_from_slice(br#"{"push":"entry","push":"closing","#);
        twice.extend_from_slice(&line.bytes[ENTRY_PREFIX.len()..]);
        assert_eq!(read(&twice), "not what its version calls for");
    }

    #[test]
    fn presence_is_read_as_it_was_sent() {
        let users =
            vec![(UserId::new(1).unwrap(), true), (UserId::new(u64::from(UserId::MAX)).unwrap(), false)];
        for change in [Change::Users(users), Change::Users(vec![]), Change::Rewritten, Change::Gone] {
            let incarnation = Incarnation { node: NodeId(2), number: 9 };
            assert_eq!(
                HERE.read_presence(&THERE.presence(9, 4, &change)),
                Ok((incarnation, 4, change.clone()))
            );
            assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation));
        }
    }

    #[test]
    fn a_canary_is_heard_by_the_node_that_said_it() {
        let payload = THERE.canary(7);
        assert_eq!(THERE.read_canary(&payload), Ok(7));
        assert_eq!(HERE.read_canary(&payload), Err(WireError::Foreign));
        let other = Origin { deployment: [8; 16], ..THERE };
        assert_eq!(other.read_canary(&payload), Err(WireError::Foreign));
        assert_eq!(THERE.read_canary(&payload[..40]), Err(WireError::Short));
    }

    proptest! {
        #[test]
        fn hostile_payloads_never_panic(
            version in 0u8..3, subject: u64, number: u64, body in prop::collection::vec(any::<u8>(), 0..60), raw in prop::collection::vec(any::<u8>(), 0..60),
            seq: u64,
        ) {
            let mut payload = Vec::new();
            THERE.header(&mut payload, subject, number);
            payload[0] = version;
            payload.extend(body);
            let mut entry = Vec::new();
            THERE.header(&mut entry, "g7".parse::<ConversationId>().unwrap().key() as u64, seq);
            entry.extend_from_slice(&message(1, "").bytes);
            for payload in [payload, raw, entry] {
                let _ = HERE.read_hint(&payload);
                let _ = HERE.read_presence(&payload);
                let _ = HERE.read_canary(&payload);
            }
        }
    }
}
