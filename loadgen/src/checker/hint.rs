//! The relay is a hint: two runs of one script end in the same state.
//!
//! What has to be equal is what does not depend on which of two simultaneous requests came first. So
//! conversations are compared, one by one, as far as the two histories determine them:
//!
//! - *In order*: in neither history did two mutating requests of the conversation overlap, and both asked for
//!   the same in the same order. Then every request has the same outcome, and every user reads the same
//!   entries at the same seqs.
//! - *As sets*: requests overlapped, but each of them was a `send`, or was alone. Then every request has the
//!   same outcome, and every user reads the same entries, wherever they stand.
//! - *Not at all*: a change of rights overlapped with another request, an outcome is unknown, the two runs did
//!   not ask for the same, or somebody did not read the conversation at the end. That is an open question.
//!
//! Entries are the same if author and content are. Seqs count within a conversation; message ids and times are
//! of one run only; groups have their numbers in the order of their creation, and so go by their names.
//! Notices name what was opened, and are compared as the set of these names, of conversations that are
//! compared at all. What a device is shown, and when, may differ: that is what hints are for.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Conversation, ConversationId, EntryBody, ErrorCode, GroupId, Seq, UserId};

use super::{
    Findings, Invariant, Verdict,
    facts::{Facts, Operation},
};
use crate::history::{Call, History, Index, Outcome, Reply};

/// What comparing two histories came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Whether all that could be compared is the same.
    pub verdict: Verdict,
    /// Conversations that were compared.
    pub compared: usize,
    /// Conversations that could not be.
    pub open: usize,
}

/// [`Invariant::RelayIsAHint`], for two histories of one script: as it should be, and with every hint dropped.
/// The events that prove an anomaly are those of the second one.
///
/// Each of the two is to be judged by [`check`](super::check) besides.
pub fn compare(with: &History, without: &History) -> Comparison {
    let mut findings = Findings::default();
    let (with, without) = (Facts::new(with), Facts::new(without));
    let (with, without) = (End::of(&with), End::of(&without));
    for question in with.questions.iter().chain(&without.questions) {
        findings.question(question.clone());
    }
    let names: BTreeSet<&Name> = with.talks.keys().chain(without.talks.keys()).collect();
    let all = names.len();
    let (mut compared, nothing) = (BTreeSet::new(), Talk::default());
    for name in names {
        let one = with.talks.get(name).unwrap_or(&nothing);
        let other = without.talks.get(name).unwrap_or(&nothing);
        match one.how(other) {
            Ok(how) => {
                one.compare(other, name, how, &mut findings);
                compared.insert(name.clone());
            }
            Err(why) => findings.question(format!("{name} cannot be compared: {why}")),
        }
    }
    let users: BTreeSet<UserId> = with.opened.keys().chain(without.opened.keys()).copied().collect();
    for user in users {
        let opened = |end: &End<'_>| {
            let (at, names) = end.opened.get(&user).cloned().unwrap_or_default();
            (at, names.into_iter().filter(|name| compared.contains(name)).collect::<BTreeSet<_>>())
        };
        let ((_, one), (at, other)) = (opened(&with), opened(&without));
        if let Some(name) = one.symmetric_difference(&other).next() {
            let side = if one.contains(name) { "only with" } else { "only without" };
            let detail = format!("user {user} has a notice of {name} {side} hints");
            findings.anomaly(Invariant::RelayIsAHint, vec![at], detail);
        }
    }
    Comparison { verdict: findings.verdict(), compared: compared.len(), open: all - compared.len() }
}

/// A conversation's name, the same in both runs.
type Name = String;

/// The end of a run, in words that both runs share.
struct End<'a> {
    talks: BTreeMap<Name, Talk<'a>>,
    /// What each user was told of, and where that was read.
    opened: BTreeMap<UserId, (Index, BTreeSet<Name>)>,
    questions: Vec<String>,
}

/// What was done in a conversation, and what is left of it.
#[derive(Debug, Clone, Default)]
struct Talk<'a> {
    /// Mutating requests, in the order in which they were asked.
    requests: Vec<Asked<'a>>,
    /// By reader, with the place in the history.
    read: BTreeMap<UserId, (Index, Vec<Read<'a>>)>,
}

/// A request of a conversation.
#[derive(Debug, Clone)]
struct Asked<'a> {
    user: UserId,
    call: What<'a>,
    invoked: Index,
    returned: Option<Index>,
    outcome: Option<Result<(), Option<ErrorCode>>>,
}

