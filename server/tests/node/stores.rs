//! Every store passes the same suite, and none can be told from another.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use server::store::{
    Store,
    conformance::{Operation, compare, suite},
    memory::MemoryStore,
    sqlite::{OpenError, SqliteStore},
};

#[tokio::test]
async fn memory_conforms() {
    suite(Arc::new(MemoryStore::new([1; 16]))).await.unwrap();
}

#[tokio::test]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(SqliteStore::open(&folder.path().join("chat.db")).await.unwrap())).await.unwrap();
}

#[tokio::test]
async fn sqlite_in_memory_conforms() {
    suite(Arc::new(SqliteStore::in_memory().await.unwrap())).await.unwrap();
}

/// What was committed is there after the store was opened again; while it is open, nobody else gets in.
#[tokio::test]
async fn sqlite_keeps_what_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/down/chat.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let deployment = store.deployment().await.unwrap();
    assert!(matches!(SqliteStore::open(&path).await, Err(OpenError::InUse(_))));
    store.close().await;
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.deployment().await.unwrap(), deployment);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    std::fs::write(&path, "this is not a database, however long it may be ".repeat(100)).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
    assert!(SqliteStore::open(std::path::Path::new("/proc/nowhere/chat.db")).await.is_err());
}

/// Any step.
pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let id = 0u8..6;
    prop_oneof![
        2 => any::<u8>().prop_map(|id| Operation::Register { id }),
        6 => vec((any::<u8>(), any::<u8>(), 0u8..40, prop_oneof![8 => Just(0i8), 1 => -2i8..0]), 1..6).prop_map(Operation::Append),
        2 => (any::<u8>(), 0u8..4, vec((any::<u8>(), 0u8..40), 1..4)).prop_map(|(conv, below, messages)| Operation::AppendAfter(conv, below, messages)),
        2 => (any::<u8>(), any::<u8>(), id.clone(), any::<bool>()).prop_map(|(a, b, id, friends)| Operation::Befriend { a, b, id, friends }),
        2 => (any::<u8>(), any::<u8>(), id.clone(), any::<bool>()).prop_map(|(a, b, id, blocked)| Operation::Block { a, b, id, blocked }),
        1 => (any::<u8>(), id.clone()).prop_map(|(a, id)| Operation::CreateGroup { a, id }),
        4 => (any::<u8>(), any::<u8>(), id.clone(), any::<bool>()).prop_map(|(a, group, id, joins)| Operation::Join { a, group, id, joins }),
        1 => (any::<u8>(), any::<u8>(), id.clone()).prop_map(|(a, group, id)| Operation::DeleteGroup { a, group, id }),
        2 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, token, password)| Operation::AddToken { a, token, password }),
        1 => (any::<u8>(), id, any::<u8>()).prop_map(|(a, id, keep)| Operation::SetPassword { a, id, keep }),
        2 => (any::<u8>(), any::<u8>(), 0u8..40, any::<u8>()).prop_map(|(a, conv, id, limit)| Operation::Erase { a, conv, id, limit }),
        1 => (any::<u8>(), 0u8..6).prop_map(|(a, id)| Operation::EraseAccount { a, id }),
        1 => Just(Operation::Expire),
        2 => (any::<u8>(), any::<u8>(), 0u8..10).prop_map(|(a, conv, seq)| Operation::Deliver { a, conv, seq }),
        3 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(conv, seq, limit, bytes)| Operation::Page { conv, seq, limit, bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is done to both, SQLite and memory answer alike.
    #[test]
    fn sqlite_and_memory_are_alike(operations in vec(operation(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sqlite: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.unwrap());
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new([1; 16]));
            // Everyone who acts has an account.
            let accounts = (0..5).map(|id| Operation::Register { id: 100 + id });
            let operations: Vec<_> = accounts.chain(operations).collect();
            compare(sqlite, memory, &operations).await.unwrap();
        });
    }
}
