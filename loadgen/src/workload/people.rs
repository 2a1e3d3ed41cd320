//! The users, and what each of them knows.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{Conversation, ConversationId, GroupId, Request, UserId};

use crate::rng::Rng;

/// Requests that a user may repeat: the latest ones.
const RECENT_MAX: usize = 64;

/// All of them, in the order of their making.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) users: Vec<UserId>,
    groups: Mutex<Vec<GroupId>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) name: String,
    knows: Mutex<Knows>,
}

#[derive(Debug, Default)]
struct Knows {
    /// Conversations that a device of theirs was shown something of, or that a reply named.
    convs: BTreeSet<ConversationId>,
    /// Where rights have just changed: the place to try what is or is no longer allowed.
    hot: Option<ConversationId>,
    /// Groups that they created.
    own: Vec<GroupId>,
    /// What they asked for and may repeat.
    recent: VecDeque<Request>,
}

impl People {
    pub(super) fn new(users: Vec<UserId>) -> Self {
        Self { users, groups: Mutex::default() }
    }

    pub(super) fn add_group(&self, group: GroupId) {
        let mut groups = self.groups();
        // A repeated request names a group again.
        if !groups.contains(&group) {
            groups.push(group);
        }
    }

    /// A group, deleted or not; rather one of the latest, so that those that live have company.
    pub(super) fn any_group(&self, rng: &mut Rng) -> Option<GroupId> {
        let groups = self.groups();
        let latest = groups.len().saturating_sub(8);
        if rng.chance(1, 8) { rng.pick(&groups).copied() } else { rng.pick(&groups[latest..]).copied() }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<GroupId>> {
        // A group is in it or not, at any point of a writer.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Person {
    pub(super) fn new(name: String) -> Self {
        Self { name, knows: Mutex::default() }
    }

    /// The user has to do with a conversation.
    pub(super) fn met(&self, conv: ConversationId) {
        self.knows().convs.insert(conv);
    }

    /// Rights have changed in a conversation.
    pub(super) fn saw_change(&self, conv: ConversationId) {
        self.knows().hot = Some(conv);
    }

    /// Where rights have changed since this was asked last.
    pub(super) fn take_hot(&self) -> Option<ConversationId> {
        self.knows().hot.take()
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

    pub(super) fn any_asked(&self, rng: &mut Rng) -> Option<Request> {
        let recent: Vec<_> = self.knows().recent.iter().cloned().collect();
        rng.pick(&recent).cloned()
    }

    fn knows(&self) -> MutexGuard<'_, Knows> {
        // Its fields are valid at any point of a writer.
        self.knows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