/// What is asked, without what is of one run only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What<'a> {
    Befriend,
    Unfriend,
    Block,
    Unblock,
    Create,
    Join,
    Quit,
    Delete,
    Remove(UserId),
    /// A text, without its conversation's token: there the group has a number.
    Send(&'a str),
}

/// An entry, without what is of one run only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Read<'a> {
    seq: Seq,
    from: UserId,
    kind: &'a str,
    text: &'a str,
    removed: Option<UserId>,
}

/// How far two runs determine a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    InOrder,
    AsSets,
}

impl<'a> End<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let mut end = Self { talks: BTreeMap::new(), opened: BTreeMap::new(), questions: Vec::new() };
        let names = names(facts, &mut end.questions);
        let name_of = |conv: ConversationId| match conv.parse() {
            Conversation::Group(group) => names.get(&group).cloned(),
            _ => Some(conv.to_string()),
        };
        for operation in &facts.operations {
            let Some((conv, asked)) = asked(operation) else { continue };
            // A group that never came to be has no conversation.
            let Some(name) = conv.and_then(name_of) else { continue };
            end.talks.entry(name).or_default().requests.push(asked);
        }
        for ((conv, user), last) in &facts.finals {
            let Some(name) = name_of(*conv) else { continue };
            if let Conversation::Notices(_) = conv.parse() {
                let opened = last.entries.iter().filter_map(|entry| match &entry.body {
                    EntryBody::Opened { opened, .. } => name_of(*opened),
                    _ => None,
                });
                end.opened.insert(*user, (last.at, opened.collect()));
                continue;
            }
            let read = last.entries.iter().map(|entry| {
                let (text, removed) = match &entry.body {
                    EntryBody::Message { text } => (without_token(text), None),
                    EntryBody::Removed { user, .. } => ("", Some(*user)),
                    _ => ("", None),
                };
                Read { seq: entry.seq, from: entry.from, kind: entry.body.kind(), text, removed }
            });
            end.talks.entry(name).or_default().read.insert(*user, (last.at, read.collect()));
        }
        end
    }
}

impl<'a> Talk<'a> {
    /// How far this one and the other run's determine the conversation; why not at all.
    fn how(&self, other: &Self) -> Result<How, &'static str> {
        let (one, apart) = self.rounds()?;
        let (two, also_apart) = other.rounds()?;
        let sorted = |rounds: &[Round<'a>]| {
            let sort = |round: &Round<'a>| {
                let mut sorted = round.clone();
                sorted.sort_unstable();
                sorted
            };
            rounds.iter().map(sort).collect::<Vec<_>>()
        };
        if sorted(&one) != sorted(&two) {
            return Err("the runs did not ask for the same");
        }
        let in_order = apart && also_apart && one == two;
        Ok(if in_order { How::InOrder } else { How::AsSets })
    }

    /// The requests, in the order in which they were asked: each change of rights for itself, and the sends
    /// between two of them together. Also, whether no two overlap.
    fn rounds(&self) -> Result<(Vec<Round<'a>>, bool), &'static str> {
        let (mut rounds, mut apart): (Vec<Round<'a>>, bool) = (Vec::new(), true);
        // The latest end of a request so far, and of a change of rights.
        let (mut ended, mut settled): (Index, Index) = (0, 0);
        let mut last_is_send = false;
        for asked in &self.requests {
            let (Some(returned), Some(_)) = (asked.returned, asked.outcome) else {
                return Err("an outcome is unknown");
            };
            let is_send = matches!(asked.call, What::Send(_));
            let overlaps = asked.invoked < ended;
            if asked.invoked < settled || (overlaps && !is_send) {
                return Err("a change of rights overlapped with another request");
            }
            apart &= !overlaps;
            ended = ended.max(returned);
            if !is_send {
                settled = returned;
            }
            match rounds.last_mut() {
                Some(round) if is_send && last_is_send => round.push((asked.user, asked.call)),
                _ => rounds.push(vec![(asked.user, asked.call)]),
            }
            last_is_send = is_send;
        }
        Ok((rounds, apart))
    }

    fn compare(&self, other: &Self, name: &Name, how: How, findings: &mut Findings) {
        let (mut one, mut two): (Vec<_>, Vec<_>) =
            (self.requests.iter().collect(), other.requests.iter().collect());
        if how == How::AsSets {
            one.sort_by_key(|asked| (asked.user, asked.call, asked.outcome));
            two.sort_by_key(|asked| (asked.user, asked.call, asked.outcome));
        }
        for (a, b) in one.into_iter().zip(two) {
            if a.outcome != b.outcome {
                let events = vec![b.invoked, b.returned.unwrap_or(b.invoked)];
                let (with, without) = (outcome(a.outcome), outcome(b.outcome));
                let detail =
                    format!("user {}'s {:?} in {name} {with} with hints, {without} without", a.user, a.call);
                findings.anomaly(Invariant::RelayIsAHint, events, detail);
            }
        }
        let users: BTreeSet<UserId> = self.read.keys().chain(other.read.keys()).copied().collect();
        for user in users {
            let (Some((_, one)), Some((at, two))) = (self.read.get(&user), other.read.get(&user)) else {
                findings.question(format!("user {user} did not read {name} at the end of both runs"));
                continue;
            };
            let (mut one, mut two) = (one.clone(), two.clone());
            if how == How::AsSets {
                for entries in [&mut one, &mut two] {
                    entries.iter_mut().for_each(|entry| entry.seq = Seq::ZERO);
                    entries.sort_unstable();
                }
            }
            if one != two {
                let differ = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
                let (with, without) = (one.get(differ), two.get(differ));
                let detail =
                    format!("user {user} reads {with:?} in {name} with hints, and {without:?} without");
                findings.anomaly(Invariant::RelayIsAHint, vec![*at], detail);
            }
        }
    }
}

/// Requests whose order among themselves two runs may differ in.
type Round<'a> = Vec<(UserId, What<'a>)>;

