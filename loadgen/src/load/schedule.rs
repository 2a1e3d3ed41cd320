//! When an open-loop sender should send, whatever became of what it sent before.

use std::time::Duration;

use crate::rng::Rng;

/// How the times of one sender lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    /// All intervals are equal; the senders' times are offset against each other.
    Even,
    /// Intervals are exponentially distributed: independent users.
    Poisson,
}

/// The intended times of one sender, ascending, since the start of the load.
///
/// The rate grows from zero during the ramp, linearly, and then stays. Times come from inverting the expected number
/// of messages, so that the ramp changes nothing else.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Messages per second.
    rate: f64,
    /// Seconds.
    ramp: f64,
    spacing: Spacing,
    rng: Rng,
    /// The expected number of messages up to the next one.
    place: f64,
}

impl Schedule {
    /// The times of sender `index` of `senders` that share a rate evenly.
    pub(super) fn new(rate: f64, ramp: Duration, spacing: Spacing, seed: u64, share: (u32, u32)) -> Self {
        let (index, senders) = share;
        let mut rng = Rng::of_part(seed, u64::from(index));
        let place = match spacing {
            Spacing::Even => (f64::from(index) + 0.5) / f64::from(senders.max(1)),
            Spacing::Poisson => exponential(&mut rng),
        };
        Self { rate, ramp: ramp.as_secs_f64(), spacing, rng, place }
    }

    /// The next intended time; `None` for a rate of zero, or for times beyond all reason.
    pub(super) fn peek(&self) -> Option<Duration> {
        if self.rate <= 0.0 {
            return None;
        }
        let in_ramp = self.rate * self.ramp / 2.0;
        let seconds = if self.place < in_ramp {
            (2.0 * self.place * self.ramp / self.rate).sqrt()
        } else {
            self.ramp + (self.place - in_ramp) / self.rate
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Goes on to the time after.
    pub(super) fn advance(&mut self) {
        self.place += match self.spacing {
            Spacing::Even => 1.0,
            Spacing::Poisson => exponential(&mut self.rng),
        };
    }
}

/// With a mean of one.
fn exponential(rng: &mut Rng) -> f64 {
    // 53 bits, as many as the type has; never zero.
    let uniform = ((rng.number() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of all senders within `seconds`.
    fn times(rate: f64, senders: u32, ramp: u64, spacing: Spacing, seconds: u64) -> Vec<Duration> {
        let mut all = Vec::new();
        for index in 0..senders {
            let ramp = Duration::from_secs(ramp);
            let mut schedule = Schedule::new(rate / f64::from(senders), ramp, spacing, 1, (index, senders));
            while let Some(at) = schedule.peek().filter(|at| *at < Duration::from_secs(seconds)) {
                all.push(at);
                schedule.advance();
            }
        }
        all.sort();
        all
    }

    #[test]
    fn even_times_fill_the_interval_evenly() {
        let all = times(100.0, 10, 0, Spacing::Even, 2);
        assert_eq!(all.len(), 200);
        for pair in all.windows(2) {
            let between = (pair[1] - pair[0]).as_secs_f64();
            assert!((between - 0.01).abs() < 1e-6, "{between}");
        }
    }

    #[test]
    fn poisson_times_have_the_rate_and_are_not_even() {
        let all = times(1000.0, 10, 0, Spacing::Poisson, 10);
        assert!((9_500..10_500).contains(&all.len()), "{}", all.len());
        let short = all.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_micros(500)).count();
        // 1 - exp(-1/2) of the intervals are below half the mean.
        assert!((3_600..4_300).contains(&short), "{short}");
        assert_eq!(all, times(1000.0, 10, 0, Spacing::Poisson, 10), "a seed is a sequence");
    }

    #[test]
    fn a_ramp_sends_half_as_much_and_ends_at_the_rate() {
        for spacing in [Spacing::Even, Spacing::Poisson] {
            let all = times(1000.0, 1, 4, spacing, 6);
            let within = |from: u64, to: u64| {
                all.iter().filter(|at| (from..to).contains(&(at.as_millis() as u64))).count() as f64
            };
            for (from, to, expected) in [(0, 4000, 2000.0), (0, 1000, 125.0), (4000, 6000, 2000.0)] {
                let found = within(from, to);
                assert!((found - expected).abs() < expected / 3.0 + 1.0, "{spacing:?} {from} {found}");
            }
        }
    }

    #[test]
    fn no_rate_no_times() {
        assert_eq!(Schedule::new(0.0, Duration::ZERO, Spacing::Even, 1, (0, 1)).peek(), None);
    }
}
