//! Events of a history in words.

use std::collections::{BTreeMap, BTreeSet};

use loadgen::{
    History, Plan,
    history::{Call, DeviceId, Event, Index, OperationId, Outcome, Reply, What},
};
use protocol::{
    ClientMsgId, Conversation, ConversationId, Entry, EntryBody, Seq, UserId, message::PresenceState,
};

use crate::scenario::Scenario;

/// Who is who in a history, and which outcome is which request's.
pub(crate) struct Names<'a> {
    history: &'a History,
    users: BTreeMap<UserId, String>,
    /// By device; nobody's if it only registers.
    owners: BTreeMap<DeviceId, Option<UserId>>,
    operations: BTreeMap<OperationId, Operation>,
}

/// Where an operation is in the history.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operation {
    /// Where it was begun.
    pub(crate) invoked: Option<Index>,
    /// Where its outcome is.
    pub(crate) returned: Option<Index>,
}

/// So many characters of a text are shown.
const TEXT_CHARS_MAX: usize = 60;

impl<'a> Names<'a> {
    /// Reads them from a history, and from the scenario those that nobody mentions.
    pub(crate) fn new(scenario: &Scenario, history: &'a History) -> Self {
        let plan = Plan::compressed();
        let known =
            (0..scenario.topology.users).filter_map(|at| Some((UserId::new(at as u64 + 1)?, plan.name(at))));
        let mut names =
            Self { history, users: known.collect(), owners: BTreeMap::new(), operations: BTreeMap::new() };
        for (at, event) in history.events.iter().enumerate() {
            names.read(at, &event.what);
        }
        names
    }

    fn read(&mut self, at: Index, what: &What) {
        match what {
            What::Started { device, user } => {
                self.owners.insert(*device, *user);
            }
            What::Invoked { operation, .. } => {
                self.operations.entry(*operation).or_default().invoked.get_or_insert(at);
            }
            What::Returned { operation, .. } => {
                self.operations.entry(*operation).or_default().returned.get_or_insert(at);
            }
            What::Entry { entry, .. } => self.learn(entry),
            What::Final { entries, .. } => entries.iter().for_each(|entry| self.learn(entry)),
            _ => {}
        }
    }

    fn learn(&mut self, entry: &Entry) {
        self.users.insert(entry.from, entry.name.clone());
        if let EntryBody::Removed { user, user_name } = &entry.body {
            self.users.insert(*user, user_name.clone());
        }
    }

    /// A user's name and number.
    pub(crate) fn user(&self, user: UserId) -> String {
        match self.users.get(&user) {
            Some(name) => format!("{} ({user})", plain(name, TEXT_CHARS_MAX)),
            None => format!("user {user}"),
        }
    }

    /// A conversation, and who or what it is.
    pub(crate) fn conversation(&self, conv: ConversationId) -> String {
        match conv.parse() {
            Conversation::Direct(a, b) => format!("{conv}, between {} and {}", self.user(a), self.user(b)),
            Conversation::Group(_) => format!("{conv}, a group"),
            Conversation::Notices(user) => format!("{conv}, the notices of {}", self.user(user)),
        }
    }

    /// A device, and whose it is.
    pub(crate) fn device(&self, device: DeviceId) -> String {
        match self.owners.get(&device) {
            Some(Some(user)) => format!("{} on device {}", self.user(*user), device.0),
            _ => format!("device {}", device.0),
        }
    }

