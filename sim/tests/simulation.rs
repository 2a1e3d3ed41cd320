//! What once failed, and whether the check of determinism notices what it is for.
//!
//! Built without the flag that `cargo sim` sets, runs are no functions of their scenarios: `cargo sim determinism` checks that they are with it.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_types, reason = "hash maps are what some of the programs leak through")]

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sim::{
    determinism,
    entropy::spawn_seeded,
    generate::{Size, generate},
    run::{Keep, Verdict, run},
    scenario::Scenario,
    trace::{Finished, Trace, What},
};

/// What once failed does not fail again.
#[test]
fn regressions_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let scenario = Scenario::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let run = run(&scenario, Keep::Hash);
            assert!(run.verdict.is_valid(), "{}: {}", path.display(), run.verdict);
        }
    }
}

/// A run that cannot go well is not said to be valid: no node ever gets an answer of the store in time.
#[test]
fn a_broken_system_is_not_valid() {
    let mut scenario = generate(1, &Size::default());
    scenario.faults.clear();
    scenario.knobs.store_timeout_ms = 0;
    let verdict = run(&scenario, Keep::Hash).verdict;
    assert!(matches!(verdict, Verdict::Stuck(_)), "{verdict}");
}

/// A small program on turmoil that does something which it should not do: notes a number.
fn leaky(keep: bool, number: impl Fn() -> u64 + Send + Sync + 'static) -> Finished {
    let trace = Trace::new(keep);
    let (own, number) = (trace.clone(), Arc::new(number));
    spawn_seeded(1, move || {
        let mut sim = turmoil::Builder::new().rng_seed(1).epoch(std::time::UNIX_EPOCH).build();
        sim.client("leaky", async move {
            let host: Arc<str> = "leaky".into();
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                own.note(&host, What::Said("before".into()));
                own.note(&host, What::Said(format!("leaked {}", number())));
            }
            Ok(())
        });
        sim.run().unwrap();
    })
    .join()
    .unwrap();
    trace.finish()
}

fn is_caught(leak: impl Fn() -> u64 + Send + Sync + Clone + 'static) {
    let difference = determinism::check(5, |keep| leaky(keep, leak.clone())).expect_err("it is caught");
    assert!(difference.one.contains("leaked") && difference.other.contains("leaked"), "{difference}");
    assert!(difference.after % 2 == 1, "what is the same is not named: {difference}");
}

#[test]
fn nothing_is_caught_where_nothing_leaks() {
    assert!(determinism::check(5, |keep| leaky(keep, || 7)).is_ok());
    // A hash map's order, on a seeded thread: under control.
    assert!(determinism::check(5, |keep| leaky(keep, || RandomState::new().hash_one(7))).is_ok());
}

/// The keys of this one come from a thread that is not under control.
#[test]
fn the_order_of_a_hash_map_is_caught() {
    is_caught(|| {
        let keys = std::thread::scope(|scope| scope.spawn(RandomState::new).join().unwrap());
        keys.hash_one(7)
    });
}

#[test]
fn the_wall_clock_is_caught() {
    #[expect(clippy::disallowed_methods, reason = "it is what must be caught")]
    is_caught(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
}

/// A runtime that nobody seeded draws its orders from another thread's entropy.
#[test]
fn an_unseeded_select_is_caught() {
    is_caught(|| {
        let race = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut order = 0;
                for _ in 0..32 {
                    tokio::select! {
                        () = std::future::ready(()) => order *= 2,
                        () = std::future::ready(()) => order = order * 2 + 1,
                    }
                }
                order
            })
        };
        std::thread::scope(|scope| scope.spawn(race).join().unwrap())
    });
}

/// Two threads, and who comes when.
#[test]
fn a_thread_is_caught() {
    is_caught(|| {
        let turns = AtomicU64::new(0);
        let seen = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                for _ in 0..10_000 {
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
            std::thread::yield_now();
            let seen = turns.load(Ordering::Relaxed);
            other.join().unwrap();
            seen
        });
        // Where the machine lets one thread always come first, their numbers still differ.
        seen ^ std::thread::scope(|scope| scope.spawn(thread_number).join().unwrap())
    });
}

fn thread_number() -> u64 {
    format!("{:?}", std::thread::current().id()).bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte))
}
