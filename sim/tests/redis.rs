//! The simulator's Redis is what the real one is: the relay's suite passes on it, and it says the same, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod docker;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use loadgen::rng::Rng;
use protocol::{Net as _, Tcp, clock::SystemEntropy};
use server::relay::{
    conformance::{Peer, apart, suite},
    redis::{RedisConfig, RedisRelay, Timing},
};
use sim::redis::{Publishes, Redis, serve_on};
use testcontainers::{
    ImageExt as _,
    core::{IntoContainerPort as _, WaitFor},
    runners::AsyncRunner as _,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

/// How long anything may take that has to happen. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running one.
struct Running {
    redis: Redis,
    address: String,
    process: AbortOnDropHandle<()>,
}

async fn start(redis: Redis, address: &str) -> Running {
    let listener = Tcp.bind(address).await.unwrap();
    let address = Tcp.local_addr(&listener).unwrap().to_string();
    let tracker = TaskTracker::new();
    let serving = serve_on(Tcp, listener, redis.clone(), tracker.clone());
    let process = AbortOnDropHandle::new(tracker.spawn(async move { serving.await.unwrap() }));
    Running { redis, address, process }
}

/// A raw connection.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, request: &[u8]) {
        // Where it was thrown out, what it reads says so.
        let _ = self.0.write_all(request).await;
    }

    /// What is said up to an answer to a PING of its own, or to the end; not for a transaction.
    async fn ask(&mut self, request: &[u8]) -> String {
        const MARK: &str = "end-of-answer";
        self.send(request).await;
        self.send(&words(&["PING", MARK])).await;
        let mut heard = Vec::new();
        // As a reply; while subscribed in version 2.
        let marks = [format!("$13\r\n{MARK}\r\n"), format!("*2\r\n$4\r\npong\r\n$13\r\n{MARK}\r\n")];
        let reading = async {
            loop {
                let mut buffer = [0; 4096];
                match self.0.read(&mut buffer).await {
                    Ok(0) => return heard.extend_from_slice(b"<closed>"),
                    Ok(read) => heard.extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        return heard.extend_from_slice(b"<closed>");
                    }
                    Err(error) => panic!("{error}"),
                }
                if marks.iter().any(|mark| heard.ends_with(mark.as_bytes())) {
                    return;
                }
            }
        };
        timeout(PATIENCE, reading)
            .await
            .unwrap_or_else(|_| panic!("no answer to {:?}", request.escape_ascii().to_string()));
        let mut heard = String::from_utf8_lossy(&heard).into_owned();
        for mark in [&marks[1], &marks[0]] {
            if let Some(before) = heard.strip_suffix(mark.as_str()) {
                heard = before.to_owned();
            }
        }
        heard
    }

    /// The next bytes, so many as expected.
    async fn expect(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        timeout(PATIENCE, self.0.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }
}

/// A request.
fn words(words: &[&str]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    request.into_bytes()
}

/// Short intervals, and a lease that outlasts what a busy machine does.
fn join(url: &str, deployment: [u8; 16]) -> Peer {
    let mut config = RedisConfig::parse(url, "test").unwrap();
    config.timing = Timing {
        canary_interval: Duration::from_millis(100),
        canary_patience: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_millis(200),
        lease: Duration::from_secs(20),
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        linger: Duration::from_millis(200),
        spread: Duration::from_millis(20),
        ..Timing::default()
    };
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let (relay, events) =
        RedisRelay::start(Tcp, config, deployment, Arc::new(SystemEntropy), &tracker, &stop);
    Peer { relay: Arc::new(relay), events }
}

/// What entitles the simulator to it. With a password and a database number, too.
#[tokio::test]
async fn the_relay_conforms_on_it() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    let url = format!("redis://{}", running.address);
    suite(|| async { join(&url, [1; 16]) }).await;
    apart(join(&url, [1; 16]), join(&url, [1; 16]), join(&url, [2; 16])).await;
    let running = start(Redis::default().with_password("s@crat"), "127.0.0.1:0").await;
    let url = format!("redis://:s%40crat@{}/3", running.address);
    suite(|| async { join(&url, [1; 16]) }).await;
}

