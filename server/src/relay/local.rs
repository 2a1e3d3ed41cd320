//! The in-process relay: of a node that runs alone, or of several nodes in one process (tests).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use protocol::{ConversationId, UserId, message::PresenceState};
use tokio::sync::mpsc;

use super::{EVENTS_MAX, Hint, Relay, RelayEvent, RelayEvents};

/// Where the nodes of one process meet.
#[derive(Debug, Default)]
pub struct Hub {
    nodes: Mutex<BTreeMap<u64, Peer>>,
}

#[derive(Debug)]
struct Peer {
    events: mpsc::Sender<RelayEvent>,
    users: BTreeSet<UserId>,
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
        nodes.insert(id, Peer { events, users: BTreeSet::new() });
        (LocalRelay { hub: Arc::clone(self), id }, receiver)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        // Its fields are valid at any point of a writer.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalRelay {
    fn tell_others(&self, nodes: &BTreeMap<u64, Peer>, event: impl Fn() -> RelayEvent) {
        for (_, peer) in nodes.iter().filter(|(id, _)| **id != self.id) {
            // Full: the node is behind, and its sweep finds what this was about.
            let _ = peer.events.try_send(event());
        }
    }
}

#[async_trait]
impl Relay for LocalRelay {
    fn publish(&self, hints: Vec<Hint>) {
        let nodes = self.hub.nodes();
        if nodes.len() < 2 {
            return;
        }
        for hint in hints {
            self.tell_others(&nodes, || RelayEvent::Hint(hint.clone()));
        }
    }

    async fn subscribe(&self, _: &[ConversationId]) {
        // Every node gets every hint; a feed without readers ignores it.
    }

    fn unsubscribe(&self, _: ConversationId) {}

    fn set_online(&self, user: UserId, online: bool) {
        let mut nodes = self.hub.nodes();
        if let Some(own) = nodes.get_mut(&self.id) {
            if online {
                own.users.insert(user);
            } else {
                own.users.remove(&user);
            }
        }
        self.tell_others(&nodes, || RelayEvent::Presence(user));
    }

    fn elsewhere(&self, user: UserId) -> PresenceState {
        let nodes = self.hub.nodes();
        let online = nodes.iter().any(|(id, peer)| *id != self.id && peer.users.contains(&user));
        if online { PresenceState::Online } else { PresenceState::Offline }
    }
}

impl Drop for LocalRelay {
    fn drop(&mut self) {
        let mut nodes = self.hub.nodes();
        if let Some(own) = nodes.remove(&self.id) {
            for user in own.users {
                self.tell_others(&nodes, || RelayEvent::Presence(user));
            }
        }
    }
}
