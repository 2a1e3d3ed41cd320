//! What a login brings, held until its screens are shown and its catch-up has ended.

use std::collections::BTreeMap;

use client::Event;
use protocol::{ConversationId, Entry, EntryBody, ids::Conversation};

/// Bytes of text held at most; then they are shown, and the rest follows as another lot.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry takes besides its text, about.
const ENTRY_BYTES: usize = 256;
/// Events held for later at most. Entries among them then end the holding; others are dropped: they are states of
/// friends or of the connection, and the next one corrects them.
const LATER_MAX: usize = 10_000;

/// What is held back.
#[derive(Debug, Default)]
pub(crate) struct Away {
    /// Whether the catch-up has ended.
    pub(crate) caught_up: bool,
    /// What was missed, by conversation.
    entries: BTreeMap<Place, Vec<Entry>>,
    bytes: usize,
    /// What happened meanwhile, in order.
    later: Vec<Event>,
}

/// Friends come before groups, and notices last.
type Place = (u8, ConversationId);

impl Away {
    /// Holds an event; whether it is too much to hold.
    pub(crate) fn hold(&mut self, event: Event) -> bool {
        match event {
            Event::Entry(entry) if !self.caught_up => {
                self.hold_entry(entry);
                return self.bytes >= BYTES_MAX;
            }
            Event::Entry(_) => {
                self.later.push(event);
                return self.later.len() >= LATER_MAX;
            }
            Event::CaughtUp => self.caught_up = true,
            event => {
                if self.later.len() < LATER_MAX {
                    self.later.push(event);
                }
            }
        }
        false
    }

    fn hold_entry(&mut self, entry: Entry) {
        let rank = match entry.conv.parse() {
            Conversation::Direct(..) => 0,
            Conversation::Group(_) => 1,
            Conversation::Notices(_) => 2,
        };
        self.bytes += ENTRY_BYTES
            + match &entry.body {
                EntryBody::Message { text } => text.len(),
                _ => 0,
            };
        self.entries.entry((rank, entry.conv)).or_default().push(entry);
    }

    /// Gives up the entries: conversation by conversation, each in order.
    pub(crate) fn take_entries(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_values().flatten()
    }

    /// What happened meanwhile, in order.
    pub(crate) fn into_later(self) -> Vec<Event> {
        self.later
    }
}
