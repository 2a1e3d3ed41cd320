//! The conversations' cursors: what was received, surfaced, shown and confirmed.

use std::collections::BTreeMap;

use protocol::{
    ConversationId, Seq,
    message::{CursorRefusal, Cursors, Refused},
};

/// The positions of one client in every conversation it has met.
#[derive(Debug, Default)]
pub(super) struct Logs(BTreeMap<ConversationId, Log>);

#[derive(Debug, Default)]
struct Log {
    /// The last entry received; the next one has the next seq. `None` until an `open` says where it starts.
    cursor: Option<Seq>,
    /// The highest seq surfaced; outlives the cursor, so that nothing is surfaced twice.
    surfaced: Seq,
    /// The highest seq that the application says it has shown.
    shown: Seq,
    /// The highest seq confirmed on this connection.
    confirmed: Seq,
}

/// What an entry is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The next one: to be surfaced.
    New,
    /// Received or surfaced before.
    Duplicate,
    /// Not the next one: something is missing.
    Gap,
}

impl Logs {
    /// The server starts a conversation after `after`.
    pub(super) fn open(&mut self, conv: ConversationId, after: Seq) {
        self.0.entry(conv).or_default().cursor = Some(after);
    }

    /// The server pushed an entry.
    pub(super) fn receive(&mut self, conv: ConversationId, seq: Seq) -> Received {
        let Some(log) = self.0.get_mut(&conv) else { return Received::Gap };
        let Some(cursor) = log.cursor else { return Received::Gap };
        if seq <= cursor {
            return Received::Duplicate;
        }
        if seq != cursor.next() {
            return Received::Gap;
        }
        log.cursor = Some(seq);
        if seq <= log.surfaced {
            return Received::Duplicate;
        }
        log.surfaced = seq;
        Received::New
    }

    /// The application has shown a conversation up to `seq`; whether that is news. It cannot have shown
    /// what was not surfaced.
    pub(super) fn show(&mut self, conv: ConversationId, seq: Seq) -> bool {
        let Some(log) = self.0.get_mut(&conv) else { return false };
        log.shown = log.shown.max(seq.min(log.surfaced));
        log.shown > log.confirmed
    }

    /// Takes what is shown and not confirmed, in requests of at most `most` cursors.
    pub(super) fn take_unconfirmed(&mut self, most: usize) -> Vec<Cursors> {
        let mut pages: Vec<Cursors> = Vec::new();
        for (conv, log) in &mut self.0 {
            if log.shown <= log.confirmed {
                continue;
            }
            log.confirmed = log.shown;
            match pages.last_mut() {
                Some(page) if page.len() < most => drop(page.insert(*conv, log.shown)),
                _ => pages.push(Cursors::from([(*conv, log.shown)])),
            }
        }
        pages
    }

    /// The connection is gone, and what was confirmed on it may be lost. Whether there is something to confirm again.
    pub(super) fn forget_confirmed(&mut self) -> bool {
        self.0.values_mut().fold(false, |any, log| {
            log.confirmed = Seq::ZERO;
            any || log.shown > Seq::ZERO
        })
    }

    /// A new session of the same user: the server says where each conversation starts.
    pub(super) fn forget_cursors(&mut self) {
        self.0.values_mut().for_each(|log| log.cursor = None);
    }

    /// Another user's session.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes over another process's cursors.
    pub(super) fn restore(&mut self, cursors: Cursors) {
        self.0 = cursors
            .into_iter()
            .map(|(conv, seq)| (conv, Log { cursor: Some(seq), surfaced: seq, ..Log::default() }))
            .collect();
    }

    /// The server did not take these cursors.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        for (conv, reason) in refused {
            if *reason == CursorRefusal::CursorAhead {
                // It was another log that we read: what comes now under these numbers is new.
                self.0.remove(conv);
            } else if let Some(log) = self.0.get_mut(conv) {
                log.cursor = None;
            }
        }
    }

    /// The cursors to resume with, in requests of at most `most` cursors; the first one of at most `first_bytes` of
    /// JSON. At least one request.
    pub(super) fn resume_pages(&self, most: usize, first_bytes: usize) -> Vec<Cursors> {
        let mut pages = vec![Cursors::new()];
        let mut bytes_left = first_bytes;
        for (conv, log) in &self.0 {
            let Some(cursor) = log.cursor else { continue };
            // Two quotes, a colon and a comma stand around the two texts.
            let bytes = conv.to_string().len() + cursor.to_string().len() + 4;
            let first = pages.len() == 1;
            let page = pages.last_mut().expect("there is always a page");
            if page.len() >= most || first && bytes > bytes_left {
                pages.push(Cursors::from([(*conv, cursor)]));
            } else {
                bytes_left = bytes_left.saturating_sub(bytes);
                page.insert(*conv, cursor);
            }
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_cursors_are_bounded() {
        let mut logs = Logs::default();
        let convs: Vec<ConversationId> = (1..=10).map(|n| format!("g{n}").parse().unwrap()).collect();
        for conv in &convs {
            logs.open(*conv, Seq(5));
        }
        let sizes = |most, bytes| logs.resume_pages(most, bytes).iter().map(Cursors::len).collect::<Vec<_>>();
        assert_eq!(sizes(100, 1000), [10]);
        assert_eq!(sizes(4, 1000), [4, 4, 2]);
        assert_eq!(sizes(4, 15), [2, 4, 4]);
        assert_eq!(sizes(100, 0), [0, 10]);
        assert_eq!(Logs::default().resume_pages(100, 1000), [Cursors::new()]);
    }

    #[test]
    fn nothing_is_confirmed_that_was_not_surfaced() {
        let conv = "d1-2".parse().unwrap();
        let mut logs = Logs::default();
        assert!(!logs.show(conv, Seq(9)));
        logs.open(conv, Seq(4));
        assert_eq!(logs.receive(conv, Seq(5)), Received::New);
        assert!(logs.show(conv, Seq(9)));
        assert_eq!(logs.take_unconfirmed(10), [Cursors::from([(conv, Seq(5))])]);
        assert!(!logs.show(conv, Seq(5)));
        assert!(logs.forget_confirmed());
        assert_eq!(logs.take_unconfirmed(10), [Cursors::from([(conv, Seq(5))])]);
    }
}
