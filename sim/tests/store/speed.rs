//! What a request costs. Prints figures where `SIM_STORE_SPEED` asks for them; timing decides nothing.

use std::time::Duration;

use protocol::Seq;
use server::store::{Outcome, Store};
use sim::store::Limits;
use tokio_util::task::TaskTracker;

use super::{
    conformance::over_tcp,
    net::{World, conv, message},
};

fn cpu() -> Duration {
    let mut usage = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    usage.truncate(usage.find(' ').unwrap_or(0));
    Duration::from_nanos(usage.parse().unwrap_or(0))
}

async fn measure(name: &str, store: &dyn Store, calls: u32) {
    let start = cpu();
    for _ in 0..calls {
        store.heads(&[conv()]).await.unwrap();
    }
    let heads = cpu() - start;
    let start = cpu();
    for seq in 1..=calls {
        let mut entry = message(u64::from(seq), 0);
        entry.mid = protocol::ClientMsgId(u128::from(seq).to_le_bytes());
        assert_eq!(store.append(&[entry]).await.unwrap(), Outcome::Committed);
    }
    let appends = cpu() - start;
    eprintln!("{name}: heads {:?}, append {:?} a call", heads / calls, appends / calls);
    assert_eq!(store.heads(&[conv()]).await.unwrap()[&conv()], Seq(u64::from(calls)));
}

/// Each call is carried out once, however many there are.
#[tokio::test]
async fn many_calls() {
    let calls = if std::env::var_os("SIM_STORE_SPEED").is_some() { 20_000 } else { 500 };
    measure("memory, no network", &server::store::memory::MemoryStore::new([1; 16]), calls).await;
    measure("network in memory", &World::new(1).await.store(Limits::default()), calls).await;
    measure("TCP", &over_tcp(&TaskTracker::new()).await, calls).await;
}
