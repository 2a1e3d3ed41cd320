//! A history, put in order once for all checks.

use std::{collections::BTreeMap, time::Duration};

use protocol::{ClientMsgId, Conversation, ConversationId, Entry, EntryBody, Seq, UserId};

use crate::history::{Bounds, Call, DeviceId, Event, History, Index, OperationId, Outcome, Reply, What};

/// What a history says, by subject.
pub(super) struct Facts<'a> {
    pub(super) events: &'a [Event],
    pub(super) bounds: Bounds,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    /// By invocation.
    pub(super) operations: Vec<Operation<'a>>,
    /// Operations (places in `operations`) by who asked with which message id: a repetition is another
    /// operation.
    pub(super) requests: BTreeMap<(UserId, ClientMsgId), Vec<usize>>,
    pub(super) logs: BTreeMap<ConversationId, Log<'a>>,
    /// What each device was shown, in its order.
    pub(super) shown: BTreeMap<(DeviceId, ConversationId), Vec<(Seq, Index)>>,
    /// What each user read at the end.
    pub(super) finals: BTreeMap<(ConversationId, UserId), Final<'a>>,
    /// Entries that differ from the log's at their place.
    pub(super) deviants: Vec<(Index, &'a Entry)>,
    /// When the last fault stopped; `None` if one did not.
    pub(super) healed: Option<Duration>,
    /// Whether there was any.
    pub(super) faults: bool,
    /// What the history leaves open, or does not make sense of.
    pub(super) questions: Vec<String>,
}

/// One running client.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) user: Option<UserId>,
    /// When its session began.
    pub(super) logged_in: Option<Index>,
    /// When its session went on, each time.
    pub(super) resumed: Vec<Index>,
    pub(super) ended: Option<Index>,
    /// Whether it was gone at once.
    pub(super) crashed: bool,
    /// Changes of whether it has a session that lives, in their order.
    pub(super) online: Vec<(Index, bool)>,
    /// Conversations of which it was told that they cannot be delivered.
    pub(super) lost: Vec<ConversationId>,
}

/// One request and its outcome.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    pub(super) device: DeviceId,
    pub(super) user: Option<UserId>,
    pub(super) invoked: Index,
    pub(super) call: &'a Call,
    pub(super) returned: Option<(Index, &'a Outcome)>,
}

/// A conversation's log, as far as anybody saw it.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    pub(super) slots: BTreeMap<Seq, Slot<'a>>,
    /// Who may read what, derived from the log's own entries.
    pub(super) periods: BTreeMap<UserId, Vec<Period>>,
    /// Positions acknowledged, in the order of the replies.
    pub(super) acks: Vec<Ack>,
    /// Where each request's entry is, by sender and message id.
    pub(super) ids: Vec<((UserId, ClientMsgId), Seq)>,
    /// Whether there is an entry at every seq up to the last one.
    pub(super) whole: bool,
}

/// A position of a log.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    /// What the final readers were shown, or else whoever came first.
    pub(super) entry: &'a Entry,
    /// Where that was.
    pub(super) seen: Index,
    /// The first that anybody heard of it.
    pub(super) first: Index,
}

/// From when to when a user may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: Seq,
    /// The last one; `None` if it goes on.
    pub(super) until: Option<Seq>,
}

/// A position that a reply acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) at: Index,
    pub(super) seq: Seq,
    pub(super) id: (UserId, ClientMsgId),
    /// The highest of this one and those before it, and where that was acknowledged.
    pub(super) highest: (Seq, Index),
}

/// What a user read at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Final<'a> {
    pub(super) at: Index,
    pub(super) entries: &'a [Entry],
}

/// Somebody saw an entry.
pub(super) struct Sighting<'a> {
    pub(super) at: Index,
    pub(super) user: UserId,
    pub(super) entry: &'a Entry,
}

impl Period {
    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.from <= seq && self.until.is_none_or(|until| seq <= until)
    }
}

