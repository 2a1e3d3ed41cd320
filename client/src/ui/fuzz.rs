//! What the program shows of anything that a server says: nothing that a terminal obeys, and nothing that hides or turns what is beside it.
//! And the machine that reads it never fails, asks only in the protocol's words, and does not run in circles.
//!
//! For the fuzz target `render`, and the tests over what is stored in `fuzz/`. Nothing of it is in other builds.

use std::time::Duration;

use client::{Config, DisconnectReason, Event, Reply, RequestError, session::Session};
use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, ErrorBody, ErrorCode, GroupId, Request, Seq, UserId,
    message::{Friend, GroupInfo, MemberInfo, PresenceState, Role},
};
use serde_json::Value;

use super::{
    away::Away,
    command::{BadCommand, Command},
    output,
    roster::Roster,
    say::{self, About},
    tell::{Failure, Tell},
};

/// A story is not longer.
const STORY_BYTES_MAX: usize = 16 << 10;
/// The longest time that passes between two lines.
const PAUSE_SECONDS_MAX: u64 = 1_000_000;
/// Requests that the application makes at most.
const REQUESTS_MAX: usize = 100;

/// A story, line by line, of a client and its server.
///
/// - `?…` is a request that the application makes, in its form on the wire; the first one has the id 16
/// - `>…` is what a person types
/// - `~30` lets so many seconds pass
/// - `!` ends the connection; there is another one
/// - anything else comes from the server, and is besides taken for a text and a name that others chose
pub(crate) fn check(data: &[u8]) {
    let mut story = Story::begin();
    for line in data[..data.len().min(STORY_BYTES_MAX)].split(|byte| *byte == b'\n') {
        story.play(line);
    }
    story.session.finish();
    story.pump();
    assert_eq!(story.outcomes, story.asked, "every request has one outcome");
}

struct Story {
    session: Session<usize>,
    now: Duration,
    asked: usize,
    outcomes: usize,
    roster: Roster,
    away: Away,
}

impl Story {
    fn begin() -> Self {
        let config =
            Config { confirm_automatically: true, confirm_after: Duration::ZERO, ..Config::default() };
        let mut session = Session::new(config, 7);
        session.connected(Duration::ZERO);
        let roster = Roster::new(user(1), "kirito".into());
        Self { session, now: Duration::ZERO, asked: 0, outcomes: 0, roster, away: Away::default() }
    }

    fn play(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        match line {
            [b'?', request @ ..] => {
                // As many as the machine takes, and no story is longer.
                if let Ok((_, request)) = Request::parse(request)
                    && self.asked < REQUESTS_MAX
                {
                    self.session.ask(self.now, request, self.asked);
                    self.asked += 1;
                }
            }
            [b'>', ..] => typed(&text[1..], &self.roster),
            [b'~', ..] => {
                let seconds = text[1..].trim().parse().unwrap_or(1).min(PAUSE_SECONDS_MAX);
                self.now += Duration::from_secs(seconds);
                self.session.tick(self.now);
            }
            [b'!'] => {
                self.session.disconnected(self.now, DisconnectReason::Lost("broken".into()));
                self.connect();
            }
            _ => {
                self.session.line(self.now, line);
                chosen_by_others(&text);
            }
        }
        self.pump();
    }

    fn connect(&mut self) {
        if let Some(at) = self.session.dial_at() {
            self.now = self.now.max(at);
            self.session.connected(self.now);
        }
    }

    /// Takes everything that the machine has to say, and has it told.
    fn pump(&mut self) {
        while let Some((_, outcome)) = self.session.next_done() {
            self.outcomes += 1;
            self.tell_outcome(outcome);
        }
        while let Some(event) = self.session.next_event() {
            self.tell_event(event);
        }
        let asked = self.session.outgoing().to_vec();
        for line in asked.split_inclusive(|byte| *byte == b'\n') {
            assert_eq!(line.last(), Some(&b'\n'), "whole lines");
            if let Err(error) = Request::parse(line) {
                panic!("{error:?}: {}", line.escape_ascii());
            }
        }
        self.session.written(self.now, asked.len());
        let mut circles = 0;
        while self.session.deadline().is_some_and(|at| at <= self.now) {
            self.session.tick(self.now);
            if self.session.hang_up().is_some() {
                break;
            }
            circles += 1;
            assert!(circles < 10_000, "time goes on");
        }
        if let Some(reason) = self.session.hang_up() {
            self.session.disconnected(self.now, reason);
            self.connect();
        }
    }

    fn tell_outcome(&mut self, outcome: Result<Reply, RequestError>) {
        let about = About { user: Some(user(2)), group: Some(group(7)) };
        match outcome {
            Ok(Reply::LoggedIn(reply)) => {
                self.roster = Roster::new(reply.user, reply.name);
                told(&Tell::Lists(&self.roster));
            }
            Ok(Reply::Friends(page)) => {
                self.roster.replace(page.friends, Vec::new());
                told(&Tell::Lists(&self.roster));
            }
            Ok(Reply::Groups(page)) => {
                self.roster.replace(Vec::new(), page.groups);
                told(&Tell::Lists(&self.roster));
            }
            Ok(Reply::Members(page)) => {
                told(&Tell::Members { group: group(7), members: &page.members, roster: &self.roster });
            }
            Ok(Reply::History(page)) => {
                let (entries, more) = (&page.entries[..], page.more);
                told(&Tell::History { conv: conv("d1-2"), entries, more, roster: &self.roster });
            }
            Ok(Reply::Registered(registered)) => told(&Tell::Registered(registered.user)),
            Ok(_) => {}
            Err(error) => {
                for command in ["chat", "creategroup", "kick", "passwd"] {
                    told(&Tell::Failed(say::failure(command, about, &error, Some(&self.roster))));
                }
            }
        }
    }