/// A restart empties it and ends the connections; the relay comes back to it, as it does to the real one.
#[tokio::test]
async fn a_restart_forgets_everything_and_the_relay_comes_back() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    let url = format!("redis://{}", running.address);
    let (mut a, mut b) = (join(&url, [1; 16]), join(&url, [1; 16]));
    a.settle().await;
    b.settle().await;
    b.subscribe(2, &["g7"]).await;
    let Running { redis, address, process } = running;
    let mut raw = Raw::connect(&address).await;
    assert_eq!(raw.ask(&words(&["SET", "k", "v"])).await, "+OK\r\n");
    drop(process);
    assert_eq!(raw.ask(&words(&["GET", "k"])).await, "<closed>");
    let running = start(redis, &address).await;
    assert_eq!(Raw::connect(&address).await.ask(&words(&["GET", "k"])).await, "$-1\r\n");
    let publishing = async {
        loop {
            a.publish("g7", &[1]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        hint = b.hint() => assert_eq!(hint, ("g7".into(), vec![1])),
        () = publishing => {}
    }
    drop(running);
}

#[tokio::test]
async fn it_can_be_emptied_while_it_runs() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    let mut raw = Raw::connect(&running.address).await;
    assert_eq!(raw.ask(&words(&["SET", "k", "v"])).await, "+OK\r\n");
    running.redis.flush_all();
    assert_eq!(raw.ask(&words(&["GET", "k"])).await, "$-1\r\n");
}

/// Publishes the numbers from 0 with these faults, and returns what one subscriber heard up to a last one without faults.
async fn publish(running: &Running, count: usize, publishes: Publishes) -> Vec<String> {
    let mut subscriber = Raw::connect(&running.address).await;
    let mut publisher = Raw::connect(&running.address).await;
    subscriber.ask(&words(&["SUBSCRIBE", "c"])).await;
    running.redis.set_publishes(publishes);
    for number in 0..count {
        assert_eq!(publisher.ask(&words(&["PUBLISH", "c", &number.to_string()])).await, ":1\r\n");
    }
    running.redis.set_publishes(Publishes::default());
    // What was held back is out by then.
    tokio::time::sleep(publishes.delay_max + Duration::from_millis(1)).await;
    let heard = subscriber.ask(b"").await;
    let mut lines = heard.split("\r\n");
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == "message" {
            found.push(lines.nth(3).unwrap().to_owned());
        }
    }
    found
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn publishes_are_dropped_doubled_overtaken_and_delayed() {
    let none = Publishes { delay_max: Duration::from_millis(50), ..Publishes::default() };
    let running = start(Redis::new(Rng::new(7)), "127.0.0.1:0").await;
    assert_eq!(publish(&running, 50, none).await, numbers(50));
    assert!(publish(&running, 50, Publishes { drop: 1000, ..none }).await.is_empty());
    let some = publish(&running, 100, Publishes { drop: 300, ..none }).await;
    assert!(
        (40..100).contains(&some.len()) && some.is_sorted_by_key(|n| n.parse::<u64>().unwrap()),
        "{some:?}"
    );
    let doubled: Vec<_> = numbers(50).into_iter().flat_map(|number| [number.clone(), number]).collect();
    assert_eq!(publish(&running, 50, Publishes { duplicate: 1000, ..none }).await, doubled);
    assert_eq!(publish(&running, 50, Publishes { delay: 300, ..none }).await, numbers(50));
    let mut shuffled = publish(&running, 100, Publishes { reorder: 300, ..none }).await;
    assert_ne!(shuffled, numbers(100));
    shuffled.sort_by_key(|number| number.parse::<u64>().unwrap());
    assert_eq!(shuffled, numbers(100));
    let tally = running.redis.tally();
    assert_eq!((tally.messages, tally.duplicated, tally.thrown_out), (400, 50, 0));
    assert!(tally.dropped > 50 && tally.reordered > 10 && tally.delayed > 5, "{tally:?}");
}

