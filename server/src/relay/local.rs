//! The in-process relay: of a node that runs alone, or of several nodes in one process (tests).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use protocol::{ConversationId, UserId, message::PresenceState};
use tokio::sync::mpsc;

use super::{
    EVENTS_MAX, Hint, Relay, RelayEvent, RelayEvents, RelayState,
    channels::{Channel, Wanted},
};

/// Where the nodes of one process meet.
#[derive(Debug, Default)]
pub struct Hub {
    nodes: Mutex<BTreeMap<u64, Peer>>,
}

#[derive(Debug)]
struct Peer {
    events: mpsc::Sender<RelayEvent>,
    users: BTreeSet<UserId>,
    wanted: Wanted,
}

/// One node's end. Dropping it leaves the hub.
#[derive(Debug)]
pub struct LocalRelay {
    hub: Arc<Hub>,
    id: u64,
}

impl Hub {
    /// Adds a node.
    pub fn join(self: &Arc<Self>) -> (LocalRelay, RelayEvents) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let mut nodes = self.nodes();
        let id = nodes.last_key_value().map_or(0, |(id, _)| id + 1);
        nodes.insert(id, Peer { events, users: BTreeSet::new(), wanted: Wanted::default() });
        (LocalRelay { hub: Arc::clone(self), id }, receiver)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        // Its fields are valid at any point of a writer.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalRelay {
    fn others<'a>(&self, nodes: &'a BTreeMap<u64, Peer>) -> impl Iterator<Item = &'a Peer> {
        nodes.iter().filter(|(id, _)| **id != self.id).map(|(_, peer)| peer)
    }

    fn tell_others(&self, nodes: &BTreeMap<u64, Peer>, user: UserId) {
        for peer in self.others(nodes) {
            let _ = peer.events.try_send(RelayEvent::Presence(user));
        }
    }
}

#[async_trait]
impl Relay for LocalRelay {
    fn publish(&self, hints: Vec<Hint>) {
        let nodes = self.hub.nodes();
        for hint in hints {
            for peer in self.others(&nodes) {
                if Channel::all_of(hint.conv).any(|channel| peer.wanted.contains(channel)) {
                    // Full: the node is behind, and its sweep finds what this was about.
                    let _ = peer.events.try_send(RelayEvent::Hint(hint.clone()));
                }
            }
        }
    }

    async fn subscribe(&self, user: UserId, convs: &[ConversationId]) {
        if let Some(own) = self.hub.nodes().get_mut(&self.id) {
            for conv in convs {
                own.wanted.add(Channel::of_reader(user, *conv));
            }
        }
    }

    fn unsubscribe(&self, user: UserId, conv: ConversationId) {
        if let Some(own) = self.hub.nodes().get_mut(&self.id) {
            own.wanted.remove(Channel::of_reader(user, conv));
        }
    }

    fn set_online(&self, user: UserId, online: bool) {
        let mut nodes = self.hub.nodes();
        if let Some(own) = nodes.get_mut(&self.id) {
            if online {
                own.users.insert(user);
            } else {
                own.users.remove(&user);
            }
        }
        self.tell_others(&nodes, user);
    }

    fn state(&self) -> RelayState {
        RelayState::Up
    }

    fn elsewhere(&self, user: UserId) -> PresenceState {
        let nodes = self.hub.nodes();
        let online = self.others(&nodes).any(|peer| peer.users.contains(&user));
        if online { PresenceState::Online } else { PresenceState::Offline }
    }
}

impl Drop for LocalRelay {
    fn drop(&mut self) {
        let mut nodes = self.hub.nodes();
        if let Some(own) = nodes.remove(&self.id) {
            for user in own.users {
                self.tell_others(&nodes, user);
            }
        }
    }
}
