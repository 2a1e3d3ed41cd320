//! Whom the other nodes serve, as this node knows.
//!
//! Each incarnation numbers its changes. A change that follows what is known is applied; anything else is a reason to read. What was
//! read is taken unless it is older than what is known by then. So pushes and reads may overlap in any way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{UserId, message::PresenceState};
use tokio::time::Instant;

use super::wire::{Change, Incarnation};

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct View {
    nodes: BTreeMap<Incarnation, Peer>,
    /// Incarnations that ended since the current read began.
    gone: BTreeSet<Incarnation>,
    /// Until when this can be relied on; `None` if it cannot.
    valid_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Peer {
    /// The number of the last change.
    number: u64,
    users: BTreeSet<UserId>,
}

/// What a change leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// These users' state may have changed.
    Users(Vec<UserId>),
    /// It does not follow what is known.
    Read,
    /// It is old.
    Nothing,
}

impl View {
    /// A user's state on the other nodes.
    pub(super) fn state(&self, user: UserId, now: Instant) -> PresenceState {
        if self.valid_until.is_none_or(|until| now >= until) {
            PresenceState::Unknown
        } else if self.nodes.values().any(|peer| peer.users.contains(&user)) {
            PresenceState::Online
        } else {
            PresenceState::Offline
        }
    }

    /// Takes what another node says.
    pub(super) fn hear(&mut self, who: Incarnation, number: u64, change: &Change) -> Heard {
        if *change == Change::Gone {
            self.gone.insert(who);
            return match self.nodes.remove(&who) {
                Some(peer) => Heard::Users(peer.users.into_iter().collect()),
                None => Heard::Nothing,
            };
        }
        let (Some(peer), Change::Users(users)) = (self.nodes.get_mut(&who), change) else {
            return Heard::Read;
        };
        if number <= peer.number {
            return Heard::Nothing;
        }
        if number != peer.number + 1 {
            return Heard::Read;
        }
        peer.number = number;
        let changed =
            users.iter().filter(
                |(user, online)| {
                    if *online { peer.users.insert(*user) } else { peer.users.remove(user) }
                },
            );
        Heard::Users(changed.map(|(user, _)| *user).collect())
    }

    /// A read begins.
    pub(super) fn begin_read(&mut self) {
        self.gone.clear();
    }

    /// Whether an incarnation has to be read, which stands at that change.
    pub(super) fn is_news(&self, who: Incarnation, number: u64) -> bool {
        self.nodes.get(&who).is_none_or(|peer| peer.number != number)
    }

    /// Takes what was read of one incarnation; returns the users whose state may have changed.
    pub(super) fn read(&mut self, who: Incarnation, number: u64, users: BTreeSet<UserId>) -> Vec<UserId> {
        if self.gone.contains(&who) {
            return Vec::new();
        }
        let peer = self.nodes.entry(who).or_default();
        if number < peer.number {
            return Vec::new();
        }
        let changed = peer.users.symmetric_difference(&users).copied().collect();
        *peer = Peer { number, users };
        changed
    }

    /// A read is over: these incarnations are alive and no others; it holds for so long. Returns the users
    /// whose state may have changed, and whether that of all became known.
    pub(super) fn end_read(
        &mut self,
        alive: &BTreeSet<Incarnation>,
        until: Instant,
        now: Instant,
    ) -> (Vec<UserId>, bool) {
        let mut changed = Vec::new();
        self.nodes.retain(|who, peer| {
            let lives = alive.contains(who);
            if !lives {
                changed.extend(std::mem::take(&mut peer.users));
            }
            lives
        });
        let anew = self.valid_until.is_none_or(|until| now >= until);
        self.valid_until = Some(until);
        (changed, anew)
    }

    /// How long it holds; `None` if it does not.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        self.valid_until.map(|until| until.saturating_duration_since(now))
    }

    /// It no longer holds.
    pub(super) fn expire(&mut self) {
        self.valid_until = None;
        self.nodes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::wire::NodeId, *};

    const NODE: Incarnation = Incarnation { node: NodeId(2), number: 1 };

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    fn users(numbers: &[u64]) -> BTreeSet<UserId> {
        numbers.iter().copied().map(user).collect()
    }

    fn came(number: u64) -> Change {
        Change::Users(vec![(user(number), true)])
    }

    /// A view that has read that a node serves user 1, at change 5.
    fn view(now: Instant) -> View {
        let mut view = View::default();
        view.begin_read();
        assert_eq!(view.read(NODE, 5, users(&[1])), [user(1)]);
        let (_, anew) = view.end_read(&BTreeSet::from([NODE]), now + Duration::from_secs(10), now);
        assert!(anew);
        view
    }

    #[test]
    fn what_is_known_ends_with_its_time() {
        let now = Instant::now();
        let mut view = view(now);
        assert_eq!(view.state(user(1), now), PresenceState::Online);
        assert_eq!(view.state(user(2), now), PresenceState::Offline);
        assert_eq!(view.state(user(1), now + Duration::from_secs(10)), PresenceState::Unknown);
        assert_eq!(View::default().state(user(1), now), PresenceState::Unknown);
        view.begin_read();
        let until = now + Duration::from_secs(20);
        assert_eq!(
            view.end_read(&BTreeSet::new(), until, now),
            (vec![user(1)], false),
            "its lease has ended"
        );
        assert_eq!(view.state(user(1), now), PresenceState::Offline);
    }

    #[test]
    fn changes_apply_in_order_or_lead_to_a_read() {
        let now = Instant::now();
        let mut view = view(now);
        assert_eq!(view.hear(NODE, 6, &came(2)), Heard::Users(vec![user(2)]));
        assert_eq!(view.hear(NODE, 6, &came(3)), Heard::Nothing, "repeated");
        assert_eq!(view.hear(NODE, 8, &came(3)), Heard::Read, "one was lost");
        assert_eq!(view.state(user(3), now), PresenceState::Offline);
        assert_eq!(view.hear(Incarnation { number: 2, ..NODE }, 1, &came(3)), Heard::Read, "not known yet");
        assert_eq!(view.hear(NODE, 9, &Change::Rewritten), Heard::Read);
        assert_eq!(view.hear(NODE, 10, &Change::Gone), Heard::Users(vec![user(1), user(2)]));
        assert_eq!(view.state(user(1), now), PresenceState::Offline);
    }

    #[test]
    fn an_old_read_changes_nothing() {
        let now = Instant::now();
        let mut view = view(now);
        view.begin_read();
        view.hear(NODE, 6, &came(2));
        assert_eq!(view.read(NODE, 5, users(&[1])), [], "it was read before the change");
        assert_eq!(view.state(user(2), now), PresenceState::Online);
        view.hear(NODE, 7, &Change::Gone);
        assert_eq!(view.read(NODE, 6, users(&[1, 2])), [], "it has ended since");
        assert_eq!(view.state(user(2), now), PresenceState::Offline);
    }
}
