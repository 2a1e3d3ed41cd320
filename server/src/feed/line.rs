//! An entry's line.

use bytes::Bytes;
use protocol::{Entry, EntryBody, Push, Seq, UserId, message::write_push};

use crate::store::record::affects_rights;

/// An entry as it goes to clients: serialised once per node, shared by all sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its position.
    pub seq: Seq,
    /// The push, with its line end.
    pub bytes: Bytes,
    /// Who did what, if it is more than a message.
    pub event: Option<Box<(UserId, EntryBody)>>,
}

impl Line {
    /// The line for an entry.
    pub fn new(entry: Entry) -> Self {
        let (seq, from) = (entry.seq, entry.from);
        let push = Push::Entry(entry);
        let mut bytes = Vec::with_capacity(256);
        write_push(&mut bytes, &push);
        let Push::Entry(Entry { body, .. }) = push else { unreachable!("it was made above") };
        Self { seq, bytes: bytes.into(), event: Self::event(from, body) }
    }

    /// The line for an entry that another node has serialised.
    pub fn of(entry: Entry, bytes: Bytes) -> Self {
        Self { seq: entry.seq, bytes, event: Self::event(entry.from, entry.body) }
    }

    fn event(from: UserId, body: EntryBody) -> Option<Box<(UserId, EntryBody)>> {
        (!matches!(body, EntryBody::Message { .. } | EntryBody::Erased)).then(|| Box::new((from, body)))
    }

    /// Whether rights are others after it.
    pub(super) fn affects_rights(&self) -> bool {
        self.event.as_ref().is_some_and(|event| affects_rights(&event.1))
    }
}
