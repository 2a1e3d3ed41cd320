//! Hand-made histories that read like a story: a well-behaved system told step by step, and what a test makes
//! it do wrong.

mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    ClientMsgId, Conversation, ConversationId, Entry, EntryBody, ErrorCode, GroupId, Seq, UserId,
};

use super::{Invariant, Verdict, check};
use crate::{
    canary,
    history::{Bounds, Call, DeviceId, Event, History, Index, OperationId, Outcome, Reply, What},
};

/// A history in the making, and the system it is of.
struct Story {
    history: History,
    clock: Duration,
    users: BTreeMap<&'static str, UserId>,
    devices: BTreeMap<&'static str, (DeviceId, UserId)>,
    logs: BTreeMap<ConversationId, Vec<Entry>>,
    readers: BTreeMap<(ConversationId, UserId), Vec<(Seq, Seq)>>,
    shown: BTreeMap<(DeviceId, ConversationId), Seq>,
    operations: u64,
    mids: u8,
}

const OPEN: Seq = Seq(u64::MAX);

impl Story {
    /// Users with a device each, logged in.
    fn of<const N: usize>(names: [&'static str; N]) -> Self {
        let mut story = Self {
            history: History { bounds: Bounds::default(), events: Vec::new() },
            clock: Duration::ZERO,
            users: BTreeMap::new(),
            devices: BTreeMap::new(),
            logs: BTreeMap::new(),
            readers: BTreeMap::new(),
            shown: BTreeMap::new(),
            operations: 0,
            mids: 0,
        };
        for name in names {
            let user = UserId::new(story.users.len() as u64 + 1).unwrap();
            story.users.insert(name, user);
            story.login(name, name);
        }
        story
    }

    /// Alice and bob are friends and talk, and talk in a group with carol; all is shown to all and read at
    /// the end.
    fn calm() -> Self {
        let mut story = Self::of(["alice", "bob", "carol"]);
        story.befriend("alice", "bob");
        story.say("alice", "d1-2", "hello");
        story.say("bob", "d1-2", "hello yourself");
        story.create("alice", "g1");
        story.join("bob", "g1");
        story.join("carol", "g1");
        story.say("carol", "g1", "all here?");
        story.say("alice", "g1", "yes");
        story.spread();
        story
    }

    fn record(&mut self, what: What) -> Index {
        self.clock += Duration::from_millis(1);
        self.history.events.push(Event { at: self.clock, what });
        self.history.events.len() - 1
    }

    fn wait(&mut self, seconds: u64) {
        self.clock += Duration::from_secs(seconds);
    }

    fn user(&self, name: &str) -> UserId {
        self.users[name]
    }

    fn device(&self, name: &str) -> DeviceId {
        self.devices[name].0
    }

    /// Starts another device, under a name of its own.
    fn login(&mut self, device: &'static str, user: &str) {
        let (id, user) = (DeviceId(self.devices.len() as u32), self.user(user));
        self.devices.insert(device, (id, user));
        self.record(What::Started { device: id, user: Some(user) });
        self.record(What::Connected { device: id });
        let login = self.ask(device, Call::Login);
        self.ok(login, Reply::LoggedIn { user });
    }

    fn ask(&mut self, device: &str, call: Call) -> OperationId {
        let operation = OperationId(self.operations);
        self.operations += 1;
        let device = self.device(device);
        self.record(What::Invoked { operation, device, call });
        operation
    }

    fn ok(&mut self, operation: OperationId, reply: Reply) {
        self.record(What::Returned { operation, outcome: Outcome::Ok { reply } });
    }

    fn refuse(&mut self, operation: OperationId, code: ErrorCode) {
        self.record(What::Returned { operation, outcome: Outcome::Failed { code: Some(code) } });
    }

    /// There is a reason for an unknown outcome.
    fn unknown(&mut self, operation: OperationId) {
        self.record(What::FaultBegan { name: "connection cut".into() });
        self.record(What::Returned { operation, outcome: Outcome::Unknown });
        self.record(What::FaultEnded { name: "connection cut".into() });
    }

    fn mid(&mut self) -> ClientMsgId {
        self.mids += 1;
        ClientMsgId([self.mids; 16])
    }

    /// The system writes an entry.
    fn append(&mut self, conv: &str, from: &str, mid: ClientMsgId, body: EntryBody) -> Seq {
        let conv: ConversationId = conv.parse().unwrap();
        let (user, name) = (self.user(from), from.to_string());
        let log = self.logs.entry(conv).or_default();
        let seq = Seq(log.len() as u64 + 1);
        log.push(Entry { conv, seq, at: 0, from: user, name, mid, body });
        seq
    }

    fn act(&mut self, device: &str, conv: &str, call: Call, body: EntryBody) -> Seq {
        let mid = call.mid().unwrap();
        let operation = self.ask(device, call);
        let seq = self.append(conv, device, mid, body);
        self.ok(operation, Reply::Appended { seq });
        seq
    }

    fn may_read(&mut self, conv: &str, user: &str, from: Seq) {
        let key = (conv.parse().unwrap(), self.user(user));
        self.readers.entry(key).or_default().push((from, OPEN));
    }

    fn befriend(&mut self, a: &'static str, b: &'static str) {
        let (mid, user) = (self.mid(), self.user(b));
        let conv = ConversationId::direct(self.user(a), user).unwrap().to_string();
        let seq = self.act(a, &conv, Call::Befriend { mid, user }, EntryBody::Befriended);
        self.may_read(&conv, a, seq);
        self.may_read(&conv, b, seq);
    }

    fn create(&mut self, by: &'static str, conv: &str) {
        let (mid, name) = (self.mid(), String::from("club"));
        let operation = self.ask(by, Call::CreateGroup { mid, name: name.clone() });
        let seq = self.append(conv, by, mid, EntryBody::Created { title: name });
        self.ok(operation, Reply::GroupCreated { group: group(conv), seq });
        self.may_read(conv, by, seq);
    }

    fn join(&mut self, who: &'static str, conv: &str) {
        let mid = self.mid();
        let seq = self.act(who, conv, Call::Join { mid, group: group(conv) }, EntryBody::Joined);
        self.may_read(conv, who, seq);
    }

    fn quit(&mut self, who: &'static str, conv: &str) {
        let mid = self.mid();
        let seq = self.act(who, conv, Call::Quit { mid, group: group(conv) }, EntryBody::Left);
        self.no_longer(conv, who, seq);
    }

    fn remove(&mut self, by: &'static str, whom: &str, conv: &str) {
        let (mid, user) = (self.mid(), self.user(whom));
        let body = EntryBody::Removed { user, user_name: whom.into() };
        let seq = self.act(by, conv, Call::RemoveMember { mid, group: group(conv), user }, body);
        self.no_longer(conv, whom, seq);
    }

    fn no_longer(&mut self, conv: &str, user: &str, until: Seq) {
        let key = (conv.parse().unwrap(), self.user(user));
        self.readers.get_mut(&key).unwrap().last_mut().unwrap().1 = until;
    }

    fn say(&mut self, who: &'static str, conv: &str, words: &str) -> Seq {
        let call = self.words(conv, words);
        let body = message(&call);
        self.act(who, conv, call, body)
    }

    /// A `send`, not yet asked.
    fn words(&mut self, conv: &str, words: &str) -> Call {
        let conv = conv.parse().unwrap();
        Call::Send { mid: self.mid(), conv, text: canary::text(conv, words) }
    }

    fn entry(&self, conv: &str, seq: u64) -> Entry {
        self.logs[&conv.parse().unwrap()][seq as usize - 1].clone()
    }

    fn show(&mut self, device: &str, entry: Entry) -> Index {
        let device = self.device(device);
        self.shown.insert((device, entry.conv), entry.seq);
        self.record(What::Entry { device, entry: Box::new(entry) })
    }

    /// Every device is shown what it has not seen.
    fn spread(&mut self) {
        let devices: Vec<_> = self.devices.keys().copied().collect();
        devices.into_iter().for_each(|device| self.spread_to(device));
    }

    fn spread_to(&mut self, name: &'static str) {
        let (device, user) = self.devices[name];
        for conv in self.logs.keys().copied().collect::<Vec<_>>() {
            let seen = self.shown.get(&(device, conv)).copied().unwrap_or_default();
            for entry in self.readable(conv, user) {
                if entry.seq > seen {
                    self.show(name, entry);
                }
            }
        }
    }

    fn readable(&self, conv: ConversationId, user: UserId) -> Vec<Entry> {
        let periods = self.readers.get(&(conv, user)).map_or(&[][..], Vec::as_slice);
        let within = |seq| periods.iter().any(|(from, until)| *from <= seq && seq <= *until);
        self.logs[&conv].iter().filter(|entry| within(entry.seq)).cloned().collect()
    }

    fn end_device(&mut self, name: &str) {
        let device = self.device(name);
        self.record(What::Ended { device });
    }

    /// Everybody reads everything, and the lists.
    fn finish(&mut self) -> &mut Self {
        for (conv, user) in self.readers.keys().copied().collect::<Vec<_>>() {
            let entries = self.readable(conv, user);
            self.record(What::Final { user, conv, entries });
        }
        for user in self.users.values().copied().collect::<Vec<_>>() {
            let (mut groups, mut friends) = (vec![], vec![]);
            for ((conv, reader), periods) in &self.readers {
                let open = *reader == user && periods.last().is_some_and(|(_, until)| *until == OPEN);
                match conv.parse() {
                    Conversation::Group(group) if open => groups.push(group),
                    Conversation::Direct(a, b) if open => friends.push(if a == user { b } else { a }),
                    _ => {}
                }
            }
            self.record(What::FinalLists { user, groups, friends, blocked: vec![] });
        }
        self
    }

    /// Forgets what a test chooses.
    fn without(&mut self, mut unwanted: impl FnMut(&What) -> bool) -> &mut Self {
        self.history.events.retain(|event| !unwanted(&event.what));
        self
    }

    /// Which invariants are broken; none means that the verdict is "valid".
    #[track_caller]
    fn expect(&self, expected: &[Invariant]) {
        let verdict = check(&self.history);
        let broken: BTreeSet<Invariant> = match &verdict {
            Verdict::Valid => BTreeSet::new(),
            Verdict::Invalid(anomalies) => {
                for anomaly in anomalies {
                    assert!(!anomaly.events.is_empty(), "{anomaly}");
                    assert!(anomaly.events.iter().all(|at| *at < self.history.events.len()), "{anomaly}");
                }
                anomalies.iter().map(|anomaly| anomaly.invariant).collect()
            }
            Verdict::Unknown(_) => panic!("{verdict}"),
        };
        assert_eq!(broken, expected.iter().copied().collect(), "{verdict}");
    }

    /// The reasons for not knowing.
    #[track_caller]
    fn expect_unknown(&self, expected: &str) {
        match check(&self.history) {
            Verdict::Unknown(reasons) => {
                assert!(reasons.iter().any(|reason| reason.contains(expected)), "{reasons:?}");
            }
            verdict => panic!("{verdict}"),
        }
    }
}

fn group(conv: &str) -> GroupId {
    match conv.parse::<ConversationId>().unwrap().parse() {
        Conversation::Group(group) => group,
        _ => panic!("{conv} is no group"),
    }
}

fn message(call: &Call) -> EntryBody {
    match call {
        Call::Send { text, .. } => EntryBody::Message { text: text.clone() },
        _ => panic!("{call:?} says nothing"),
    }
}

fn shows(what: &What, device: DeviceId, conv: &str, seq: u64) -> bool {
    match what {
        What::Entry { device: d, entry } => {
            *d == device && entry.conv == conv.parse().unwrap() && entry.seq == Seq(seq)
        }
        _ => false,
    }
}
