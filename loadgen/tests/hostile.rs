//! chatload hostile against a node in this process: every kind of attacker does what it is for, the node answers or ends it, and goes on.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use clap::Parser as _;
use loadgen::{
    hostile::{self, Report},
    load::{Accounts, PASSWORD},
};
use protocol::{
    ClientMsgId, Clock as _, Net as _, Tcp,
    clock::{SystemClock, SystemEntropy},
    text::name_key,
};
use server::{
    node::{NodeConfig, RunningNode, World},
    password::{Argon2id, Passwords as _},
    relay::local::Hub,
    store::{NewUser, Store, memory::MemoryStore},
};
use tokio::time::timeout;

/// How long a run may take. It decides no test that passes.
const PATIENCE: Duration = Duration::from_secs(100);

/// A node to which no address is exempt, with accounts.
async fn node(accounts: u32) -> (RunningNode, String) {
    let entropy = Arc::new(SystemEntropy);
    let passwords = Argon2id::new(8, 1, 2, entropy.clone()).unwrap();
    let store = MemoryStore::new([1; 16]);
    for number in 0..accounts {
        let name = Accounts::name("hostile", number);
        let user = NewUser {
            mid: ClientMsgId::random(&SystemEntropy),
            name_key: name_key(&name),
            name,
            password_hash: passwords.hash(PASSWORD).await.unwrap(),
            at: SystemClock.now(),
        };
        store.register(&user).await.unwrap();
    }
    let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
    let address = Tcp.local_addr(&listener).unwrap().to_string();
    let (relay, relay_events) = Arc::new(Hub::default()).join();
    let world = World {
        store: Arc::new(store),
        relay: Arc::new(relay),
        relay_events,
        passwords: Arc::new(passwords),
        clock: Arc::new(SystemClock),
        entropy,
    };
    let mut config = NodeConfig::default();
    config.rates.exempt = Vec::new();
    (RunningNode::start(Tcp, listener, world, config), address)
}

/// Whether every kind has done what it is for.
fn shows_all(report: &Report) -> Result<(), String> {
    let count = |kind: &str, what: &str| {
        let kind = report.kinds.get(kind).ok_or(format!("no {kind}"))?;
        let found = match what {
            "ok" => kind.ok,
            "sessions" => kind.sessions,
            "ended" => kind.ended,
            "connections" => kind.connections,
            code => kind.refusals.get(code).or(kind.closings.get(code)).copied().unwrap_or(0),
        };
        if found > 0 { Ok(()) } else { Err(format!("{what}: {kind:?}")) }
    };
    for kind in report.kinds.keys() {
        count(kind, "connections")?;
    }
    for kind in ["never-reading", "slow-reading", "long-half-a-line", "ping-flood"] {
        count(kind, "sessions")?;
    }
    count("ping-flood", "ok")?;
    count("odd-json", "ok")?;
    count("register", "ok")?;
    count("malformed", "malformed")?;
    count("malformed", "too_many_errors")?;
    count("malformed", "ended")?;
    count("long-lines", "frame_too_long")?;
    count("guess-known", "bad_credentials")?;
    count("guess-random", "bad_credentials")?;
    count("guess-tokens", "bad_token")
}

#[tokio::test]
async fn every_kind_attacks_and_the_node_goes_on() {
    let (node, address) = node(10).await;
    let attack = async {
        // A busy machine may need more than one.
        loop {
            let line = "--connections 30 --duration 2s --accounts 10 --victims hostile";
            let line = format!("{line} --victims-count 10 --cpu-percent 80 --target {address}");
            let options =
                hostile::Options::parse_from(std::iter::once("chatload hostile").chain(line.split(' ')));
            let report = hostile::run(&options, |_| ()).await.unwrap();
            assert_eq!((report.attackers, report.kinds.len()), (30, 15));
            assert_eq!(report.kinds.values().map(|kind| kind.attackers).sum::<u32>(), 30);
            assert!(report.shut_out > 0, "{report}");
            match shows_all(&report) {
                Ok(()) => return report,
                Err(why) => eprintln!("{why}"),
            }
        }
    };
    let report = timeout(PATIENCE, attack).await.expect("every kind shows itself");
    assert!(report.to_string().contains("were shut out"));
    // All of them have gone: the node forgets them.
    let gone = async {
        while node.node().registry.session_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("nobody is left");
}