fn outcome(outcome: Option<Result<(), Option<ErrorCode>>>) -> String {
    match outcome {
        Some(Ok(())) => "was carried out".into(),
        Some(Err(Some(code))) => format!("was refused ({code})"),
        Some(Err(None)) => "was never sent".into(),
        None => "is uncertain".into(),
    }
}

/// A mutating request, and its conversation, if it has one.
fn asked<'a>(operation: &Operation<'a>) -> Option<(Option<ConversationId>, Asked<'a>)> {
    let (user, call) = (operation.user?, operation.call);
    let made = operation.acknowledged().map(|(conv, ..)| conv);
    let what = match call {
        Call::Befriend { .. } => What::Befriend,
        Call::Unfriend { .. } => What::Unfriend,
        Call::Block { .. } => What::Block,
        Call::Unblock { .. } => What::Unblock,
        Call::CreateGroup { .. } => What::Create,
        Call::Join { .. } => What::Join,
        Call::Quit { .. } => What::Quit,
        Call::DeleteGroup { .. } => What::Delete,
        Call::RemoveMember { user, .. } => What::Remove(*user),
        Call::Send { text, .. } => What::Send(without_token(text)),
        _ => return None,
    };
    let (returned, outcome) = match operation.returned {
        Some((at, Outcome::Ok { .. })) => (Some(at), Some(Ok(()))),
        Some((at, Outcome::Failed { code })) => (Some(at), Some(Err(*code))),
        Some((at, Outcome::Unknown)) => (Some(at), None),
        None => (None, None),
    };
    Some((
        call.target(user).or(made),
        Asked { user, call: what, invoked: operation.invoked, returned, outcome },
    ))
}

/// The names of groups that have one for themselves.
fn names(facts: &Facts<'_>, questions: &mut Vec<String>) -> BTreeMap<GroupId, Name> {
    let mut names: BTreeMap<GroupId, Name> = BTreeMap::new();
    for operation in &facts.operations {
        if let (Call::CreateGroup { name, .. }, Some((_, Outcome::Ok { reply }))) =
            (operation.call, operation.returned)
            && let Reply::GroupCreated { group, .. } = reply
        {
            names.insert(*group, name.clone());
        }
    }
    for sighting in facts.sightings() {
        if let (EntryBody::Created { title }, Conversation::Group(group)) =
            (&sighting.entry.body, sighting.entry.conv.parse())
        {
            names.insert(group, title.clone());
        }
    }
    let mut count: BTreeMap<&Name, usize> = BTreeMap::new();
    names.values().for_each(|name| *count.entry(name).or_default() += 1);
    let shared: BTreeSet<Name> =
        count.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.clone()).collect();
    questions.extend(shared.iter().map(|name| format!("{name} is the name of several groups")));
    names.retain(|_, name| !shared.contains(name));
    names
}

/// A text without the token of its conversation.
fn without_token(text: &str) -> &str {
    text.split_once("> ").map_or(text, |(_, rest)| rest)
}
