//! A node that lost its lease was taken for gone, and so may have been its clients: whoever is not heard when the next line is due is not shown
//! online for the whole time of a client's silence. SPEC.md, guarantee 8 and section 10. Time is virtual, and there are no sockets.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use server::{connection, node::NodeConfig, relay::RelayEvent};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

use crate::harness::{TestNode, mid};

/// More than is ever on the way.
pub(crate) const ROOM: usize = 1 << 20;

/// A client without a socket.
pub(crate) struct Client(pub(crate) BufReader<DuplexStream>);

impl Client {
    /// With room for so many bytes on the way.
    async fn connect(node: &TestNode, number: u64, room: usize) -> Self {
        let (here, there) = tokio::io::duplex(room);
        let inner = Arc::clone(node.running.node());
        TaskTracker::new().spawn(connection::serve(inner, there, Ipv4Addr::LOCALHOST.into(), number));
        let mut client = Self(BufReader::new(here));
        client.find(|line| line["push"] == "hello").await;
        client
    }

    /// One who is registered and logged in.
    pub(crate) async fn new(node: &TestNode, number: u64, name: &str, room: usize) -> Self {
        let mut client = Self::connect(node, number, room).await;
        client.ok(json!({"op": "register", "mid": mid(), "name": name, "password": name})).await;
        client.ok(json!({"op": "login", "account": name, "password": name})).await;
        client
    }

    pub(crate) async fn ok(&mut self, mut request: Value) {
        request["id"] = 7.into();
        self.0.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let reply = self.find(|line| line["id"] == 7).await;
        assert!(reply["ok"].is_object(), "{reply}");
    }

    async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).await.unwrap(), 0, "the end");
            let line = serde_json::from_str(&line).unwrap();
            if wanted(&line) {
                return line;
            }
        }
    }

    /// When it is told that it was silent for too long.
    async fn shown_out(mut self) -> Instant {
        let closing = self.find(|line| line["push"] == "closing").await;
        assert_eq!(closing["code"], "idle");
        Instant::now()
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_lease_clients_are_probed() {
    let (events, received) = mpsc::channel(8);
    let node = TestNode::in_virtual_time(received, NodeConfig::default()).await;
    let seconds = Duration::from_secs;
    let mut lively = Client::new(&node, 1, "lively", ROOM).await;
    let (gone, mut last_heard) =
        (Client::new(&node, 2, "gone", ROOM).await, Client::new(&node, 3, "heard", ROOM).await);
    let begun = Instant::now();
    let at = move |second| begun + seconds(second);
    let lively = TaskTracker::new().spawn(async move {
        // As late as a client may be.
        for line in 1..=10 {
            sleep_until(at(30 * line)).await;
            lively.ok(json!({"op": "ping"})).await;
        }
        lively
    });
    sleep(seconds(20)).await;
    events.send(RelayEvent::LeaseLost).await.unwrap();
    sleep(seconds(5)).await;
    last_heard.ok(json!({"op": "ping"})).await;
    let (gone, last_heard) = (gone.shown_out(), last_heard.shown_out());
    let late = |moment: Instant, second| moment.saturating_duration_since(at(second));
    // Its next line was due at 30 s; it had half of that again.
    let gone = gone.await;
    assert!(gone >= at(45) && late(gone, 45) < seconds(1), "{:?}", gone - begun);
    // Heard since: as ever, 90 s after its last line.
    let last_heard = last_heard.await;
    assert!(last_heard >= at(115) && late(last_heard, 115) < seconds(16), "{:?}", last_heard - begun);
    lively.await.unwrap().ok(json!({"op": "ping"})).await;
    assert_eq!(node.running.node().registry.session_count(), 1);
}

/// What has been silent for longer than it may be still has a moment: the node may have stood still, and not have read what was sent.
#[tokio::test(start_paused = true)]
async fn who_was_silent_before_has_a_moment_after() {
    let (events, received) = mpsc::channel(8);
    let node = TestNode::in_virtual_time(received, NodeConfig::default()).await;
    let seconds = Duration::from_secs;
    let gone = Client::new(&node, 1, "gone", ROOM).await;
    let begun = Instant::now();
    sleep(seconds(50)).await;
    events.send(RelayEvent::LeaseLost).await.unwrap();
    // And again: that puts nothing off.
    sleep(seconds(10)).await;
    events.send(RelayEvent::LeaseLost).await.unwrap();
    let after = gone.shown_out().await - begun;
    assert!(after >= seconds(65) && after < seconds(66), "{after:?}");
}
