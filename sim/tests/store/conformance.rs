//! The host is entitled to its place: over real TCP it cannot be told from any other store.

use std::sync::Arc;

use loadgen::rng::Rng;
use protocol::{Net as _, Tcp, clock::SystemClock};
use server::store::{
    Store,
    conformance::{Operation, compare, suite},
    memory::MemoryStore,
};
use sim::store::{Database, Limits, RemoteStore, serve_on};
use tokio_util::task::TaskTracker;

pub(crate) async fn over_tcp(tracker: &TaskTracker) -> RemoteStore<Tcp> {
    let database = Database::new([7; 16], Arc::new(SystemClock), Rng::new(1));
    let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
    let address = Tcp.local_addr(&listener).unwrap().to_string();
    tracker.spawn(serve_on(Tcp, listener, database, tracker.clone()));
    RemoteStore::new(&Tcp, &address, Limits::default())
}

#[tokio::test]
async fn conforms() {
    let store = over_tcp(&TaskTracker::new()).await;
    assert_eq!(store.deployment().await.unwrap(), [7; 16]);
    suite(Arc::new(store)).await.unwrap();
}

/// Whatever is done to both, it answers as the store in memory does.
#[tokio::test]
async fn cannot_be_told_from_memory() {
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let accounts = (0..5).map(|id| Operation::Register { id: 100 + id });
        let operations: Vec<_> = accounts.chain((0..50).map(|_| operation(&mut rng))).collect();
        let remote = over_tcp(&TaskTracker::new()).await;
        compare(Arc::new(remote), Arc::new(MemoryStore::new([1; 16])), &operations).await.unwrap();
    }
}

/// Any step.
fn operation(rng: &mut Rng) -> Operation {
    let mut below = |bound: u64| u8::try_from(rng.below(bound)).unwrap();
    let (a, b, id, whether) = (below(255), below(255), below(6), below(2) == 0);
    match below(25) {
        0..2 => Operation::Register { id },
        2..8 => {
            let mut message = || (below(255), below(255), below(40), if below(9) == 0 { -1 } else { 0 });
            Operation::Append((0..3).map(|_| message()).collect())
        }
        8..10 => Operation::AppendAfter(a, below(4), vec![(b, below(40)), (below(255), below(40))]),
        10..12 => Operation::Befriend { a, b, id, friends: whether },
        12..14 => Operation::Block { a, b, id, blocked: whether },
        14 => Operation::CreateGroup { a, id },
        15..19 => Operation::Join { a, group: b, id, joins: whether },
        19 => Operation::DeleteGroup { a, group: b, id },
        20..22 => Operation::Deliver { a, conv: b, seq: below(10) },
        _ => Operation::Page { conv: a, seq: b, limit: below(255), bytes: below(255) },
    }
}
