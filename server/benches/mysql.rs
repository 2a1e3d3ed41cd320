//! The append to MySQL in batches of 1, 16 and 256, each entry in a conversation of its own.
//!
//! On the database that CHAT_BENCH_DATABASE names, which should be empty and on the host's network; without it nothing is measured.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{ClientMsgId, ConversationId, EntryBody, GroupId, Seq};
use server::store::{NewEntry, Outcome, Store as _, mysql::MySqlStore};

fn entry(conv: u64, seq: Seq) -> NewEntry {
    let conv = ConversationId::group(GroupId::new(conv).expect("in range"));
    // Scattered, as random ids are.
    let mid = u128::from(seq.0).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let mid = ClientMsgId(mid.to_le_bytes());
    let body = EntryBody::Message { text: "x".repeat(32) };
    NewEntry { conv, seq, from: "1".parse().expect("a user"), mid, at: 0, body }
}

fn append(c: &mut Criterion) {
    let Ok(url) = std::env::var("CHAT_BENCH_DATABASE") else {
        eprintln!("mysql: CHAT_BENCH_DATABASE is not set");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let store = runtime.block_on(MySqlStore::open(&url, Duration::ZERO)).expect("a database");
    let mut group = c.benchmark_group("mysql");
    for size in [1u64, 16, 256] {
        let convs = (1..=size).map(|n| size * 1000 + n);
        let first = ConversationId::group(GroupId::new(size * 1000 + 1).expect("in range"));
        let mut next = runtime.block_on(store.heads(&[first])).expect("it is there")[&first].next();
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("append {size} entries"), |b| {
            b.iter(|| {
                let entries: Vec<_> = convs.clone().map(|conv| entry(conv, next)).collect();
                next = next.next();
                let outcome = runtime.block_on(store.append(&entries)).expect("it is there");
                assert_eq!(outcome, Outcome::Committed);
            });
        });
    }
    runtime.block_on(store.close());
}

criterion_group!(benches, append);
criterion_main!(benches);
