//! The client's task over a network without sockets, in paused time: SPEC.md, section 5, "resume" and what a client
//! owes a server.

mod fake;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::Duration,
};

use client::{Client, Config, DisconnectReason, EndReason, Event, Events, RequestError};
use fake::{Counting, Peer, Pipes};
use protocol::{ClientMsgId, ConversationId, Entry, EntryBody, Net, Seq};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

struct World {
    net: Pipes,
    tracker: TaskTracker,
    client: Client,
    events: Events,
}

fn start(config: Config) -> World {
    let (net, tracker) = (Pipes::new(), TaskTracker::new());
    let (client, events) =
        Client::start(net.clone(), "node:1", config, Arc::new(Counting::default()), &tracker);
    tracker.close();
    World { net, tracker, client, events }
}

/// A client with a session, and its server.
async fn start_logged_in(config: Config) -> (World, Peer<DuplexStream>) {
    let world = start(config);
    let mut server = world.net.greet().await;
    let client = world.client.clone();
    let (reply, ()) = tokio::join!(client.login("kirito", "asuna"), server.log_in());
    assert!(reply.is_ok_and(|reply| reply.user.number() == 1));
    (world, server)
}

fn conv() -> ConversationId {
    "d1-2".parse().expect("a conversation")
}

fn text(entry: &Entry) -> &str {
    match &entry.body {
        EntryBody::Message { text } => text,
        other => panic!("{other:?}"),
    }
}

impl World {
    /// The events up to the next one of the given kind, as short texts.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let event = timeout(Duration::from_secs(120), self.events.next()).await.expect("an event");
            let event = match event {
                Some(Event::Entry(entry)) => format!("{} {}", entry.seq, text(&entry)),
                Some(Event::Reconnecting { .. }) => "reconnecting".into(),
                Some(Event::Disconnected { reason }) => format!("disconnected: {reason}"),
                Some(event) => format!("{event:?}").to_lowercase(),
                None => "end".into(),
            };
            found.push(event);
            if found.last().is_some_and(|event| event == last) {
                return found;
            }
        }
    }
}

/// A connection dies in the middle of a request: it is repeated with the same mid after resuming, and the entry that
/// came before is not shown again.
#[tokio::test(start_paused = true)]
async fn a_request_survives_its_connection() {
    let (mut world, mut server) = start_logged_in(Config::default()).await;
    server.open("d1-2", 4).await;
    server.message("d1-2", 5, "before").await;
    let mid = ClientMsgId([7; 16]);
    let client = world.client.clone();
    let net = world.net.clone();
    let serve = async move {
        let first = server.expect("send").await;
        drop(server);
        let mut server = net.greet().await;
        assert_eq!(server.resume().await, json!({"d1-2": 5}));
        let second = server.expect("send").await;
        assert_eq!(first, second, "the same request, with the same mid");
        assert_eq!(second["mid"], mid.to_string());
        // The first attempt had its effect.
        server.entry("d1-2", 6, 1, &mid.to_string(), "hi").await;
        server.ok(&second, json!({"seq": 6})).await;
        server
    };
    let (reply, mut server) = tokio::join!(client.send_with(mid, conv(), "hi"), serve);
    assert_eq!(reply.unwrap().seq, Seq(6));
    server.message("d1-2", 5, "again").await;
    server.message("d1-2", 6, "again").await;
    server.message("d1-2", 7, "after").await;
    let lost = "disconnected: connection lost: unexpected end of file";
    assert_eq!(
        world.until("7 after").await,
        ["connected", "5 before", lost, "reconnecting", "connected", "resumed", "6 hi", "7 after"]
    );
}

/// A server that says nothing to an outstanding request is taken for dead after a third of the idle timeout.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left() {
    let (mut world, mut silent) = start_logged_in(Config::default()).await;
    let started = Instant::now();
    let (client, net) = (world.client.clone(), world.net.clone());
    let serve = async move {
        silent.expect("friends").await;
        let mut server = net.greet().await;
        server.resume().await;
        server.answer("friends", json!({"friends": []})).await;
        server
    };
    let (friends, _server) = tokio::join!(client.friends(), serve);
    assert_eq!(friends, Ok(Vec::new()));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(31), "{took:?}");
    let events = world.until("resumed").await;
    assert!(events.contains(&"disconnected: the server does not answer".into()), "{events:?}");
}

