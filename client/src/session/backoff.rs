//! Pauses that grow, are capped, and differ between clients.

use std::time::Duration;

/// A small generator for jitter, seeded from outside: the machine stays a function of its inputs.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From half of the pause number `attempt` (0 is the first) up to all of it. The pause doubles from `min` up to
    /// `max`.
    pub(super) fn pause(&mut self, attempt: u32, min: Duration, max: Duration) -> Duration {
        let pause = min.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(max);
        pause / 2 + self.below(pause / 2)
    }

    /// A duration from zero up to `most`, in whole microseconds.
    pub(super) fn below(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.next() % most.saturating_add(1).max(1))
    }

    /// The next number of the splitmix64 sequence.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut jitter = Jitter::new(7);
        for (attempt, whole) in [(0, 100), (1, 200), (3, 800), (10, 10_000), (31, 10_000), (32, 10_000)] {
            let whole = Duration::from_millis(whole);
            for _ in 0..100 {
                let pause = jitter.pause(attempt, min, max);
                assert!(pause >= whole / 2 && pause <= whole, "attempt {attempt}: {pause:?}");
            }
        }
    }
}
