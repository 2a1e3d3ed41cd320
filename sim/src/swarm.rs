//! Many runs, one seed after the other, on several threads.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use loadgen::Verdict as Judged;

use crate::{
    coverage::Coverage,
    generate::{Size, generate, generate_calm},
    run::{Keep, Run, Verdict, run},
    scenario::Scenario,
};

/// Which runs.
#[derive(Debug, Clone, Copy)]
pub struct Swarm {
    /// The first seed.
    pub start_seed: u64,
    /// How many.
    pub runs: u64,
    /// Threads.
    pub jobs: usize,
    /// After so many failures no run is begun.
    pub stop_after: u64,
    /// How large scenarios are.
    pub size: Size,
    /// One seed in so many is played twice without faults, with hints and without, and the ends are compared; 0: none.
    pub hint_every: u64,
}

/// A run that was not valid.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What was played.
    pub scenario: Scenario,
    /// What it came to.
    pub verdict: Verdict,
}

/// What the runs came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Runs that were played.
    pub runs: u64,
    /// Their simulated time.
    pub simulated: Duration,
    /// Events of all traces.
    pub events: u64,
    /// By seed.
    pub failures: BTreeMap<u64, Failure>,
    /// What was put to the test.
    pub coverage: Coverage,
    /// What came of comparing runs with hints and without.
    pub hints: Hints,
}

/// Runs with hints beside the same without.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    /// Pairs of runs.
    pub pairs: u64,
    /// Their conversations that were compared.
    pub compared: usize,
    /// Those that could not be, mostly since requests overlapped.
    pub open: usize,
}

impl Swarm {
    /// Plays them. `watch` is told after each run how many were played and how many failed.
    pub fn play(&self, watch: impl Fn(u64, u64) + Sync) -> Outcome {
        let next = AtomicU64::new(0);
        let enough = AtomicBool::new(false);
        let outcome = Mutex::new(Outcome::default());
        let work = || {
            while !enough.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.runs {
                    break;
                }
                let seed = self.start_seed.wrapping_add(number);
                let (scenario, run, hints) = self.one(seed);
                let coverage = Coverage::of(&scenario, &run);
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                outcome.runs += 1;
                outcome.simulated += run.simulated;
                outcome.events += run.trace.count;
                outcome.coverage.add(&coverage);
                outcome.hints.pairs += hints.pairs;
                outcome.hints.compared += hints.compared;
                outcome.hints.open += hints.open;
                if !run.verdict.is_valid() {
                    outcome.failures.insert(seed, Failure { scenario, verdict: run.verdict });
                    if outcome.failures.len() as u64 >= self.stop_after {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
                watch(outcome.runs, outcome.failures.len() as u64);
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays one seed.
    fn one(&self, seed: u64) -> (Scenario, Run, Hints) {
        if self.hint_every > 0 && seed.is_multiple_of(self.hint_every) {
            let with = generate_calm(seed, &self.size);
            let mut without = with.clone();
            without.knobs.hints = false;
            let (one, mut other) = (run(&with, Keep::Hash), run(&without, Keep::Hash));
            if !one.verdict.is_valid() {
                return (with, one, Hints::default());
            }
            let mut hints = Hints::default();
            if other.verdict.is_valid() {
                let done = loadgen::checker::compare(&one.history, &other.history);
                hints = Hints { pairs: 1, compared: done.compared, open: done.open };
                if let Judged::Invalid(anomalies) = done.verdict {
                    other.verdict = Verdict::Invalid(anomalies);
                }
            }
            return (without, other, hints);
        }
        let scenario = generate(seed, &self.size);
        let run = run(&scenario, Keep::Hash);
        (scenario, run, Hints::default())
    }
}
