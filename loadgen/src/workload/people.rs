//! The users, and what each of them knows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use protocol::{Conversation, ConversationId, GroupId, Request, UserId};

use super::device::Plug;
use crate::rng::Rng;

/// Requests that a user may repeat: the latest ones.
const RECENT_MAX: usize = 64;
/// The label of the group that a crowd talks in.
pub(super) const CROWD: u32 = 0;
/// Begins the names of groups; the label follows.
const GROUP_NAME: &str = "club ";

/// All of them, in the order of their making.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) users: Vec<UserId>,
    pub(super) persons: Vec<Arc<Person>>,
    places: BTreeMap<UserId, usize>,
    groups: Mutex<Groups>,
    /// The next label to be drawn.
    labels: AtomicU32,
}

/// The groups that came to be, deleted or not.
#[derive(Debug, Default)]
struct Groups {
    ids: BTreeMap<u32, GroupId>,
    labels: BTreeMap<GroupId, u32>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) name: String,
    /// The place among all.
    pub(super) at: usize,
    knows: Mutex<Knows>,
    /// The devices that run, by session.
    devices: Mutex<BTreeMap<usize, Plug>>,
}

#[derive(Debug, Default)]
struct Knows {
    /// Conversations that a device of theirs was shown something of, or that a reply named.
    convs: BTreeSet<ConversationId>,
    /// Where rights have changed last: the place to try what is or is no longer allowed.
    hot: Option<ConversationId>,
    /// Whether nobody has tried since.
    changed: bool,
    /// Groups that they created.
    own: Vec<GroupId>,
    /// What they asked for and may repeat.
    recent: VecDeque<Request>,
}

impl People {
    pub(super) fn new(persons: Vec<Arc<Person>>, users: Vec<UserId>) -> Self {
        let places = users.iter().enumerate().map(|(at, user)| (*user, at)).collect();
        Self { users, persons, places, labels: AtomicU32::new(CROWD + 1), ..Self::default() }
    }

    pub(super) fn place_of(&self, user: UserId) -> Option<usize> {
        self.places.get(&user).copied()
    }

    /// A group that was asked for under a name of [`group_name`] has come to be.
    pub(super) fn made_group(&self, name: &str, group: GroupId) {
        let Some(label) = name.strip_prefix(GROUP_NAME).and_then(|label| label.parse().ok()) else { return };
        let mut groups = self.groups();
        if !groups.labels.contains_key(&group) && !groups.ids.contains_key(&label) {
            groups.ids.insert(label, group);
            groups.labels.insert(group, label);
        }
    }

    pub(super) fn group(&self, label: u32) -> Option<GroupId> {
        self.groups().ids.get(&label).copied()
    }

    pub(super) fn label_of(&self, group: GroupId) -> Option<u32> {
        self.groups().labels.get(&group).copied()
    }

    /// A label for a group that is about to be asked for.
    pub(super) fn fresh_label(&self) -> u32 {
        self.labels.fetch_add(1, Ordering::Relaxed)
    }

    /// A group, deleted or not; rather one of the latest, so that those that live have company.
    pub(super) fn any_group(&self, rng: &mut Rng) -> Option<u32> {
        let groups = self.groups();
        let of = if rng.chance(1, 8) { groups.ids.len() } else { groups.ids.len().min(8) };
        groups.ids.keys().rev().nth(rng.below(of as u64) as usize).copied()
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        // A group that is in one map only is known to one side, which no caller relies on.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name under which the group of a label is asked for.
pub(super) fn group_name(label: u32) -> String {
    format!("{GROUP_NAME}{label}")
}

impl Person {
    pub(super) fn new(at: usize, name: String) -> Self {
        Self { name, at, knows: Mutex::default(), devices: Mutex::default() }
    }

    /// The device of a session has started.
    pub(super) fn plugged(&self, session: usize, plug: Plug) {
        // A device is in it or not, at any point of a writer.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).insert(session, plug);
    }

    /// All devices of the user are gone at once.
    pub(super) fn pull_all(&self) {
        let devices = std::mem::take(&mut *self.devices.lock().unwrap_or_else(PoisonError::into_inner));
        devices.into_values().for_each(|plug| plug.pull());
    }

    /// The user has to do with a conversation.
    pub(super) fn met(&self, conv: ConversationId) {
        self.knows().convs.insert(conv);
    }

    /// Rights have changed in a conversation.
    pub(super) fn saw_change(&self, conv: ConversationId) {
        let mut knows = self.knows();
        knows.hot = Some(conv);
        knows.changed = true;
    }

    /// Where rights have changed last.
    pub(super) fn hot(&self) -> Option<ConversationId> {
        self.knows().hot
    }

    /// Where rights have changed since this was asked last.
    pub(super) fn take_change(&self) -> Option<ConversationId> {
        let mut knows = self.knows();
        if std::mem::take(&mut knows.changed) { knows.hot } else { None }
    }

    /// The user has created a group.
    pub(super) fn created(&self, group: GroupId) {
        let mut knows = self.knows();
        knows.convs.insert(ConversationId::group(group));
        if !knows.own.contains(&group) {
            knows.own.push(group);
        }
    }

    /// A group of the user's own.
    pub(super) fn own_group(&self, rng: &mut Rng) -> Option<GroupId> {
        rng.pick(&self.knows().own).copied()
    }

    pub(super) fn convs(&self) -> Vec<ConversationId> {
        self.knows().convs.iter().copied().collect()
    }

    /// A conversation to talk in.
    pub(super) fn any_conv(&self, rng: &mut Rng) -> Option<ConversationId> {
        let convs: Vec<_> = self
            .convs()
            .into_iter()
            .filter(|conv| !matches!(conv.parse(), Conversation::Notices(_)))
            .collect();
        rng.pick(&convs).copied()
    }

    /// A group that the user has to do with.
    pub(super) fn any_group(&self, rng: &mut Rng) -> Option<GroupId> {
        let groups: Vec<_> = self
            .convs()
            .into_iter()
            .filter_map(|conv| match conv.parse() {
                Conversation::Group(group) => Some(group),
                _ => None,
            })
            .collect();
        rng.pick(&groups).copied()
    }

    pub(super) fn asked(&self, request: Request) {
        let mut knows = self.knows();
        if knows.recent.len() >= RECENT_MAX {
            knows.recent.pop_front();
        }
        knows.recent.push_back(request);
    }

    /// How many requests there are to repeat.
    pub(super) fn asked_count(&self) -> usize {
        self.knows().recent.len()
    }

    /// The request that so many later ones followed.
    pub(super) fn asked_before(&self, back: usize) -> Option<Request> {
        let knows = self.knows();
        knows.recent.iter().rev().nth(back).cloned()
    }

    fn knows(&self) -> MutexGuard<'_, Knows> {
        // Its fields are valid at any point of a writer.
        self.knows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
