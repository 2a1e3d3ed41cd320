//! Every relay passes the same suite.

use std::sync::Arc;

use protocol::{UserId, message::PresenceState};
use server::relay::{
    Relay as _,
    conformance::{Peer, apart, suite},
    local::Hub,
    none::NoRelay,
};

fn join(hub: &Arc<Hub>) -> Peer {
    let (relay, events) = hub.join();
    Peer { relay: Arc::new(relay), events }
}

#[tokio::test]
async fn the_relay_within_a_process_conforms() {
    let hub = Arc::new(Hub::default());
    suite(|| async { join(&hub) }).await;
    apart(join(&hub), join(&hub), join(&Arc::new(Hub::default()))).await;
}

/// SPEC.md, guarantee 8: without a relay, a node says that it does not know.
#[tokio::test]
async fn without_a_relay_nothing_is_known() {
    let (relay, mut events) = NoRelay::new();
    let user = UserId::new(1).unwrap();
    relay.set_online(user, true);
    relay.subscribe(user, &["d1-2".parse().unwrap()]).await;
    relay.unsubscribe(user, "d1-2".parse().unwrap());
    assert_eq!(relay.elsewhere(user), PresenceState::Unknown);
    assert!(events.recv().await.is_none(), "and it tells nothing");
}
