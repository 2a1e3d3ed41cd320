//! What every relay has to do: one suite, run on each implementation, which is what entitles tests to the in-process one.
//!
//! It waits for what has to happen, however long it takes, and takes what must not happen as not happened when something that was sent later
//! has arrived.

use std::{future::Future, sync::Arc, time::Duration};

use protocol::{ClientMsgId, ConversationId, Entry, EntryBody, Seq, UserId, message::PresenceState};
use tokio::time::timeout;

use super::{Hint, Relay, RelayEvent, RelayEvents, RelayState};
use crate::feed::Line;

/// How long anything may take that has to happen. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node's relay under test.
pub struct Peer {
    /// Its end.
    pub relay: Arc<dyn Relay>,
    /// What it is told.
    pub events: RelayEvents,
}

/// Runs the whole contract. `join` makes one more node of the same system each time.
///
/// # Panics
/// When the relay breaks it.
pub async fn suite<F: Future<Output = Peer>>(join: impl Fn() -> F) {
    hints(&join).await;
    unsubscribing(&join).await;
    presence(&join).await;
}

/// Checks that neither of two nodes of different systems hears the other, by the time that nodes of their own do.
///
/// # Panics
/// When one does.
pub async fn apart(mut here: Peer, mut twin: Peer, mut other: Peer) {
    for peer in [&mut here, &mut twin, &mut other] {
        peer.subscribe(1, &["d1-2", "g7"]).await;
        peer.settle().await;
    }
    other.relay.set_online(user(8), true);
    other.publish("d1-2", &[1]);
    other.publish("g7", &[1]);
    here.relay.set_online(user(9), true);
    here.publish("d1-2", &[5]);
    here.publish("g7", &[5]);
    assert_eq!(twin.hint().await, ("d1-2".into(), vec![5]));
    assert_eq!(twin.hint().await, ("g7".into(), vec![5]));
    twin.until(9, PresenceState::Online).await;
    assert_eq!(twin.relay.elsewhere(user(8)), PresenceState::Offline);
    assert_eq!(other.relay.elsewhere(user(9)), PresenceState::Offline);
    other.nothing_but_presence();
}

impl Peer {
    /// Waits until it knows about presence, and says that hints flow: then it is connected to whatever it connects to.
    pub async fn settle(&mut self) {
        self.until(u64::from(UserId::MAX), PresenceState::Offline).await;
        self.until_state(RelayState::Up).await;
    }

