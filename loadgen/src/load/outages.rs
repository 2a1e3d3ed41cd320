//! Sessions that lost their connection unasked, and how long until they went on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::stats::{Percentiles, histogram, percentiles, record};

/// What became of the sessions that lost their connection, during the whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outages {
    /// Connections lost, by sessions.
    pub lost: u64,
    /// Of them, resumed on another one.
    pub resumed: u64,
    /// From the loss to the resumed session, of each, in microseconds.
    pub us: Percentiles,
    /// From the first loss of all to the last resumed session, in microseconds.
    pub span_us: u64,
}

/// Counts them; all times are since the run began.
#[derive(Debug)]
pub(super) struct Recorder(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    lost: u64,
    first: Option<Duration>,
    last: Duration,
    times: Histogram<u64>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let counts = Counts { lost: 0, first: None, last: Duration::ZERO, times: histogram(3) };
        Self(Mutex::new(counts))
    }

    pub(super) fn lost(&self, now: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.lost += 1;
        counts.first.get_or_insert(now);
    }

    pub(super) fn resumed(&self, lost: Duration, now: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.last = counts.last.max(now);
        record(&mut counts.times, now.saturating_sub(lost));
    }

    pub(super) fn outages(&self) -> Outages {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let span = counts.last.saturating_sub(counts.first.unwrap_or(counts.last));
        Outages {
            lost: counts.lost,
            resumed: counts.times.len(),
            us: percentiles(&counts.times),
            span_us: super::stamp::micros(span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_is_from_the_first_loss_to_the_last_return() {
        let ms = Duration::from_millis;
        let recorder = Recorder::new();
        assert_eq!(recorder.outages(), Outages::default());
        recorder.lost(ms(1000));
        recorder.lost(ms(1010));
        recorder.lost(ms(1020));
        recorder.resumed(ms(1010), ms(1500));
        recorder.resumed(ms(1000), ms(1200));
        let outages = recorder.outages();
        assert_eq!((outages.lost, outages.resumed, outages.span_us), (3, 2, 500_000));
        assert!(outages.us.max.abs_diff(490_000) < 1000, "{outages:?}");
    }
}
