//! Every fault does what it says: SPEC.md, guarantees 1, 3 and 10; DESIGN's rules for retries and for the sweep. Time is virtual.

use std::{collections::BTreeSet, time::Duration};

use protocol::{Clock as _, ConversationId, Entry, EntryBody, Seq};
use server::store::{GroupOutcome, NewEntry, NewGroup, Outcome, RegisterOutcome, Result, Store, StoreError};
use sim::store::{Faults, Limits, Met};
use tokio::time::{Instant, sleep, timeout};

use super::net::{START, World, conv, message, mid, user};

const ALWAYS: u16 = 1000;

fn unavailable<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn head(store: &dyn Store) -> Seq {
    store.heads(&[conv()]).await.unwrap()[&conv()]
}

async fn entries(store: &dyn Store) -> Vec<Entry> {
    store.entries(conv(), Seq::ZERO, 1000, 1 << 20).await.unwrap()
}

/// A write whose outcome is unknown is there or not; what is tried again after a look is there once.
#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_there_or_not() {
    let world = World::new(1).await;
    let store = world.store(Limits::default());
    let (mut there, mut not) = (0, 0);
    for id in 1..=40 {
        let next = head(&store).await.next();
        world.set(Faults { commit_unknown: ALWAYS, ..Faults::default() });
        unavailable(store.append(&[message(next.0, id)]).await);
        world.set(Faults::default());
        let found = store.resolve(&[(conv(), user(1), mid(id))], &[conv()]).await.unwrap();
        if found.known.is_empty() {
            not += 1;
            assert_eq!(found.heads[&conv()], next.previous());
            assert_eq!(store.append(&[message(next.0, id)]).await.unwrap(), Outcome::Committed);
        } else {
            there += 1;
            assert_eq!(found.heads[&conv()], next);
            assert_eq!(store.append(&[message(next.0, id)]).await.unwrap(), Outcome::Conflict);
        }
    }
    assert!(there > 5 && not > 5, "{there} {not}");
    let mids: BTreeSet<_> = entries(&store).await.iter().map(|entry| entry.mid).collect();
    assert_eq!((mids.len(), head(&store).await), (40, Seq(40)));
    let met = world.database.met();
    assert_eq!((met.lost_replies, met.lost_requests), (there, not));
}

/// Nothing is written twice for having been asked for once: the client does not try again by itself.
#[tokio::test(start_paused = true)]
async fn what_may_have_happened_is_not_repeated() {
    let world = World::new(2).await;
    let store = world.store(Limits::default());
    let before = world.database.met().requests;
    world.set(Faults { commit_unknown: ALWAYS, ..Faults::default() });
    unavailable(store.append(&[message(1, 1)]).await);
    unavailable(store.set_delivered(&[(user(1), conv(), Seq(1))]).await);
    assert_eq!(world.database.met().requests - before, 2);
}

/// A late commit becomes visible after whoever looked in between has seen nothing, and carries the time at which it was asked for: a look
/// that starts after that never finds it, only a comparison of heads does.
#[tokio::test(start_paused = true)]
async fn a_late_commit_is_behind_the_back_of_a_look() {
    for seed in 0..12 {
        let world = World::new(seed).await;
        let store = world.store(Limits::default());
        assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Committed);
        sleep(Duration::from_millis(100)).await;
        world.set(Faults { late_commit: ALWAYS, late_max_ms: 60_000, ..Faults::default() });
        let asked_at = world.clock.now();
        unavailable(store.append(&[message(2, 2)]).await);
        let gave_up = world.clock.now() - asked_at;
        world.set(Faults::default());
        assert!(gave_up == 0 || gave_up == 5000, "the connection ended, or stayed silent: {gave_up}");
        let seen = head(&store).await;
        if seen == Seq(2) {
            assert!(gave_up > 0, "a commit is late");
            continue;
        }
        let looked_at = world.clock.now();
        sleep(Duration::from_secs(61)).await;
        assert_eq!(head(&store).await, Seq(2), "it was carried out in the end");
        let since = |at| store.advanced(at, 10);
        assert_eq!(since(asked_at).await.unwrap().heads, [(conv(), Seq(2))]);
        assert_eq!(since(asked_at).await.unwrap().until, asked_at, "its time is that of the statement");
        assert_eq!(since(looked_at.max(asked_at + 1)).await.unwrap().heads, []);
        assert_eq!(world.database.met().late_commits, 1);
    }
}

