//! The append to SQLite, `synchronous=FULL`, in batches of 1, 16 and 256; and opening a database that is not new.

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{ClientMsgId, ConversationId, EntryBody, GroupId, Seq};
use server::store::{NewEntry, NewUser, Outcome, Store as _, sqlite::SqliteStore};

/// Where the files are: on a real disk, since a temporary folder may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a folder")
}

fn entry(conv: ConversationId, seq: Seq) -> NewEntry {
    let mid = ClientMsgId(u128::from(seq.0).to_le_bytes());
    let body = EntryBody::Message { text: "x".repeat(32) };
    NewEntry { conv, seq, from: "1".parse().expect("a user"), mid, at: 0, body }
}

fn user() -> NewUser {
    let (mid, name) = (ClientMsgId([1; 16]), "kirito".to_owned());
    NewUser { mid, name_key: name.clone(), name, password_hash: String::new(), at: 0 }
}

fn group_conv(number: u64) -> ConversationId {
    ConversationId::group(GroupId::new(number).expect("in range"))
}

fn append(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("sqlite");
    for size in [1u64, 16, 256] {
        let folder = folder();
        let store = runtime.block_on(SqliteStore::open(&folder.path().join("chat.db"))).expect("a store");
        runtime.block_on(store.register(&user())).expect("a user");
        let mut next = Seq(1);
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("append {size} entries"), |b| {
            b.iter(|| {
                // Each in a conversation of its own, as a batch of direct messages is.
                let entries: Vec<_> = (1..=size).map(|conv| entry(group_conv(conv), next)).collect();
                next = next.next();
                let outcome = runtime.block_on(store.append(&entries)).expect("it is there");
                assert_eq!(outcome, Outcome::Committed);
            });
        });
        runtime.block_on(store.close());
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = folder();
    let path = folder.path().join("chat.db");
    runtime.block_on(async {
        let store = SqliteStore::open(&path).await.expect("a store");
        store.register(&user()).await.expect("a user");
        for batch in 0..20 {
            let entries: Vec<_> = (1..=500).map(|n| entry(group_conv(500 * batch + n), Seq(1))).collect();
            assert_eq!(store.append(&entries).await.expect("it is there"), Outcome::Committed);
        }
        store.close().await;
    });
    c.bench_function("sqlite/open with 10,000 conversations", |b| {
        b.iter(|| {
            runtime.block_on(async { SqliteStore::open(&path).await.expect("a store").close().await });
        });
    });
}

criterion_group!(benches, append, open);
criterion_main!(benches);