impl Operation<'_> {
    /// Whether it certainly did not happen.
    pub(super) fn failed(&self) -> bool {
        matches!(self.returned, Some((_, Outcome::Failed { .. })))
    }

    /// The position it was acknowledged at, and where the reply stands.
    pub(super) fn acknowledged(&self) -> Option<(ConversationId, Seq, Index)> {
        let (at, Outcome::Ok { reply }) = self.returned? else { return None };
        match reply {
            Reply::Appended { seq } => Some((self.call.target(self.user?)?, *seq, at)),
            Reply::GroupCreated { group, seq } => Some((ConversationId::group(*group), *seq, at)),
            _ => None,
        }
    }
}

impl Log<'_> {
    /// Whether a user may read a position.
    pub(super) fn may_read(&self, user: UserId, seq: Seq) -> bool {
        self.periods(user).iter().any(|period| period.contains(seq))
    }

    pub(super) fn periods(&self, user: UserId) -> &[Period] {
        self.periods.get(&user).map_or(&[], Vec::as_slice)
    }

    /// The position of a request's entry.
    pub(super) fn place_of(&self, user: UserId, mid: ClientMsgId) -> Option<Seq> {
        let at = self.ids.partition_point(|(id, _)| *id < (user, mid));
        self.ids.get(at).filter(|(id, _)| *id == (user, mid)).map(|(_, seq)| *seq)
    }

    /// The highest position acknowledged before an event, and where.
    pub(super) fn acknowledged_before(&self, index: Index) -> Option<(Seq, Index)> {
        let count = self.acks.partition_point(|ack| ack.at < index);
        self.acks[..count].last().map(|ack| ack.highest)
    }
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut facts = Self {
            events: &history.events,
            bounds: history.bounds,
            devices: BTreeMap::new(),
            operations: Vec::new(),
            requests: BTreeMap::new(),
            logs: BTreeMap::new(),
            shown: BTreeMap::new(),
            finals: BTreeMap::new(),
            deviants: Vec::new(),
            healed: None,
            faults: false,
            questions: Vec::new(),
        };
        facts.read_events();
        facts.read_operations();
        facts.read_entries();
        for (conv, log) in &mut facts.logs {
            log.whole = log.slots.keys().zip(1..).all(|(seq, expected)| seq.0 == expected);
            log.ids = log.slots.iter().map(|(seq, slot)| ((slot.entry.from, slot.entry.mid), *seq)).collect();
            log.ids.sort_unstable();
            log.periods = periods(*conv, log.slots.values().map(|slot| slot.entry));
        }
        facts
    }

    /// The time of an event.
    pub(super) fn time(&self, index: Index) -> Duration {
        self.events.get(index).map_or(Duration::ZERO, |event| event.at)
    }

    /// The time of the last event.
    pub(super) fn end(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, |event| event.at)
    }

    /// The user of a device.
    pub(super) fn user_of(&self, device: DeviceId) -> Option<UserId> {
        self.devices.get(&device)?.user
    }

    /// Every time that somebody was shown an entry or read one.
    pub(super) fn sightings(&self) -> impl Iterator<Item = Sighting<'a>> {
        let devices = self.events.iter().enumerate().filter_map(|(at, event)| match &event.what {
            What::Entry { device, entry } => Some(Sighting { at, user: self.user_of(*device)?, entry }),
            _ => None,
        });
        let pages = self.operations.iter().flat_map(|operation| {
            let (at, entries): (_, &[Entry]) = match operation.returned {
                Some((at, Outcome::Ok { reply: Reply::History { entries, .. } })) => (at, entries),
                _ => (0, &[]),
            };
            let user = operation.user;
            entries.iter().filter_map(move |entry| Some(Sighting { at, user: user?, entry }))
        });
        let finals = self.finals.iter().flat_map(|((_, user), last)| {
            last.entries.iter().map(|entry| Sighting { at: last.at, user: *user, entry })
        });
        devices.chain(pages).chain(finals)
    }

    fn read_events(&mut self) {
        let mut places: BTreeMap<OperationId, usize> = BTreeMap::new();
        let (mut faults, mut last_end, mut healed) = (0_usize, Duration::ZERO, None);
        for (at, event) in self.events.iter().enumerate() {
            match &event.what {
                What::Started { device, user } => {
                    self.devices.insert(*device, Device { user: *user, ..Device::default() });
                }
                What::Invoked { operation, device, call } => {
                    let user = self.user_of(*device);
                    places.insert(*operation, self.operations.len());
                    let operation = Operation { device: *device, user, invoked: at, call, returned: None };
                    self.operations.push(operation);
                }
                What::Returned { operation, outcome } => match places.get(operation) {
                    Some(place) => self.returned(*place, at, outcome),
                    None => self.questions.push(format!("event {at}: an outcome of nothing that was asked")),
                },
                What::Entry { device, entry } => {
                    self.shown.entry((*device, entry.conv)).or_default().push((entry.seq, at));
                }
                What::FaultBegan { .. } => {
                    faults += 1;
                    self.faults = true;
                    healed = None;
                }
                What::FaultEnded { .. } => {
                    faults = faults.saturating_sub(1);
                    last_end = event.at;
                }
                What::Healed => {
                    healed.get_or_insert(event.at);
                }
                What::Final { user, conv, entries } => {
                    // Read more than once: the last one counts.
                    self.finals.insert((*conv, *user), Final { at, entries });
                }
                What::Ended { device } | What::Crashed { device } => self.on_device(*device, at, |d| {
                    d.ended = Some(at);
                    d.crashed = matches!(event.what, What::Crashed { .. });
                    d.online.push((at, false));
                }),
                What::Disconnected { device } => {
                    self.on_device(*device, at, |d| d.online.push((at, false)));
                }
                What::Resumed { device } => self.on_device(*device, at, |d| {
                    d.resumed.push(at);
                    d.online.push((at, true));
                }),
                What::Lost { device, conv, .. } => self.on_device(*device, at, |d| d.lost.push(*conv)),
                What::Connected { .. }
                | What::CaughtUp { .. }
                | What::Presence { .. }
                | What::Canary { .. }
                | What::Memory { .. }
                | What::FinalLists { .. } => {}
            }
        }
        self.healed = match healed {
            Some(at) => Some(at),
            None => (faults == 0).then_some(last_end),
        };
        if self.healed.is_none() {
            self.questions.push("a fault was still at work at the end".into());
        }
    }

    fn returned(&mut self, place: usize, at: Index, outcome: &'a Outcome) {
        let operation = &mut self.operations[place];
        operation.returned = Some((at, outcome));
        let (device, call) = (operation.device, operation.call);
        let ok = matches!(outcome, Outcome::Ok { .. });
        match call {
            Call::Login if ok => self.on_device(device, at, |d| {
                d.logged_in.get_or_insert(at);
                d.online.push((at, true));
            }),
            Call::Logout if ok => self.on_device(device, at, |d| d.online.push((at, false))),
            _ => {}
        }
    }

    fn on_device(&mut self, device: DeviceId, at: Index, then: impl FnOnce(&mut Device)) {
        match self.devices.get_mut(&device) {
            Some(device) => then(device),
            None => self.questions.push(format!("event {at}: device {} was never started", device.0)),
        }
    }

    fn read_operations(&mut self) {
        for (place, operation) in self.operations.iter().enumerate() {
            if let (Some(user), Some(mid)) = (operation.user, operation.call.mid()) {
                self.requests.entry((user, mid)).or_default().push(place);
            }
        }
        let acknowledged = |operation: &Operation<'_>| {
            let (conv, seq, at) = operation.acknowledged()?;
            Some((at, conv, seq, (operation.user?, operation.call.mid()?)))
        };
        let mut acks: Vec<_> = self.operations.iter().filter_map(acknowledged).collect();
        acks.sort_unstable_by_key(|(at, ..)| *at);
        for (at, conv, seq, id) in acks {
            let log = self.logs.entry(conv).or_default();
            let before = log.acks.last().map_or((Seq::ZERO, at), |ack| ack.highest);
            let highest = if seq > before.0 { (seq, at) } else { before };
            log.acks.push(Ack { at, seq, id, highest });
        }
    }

    fn read_entries(&mut self) {
        let mut logs = std::mem::take(&mut self.logs);
        // The final readers first: what they read is the truth.
        for ((conv, _), last) in &self.finals {
            let log = logs.entry(*conv).or_default();
            for entry in last.entries {
                let slot = Slot { entry, seen: last.at, first: last.at };
                log.slots.entry(entry.seq).or_insert(slot);
            }
        }
        for Sighting { at, entry, .. } in self.sightings() {
            let log = logs.entry(entry.conv).or_default();
            let slot = log.slots.entry(entry.seq).or_insert(Slot { entry, seen: at, first: at });
            slot.first = slot.first.min(at);
        }
        for log in logs.values_mut() {
            for ack in &log.acks {
                if let Some(slot) = log.slots.get_mut(&ack.seq)
                    && (slot.entry.from, slot.entry.mid) == ack.id
                {
                    slot.first = slot.first.min(ack.at);
                }
            }
        }
        let differs = |sighting: &Sighting<'a>| {
            let slot = logs.get(&sighting.entry.conv).and_then(|log| log.slots.get(&sighting.entry.seq));
            slot.is_some_and(|slot| !std::ptr::eq(slot.entry, sighting.entry) && slot.entry != sighting.entry)
        };
        let deviants = self.sightings().filter(differs).map(|seen| (seen.at, seen.entry)).collect();
        self.deviants = deviants;
        self.logs = logs;
    }
}