/// Whoever writes at its place first has it: then the late one is never there.
#[tokio::test(start_paused = true)]
async fn a_late_commit_finds_its_place_taken() {
    let world = World::new(3).await;
    let store = world.store(Limits::default());
    world.set(Faults { late_commit: ALWAYS, late_max_ms: 3_600_000, ..Faults::default() });
    unavailable(store.append(&[message(1, 1)]).await);
    world.set(Faults::default());
    assert_eq!(store.append(&[message(1, 2)]).await.unwrap(), Outcome::Committed);
    sleep(Duration::from_secs(3601)).await;
    let mids: Vec<_> = entries(&store).await.iter().map(|entry| entry.mid).collect();
    assert_eq!(mids, [mid(2)]);
}

/// What the host had not carried out when it crashed is lost; what it had is kept.
#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_was_committed_and_nothing_else() {
    let mut world = World::new(4).await;
    let store = world.store(Limits::default());
    assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Committed);
    world.set(Faults { late_commit: ALWAYS, late_max_ms: 3_600_000, ..Faults::default() });
    unavailable(store.append(&[message(2, 2)]).await);
    world.set(Faults::default());
    world.crash().await;
    unavailable(store.heads(&[conv()]).await);
    sleep(Duration::from_secs(3601)).await;
    world.start().await;
    assert_eq!(head(&store).await, Seq(1));
    assert_eq!(store.user_name(user(2)).await.unwrap().as_deref(), Some("kir"));
    assert_eq!(store.append(&[message(2, 3)]).await.unwrap(), Outcome::Committed);
}

