//! What happened around the anomalies: in the conversations and to the users concerned, on the hosts, on the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use loadgen::{
    Anomaly,
    history::{DeviceId, Index, What},
};
use protocol::{Conversation, ConversationId, Seq, UserId};

use super::{
    clock,
    names::{Names, plain, ranges},
    title,
};
use crate::{
    report::messages::{Lost, Messages},
    run::Run,
    trace::{self, What as Traced},
};

/// How near to a proof in time something must be to be told of.
const NEAR: Duration = Duration::from_secs(1);
/// Conversations that are told of.
const CONVERSATIONS_MAX: usize = 8;
/// Losses that are told of.
const LOSSES_MAX: usize = 60;
/// Of a run that did not come to its end, so much of what hosts said last is told.
const SAID_MAX: usize = 60;
/// So much is shown of bytes that were lost.
const BYTES_MAX: usize = 100;

/// What is told of.
pub(super) struct Story<'a> {
    run: &'a Run,
    names: &'a Names<'a>,
    messages: Messages,
    /// The events that prove something.
    proofs: BTreeSet<Index>,
    conversations: Vec<ConversationId>,
    /// Of anomalies that are about no conversation.
    users: BTreeSet<UserId>,
    /// How the messages in question are named on the network.
    mids: BTreeSet<String>,
}

impl<'a> Story<'a> {
    pub(super) fn new(run: &'a Run, names: &'a Names<'a>, anomalies: &[Anomaly]) -> Self {
        let (mut conversations, mut users) = (Vec::new(), BTreeSet::new());
        for anomaly in anomalies {
            let about: BTreeSet<ConversationId> =
                anomaly.events.iter().flat_map(|at| names.conversations_of(*at)).collect();
            // A notice of a conversation is told with that conversation.
            let talks = about.iter().filter(|conv| !matches!(conv.parse(), Conversation::Notices(_)));
            let talks: Vec<ConversationId> = talks.copied().collect();
            let about = if talks.is_empty() { about.into_iter().collect() } else { talks };
            if about.is_empty() {
                users.extend(anomaly.events.iter().filter_map(|at| names.user_of(*at)));
                users.extend(anomaly.events.iter().filter_map(|at| match names.event(*at)?.what {
                    What::Presence { user, .. } => Some(user),
                    _ => None,
                }));
            }
            for conv in about {
                if !conversations.contains(&conv) {
                    conversations.push(conv);
                }
            }
        }
        let proofs: BTreeSet<Index> =
            anomalies.iter().flat_map(|anomaly| anomaly.events.iter().copied()).collect();
        let mids = proofs.iter().filter_map(|at| Some(names.mid_of(*at)?.to_string())).collect();
        Self { run, names, messages: Messages::of(&run.trace.events), proofs, conversations, users, mids }
    }

    pub(super) fn tell(&self, out: &mut String) {
        for conv in self.conversations.iter().take(CONVERSATIONS_MAX) {
            self.conversation(out, *conv);
        }
        if let Some(rest) = self.conversations.get(CONVERSATIONS_MAX..).filter(|rest| !rest.is_empty()) {
            let rest: Vec<String> = rest.iter().map(ConversationId::to_string).collect();
            let _ = writeln!(out, "\nLikewise concerned: {}.", rest.join(", "));
        }
        for user in &self.users {
            title(out, &format!("What {} saw", self.names.user(*user)));
            let of_user = |at: &Index| {
                let told = |at: Index| match self.names.event(at)?.what {
                    What::Presence { user, .. } => Some(user),
                    _ => None,
                };
                self.names.user_of(*at) == Some(*user) || told(*at) == Some(*user)
            };
            self.timeline(out, &(0..self.run.history.events.len()).filter(of_user).collect());
        }
        self.hosts(out);
        self.losses(out);
    }

    /// How much was lost on the network in all.
    pub(super) fn summary(&self, out: &mut String) {
        if self.run.trace.events.is_empty() {
            return;
        }
        let (gone, lost): (Vec<&Lost>, Vec<&Lost>) =
            self.messages.lost.iter().partition(|lost| lost.given_up.is_some());
        let bytes = |lost: &[&Lost]| lost.iter().map(|lost| lost.bytes).sum::<u64>();
        let _ = writeln!(
            out,
            "  {} connections; {} messages of {} bytes never arrived, and {} of {} bytes came after their reader had left",
            self.messages.connections.len(),
            lost.len(),
            bytes(&lost),
            gone.len(),
            bytes(&gone),
        );
    }