    fn tell_event(&mut self, event: Event) {
        match &event {
            Event::Entry(entry) => {
                self.roster.note(entry);
                told(&Tell::Entry(entry, &self.roster));
            }
            Event::Presence { user, state } => {
                self.roster.set_state(*user, *state);
                told(&Tell::Presence { user: *user, state: *state, roster: &self.roster });
            }
            Event::Lost { conv, after } => {
                told(&Tell::Lost { conv: *conv, after: *after, roster: &self.roster });
            }
            Event::Disconnected { reason } => told(&Tell::Disconnected(reason.clone())),
            Event::SessionEnded { reason } => told(&Tell::SessionEnded(reason.to_string())),
            Event::Connected | Event::Reconnecting { .. } | Event::Resumed | Event::CaughtUp => {}
        }
        self.away.hold(event);
        if self.away.caught_up {
            let held = std::mem::take(&mut self.away);
            drop(held.into_later());
        }
    }
}

/// A line that a person types is a command or is refused; both are told.
fn typed(line: &str, roster: &Roster) {
    match Command::parse(line) {
        Ok(command) => {
            let _ = command.conversation(roster.user);
            told(&Tell::Done { command: command.name(), message: line.into(), details: Default::default() });
        }
        Err(BadCommand::Unknown(name)) => told(&Tell::Failed(Failure::local("unknown", "unknown", name))),
        Err(BadCommand::Usage(usage)) => told(&Tell::Failed(Failure::local(usage.name, "usage", usage.form))),
    }
}

/// A text wherever others can put one.
fn chosen_by_others(text: &str) {
    let owned = || text.to_owned();
    let mut roster = Roster::new(user(1), owned());
    let friend =
        |number, state, blocked| Friend { user: user(number), name: owned(), state, friend: true, blocked };
    let friends = vec![friend(2, PresenceState::Online, false), friend(3, PresenceState::Unknown, true)];
    let info =
        GroupInfo { group: group(7), name: owned(), description: owned(), role: Role::Member, members: 2 };
    roster.replace(friends, vec![info]);
    told(&Tell::Lists(&roster));
    let bodies = [
        EntryBody::Message { text: owned() },
        EntryBody::Created { title: owned() },
        EntryBody::Removed { user: user(2), user_name: owned() },
        EntryBody::Opened { opened: conv("g8"), after: Seq(1), title: owned() },
        EntryBody::Befriended,
        EntryBody::Erased,
        EntryBody::PasswordChanged,
        EntryBody::SessionsEnded,
        EntryBody::Other { kind: format!("new-{text}") },
    ];
    for body in bodies {
        for (place, from) in [("d1-2", 2), ("d1-9", 1), ("g7", 2), ("g8", 1), ("u1", 1)] {
            let (conv, from, mid) = (conv(place), user(from), ClientMsgId([1; 16]));
            let entry = Entry {
                conv,
                seq: Seq(5),
                at: text.len() as i64,
                from,
                name: owned(),
                mid,
                body: body.clone(),
            };
            roster.note(&entry);
            told(&Tell::Entry(&entry, &roster));
            let entries = [entry];
            told(&Tell::History { conv, entries: &entries, more: false, roster: &roster });
        }
    }
    let members =
        [MemberInfo { user: user(2), name: owned(), role: Role::Creator, state: PresenceState::Online }];
    told(&Tell::Members { group: group(7), members: &members, roster: &roster });
    let refusal = RequestError::Refused(ErrorBody::field(ErrorCode::BadName, text, text));
    told(&Tell::Failed(say::failure("creategroup", About::default(), &refusal, Some(&roster))));
    let about = About { user: Some(user(2)), group: Some(group(7)) };
    for code in [ErrorCode::NotMember, ErrorCode::Blocked, ErrorCode::Unknown] {
        let refusal = RequestError::Refused(ErrorBody { message: owned(), ..code.into() });
        told(&Tell::Failed(say::failure("kick", about, &refusal, Some(&roster))));
    }
    told(&Tell::Presence { user: user(2), state: PresenceState::Offline, roster: &roster });
    told(&Tell::Lost { conv: conv("g7"), after: Seq(1), roster: &roster });
    told(&Tell::Disconnected(DisconnectReason::Connect(owned())));
    told(&Tell::Note("a word of our own"));
}

/// Tells it in both forms, and looks at what a terminal would get.
fn told(tell: &Tell<'_>) {
    let text = output::written(tell, false);
    assert_harmless(&text);
    let json = output::written(tell, true);
    assert_harmless(&json);
    for line in json.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["event"].is_string(), "{line}");
    }
    if let Tell::Entry(entry, _) = tell {
        assert!(text.lines().count() <= 1, "an entry is one line: {text}");
        let shown: Entry = serde_json::from_str(json.trim_end()).expect("an entry as it was sent");
        assert_eq!(shown, **entry, "nothing is lost in the form for programs");
    }
}

/// Written down by hand, not taken from what is checked: controls, which begin every escape sequence, and what turns or hides text.
fn assert_harmless(shown: &str) {
    for c in shown.chars().filter(|c| *c != '\n') {
        let control = matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let hides = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{e0001}'..='\u{e007f}');
        assert!(!control && !turns && !hides, "{c:?} is shown in {shown:?}");
    }
}

fn user(number: u64) -> UserId {
    UserId::new(number).expect("a small number")
}

fn group(number: u64) -> GroupId {
    GroupId::new(number).expect("a small number")
}

fn conv(text: &str) -> ConversationId {
    text.parse().expect("a conversation")
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn stored_lines_are_shown_safely() {
        super::replay::replay("render", super::check);
    }
}
