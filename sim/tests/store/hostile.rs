//! Whatever is sent to the host, others are served.

use std::time::Duration;

use loadgen::rng::Rng;
use protocol::{Net as _, Seq};
use server::store::Store as _;
use sim::store::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::net::{World, conv};
use crate::memory::ADDRESS;

/// What comes back until the connection ends; `None` if it stays open.
async fn answer(world: &World, bytes: &[u8], more: bool) -> Option<Vec<u8>> {
    let mut stream = world.net.connect(ADDRESS).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if !more {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    ended.is_ok().then_some(answer)
}

fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&length, text.as_bytes()].concat()
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_its_connection_and_no_other() {
    let world = World::new(1).await;
    let store = world.store(Limits::default());
    assert_eq!(store.heads(&[conv()]).await.unwrap()[&conv()], Seq::ZERO);

    for text in [
        "x",
        "null",
        "[]",
        "{}",
        r#"{"no_such_method":{}}"#,
        r#"{"heads":{}}"#,
        r#"{"heads":{"convs":["d2-1"]}}"#,
        r#"{"user_name":{"user":0}}"#,
        r#"{"user_name":{"user":1}} and more"#,
        &"[".repeat(100_000),
        &format!(r#"{{"heads":{{"convs":{}"#, "[".repeat(100_000)),
        "\u{0}",
    ] {
        let ended = answer(&world, &frame(text), true).await;
        assert_eq!(ended, Some(vec![]), "{}", text.chars().take(40).collect::<String>());
    }
    assert_eq!(answer(&world, &[0xff; 8], true).await, Some(vec![]), "a frame of 4 GB");
    assert_eq!(answer(&world, &(65u32 << 20).to_be_bytes(), true).await, Some(vec![]), "a frame of 65 MB");
    assert_eq!(answer(&world, &frame("{}")[..5], false).await, Some(vec![]), "half a frame");
    assert_eq!(answer(&world, &(1u32 << 20).to_be_bytes(), true).await, None, "the rest is waited for");
    assert_eq!(answer(&world, &[0; 8], false).await, Some(vec![0; 8]), "two pings");

    let asked = frame(r#"{"user_name":{"user":1}}"#);
    let told = frame(r#"{"user_name":"Kirito"}"#);
    assert_eq!(
        answer(&world, &[asked.clone(), asked].concat(), false).await,
        Some([told.clone(), told].concat())
    );

    let mut rng = Rng::new(5);
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..rng.below(64)).map(|_| rng.number().to_le_bytes()[0]).collect();
        answer(&world, &bytes, false).await;
    }
    assert_eq!(store.heads(&[conv()]).await.unwrap()[&conv()], Seq::ZERO, "others are served");
}

/// Numbers at their limits are numbers.
#[tokio::test(start_paused = true)]
async fn extreme_numbers_are_answered() {
    let world = World::new(2).await;
    let store = world.store(Limits::default());
    let max = Seq(u64::MAX);
    assert_eq!(store.entries(conv(), max, usize::MAX, usize::MAX).await.unwrap(), []);
    assert_eq!(store.entries_before(conv(), max, max, usize::MAX, usize::MAX).await.unwrap(), []);
    assert_eq!(store.advanced(i64::MIN, usize::MAX).await.unwrap().heads, []);
    assert_eq!(store.advanced(i64::MAX, 0).await.unwrap().heads, []);
    assert_eq!(store.friends(super::net::user(1), u64::MAX, usize::MAX).await.unwrap(), []);
    assert_eq!(store.append_after(max, &[super::net::message(1, 1)]).await.unwrap(), Some(Seq(1)));
}

/// One connection more than the host takes is closed, and asking works again once others have gone.
#[tokio::test(start_paused = true)]
async fn connections_are_limited() {
    let world = World::new(3).await;
    let mut open = Vec::new();
    for _ in 0..600 {
        open.push(world.net.connect(ADDRESS).await.unwrap());
        tokio::task::yield_now().await;
    }
    let store = world.store(Limits::default());
    assert!(store.now().await.is_err());
    open.clear();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.now().await.is_ok());
}
