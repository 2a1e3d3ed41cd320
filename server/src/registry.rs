//! The sessions this node serves, and who watches whose presence.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{UserId, message::PresenceState};

use crate::{
    gauges::largest,
    outbox::{Outbox, Wakes},
    relay::Relay,
};

/// Live sessions by user, and their interest in friends.
pub struct Registry {
    relay: Arc<dyn Relay>,
    sessions_per_user_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Sessions by user; no empty ones.
    sessions: BTreeMap<UserId, Vec<Arc<Outbox>>>,
    /// Who wants to know about a user; no empty ones.
    watchers: BTreeMap<UserId, Vec<Arc<Outbox>>>,
}

impl Registry {
    /// An empty one.
    pub fn new(relay: Arc<dyn Relay>, sessions_per_user_max: usize) -> Self {
        Self { relay, sessions_per_user_max, state: Mutex::default() }
    }

    /// Adds a session; `None` if the user has as many as this node takes.
    pub fn enter(&self, user: UserId) -> Option<Arc<Outbox>> {
        let outbox = Outbox::new(user);
        let mut state = self.state();
        let own = state.sessions.entry(user).or_default();
        if own.len() >= self.sessions_per_user_max {
            return None;
        }
        own.push(Arc::clone(&outbox));
        if own.len() == 1 {
            self.relay.set_online(user, true);
            self.changed(&state, user);
        }
        Some(outbox)
    }

    /// Removes a session, with its interest in these friends.
    pub fn leave(&self, outbox: &Arc<Outbox>, watched: impl IntoIterator<Item = UserId>) {
        let mut state = self.state();
        for friend in watched {
            remove(&mut state.watchers, friend, outbox);
        }
        remove(&mut state.sessions, outbox.user, outbox);
        if !state.sessions.contains_key(&outbox.user) {
            self.relay.set_online(outbox.user, false);
            self.changed(&state, outbox.user);
        }
    }

    /// From now on the session is told when the friend's state changes.
    pub fn watch(&self, outbox: &Arc<Outbox>, friend: UserId) {
        let mut state = self.state();
        let watchers = state.watchers.entry(friend).or_default();
        if !watchers.iter().any(|watcher| Arc::ptr_eq(watcher, outbox)) {
            watchers.push(Arc::clone(outbox));
        }
    }

    /// No longer.
    pub fn unwatch(&self, outbox: &Arc<Outbox>, friend: UserId) {
        remove(&mut self.state().watchers, friend, outbox);
    }

    /// A user's state, as far as this node knows.
    pub fn presence(&self, user: UserId) -> PresenceState {
        let here = self.state().sessions.contains_key(&user);
        if here { PresenceState::Online } else { self.relay.elsewhere(user) }
    }

    /// Another node says that a user's state changed.
    pub fn changed_elsewhere(&self, user: UserId) {
        let state = self.state();
        if !state.sessions.contains_key(&user) {
            self.changed(&state, user);
        }
    }

    /// What other nodes say of presence became known, or unknown.
    pub fn all_changed_elsewhere(&self) {
        let state = self.state();
        for user in state.watchers.keys().filter(|user| !state.sessions.contains_key(user)) {
            self.changed(&state, *user);
        }
    }

    /// Has every session see whether its client is there.
    pub fn probe(&self) {
        let mut wakes = Wakes::default();
        for outbox in self.state().sessions.values().flatten() {
            outbox.put(&mut wakes, |letters| letters.probe = true);
        }
        wakes.fire();
    }

    /// Sessions served.
    pub fn session_count(&self) -> usize {
        self.state().sessions.values().map(Vec::len).sum()
    }

    /// The sessions of a user.
    pub fn of_user(&self, user: UserId) -> Vec<Arc<Outbox>> {
        self.state().sessions.get(&user).cloned().unwrap_or_default()
    }

    /// The sessions of users above a number, by user: all of each user's, until there are `limit` or more; and the last user's number, if
    /// there are more users.
    pub fn page(&self, after: u64, limit: usize) -> (Vec<Arc<Outbox>>, Option<u64>) {
        let state = self.state();
        let mut page: Vec<Arc<Outbox>> = Vec::new();
        for (_, own) in state.sessions.iter().filter(|(user, _)| user.number() > after) {
            if page.len() >= limit {
                let last = page.last().map(|outbox| outbox.user.number());
                return (page, last);
            }
            page.extend(own.iter().cloned());
        }
        (page, None)
    }

    /// Sessions served, the most of one user, and the most bytes that one has waiting for its socket.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let state = self.state();
        let unwritten = state.sessions.values().flatten().map(|outbox| outbox.unwritten());
        let of_one_user = largest(state.sessions.values().map(Vec::len));
        (state.sessions.values().map(Vec::len).sum(), of_one_user, largest(unwritten))
    }

    fn changed(&self, state: &State, user: UserId) {
        let mut wakes = Wakes::default();
        for watcher in state.watchers.get(&user).into_iter().flatten() {
            watcher.put(&mut wakes, |letters| {
                letters.presence.insert(user);
            });
        }
        wakes.fire();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Its fields are valid at any point of a writer.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(from: &mut BTreeMap<UserId, Vec<Arc<Outbox>>>, key: UserId, outbox: &Arc<Outbox>) {
    if let Some(list) = from.get_mut(&key) {
        list.retain(|other| !Arc::ptr_eq(other, outbox));
        if list.is_empty() {
            from.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::local::Hub;

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    #[test]
    fn presence_here_and_elsewhere() {
        let hub = Arc::new(Hub::default());
        let (a, _events_a) = hub.join();
        let (b, mut events_b) = hub.join();
        let (a, b) = (Registry::new(Arc::new(a), 2), Registry::new(Arc::new(b), 2));
        let watcher = b.enter(user(2)).unwrap();
        b.watch(&watcher, user(1));
        assert_eq!(b.presence(user(1)), PresenceState::Offline);

        let first = a.enter(user(1)).unwrap();
        let second = a.enter(user(1)).unwrap();
        assert!(a.enter(user(1)).is_none(), "two sessions at most");
        assert_eq!(b.presence(user(1)), PresenceState::Online);
        let crate::relay::RelayEvent::Presence(who) = events_b.try_recv().unwrap() else { panic!() };
        b.changed_elsewhere(who);
        assert!(watcher.take().presence.contains(&user(1)));

        a.leave(&first, []);
        assert_eq!(b.presence(user(1)), PresenceState::Online, "one session is left");
        a.leave(&second, []);
        assert_eq!(b.presence(user(1)), PresenceState::Offline);
        assert_eq!(a.session_count(), 0);

        for number in [1, 3, 3, 5] {
            a.enter(user(number)).unwrap();
        }
        let page = |after, limit| {
            let (page, next) = a.page(after, limit);
            (page.iter().map(|outbox| outbox.user.number()).collect::<Vec<_>>(), next)
        };
        assert_eq!(page(0, 2), (vec![1, 3, 3], Some(3)), "a user's are not divided");
        assert_eq!(page(3, 2), (vec![5], None));
        let (ones, threes) = (a.of_user(user(1)), a.of_user(user(3)));
        assert_eq!((ones.len(), threes.len()), (1, 2));
        for outbox in ones.iter().chain(&threes).chain(&a.of_user(user(5))) {
            a.leave(outbox, []);
        }

        let _third = a.enter(user(1)).unwrap();
        drop(a);
        assert_eq!(b.presence(user(1)), PresenceState::Offline, "its node is gone");
    }
}
