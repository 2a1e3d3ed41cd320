//! Telling what happens unasked.

use client::Event;
use protocol::{Entry, EntryBody, ids::Conversation};

use super::App;
use crate::ui::tell::{Failure, Tell};

impl App {
    /// Tells a failure, and remembers it for the exit code.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed = true;
        self.output.tell(&Tell::Failed(failure));
    }

    /// Something has happened; `None`: the client has ended.
    pub(super) fn on_event(&mut self, event: Option<Event>) {
        let Some(event) = event else {
            self.gone = true;
            return;
        };
        if self.leaving {
            return;
        }
        if matches!(event, Event::SessionEnded { .. }) && self.roster.is_some() {
            self.session_over = true;
        }
        match &mut self.away {
            None => self.tell_event(event),
            Some(away) => {
                // Rather out of order with the screens than without bounds.
                match away.hold(event) {
                    false => {}
                    true if away.caught_up => self.end_away(),
                    true => self.release(),
                }
            }
        }
    }

    /// The login's catch-up is over: tells what was held back, and from now on everything at once.
    pub(super) fn end_away(&mut self) {
        self.release();
        let Some(away) = self.away.take() else { return };
        self.output.tell(&Tell::CaughtUp);
        for event in away.into_later() {
            self.tell_event(event);
        }
    }

    /// Tells the entries that were held back.
    fn release(&mut self) {
        let Some(away) = &mut self.away else { return };
        let entries = away.take_entries();
        let mut first = true;
        for entry in entries {
            let for_people = !matches!(entry.body, EntryBody::Opened { .. });
            if for_people && std::mem::take(&mut first) {
                self.output.tell(&Tell::Away);
            }
            self.tell_entry(&entry);
        }
    }

    fn tell_event(&mut self, event: Event) {
        if let Event::Entry(entry) = event {
            return self.tell_entry(&entry);
        }
        // Before a login the connection is the client's own affair.
        let Some(roster) = &mut self.roster else { return };
        match event {
            Event::Presence { user, state } => {
                // After a login the server says what the lists say, too.
                if roster.set_state(user, state) {
                    self.output.tell(&Tell::Presence { user, state, roster });
                }
            }
            Event::Disconnected { reason } => {
                // States may change unheard.
                roster.stale = true;
                if !std::mem::replace(&mut self.link_lost, true) {
                    self.output.tell(&Tell::Disconnected(reason));
                }
            }
            Event::Resumed => {
                if std::mem::take(&mut self.link_lost) {
                    self.output.tell(&Tell::Reconnected);
                }
            }
            Event::Lost { conv, after } => drop(self.output.tell(&Tell::Lost { conv, after, roster })),
            Event::SessionEnded { reason } => drop(self.output.tell(&Tell::SessionEnded(reason.to_string()))),
            Event::Entry(_) | Event::Connected | Event::Reconnecting { .. } | Event::CaughtUp => {}
        }
    }

    /// Tells an entry, unless its sender sees it already, and confirms it.
    fn tell_entry(&mut self, entry: &Entry) {
        // That a conversation opened has the key of the command that caused it, too.
        let notice = matches!(entry.conv.parse(), Conversation::Notices(_))
            && !matches!(entry.body, EntryBody::PasswordChanged | EntryBody::SessionsEnded);
        let own = !notice && self.typed.remove(&entry.mid);
        let Some(roster) = &mut self.roster else { return };
        roster.note(entry);
        let is_message = matches!(entry.body, EntryBody::Message { .. });
        // On a terminal the own message stands where it was typed; other own commands have told their outcome.
        let known = own && !self.output.is_json() && (self.interactive || !is_message);
        if known || self.output.tell(&Tell::Entry(entry, roster)) {
            self.client.shown(entry.conv, entry.seq);
        }
    }
}
