//! The user, and the cached lists of friends and groups.

use std::collections::BTreeMap;

use protocol::{
    ConversationId, Entry, EntryBody, GroupId, UserId,
    ids::Conversation,
    message::{Friend, GroupInfo, PresenceState, Role},
};

/// Names remembered of groups, and of users, that are not in the lists; beyond, some are forgotten and shown by number.
const NAMES_MAX: usize = 1000;

/// What the program knows of its user's surroundings.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) friends: Vec<Friend>,
    pub(crate) groups: Vec<GroupInfo>,
    /// Something has happened that the lists do not show.
    pub(crate) stale: bool,
    /// Titles of groups that are not, or no longer, in the list.
    titles: BTreeMap<GroupId, String>,
    /// Names of users who are not, or not yet, in the list.
    names: BTreeMap<UserId, String>,
}

impl Roster {
    /// Of a user whose lists were not read yet.
    pub(crate) fn new(user: UserId, name: String) -> Self {
        Self {
            user,
            name,
            friends: Vec::new(),
            groups: Vec::new(),
            stale: true,
            titles: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A user for people: `kir(2001)`, or `user 2001`.
    pub(crate) fn user(&self, user: UserId) -> String {
        if user == self.user {
            return named(&self.name, user);
        }
        let listed = self.friends.iter().find(|friend| friend.user == user).map(|friend| &friend.name);
        match listed.or_else(|| self.names.get(&user)) {
            Some(name) => named(name, user),
            None => format!("user {user}"),
        }
    }

    /// A group for people: `happy game(1)`, or `group 1`.
    pub(crate) fn group(&self, group: GroupId) -> String {
        let listed = self.groups.iter().find(|info| info.group == group).map(|info| &info.name);
        match listed.or_else(|| self.titles.get(&group)) {
            Some(title) => format!("{title}({group})"),
            None => format!("group {group}"),
        }
    }

    /// A conversation for people.
    pub(crate) fn conversation(&self, conv: ConversationId) -> String {
        match conv.parse() {
            Conversation::Direct(a, b) => self.user(if a == self.user { b } else { a }),
            Conversation::Group(group) => self.group(group),
            Conversation::Notices(_) => "your notices".into(),
        }
    }

    /// Whether the user created that group, as far as the list says.
    pub(crate) fn created(&self, group: GroupId) -> bool {
        self.groups.iter().any(|info| info.group == group && info.role == Role::Creator)
    }

    /// Replaces the lists.
    pub(crate) fn replace(&mut self, friends: Vec<Friend>, groups: Vec<GroupInfo>) {
        // Of groups that are left there may still be something to show.
        for old in std::mem::take(&mut self.groups) {
            self.remember(old.group, old.name);
        }
        self.friends = friends;
        self.groups = groups;
        self.stale = false;
    }

    /// Remembers a group's title.
    pub(crate) fn remember(&mut self, group: GroupId, title: String) {
        if self.titles.len() >= NAMES_MAX {
            self.titles.pop_first();
        }
        self.titles.insert(group, title);
    }

    fn remember_user(&mut self, user: UserId, name: &str) {
        if self.names.contains_key(&user) {
            return;
        }
        if self.names.len() >= NAMES_MAX {
            self.names.pop_first();
        }
        self.names.insert(user, name.into());
    }

    /// A friend's state may have changed; whether that is news.
    pub(crate) fn set_state(&mut self, user: UserId, state: PresenceState) -> bool {
        let friend = self.friends.iter_mut().find(|friend| friend.user == user);
        friend.is_none_or(|friend| std::mem::replace(&mut friend.state, state) != state)
    }

    /// Learns from an entry.
    pub(crate) fn note(&mut self, entry: &Entry) {
        if matches!(entry.conv.parse(), Conversation::Direct(..)) {
            self.remember_user(entry.from, &entry.name);
        }
        match &entry.body {
            EntryBody::Created { title } => {
                if let Conversation::Group(group) = entry.conv.parse() {
                    self.remember(group, title.clone());
                }
                self.stale = true;
            }
            EntryBody::Opened { opened, title, .. } => {
                match (opened.parse(), opened.peer_of(self.user)) {
                    (Conversation::Group(group), _) => self.remember(group, title.clone()),
                    (_, Some(user)) => self.remember_user(user, title),
                    _ => {}
                }
                self.stale = true;
            }
            EntryBody::Befriended
            | EntryBody::Unfriended
            | EntryBody::Blocked
            | EntryBody::Unblocked
            | EntryBody::Deleted => self.stale = true,
            EntryBody::Joined | EntryBody::Left => self.stale |= entry.from == self.user,
            EntryBody::Removed { user, .. } => self.stale |= *user == self.user,
            EntryBody::Message { .. }
            | EntryBody::Erased
            | EntryBody::PasswordChanged
            | EntryBody::SessionsEnded
            | EntryBody::Other { .. } => {}
        }
    }
}

/// A user whose name is known: `kir(2001)`.
pub(crate) fn named(name: &str, user: UserId) -> String {
    format!("{name}({user})")
}