    /// Waits for the relay's state.
    pub async fn until_state(&self, state: RelayState) {
        let wait = async {
            while self.relay.state() != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for the relay to be {state:?}"));
    }

    /// Waits for a user's state.
    pub async fn until(&mut self, number: u64, state: PresenceState) {
        let what = format!("user {number} to be {state:?}");
        let wait = async {
            while self.relay.elsewhere(user(number)) != state {
                // Events say when to look again, but a look is free.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    /// The next hint, whatever else comes before it.
    pub async fn hint(&mut self) -> (String, Vec<u64>) {
        loop {
            match self.event().await {
                RelayEvent::Hint(hint) => {
                    return (hint.conv.to_string(), hint.lines.iter().map(|line| line.seq.0).collect());
                }
                RelayEvent::Head(conv, head) => return (conv.to_string(), vec![head.0]),
                RelayEvent::Gap
                | RelayEvent::Presence(_)
                | RelayEvent::PresenceOfAll
                | RelayEvent::LeaseLost => {}
            }
        }
    }

    /// Waits until it is told that a user's state may have changed.
    pub async fn told_of(&mut self, number: u64) {
        loop {
            match self.event().await {
                RelayEvent::Presence(changed) if changed == user(number) => return,
                RelayEvent::PresenceOfAll => return,
                _ => {}
            }
        }
    }

    /// Publishes messages.
    pub fn publish(&self, conv: &str, seqs: &[u64]) {
        let conv = conv.parse().expect("a conversation");
        let lines = seqs.iter().map(|seq| Arc::new(line(conv, *seq))).collect();
        self.relay.publish(vec![Hint { conv, lines }]);
    }

    /// Subscribes on behalf of a user's session.
    pub async fn subscribe(&self, number: u64, convs: &[&str]) {
        let convs: Vec<ConversationId> =
            convs.iter().map(|conv| conv.parse().expect("a conversation")).collect();
        timeout(PATIENCE, self.relay.subscribe(user(number), &convs)).await.expect("a bounded wait");
    }

    /// Unsubscribes on behalf of a user's session.
    pub fn unsubscribe(&self, number: u64, conv: &str) {
        self.relay.unsubscribe(user(number), conv.parse().expect("a conversation"));
    }

    async fn event(&mut self) -> RelayEvent {
        let event = timeout(PATIENCE, self.events.recv()).await.expect("an event in time");
        event.expect("the relay is at work")
    }

    fn nothing_but_presence(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert!(!matches!(event, RelayEvent::Hint(_) | RelayEvent::Head(..)), "{event:?}");
        }
    }
}

async fn hints<F: Future<Output = Peer>>(join: &impl Fn() -> F) {
    let (mut a, mut b, mut c) = (join().await, join().await, join().await);
    for peer in [&mut a, &mut b, &mut c] {
        peer.settle().await;
    }
    a.subscribe(1, &["d1-2", "g7", "u1"]).await;
    b.subscribe(2, &["d1-2", "g7", "u2"]).await;
    c.subscribe(3, &["d1-3", "g8", "u3"]).await;
    // In order per publisher, to those who subscribed, and to no others.
    for seq in 1..=100 {
        a.publish("d1-2", &[2 * seq - 1, 2 * seq]);
        a.publish("g7", &[seq]);
    }
    for seq in 1..=100 {
        assert_eq!(b.hint().await, ("d1-2".into(), vec![2 * seq - 1, 2 * seq]));
        assert_eq!(b.hint().await, ("g7".into(), vec![seq]));
    }
    // To any user of a direct conversation, to the user of notices, to the readers of a group.
    a.publish("d1-3", &[1]);
    a.publish("u3", &[1]);
    a.publish("u2", &[1]);
    a.publish("g8", &[1]);
    assert_eq!(c.hint().await, ("d1-3".into(), vec![1]));
    assert_eq!(c.hint().await, ("u3".into(), vec![1]));
    assert_eq!(c.hint().await, ("g8".into(), vec![1]));
    assert_eq!(b.hint().await, ("u2".into(), vec![1]));
    // Not to itself: what the others answer comes first.
    b.publish("g7", &[101]);
    assert_eq!(a.hint().await, ("g7".into(), vec![101]));
    c.nothing_but_presence();
}

async fn unsubscribing<F: Future<Output = Peer>>(join: &impl Fn() -> F) {
    let (mut a, mut b) = (join().await, join().await);
    a.settle().await;
    b.settle().await;
    // Two sessions of user 2, one of user 4.
    for number in [2, 2, 4] {
        b.subscribe(number, &["g7"]).await;
    }
    b.subscribe(2, &["d2-3", "d2-4"]).await;
    b.unsubscribe(2, "g7");
    b.unsubscribe(4, "g7");
    b.unsubscribe(2, "d2-3");
    a.publish("g7", &[1]);
    assert_eq!(b.hint().await, ("g7".into(), vec![1]), "one session is left");
    b.unsubscribe(2, "g7");
    // It may linger; what must come to an end is waited for.
    let mut seq = 2;
    let end = async {
        loop {
            a.publish("g7", &[seq]);
            a.publish("d2-4", &[seq]);
            match b.hint().await {
                (conv, seqs) if conv == "d2-4" => return assert_eq!(seqs, [seq]),
                (conv, _) => assert_eq!((conv.as_str(), b.hint().await.0.as_str()), ("g7", "d2-4")),
            }
            seq += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, end).await.expect("hints end");
    b.subscribe(2, &["g7"]).await;
    a.publish("g7", &[1000]);
    assert_eq!(b.hint().await, ("g7".into(), vec![1000]), "asked anew, they are back");
}

async fn presence<F: Future<Output = Peer>>(join: &impl Fn() -> F) {
    let (mut a, mut b) = (join().await, join().await);
    a.settle().await;
    b.settle().await;
    a.relay.set_online(user(1), true);
    b.told_of(1).await;
    b.until(1, PresenceState::Online).await;
    assert_eq!(a.relay.elsewhere(user(1)), PresenceState::Offline, "it is only here");
    // On both nodes: it stays online until both say otherwise.
    b.relay.set_online(user(1), true);
    a.until(1, PresenceState::Online).await;
    a.relay.set_online(user(1), false);
    b.until(1, PresenceState::Offline).await;
    assert_eq!(a.relay.elsewhere(user(1)), PresenceState::Online);
    // Who joins later learns it too.
    let mut late = join().await;
    late.until(1, PresenceState::Online).await;
    // Many at once, and back and forth; not more than a node can be told while it does not listen.
    for round in 0..3 {
        for number in 100..1300 {
            a.relay.set_online(user(number), (number + round) % 2 == 0);
        }
    }
    for number in [100, 700, 1298] {
        b.until(number, PresenceState::Online).await;
        b.until(number + 1, PresenceState::Offline).await;
    }
    // A node that ends takes its users with it.
    drop(b);
    late.until(1, PresenceState::Offline).await;
    late.told_of(1).await;
    a.until(1, PresenceState::Offline).await;
}

fn user(number: u64) -> UserId {
    UserId::new(number).expect("in range")
}

fn line(conv: ConversationId, seq: u64) -> Line {
    Line::new(Entry {
        conv,
        seq: Seq(seq),
        at: 1_700_000_000_000,
        from: user(1),
        name: "kirito".into(),
        mid: ClientMsgId([seq as u8; 16]),
        body: EntryBody::Message { text: format!("{seq}") },
    })
}
