//! A node, and what its clients may send: it answers every line once, in the words of SPEC.md, and ends in an orderly way.

mod peer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use protocol::{Clock, Entropy, Limits, Request, UnixMillis, text::name_key};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::task::TaskTracker;

use self::peer::Peer;
use crate::{
    committer::Bounds,
    connection,
    node::{NodeConfig, RunningNode, World},
    password::{HashError, Passwords},
    relay::local::Hub,
    sizes::Sizes,
    store::{NewUser, Store as _, memory::MemoryStore},
};

/// A story is not longer.
const STORY_BYTES_MAX: usize = 16 << 10;
/// Users that there are at its beginning, numbered from 1. Their names are their passwords.
const USERS: [&str; 3] = ["kirito", "kir", "silica"];
/// The longest time that passes between two lines.
const PAUSE_SECONDS_MAX: u64 = 200;

/// A story, line by line. Connections have letters: `A` and `B` are logged in as the first two users, `C` and `D` are not.
///
/// - `A>…` sends the rest as a line, and waits for what comes of it; a line without a letter is `A`'s
/// - `A|…` sends it and does not wait
/// - `A.` sends no more; `A!` hangs up and connects anew, not logged in
/// - `~30` lets so many seconds pass
///
/// `$token` stands for the token that `A` got at the beginning.
pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(STORY_BYTES_MAX)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without a driver").block_on(async {
        let mut story = Story::begin().await;
        for line in data.split(|byte| *byte == b'\n') {
            story.play(line).await;
        }
        story.end().await;
    });
}

struct Story {
    node: RunningNode,
    connections: TaskTracker,
    /// By letter.
    peers: [Option<Peer>; 4],
    token: String,
    /// Whether somebody asked to change a password.
    passwd: bool,
    /// Connections that were hung up.
    gone: Vec<JoinHandle<()>>,
}

impl Story {
    async fn begin() -> Self {
        let store = MemoryStore::new([1; 16]);
        for (number, name) in (1..).zip(USERS) {
            let mid = protocol::ClientMsgId([0xff - number; 16]);
            let (name, name_key, password_hash) = (name.to_owned(), name_key(name), hashed(name));
            let user = NewUser { mid, name, name_key, password_hash, at: 0 };
            store.register(&user).await.expect("a store in memory does not fail");
        }
        let (relay, relay_events) = Arc::new(Hub::default()).join();
        let world = World {
            store: Arc::new(store),
            relay: Arc::new(relay),
            relay_events,
            passwords: Arc::new(Plain),
            clock: Arc::new(Stopped),
            entropy: Arc::new(Counted::default()),
        };
        let node = RunningNode::start_unheard(world, config());
        let mut story = Self {
            node,
            connections: TaskTracker::new(),
            peers: [None, None, None, None],
            token: String::new(),
            passwd: false,
            gone: Vec::new(),
        };
        for (letter, name) in USERS.into_iter().take(2).enumerate() {
            let login = format!(r#"{{"id":0,"op":"login","account":"{name}","password":"{name}"}}"#);
            story.peer(letter).send(login.as_bytes()).await;
            story.settle().await;
        }
        story.token = story.peer(0).token.clone().expect("a login has a token");
        story
    }

    async fn play(&mut self, line: &[u8]) {
        if let [b'~', seconds @ ..] = line {
            let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.trim().parse().ok());
            sleep(Duration::from_secs(seconds.unwrap_or(1).min(PAUSE_SECONDS_MAX))).await;
            return self.settle().await;
        }
        let letter = match line {
            [letter @ b'A'..=b'D', b'>' | b'|' | b'.' | b'!', ..] => usize::from(letter - b'A'),
            _ => 0,
        };
        match line {
            [b'A'..=b'D', b'.', ..] => self.peer(letter).stop().await,
            [b'A'..=b'D', b'!', ..] => {
                let peer = self.peers[letter].take();
                self.gone.extend(peer.and_then(Peer::hang_up));
            }
            _ => {
                let line = substitute(spoken(line), &self.token);
                self.passwd |= matches!(Request::parse(&line), Ok((_, Request::Passwd(_))));
                let ambiguous = line.len() > config().limits.anonymous_frame_bytes_max;
                if ambiguous {
                    // Which limit it meets is to be known.
                    self.settle().await;
                }
                self.peer(letter).send(&line).await;
            }
        }
        if !matches!(line, [b'A'..=b'D', b'|', ..]) {
            self.settle().await;
        }
    }

    fn peer(&mut self, letter: usize) -> &mut Peer {
        let (node, connections) = (&self.node, &self.connections);
        self.peers[letter].get_or_insert_with(|| {
            let (near, far) = tokio::io::duplex(1 << 20);
            let served = connection::serve(Arc::clone(node.node()), far, [127, 0, 0, 1].into(), 1);
            Peer::new(near, connections.spawn(served), config().limits)
        })
    }

    /// Until everybody waits for somebody else. The clock stands still as long as somebody has something to do.
    async fn settle(&mut self) {
        loop {
            sleep(Duration::from_millis(1)).await;
            let mut moved = false;
            for peer in self.peers.iter_mut().flatten() {
                moved |= peer.read().await;
            }
            if !moved {
                break;
            }
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.check_at_rest(self.passwd).await;
        }
    }

    async fn end(mut self) {
        self.settle().await;
        self.gone.extend(self.peers.into_iter().flatten().filter_map(Peer::hang_up));
        for connection in self.gone {
            connection.await.expect("no connection panics");
        }
        assert!(self.node.drain().await, "a node without connections ends in time");
    }
}

/// What goes over the connection.
fn spoken(line: &[u8]) -> &[u8] {
    match line {
        [b'A'..=b'D', b'>' | b'|', rest @ ..] => rest,
        _ => line,
    }
}

fn substitute(line: &[u8], token: &str) -> Vec<u8> {
    const NAME: &[u8] = b"$token";
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(token.as_bytes());
        rest = &rest[at + NAME.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Limits that a short story can reach. A line of the server has room for a text of which every byte is escaped to six.
fn config() -> NodeConfig {
    NodeConfig {
        limits: Limits {
            anonymous_frame_bytes_max: 256,
            frame_bytes_max: 1024,
            server_frame_bytes_max: 6 * 512 + 1024,
            text_bytes_max: 512,
            requests_in_flight_max: 3,
            cursors_per_request_max: 3,
            ..Limits::default()
        },
        sessions_per_user_max: 2,
        bounds: Bounds { members_per_group_max: 2, groups_per_user_max: 2, friends_per_user_max: 2 },
        sizes: Sizes {
            ring_entries_max: 3,
            page_entries_max: 2,
            page_bytes_max: 64,
            batch_max: 2,
            outbox_bytes: 256,
            ..Sizes::default()
        },
        ..NodeConfig::default()
    }
}

/// Hashing is slow on purpose, and not what is looked at here.
struct Plain;

fn hashed(password: &str) -> String {
    format!("plain${password}")
}

#[async_trait]
impl Passwords for Plain {
    async fn hash(&self, password: &str) -> Result<String, HashError> {
        Ok(hashed(password))
    }

    async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        Ok(hash == Some(&hashed(password)))
    }

    fn is_outdated(&self, _: &str) -> bool {
        false
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> UnixMillis {
        1_700_000_000_000
    }
}

/// The same bytes in every run, no two alike.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}