/// The draws are the seed's, whatever else happens.
#[tokio::test]
async fn what_is_dropped_is_decided_by_the_seed() {
    let drop = Publishes { drop: 500, ..Publishes::default() };
    let mut heard = Vec::new();
    for seed in [1, 1, 2] {
        let running = start(Redis::new(Rng::new(seed)), "127.0.0.1:0").await;
        heard.push(publish(&running, 40, drop).await);
    }
    assert_eq!(heard[0], heard[1]);
    assert_ne!(heard[0], heard[2]);
}

#[tokio::test]
async fn a_wedged_subscription_hears_nothing_and_publishers_do_not_notice() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    running.redis.set_wedged(true);
    assert!(publish(&running, 10, Publishes::default()).await.is_empty());
    running.redis.set_wedged(false);
    assert_eq!(publish(&running, 10, Publishes::default()).await, numbers(10));
}

/// As Redis does it: a subscriber that does not read is thrown out when too much waits for it; others are served.
#[tokio::test]
async fn a_subscriber_that_does_not_read_is_thrown_out() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    let mut lazy = Raw::connect(&running.address).await;
    lazy.ask(&words(&["SUBSCRIBE", "c"])).await;
    let mut publisher = Raw::connect(&running.address).await;
    let message = words(&["PUBLISH", "c", &"x".repeat(1 << 20)]);
    let mut published = 0;
    while publisher.ask(&message).await == ":1\r\n" {
        published += 1;
        assert!(published < 1000, "it is never thrown out");
    }
    assert!(published > 32, "{published}");
    assert_eq!(running.redis.tally().thrown_out, 1);
    let mut sink = Vec::new();
    let _ = timeout(PATIENCE, lazy.0.read_to_end(&mut sink)).await.expect("it is closed");
}

/// Nothing is read from a client that does not read, so what waits for it is bounded.
#[tokio::test]
async fn a_client_that_only_asks_is_not_read_from() {
    let running = start(Redis::default(), "127.0.0.1:0").await;
    let mut greedy = Raw::connect(&running.address).await;
    greedy.ask(&words(&["SET", "k", &"x".repeat(100_000)])).await;
    let gets = words(&["GET", "k"]).repeat(1000);
    let mut asked = 0;
    // A hundred times what sockets hold, and 200 GB of replies, if they were made.
    while let Ok(sent) = timeout(Duration::from_secs(1), greedy.0.write_all(&gets)).await {
        sent.unwrap();
        asked += 1;
        assert!(asked < 2000, "it is made to wait");
    }
    assert_eq!(Raw::connect(&running.address).await.ask(b"").await, "");
    greedy.expect("$100000\r\nxxx").await;
}

/// All that is answered to some requests, the last of which ends the connection; as lines, without what may differ.
async fn answers(address: &str, sequence: &[Vec<u8>]) -> Vec<String> {
    let mut raw = Raw::connect(address).await;
    raw.send(&sequence.concat()).await;
    let mut heard = Vec::new();
    timeout(PATIENCE, raw.0.read_to_end(&mut heard)).await.expect("it closes the connection").unwrap();
    normal(&String::from_utf8_lossy(&heard))
}

/// What may differ: what HELLO says of version, connection number and modules; and the milliseconds that are left of 100,000.
fn normal(heard: &str) -> Vec<String> {
    let mut lines = heard.split("\r\n");
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let left = line.strip_prefix(':').and_then(|left| left.parse::<u64>().ok());
        if left.is_some_and(|left| (50_000..=100_000).contains(&left)) {
            found.push(":about 100000".into());
            continue;
        }
        found.push(line.to_owned());
        match line {
            "version" => drop((lines.next(), lines.next())),
            "id" => drop(lines.next()),
            "modules" if lines.next() != Some("*0") => {
                lines.find(|line| *line == "args");
                lines.next();
            }
            _ => {}
        }
    }
    found
}