/// An idle client pings every third of the idle timeout, and stays.
#[tokio::test(start_paused = true)]
async fn an_idle_client_keeps_its_connection() {
    let (_world, mut server) = start_logged_in(Config::default()).await;
    let started = Instant::now();
    for _ in 0..5 {
        server.answer("ping", json!({})).await;
    }
    assert_eq!(started.elapsed().as_secs(), 150);
}

/// A gap is healed by resuming from the last entry before it.
#[tokio::test(start_paused = true)]
async fn a_gap_is_healed() {
    let (mut world, mut server) = start_logged_in(Config::default()).await;
    server.open("d1-2", 0).await;
    server.message("d1-2", 1, "one").await;
    server.message("d1-2", 3, "three").await;
    let mut server = world.net.greet().await;
    assert_eq!(server.resume().await, json!({"d1-2": 1}));
    server.message("d1-2", 2, "two").await;
    server.message("d1-2", 3, "three").await;
    let broken =
        "disconnected: the server broke the protocol: an entry is not the next one of its conversation";
    assert_eq!(
        world.until("3 three").await,
        ["connected", "1 one", broken, "reconnecting", "connected", "resumed", "2 two", "3 three"]
    );
}

/// Attempts to connect become rarer, up to one in ten seconds, and a request outlives them for its time.
#[tokio::test(start_paused = true)]
async fn attempts_to_connect_become_rarer() {
    let (mut world, server) = start_logged_in(Config::default()).await;
    world.net.refusing.store(true, Ordering::Relaxed);
    drop(server);
    world.until("reconnecting").await;
    let started = Instant::now();
    assert_eq!(world.client.groups().await, Err(RequestError::Closed), "it was never sent");
    assert_eq!(started.elapsed().as_secs(), 60);
    let attempts = world.net.attempts.load(Ordering::Relaxed);
    assert!((9..20).contains(&attempts), "{attempts}");
    // The session goes on as soon as it can.
    world.net.refusing.store(false, Ordering::Relaxed);
    let mut server =
        timeout(Duration::from_secs(10), world.net.greet()).await.expect("within the longest pause");
    server.resume().await;
}

/// When nobody takes the events the client stops reading: the server cannot write on, nothing is lost, and the
/// silence is not held against the server.
#[tokio::test(start_paused = true)]
async fn events_that_nobody_takes_stop_the_reading() {
    let config = Config { events_max: 4, ..Config::default() };
    let (mut world, mut server) = start_logged_in(config).await;
    server.open("d1-2", 0).await;
    let long = "x".repeat(1000);
    let pushed = async {
        for seq in 1..=100 {
            server.message("d1-2", seq, &long).await;
        }
    };
    tokio::pin!(pushed);
    assert!(timeout(Duration::from_secs(300), &mut pushed).await.is_err(), "the server has to wait");
    let taken = async {
        let mut seqs = Vec::new();
        while seqs.len() < 100 {
            match world.events.next().await {
                Some(Event::Entry(entry)) => seqs.push(entry.seq.0),
                Some(Event::Connected) => {}
                other => panic!("{other:?}"),
            }
        }
        seqs
    };
    let ((), seqs) = tokio::join!(pushed, taken);
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>());
}

/// What was shown is confirmed before the logout, which ends the client.
#[tokio::test(start_paused = true)]
async fn logging_out_confirms_and_ends() {
    let (mut world, mut server) = start_logged_in(Config::default()).await;
    server.open("d1-2", 0).await;
    server.message("d1-2", 1, "one").await;
    world.until("1 one").await;
    world.client.shown(conv(), Seq(1));
    let client = world.client.clone();
    let serve = async {
        let ack = server.answer("ack", json!({})).await;
        assert_eq!(ack["cursors"], json!({"d1-2": 1}));
        server.log_out().await;
    };
    let (reply, ()) = tokio::join!(client.logout(), serve);
    assert_eq!(reply, Ok(()));
    assert_eq!(world.events.next().await, Some(Event::SessionEnded { reason: EndReason::LoggedOut }));
    assert_eq!(world.events.next().await, None);
    world.tracker.wait().await;
    assert_eq!(client.friends().await, Err(RequestError::Closed));
}