    /// The event at an index, if there is one.
    pub(crate) fn event(&self, at: Index) -> Option<&'a Event> {
        self.history.events.get(at)
    }

    /// An operation's places.
    pub(crate) fn operation(&self, operation: OperationId) -> Operation {
        self.operations.get(&operation).copied().unwrap_or_default()
    }

    /// What an operation asked, and from where.
    pub(crate) fn asked(&self, operation: OperationId) -> Option<(DeviceId, &'a Call)> {
        match &self.event(self.operation(operation).invoked?)?.what {
            What::Invoked { device, call, .. } => Some((*device, call)),
            _ => None,
        }
    }

    /// What became of an operation, if it is known.
    pub(crate) fn outcome(&self, operation: OperationId) -> Option<&'a Outcome> {
        match &self.event(self.operation(operation).returned?)?.what {
            What::Returned { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// The device that an event was seen on.
    pub(crate) fn device_of(&self, at: Index) -> Option<DeviceId> {
        match &self.event(at)?.what {
            What::Started { device, .. }
            | What::Ended { device }
            | What::Crashed { device }
            | What::Connected { device }
            | What::Disconnected { device }
            | What::Resumed { device }
            | What::CaughtUp { device }
            | What::Lost { device, .. }
            | What::Invoked { device, .. }
            | What::Entry { device, .. }
            | What::Presence { device, .. }
            | What::Canary { device, .. } => Some(*device),
            What::Returned { operation, .. } => Some(self.asked(*operation)?.0),
            What::FaultBegan { .. }
            | What::FaultEnded { .. }
            | What::Healed
            | What::Memory { .. }
            | What::Final { .. }
            | What::FinalLists { .. } => None,
        }
    }

    /// The user who saw or did what an event says.
    pub(crate) fn user_of(&self, at: Index) -> Option<UserId> {
        match self.event(at)?.what {
            What::Final { user, .. } | What::FinalLists { user, .. } => Some(user),
            _ => *self.owners.get(&self.device_of(at)?)?,
        }
    }

    /// The conversations that an event is about.
    pub(crate) fn conversations_of(&self, at: Index) -> BTreeSet<ConversationId> {
        let mut found = BTreeSet::new();
        match self.event(at).map(|event| &event.what) {
            Some(What::Entry { entry, .. }) => {
                found.insert(entry.conv);
                if let EntryBody::Opened { opened, .. } = entry.body {
                    found.insert(opened);
                }
            }
            Some(What::Lost { conv, .. } | What::Canary { conv, .. } | What::Final { conv, .. }) => {
                found.insert(*conv);
            }
            Some(What::Invoked { operation, .. } | What::Returned { operation, .. }) => {
                found.extend(self.target(*operation));
            }
            _ => {}
        }
        found
    }

    fn target(&self, operation: OperationId) -> Option<ConversationId> {
        let (device, call) = self.asked(operation)?;
        let owner = self.owners.get(&device).copied().flatten();
        if let Some(Outcome::Ok { reply: Reply::GroupCreated { group, .. } }) = self.outcome(operation) {
            return Some(ConversationId::group(*group));
        }
        match call {
            Call::History { conv, .. } => Some(*conv),
            Call::Members { group } => Some(ConversationId::group(*group)),
            _ => call.target(owner?),
        }
    }

    /// The idempotency key of the request or entry that an event is about.
    pub(crate) fn mid_of(&self, at: Index) -> Option<ClientMsgId> {
        match &self.event(at)?.what {
            What::Entry { entry, .. } => Some(entry.mid),
            What::Invoked { call, .. } => call.mid(),
            What::Returned { operation, .. } => self.asked(*operation)?.1.mid(),
            _ => None,
        }
    }

    /// What happened, with who and where.
    pub(crate) fn words(&self, at: Index) -> String {
        let Some(Event { what, .. }) = self.event(at) else { return format!("event {at} does not exist") };
        match what {
            What::Started { device, user: Some(_) } => format!("{}: starts", self.device(*device)),
            What::Started { device, user: None } => format!("{}: starts, to register", self.device(*device)),
            What::Ended { device } => format!("{}: ends", self.device(*device)),
            What::Crashed { device } => format!("{}: crashes", self.device(*device)),
            What::Memory { node, gauge, amount, bound } => {
                format!("{node}: {amount} {gauge}, of {bound} at most")
            }
            What::Connected { device } => format!("{}: connected", self.device(*device)),
            What::Disconnected { device } => format!("{}: disconnected", self.device(*device)),
            What::Resumed { device } => format!("{}: session resumed", self.device(*device)),
            What::CaughtUp { device } => {
                format!("{}: up to date with what there was at login", self.device(*device))
            }
            What::Lost { device, conv, after } => {
                format!("{}: told that {conv} cannot be delivered beyond {after}", self.device(*device))
            }
            What::Invoked { operation, device, call } => {
                format!("{}: asks #{}, {}", self.device(*device), operation.0, self.call(call))
            }
            What::Returned { operation, outcome } => self.returned(*operation, outcome),
            What::Entry { device, entry } => format!("{}: shown {}", self.device(*device), self.entry(entry)),
            What::Presence { device, user, state } => {
                let state = match state {
                    PresenceState::Online => "online",
                    PresenceState::Offline => "offline",
                    PresenceState::Unknown => "in an unknown state",
                };
                format!("{}: told that {} is {state}", self.device(*device), self.user(*user))
            }
            What::Canary { device, conv } => format!("{}: receives words of {conv}", self.device(*device)),
            What::FaultBegan { name } => format!("fault begins: {}", plain(name, usize::MAX)),
            What::FaultEnded { name } => format!("fault is over: {}", plain(name, usize::MAX)),
            What::Healed => "all is healed".into(),
            What::Final { user, conv, entries } => {
                let seqs = ranges(entries.iter().map(|entry| entry.seq));
                format!("{} reads {conv} at the end: {seqs}", self.user(*user))
            }
            What::FinalLists { user, groups, friends, blocked } => {
                let (groups, friends, blocked) = (list(groups), list(friends), list(blocked));
                format!(
                    "{} is told at the end: groups {groups}; friends {friends}; blocked {blocked}",
                    self.user(*user)
                )
            }
        }
    }

    fn returned(&self, operation: OperationId, outcome: &Outcome) -> String {
        let (who, call) = match self.asked(operation) {
            Some((device, call)) => (self.device(device), self.call(call)),
            None => ("somebody".into(), "a request that nobody made".into()),
        };
        format!("{who}: #{}, {call}: {}", operation.0, self.came_to(outcome))
    }

    /// An outcome.
    pub(crate) fn came_to(&self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Ok { reply } => match reply {
                Reply::Done => "ok".into(),
                Reply::Registered { user } | Reply::LoggedIn { user } => format!("ok, user {user}"),
                Reply::Appended { seq } => format!("ok, at seq {seq}"),
                Reply::GroupCreated { group, seq } => format!("ok, g{group} at seq {seq}"),
                Reply::Friends { friends } => format!("ok, {} friends", friends.len()),
                Reply::Groups { groups } => format!("ok, {} groups", groups.len()),
                Reply::Members { members } => format!("ok, {} members", members.len()),
                Reply::History { entries, more } => {
                    let seqs = ranges(entries.iter().map(|entry| entry.seq));
                    format!("ok, {seqs}{}", if *more { " and more before" } else { "" })
                }
            },
            Outcome::Failed { code: Some(code) } => format!("refused, {code}"),
            Outcome::Failed { code: None } => "failed, never sent".into(),
            Outcome::Unknown => "unknown whether it happened".into(),
        }
    }

    /// A request.
    pub(crate) fn call(&self, call: &Call) -> String {
        let name = call_name(call);
        match call {
            Call::Login | Call::Logout | Call::Friends | Call::Groups => name.into(),
            Call::Register { name: of, .. } => format!("{name} {}", quoted(of)),
            Call::CreateGroup { name: of, .. } => format!("{name} {}", quoted(of)),
            Call::Befriend { user, .. }
            | Call::Unfriend { user, .. }
            | Call::Block { user, .. }
            | Call::Unblock { user, .. } => format!("{name} {}", self.user(*user)),
            Call::Join { group, .. }
            | Call::Quit { group, .. }
            | Call::DeleteGroup { group, .. }
            | Call::Members { group } => format!("{name} g{group}"),
            Call::RemoveMember { group, user, .. } => format!("{name} {} from g{group}", self.user(*user)),
            Call::Send { conv, text, .. } => format!("{name} to {conv} {}", quoted(text)),
            Call::History { conv, before, .. } => match before {
                Some(before) => format!("{name} of {conv} before {before}"),
                None => format!("{name} of {conv}"),
            },
        }
    }

    /// An entry.
    pub(crate) fn entry(&self, entry: &Entry) -> String {
        let Entry { conv, seq, from, .. } = entry;
        let from = self.user(*from);
        match &entry.body {
            EntryBody::Message { text } => format!("{conv}/{seq}, {from} says {}", quoted(text)),
            EntryBody::Removed { user, .. } => format!("{conv}/{seq}, {from} removed {}", self.user(*user)),
            EntryBody::Opened { opened, after, .. } => {
                format!("{conv}/{seq}, {from} opened {opened} after {after}")
            }
            body => format!("{conv}/{seq}, {from} {}", plain(body.kind(), TEXT_CHARS_MAX)),
        }
    }
}