/// One sequence a connection; each ends with what closes it.
fn sequences() -> Vec<Vec<Vec<u8>>> {
    let mut sequences: Vec<Vec<Vec<u8>>> = include_str!("redis.commands")
        .split("\n\n")
        .map(|sequence| sequence.lines().filter(|line| !line.starts_with('#')))
        .map(|lines| lines.map(|line| words(&line.split(' ').collect::<Vec<_>>())).collect())
        .collect();
    let long = "a".repeat(200);
    sequences.push(vec![
        words(&["FOO", &long, "b"]),
        words(&[&long, "x"]),
        words(&["F'O\r\nO", "x\r\ny", "z'"]),
        words(&["CLIENT", "SETNAME", "a b"]),
        words(&["CLIENT", "SETINFO", "LIB-NAME", "a b"]),
        words(&["SET", "", ""]),
        words(&["GET", ""]),
        words(&[""]),
    ]);
    for sequence in &mut sequences {
        sequence.push(words(&["QUIT"]));
    }
    // Nothing follows what closes it: unread, it would reset the connection under the answers.
    let raw: &[&[&[u8]]] = &[
        &[
            b"*0\r\n",
            b"*-1\r\n",
            b"\r\n",
            b"PING\r\n",
            b"  ping   'a b' \r\n",
            b"PING \"a\\x41\\n\"\r\n",
            b"PING\n",
            b"QUIT\n",
        ],
        &[b"*1\r\n$4\r\nPINGxx", b"*a\r\n"],
        &[b"*1\r\nPING\r\n"],
        &[b"*1\r\n$-1\r\n"],
        &[b"*1\r\n$9999999999\r\n"],
        &[b"*9999999999\r\n"],
        &[b"PING \"a\r\n"],
        &[b"'a'b\r\n"],
        &[b"*2\r\n$4\r\nPING\r\n:1\r\n"],
        &[b"*1\r\n$4x\r\n"],
        &[b"*+1\r\n"],
        &[b"*01\r\n"],
        &[b"GET\r\n*a\r\n"],
        &[b"*1\r\n\r\n"],
    ];
    sequences.extend(raw.iter().map(|sequence| sequence.iter().map(|request| request.to_vec()).collect()));
    // As long as no line may be.
    for start in ["", "*", "*1\r\n$"] {
        let line = start.lines().last().unwrap_or_default();
        sequences.push(vec![format!("{start}{}", "1".repeat((64 << 10) + 1 - line.len())).into_bytes()]);
    }
    sequences
}

/// Goal: whatever the node and its crate may say, the simulated Redis answers as the real one, errors included.
#[tokio::test]
async fn it_answers_as_the_real_one() {
    let image = ("CHAT_REDIS_IMAGE", "chat-redis:local");
    if !docker::available("the comparison with Redis", &[image]).await {
        return;
    }
    let mut differences = Vec::new();
    for password in [None, Some("s@crat")] {
        let protect = password.map(|password| ["--requirepass", password]);
        let container = docker::image(image.0, image.1)
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_exposed_port(6379.tcp())
            .with_cmd(["--save", "", "--appendonly", "no"].into_iter().chain(protect.into_iter().flatten()))
            .start()
            .await
            .unwrap();
        let real = format!("127.0.0.1:{}", container.get_host_port_ipv4(6379).await.unwrap());
        let redis = match password {
            None => Redis::default(),
            Some(password) => Redis::default().with_password(password),
        };
        let running = start(redis, "127.0.0.1:0").await;
        let mut requests = 0;
        for sequence in sequences() {
            requests += sequence.len();
            let (expected, found) =
                (answers(&real, &sequence).await, answers(&running.address, &sequence).await);
            if let Some(at) =
                (0..expected.len().max(found.len())).find(|at| expected.get(*at) != found.get(*at))
            {
                let around = |lines: &[String]| {
                    lines[at.saturating_sub(3).min(lines.len())..(at + 2).min(lines.len())].join(" | ")
                };
                let first: String = sequence[0].escape_ascii().to_string().chars().take(60).collect();
                differences.push(format!(
                    "after {first}:
  redis {}
  ours  {}",
                    around(&expected),
                    around(&found)
                ));
            }
        }
        println!("{requests} requests compared, password: {}", password.is_some());
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