/// Dropping the last handle ends the task; so does closing one, and then what was sent is not known to have happened.
#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_handles() {
    let (world, _server) = start_logged_in(Config::default()).await;
    drop(world.client);
    world.tracker.wait().await;

    let (world, mut server) = start_logged_in(Config::default()).await;
    let client = world.client.clone();
    let closing = async {
        server.expect("send").await;
        world.client.close();
    };
    let (reply, ()) = tokio::join!(client.send(conv(), "hi"), closing);
    assert_eq!(reply, Err(RequestError::Unknown));
    world.tracker.wait().await;
}

/// Before a login a lost connection is not made anew until somebody asks for something.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_needs_is_not_made() {
    let mut world = start(Config::default());
    let mut server = world.net.greet().await;
    server.say(json!({"push": "closing", "code": "login_timeout"})).await;
    drop(server);
    assert_eq!(world.events.next().await, Some(Event::Connected));
    assert!(matches!(
        world.events.next().await,
        Some(Event::Disconnected { reason: DisconnectReason::Closing(_) })
    ));
    assert!(timeout(Duration::from_secs(100), world.events.next()).await.is_err());
    let (client, net) = (world.client.clone(), world.net.clone());
    let serve = async move { net.greet().await.answer("register", json!({"user": 5})).await };
    let (reply, request) = tokio::join!(client.register("kir", "secret"), serve);
    assert_eq!(reply.unwrap().user.number(), 5);
    assert_eq!(request["name"], "kir");
}

/// Lists are read to their last page, and one that does not advance does not hold a client for ever.
#[tokio::test(start_paused = true)]
async fn lists_are_read_page_by_page() {
    let (world, mut server) = start_logged_in(Config::default()).await;
    let client = world.client.clone();
    let member = |user: u64| json!({"user": user, "name": "x", "role": "member", "state": "online"});
    let serve = async {
        let first = server.answer("members", json!({"members": [member(1), member(2)], "next": 2})).await;
        assert_eq!((&first["group"], &first["after"]), (&json!(7), &json!(0)));
        let second = server.answer("members", json!({"members": [member(3)], "next": 2})).await;
        assert_eq!(second["after"], 2);
    };
    let (members, ()) = tokio::join!(client.members(protocol::GroupId::new(7).unwrap()), serve);
    let users: Vec<u64> = members.unwrap().iter().map(|member| member.user.number()).collect();
    assert_eq!(users, [1, 2, 3]);
}

/// Pipes that give on what they were given when they are flushed, and not before, as encryption may.
#[derive(Clone)]
struct Holding(Pipes);

struct Held {
    stream: DuplexStream,
    bytes: Vec<u8>,
}

impl Net for Holding {
    type Listener = ();
    type Stream = Held;

    async fn bind(&self, addr: &str) -> io::Result<()> {
        self.0.bind(addr).await
    }

    fn local_addr(&self, on: &()) -> io::Result<SocketAddr> {
        self.0.local_addr(on)
    }

    async fn accept(&self, (): &()) -> io::Result<(Held, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, addr: &str) -> io::Result<Held> {
        Ok(Held { stream: self.0.connect(addr).await?, bytes: Vec::new() })
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, bytes } = &mut *self;
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
            bytes.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a stream holds back until it is flushed reaches the server, be it more than the network takes at once.
#[tokio::test(start_paused = true)]
async fn what_is_asked_is_flushed() {
    let (net, tracker) = (Pipes::new(), TaskTracker::new());
    let entropy = Arc::new(Counting::default());
    let (client, _events) =
        Client::start(Holding(net.clone()), "node:1", Config::default(), entropy, &tracker);
    let mut server = net.greet().await;
    let (reply, ()) = tokio::join!(client.login("kirito", "asuna"), server.log_in());
    reply.unwrap();
    let long = "x".repeat(60_000);
    let serve = async {
        let request = server.expect("send").await;
        assert_eq!(request["text"].as_str().map(str::len), Some(60_000));
        server.ok(&request, json!({"seq": 1})).await;
    };
    let (reply, ()) =
        timeout(Duration::from_secs(30), async { tokio::join!(client.send(conv(), &long), serve) })
            .await
            .expect("an answer in time");
    assert_eq!(reply.unwrap().seq, Seq(1));
}