/// Who may read which part of a log.
fn periods<'a>(
    conv: ConversationId,
    entries: impl Iterator<Item = &'a Entry>,
) -> BTreeMap<UserId, Vec<Period>> {
    let mut all: BTreeMap<UserId, Vec<Period>> = BTreeMap::new();
    let begin = |all: &mut BTreeMap<UserId, Vec<Period>>, user, from| {
        let periods = all.entry(user).or_default();
        if periods.last().is_none_or(|last| last.until.is_some()) {
            periods.push(Period { from, until: None });
        }
    };
    let end = |all: &mut BTreeMap<UserId, Vec<Period>>, user: UserId, until| {
        if let Some(last) = all.get_mut(&user).and_then(|periods| periods.last_mut()) {
            last.until.get_or_insert(until);
        }
    };
    if let Conversation::Notices(user) = conv.parse() {
        begin(&mut all, user, Seq(1));
    }
    for entry in entries {
        match (conv.parse(), &entry.body) {
            (Conversation::Direct(a, b), EntryBody::Befriended) => {
                begin(&mut all, a, entry.seq);
                begin(&mut all, b, entry.seq);
            }
            // Who blocks may read from there on; who is blocked is not made a reader by it.
            (Conversation::Direct(a, b), EntryBody::Blocked) if entry.from == a || entry.from == b => {
                begin(&mut all, entry.from, entry.seq);
            }
            (Conversation::Group(_), EntryBody::Created { .. } | EntryBody::Joined) => {
                begin(&mut all, entry.from, entry.seq);
            }
            (Conversation::Group(_), EntryBody::Left) => end(&mut all, entry.from, entry.seq),
            (Conversation::Group(_), EntryBody::Removed { user, .. }) => end(&mut all, *user, entry.seq),
            (Conversation::Group(_), EntryBody::Deleted) => {
                let users: Vec<UserId> = all.keys().copied().collect();
                users.into_iter().for_each(|user| end(&mut all, user, entry.seq));
            }
            _ => {}
        }
    }
    all
}