/// A request's name.
pub(crate) fn call_name(call: &Call) -> &'static str {
    match call {
        Call::Register { .. } => "register",
        Call::Login => "log in",
        Call::Logout => "log out",
        Call::Befriend { .. } => "befriend",
        Call::Unfriend { .. } => "unfriend",
        Call::Block { .. } => "block",
        Call::Unblock { .. } => "unblock",
        Call::CreateGroup { .. } => "create group",
        Call::Join { .. } => "join",
        Call::Quit { .. } => "quit",
        Call::DeleteGroup { .. } => "delete group",
        Call::RemoveMember { .. } => "remove member",
        Call::Send { .. } => "send",
        Call::History { .. } => "history",
        Call::Friends => "list friends",
        Call::Groups => "list groups",
        Call::Members { .. } => "list members",
    }
}

/// A text in quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text, TEXT_CHARS_MAX))
}

/// A text without anything that a terminal would obey, and not longer than so many characters.
pub(crate) fn plain(text: &str, chars_max: usize) -> String {
    let mut out: String = text.chars().take(chars_max).flat_map(char::escape_debug).collect();
    // Quotes are nothing that a terminal obeys.
    out = out.replace("\\\"", "\"").replace("\\'", "'");
    let left = text.chars().count().saturating_sub(chars_max);
    if left > 0 {
        out.push_str(&format!("… (+{left})"));
    }
    out
}

/// Numbers as ranges, such as `1-4, 6`.
pub(crate) fn ranges(seqs: impl Iterator<Item = Seq>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for Seq(seq) in seqs {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => runs.push((seq, seq)),
        }
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    if runs.is_empty() { "nothing".into() } else { runs.join(", ") }
}

fn list<T: ToString>(of: &[T]) -> String {
    let of: Vec<String> = of.iter().map(T::to_string).collect();
    if of.is_empty() { "none".into() } else { of.join(", ") }
}
