//! A Redis that answers and delivers nothing is found out, and the link dialled anew: SPEC.md, section 10. With the default timing, in
//! virtual time.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod memory;

use std::{sync::Arc, time::Duration};

use memory::{ADDRESS, Memory};
use protocol::{UserId, clock::SystemEntropy, message::PresenceState};
use server::relay::{
    RelayEvent, RelayState,
    conformance::Peer,
    redis::{RedisConfig, RedisRelay},
};
use sim::redis::{Redis, serve};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Within which strict readiness follows the relay. The tests look every millisecond.
const BOUND: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(1);

struct World {
    net: Memory,
    redis: Redis,
    tracker: TaskTracker,
}

impl World {
    async fn start() -> Self {
        let world = Self { net: Memory::default(), redis: Redis::default(), tracker: TaskTracker::new() };
        let (net, redis, tracker) = (world.net.clone(), world.redis.clone(), world.tracker.clone());
        world.tracker.spawn(async move { serve(net, ADDRESS, redis, tracker).await });
        tokio::task::yield_now().await;
        world
    }

    async fn join(&self) -> Peer {
        let config = RedisConfig::parse(&format!("redis://{ADDRESS}"), "test").unwrap();
        let (net, entropy) = (self.net.clone(), Arc::new(SystemEntropy));
        let stop = CancellationToken::new();
        let (relay, events) = RedisRelay::start(net, config, [1; 16], entropy, &self.tracker, &stop);
        let mut peer = Peer { relay: Arc::new(relay), events };
        peer.settle().await;
        peer
    }
}

/// How long it takes.
async fn until(relay: &Peer, state: RelayState) -> Duration {
    let begun = Instant::now();
    while relay.relay.state() != state {
        assert!(begun.elapsed() < BOUND, "not {state:?}");
        sleep(LOOK).await;
    }
    begun.elapsed()
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_delivers_nothing_is_given_up_until_it_does() {
    let world = World::start().await;
    let (mut a, mut b) = (world.join().await, world.join().await);
    b.subscribe(2, &["g7"]).await;
    b.relay.set_online(user(2), true);
    a.until(2, PresenceState::Online).await;
    let (mut red, mut green) = (Duration::ZERO, Duration::ZERO);
    // Whatever the moment between two canaries.
    for round in 0..20 {
        sleep(Duration::from_millis(50 * round)).await;
        let before = b.relay.wedges();
        world.redis.set_wedged(true);
        red = red.max(until(&b, RelayState::Wedged).await);
        assert!(b.relay.wedges() > before);
        // A new link is not taken for one that works. Presence is kept all the same: it is no message.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            assert_ne!(b.relay.state(), RelayState::Up);
            assert_eq!(a.relay.elsewhere(user(2)), PresenceState::Online);
            sleep(LOOK).await;
        }
        while b.events.try_recv().is_ok() {}
        world.redis.set_wedged(false);
        green = green.max(until(&b, RelayState::Up).await);
        until(&a, RelayState::Up).await;
        a.publish("g7", &[round + 1]);
        assert_eq!(b.hint().await, ("g7".into(), vec![round + 1]), "the new link has the subscriptions");
    }
    println!("red after {red:?} at most, green after {green:?}; {} links given up", b.relay.wedges());
}

/// Who was not told is told to look: after each new link heads are compared.
#[tokio::test(start_paused = true)]
async fn what_was_missed_is_looked_for() {
    let world = World::start().await;
    let mut node = world.join().await;
    sleep(Duration::from_secs(1)).await;
    while node.events.try_recv().is_ok() {}
    world.redis.set_wedged(true);
    until(&node, RelayState::Wedged).await;
    world.redis.set_wedged(false);
    until(&node, RelayState::Up).await;
    while !matches!(node.events.recv().await, Some(RelayEvent::Gap)) {}
}

/// One that is lost means nothing yet.
#[tokio::test(start_paused = true)]
async fn a_short_silence_is_no_wedge() {
    let world = World::start().await;
    let node = world.join().await;
    for _ in 0..20 {
        world.redis.set_wedged(true);
        sleep(Duration::from_millis(1900)).await;
        world.redis.set_wedged(false);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(node.relay.state(), RelayState::Up);
    }
    assert_eq!(node.relay.wedges(), 0);
}

/// It costs a small publish a second, which nobody else hears.
#[tokio::test(start_paused = true)]
async fn nobody_else_hears_it() {
    let world = World::start().await;
    let (mut a, mut b) = (world.join().await, world.join().await);
    sleep(Duration::from_secs(5)).await;
    while a.events.try_recv().is_ok() || b.events.try_recv().is_ok() {}
    let before = world.redis.tally().messages;
    sleep(Duration::from_secs(100)).await;
    let heard = world.redis.tally().messages - before;
    assert!((196..=204).contains(&heard), "{heard} messages in 100 s, of two nodes");
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
}