/// A request that takes too long is given up, alone: others are answered, and it is carried out nevertheless.
#[tokio::test(start_paused = true)]
async fn a_slow_write_is_given_up_and_commits_later() {
    let mut given_up = 0;
    for seed in 0..10 {
        let world = World::new(seed).await;
        let store = world.store(Limits::default());
        world.set(Faults { slow_max_ms: 60_000, ..Faults::default() });
        let entry = [message(1, 1)];
        let start = Instant::now();
        let (written, name) = tokio::join!(store.append(&entry), async {
            // The write has been drawn by now.
            sleep(Duration::from_millis(1)).await;
            world.set(Faults::default());
            let name = timeout(Duration::from_millis(1), store.user_name(user(1))).await;
            name.expect("another connection is not held up").unwrap()
        });
        assert_eq!(name.as_deref(), Some("Kirito"));
        if start.elapsed() >= Duration::from_secs(5) {
            given_up += 1;
            assert_eq!(unavailable(written), "no answer in time");
        } else {
            assert_eq!(written.unwrap(), Outcome::Committed);
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(head(&store).await, Seq(1));
        assert_eq!(world.database.met().slow, 1);
    }
    assert!(given_up > 0);
}

/// Writes on different connections overtake each other; what the committer writes, on one connection, does not.
#[tokio::test(start_paused = true)]
async fn the_log_connection_keeps_order() {
    let world = World::new(5).await;
    let store = world.store(Limits::default());
    world.set(Faults { slow_max_ms: 500, ..Faults::default() });
    let entries = [message(1, 1), message(2, 2), message(3, 3), message(4, 4)];
    let [a, b, c, d] = entries.each_ref().map(std::slice::from_ref);
    let done = tokio::join!(store.append(a), store.append(b), store.append(c), store.append(d));
    for outcome in [done.0, done.1, done.2, done.3] {
        assert_eq!(outcome.unwrap(), Outcome::Committed);
    }

    let mut finished = Vec::new();
    for number in 1..=6u8 {
        let store = &store;
        finished.push(Box::pin(async move {
            store.set_delivered(&[(user(1), conv(), Seq(u64::from(number)))]).await.unwrap();
            (Instant::now(), number)
        }));
    }
    let [a, b, c, d, e, f] = <[_; 6]>::try_from(finished).ok().unwrap();
    let done = tokio::join!(a, b, c, d, e, f);
    let mut by_time = [done.0, done.1, done.2, done.3, done.4, done.5];
    by_time.sort();
    assert_ne!(by_time.map(|(_, number)| number), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn reads_fail() {
    let world = World::new(6).await;
    let store = world.store(Limits::default());
    world.set(Faults { read_error: ALWAYS, ..Faults::default() });
    unavailable(store.heads(&[conv()]).await);
    unavailable(store.opening(&[1; 32], &[]).await);
    assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Committed, "writes do not");
    world.set(Faults::default());
    assert_eq!(head(&store).await, Seq(1));
    assert_eq!(world.database.met().read_errors, 2);
}

/// The victim of a deadlock has certainly written nothing, and gets what the MySQL store makes of that.
#[tokio::test(start_paused = true)]
async fn victims_of_deadlocks_have_written_nothing() {
    let world = World::new(7).await;
    let store = world.store(Limits::default());
    world.set(Faults { deadlock: ALWAYS, ..Faults::default() });
    assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Conflict);
    assert_eq!(store.append_after(Seq::ZERO, &[message(1, 1)]).await.unwrap(), None);
    let (name, description) = ("g".to_owned(), String::new());
    let group = NewGroup { creator: user(1), mid: mid(9), name, description, at: START, notice_seq: Seq(1) };
    assert_eq!(store.create_group(&group).await.unwrap(), GroupOutcome::Conflict);
    let name = "silica".to_owned();
    let new = server::store::NewUser {
        mid: mid(3),
        name_key: name.clone(),
        name,
        password_hash: "x".into(),
        at: START,
    };
    assert_eq!(store.register(&new).await.unwrap(), RegisterOutcome::Conflict);
    unavailable(store.remove_token(&[1; 32]).await);
    let before = world.database.met().deadlocks;
    let notices = ConversationId::notices(user(1));
    unavailable(store.set_delivered(&[(user(1), notices, Seq(1))]).await);
    assert_eq!(world.database.met().deadlocks - before, 3, "tried again, since order does not matter");
    world.set(Faults::default());
    assert_eq!(head(&store).await, Seq::ZERO);
    let opening = store.add_token(&[1; 32], user(1), "x", START, 1).await.unwrap().unwrap();
    assert_eq!(opening.periods[0].delivered, Seq::ZERO);
    assert_eq!(store.registered_with(mid(3)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_away_is_unavailable_and_comes_back() {
    let mut world = World::new(8).await;
    let store = world.store(Limits::default());
    assert_eq!(head(&store).await, Seq::ZERO);
    world.crash().await;
    for _ in 0..3 {
        unavailable(store.heads(&[conv()]).await);
        unavailable(store.append(&[message(1, 1)]).await);
    }
    world.start().await;
    assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Committed);
}

/// More calls than connections wait for their turn, for a time.
#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_connection() {
    let world = World::new(9).await;
    let limits = Limits { shared: 1, ..Limits::default() };
    let store = world.store(limits);
    let three = || async { tokio::join!(store.now(), store.now(), store.now()) };
    let (a, b, c) = three().await;
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    // One stream in the way that nobody answers.
    let silent = sim::store::RemoteStore::new(&world.net, "10.0.0.1:1", limits);
    let _never_accepts = protocol::Net::bind(&world.net, "10.0.0.1:1").await.unwrap();
    let start = Instant::now();
    let (a, b) = tokio::join!(silent.now(), silent.now());
    let mut why = [unavailable(a), unavailable(b)];
    why.sort();
    assert_eq!(why[0], "no answer in time");
    assert!(start.elapsed() <= 2 * limits.call);
}

/// A closed store answers nothing more, nor does a call that was waiting for its turn.
#[tokio::test(start_paused = true)]
async fn a_closed_store_is_unavailable() {
    let world = World::new(10).await;
    let store = world.store(Limits::default());
    assert_eq!(head(&store).await, Seq::ZERO);
    store.close().await;
    assert_eq!(unavailable(store.heads(&[conv()]).await), "the store is closed");
    assert_eq!(unavailable(store.append(&[message(1, 1)]).await), "the store is closed");
}

/// A connection that was idle for long is asked before it is used; one that has died meanwhile is replaced unnoticed.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_died_is_replaced() {
    let mut world = World::new(11).await;
    let store = world.store(Limits::default());
    assert_eq!(store.append(&[message(1, 1)]).await.unwrap(), Outcome::Committed);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(store.append(&[message(2, 2)]).await.unwrap(), Outcome::Committed, "it lives");
    world.crash().await;
    world.start().await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(store.append(&[message(3, 3)]).await.unwrap(), Outcome::Committed);
}

/// The store's time is its host's, however wrong.
#[tokio::test(start_paused = true)]
async fn time_is_the_hosts() {
    let world = World::new(12).await;
    let store = world.store(Limits::default());
    let now = store.now().await.unwrap();
    assert_eq!(now, world.clock.now());
    store.append(&[message(1, 1)]).await.unwrap();
    *world.clock.base.lock().unwrap() -= 3_600_000;
    assert_eq!(store.now().await.unwrap(), now - 3_600_000);
    store.append(&[message(2, 2)]).await.unwrap();
    assert_eq!(store.advanced(now - 1, 10).await.unwrap().heads, [(conv(), Seq(1))], "as an index gives it");
    let all = store.advanced(now - 3_600_000, 10).await.unwrap();
    assert_eq!((all.heads, all.until), (vec![(conv(), Seq(2))], now));
}

/// An entry of a kind that this version does not know goes there and back.
#[tokio::test(start_paused = true)]
async fn unknown_kinds_survive() {
    let world = World::new(13).await;
    let store = world.store(Limits::default());
    let body = EntryBody::Other { kind: "kind99".into() };
    store.append(&[NewEntry { body: body.clone(), ..message(1, 1) }]).await.unwrap();
    assert_eq!(entries(&store).await[0].body, body);
    assert_eq!(store.append_after(Seq::ZERO, &[message(1, 2)]).await.unwrap(), Some(Seq(2)), "no rights");
}

/// The same seed and the same requests meet the same faults.
#[tokio::test(start_paused = true)]
async fn faults_are_a_function_of_the_seed() {
    async fn run(seed: u64) -> (Vec<String>, Met, Vec<Entry>) {
        let world = World::new(seed).await;
        let store = world.store(Limits::default());
        world.set(Faults {
            commit_unknown: 100,
            late_commit: 100,
            late_max_ms: 20_000,
            slow_max_ms: 50,
            read_error: 100,
            deadlock: 100,
        });
        let mut told = Vec::new();
        for id in 1..=100 {
            let head = store.heads(&[conv()]).await;
            let next = head.as_ref().map_or(Seq(1), |heads| heads[&conv()].next());
            told.push(format!("{head:?} {:?}", store.append(&[message(next.0, id)]).await));
        }
        world.set(Faults::default());
        sleep(Duration::from_secs(60)).await;
        (told, world.database.met(), entries(&store).await)
    }
    let (once, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(once, again);
    assert_ne!(once.0, other.0);
    let met = once.1;
    let all =
        [met.lost_requests, met.lost_replies, met.late_commits, met.slow, met.read_errors, met.deadlocks];
    assert!(all.iter().all(|times| *times > 0), "{met:?}");
}