    fn conversation(&self, out: &mut String, conv: ConversationId) {
        title(out, &format!("What happened in {}", self.names.conversation(conv)));
        let count = self.run.history.events.len();
        let mut events: BTreeSet<Index> =
            (0..count).filter(|at| self.names.conversations_of(*at).contains(&conv)).collect();
        // The comings and goings of the devices in question belong to it.
        let devices: BTreeSet<DeviceId> =
            self.proofs.iter().filter_map(|at| self.names.device_of(*at)).collect();
        let moves = |what: &What| {
            matches!(
                what,
                What::Started { .. }
                    | What::Ended { .. }
                    | What::Connected { .. }
                    | What::Disconnected { .. }
                    | What::Resumed { .. }
                    | What::CaughtUp { .. }
            )
        };
        events.extend((0..count).filter(|at| {
            let known = self.names.device_of(*at).is_some_and(|device| devices.contains(&device));
            known && self.names.event(*at).is_some_and(|event| moves(&event.what))
        }));
        self.timeline(out, &events);

        let mut shown: BTreeMap<DeviceId, Vec<Seq>> = BTreeMap::new();
        for at in &events {
            if let Some(What::Entry { device, entry }) = self.names.event(*at).map(|event| &event.what)
                && entry.conv == conv
            {
                shown.entry(*device).or_default().push(entry.seq);
            }
        }
        for (device, seqs) in shown {
            let _ = writeln!(
                out,
                "  shown in all to {}: {}",
                self.names.device(device),
                ranges(seqs.into_iter())
            );
        }
    }

    /// Events of the history in order, and the faults between the first and the last of them. Proofs are marked.
    fn timeline(&self, out: &mut String, events: &BTreeSet<Index>) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            let _ = writeln!(out, "  nothing");
            return;
        };
        for at in *first..=*last {
            let Some(event) = self.names.event(at) else { continue };
            let fault =
                matches!(event.what, What::FaultBegan { .. } | What::FaultEnded { .. } | What::Healed);
            if fault || events.contains(&at) {
                let mark = if self.proofs.contains(&at) { '>' } else { ' ' };
                let _ = writeln!(out, "{mark} {}  [{at}] {}", clock(event.at), self.names.words(at));
            }
        }
    }

    /// Whether something at this time is near to a proof; without any, everything is.
    fn near(&self, at: Duration) -> bool {
        let mut proofs = self.proofs.iter().filter_map(|proof| self.names.event(*proof)).peekable();
        proofs.peek().is_none() || proofs.any(|proof| proof.at.abs_diff(at) <= NEAR)
    }

    /// What the hosts said: near to the proofs, or last.
    fn hosts(&self, out: &mut String) {
        let said: Vec<(&trace::Event, &str)> = self
            .run
            .trace
            .events
            .iter()
            .filter_map(|event| match &event.what {
                // What the world says is told elsewhere.
                Traced::Said(text) if &*event.host != "world" && self.near(event.at) => {
                    Some((event, text.as_str()))
                }
                _ => None,
            })
            .collect();
        if said.is_empty() {
            return;
        }
        title(out, "What the hosts said around it");
        let first = if self.proofs.is_empty() { said.len().saturating_sub(SAID_MAX) } else { 0 };
        for (event, text) in said.into_iter().skip(first) {
            let _ = writeln!(out, "  {}  {:<9} {}", clock(event.at), event.host, plain(text, 300));
        }
    }

    /// What never arrived, near to the proofs or of the messages in question.
    fn losses(&self, out: &mut String) {
        let events = &self.run.trace.events;
        let lost: Vec<(&Lost, &trace::Event, String, bool)> = self
            .messages
            .lost
            .iter()
            .filter_map(|lost| {
                let event = events.get(lost.sent)?;
                let Traced::Sent(_, _, bytes) = &event.what else { return None };
                let text = String::from_utf8_lossy(bytes).into_owned();
                let concerned = self.mids.iter().any(|mid| text.contains(mid.as_str()));
                // What nobody waited for any more matters only if it is what the anomaly is about.
                let told = concerned || (lost.given_up.is_none() && self.near(event.at));
                told.then_some((lost, event, text, concerned))
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        title(out, "Lost on the network around it");
        let mut left = 0;
        for (nth, (lost, event, text, concerned)) in lost.iter().enumerate() {
            if nth >= LOSSES_MAX && !concerned {
                left += 1;
                continue;
            }
            let Traced::Sent((from, to), offset, bytes) = &event.what else { continue };
            let mark = if *concerned { '>' } else { ' ' };
            let part = if lost.bytes == bytes.len() as u64 { "all" } else { "the last" };
            let why = match lost.given_up.and_then(|at| events.get(at)) {
                Some(left) => format!("; the reader left at {:.6}", left.at.as_secs_f64()),
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "{mark} {}  {from} -> {to} @{offset}: {part} {} bytes{why}: {}",
                clock(event.at),
                lost.bytes,
                plain(text, BYTES_MAX)
            );
        }
        if left > 0 {
            let _ = writeln!(out, "  and {left} more");
        }
    }
}
