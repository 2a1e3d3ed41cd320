//! Latencies and counts of the measured window.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::stamp::micros;

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Percentiles {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// A part of the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Where it starts, in seconds of the window.
    pub at: f64,
    /// Messages acknowledged in it.
    pub messages: u64,
    /// Latencies of the messages that should have been sent in it: until the acknowledgement,
    pub ack: Percentiles,
    /// and until the arrivals.
    pub delivery: Percentiles,
}

/// A bar of a histogram: so many values from the last bar's `to` up to this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Microseconds.
    pub to: u64,
    /// How many.
    pub count: u64,
}

/// Counts what happens inside a window of time. All times are since the run began.
#[derive(Debug)]
pub(super) struct Stats(Mutex<Counts>);

/// What was measured in a window.
#[derive(Debug)]
pub(super) struct Counts {
    from: Duration,
    until: Duration,
    slice: Duration,
    /// Acknowledged inside the window, whenever it was sent.
    pub(super) messages: u64,
    /// Arrived inside the window at devices other than the sender's.
    pub(super) deliveries: u64,
    /// Should have been sent inside the window.
    pub(super) intended: u64,
    /// From the intended time to the acknowledgement, of what should have been sent inside the window.
    pub(super) ack: Histogram<u64>,
    /// Likewise, to each arrival.
    pub(super) delivery: Histogram<u64>,
    /// From the intended time to when the generator got round to it: its own share of the latencies.
    pub(super) lateness: Histogram<u64>,
    slices: Vec<(u64, Histogram<u32>, Histogram<u32>)>,
}

/// The most slices of a window: a page cannot show more, and each holds two histograms.
const SLICES_MAX: u32 = 300;
/// The longest latency told apart: beyond it, all are as bad.
const LATENCY_MAX: u64 = 600_000_000;

impl Stats {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Counts::new(Duration::MAX, Duration::MAX)))
    }

    /// Begins another window; what the last one counted is returned.
    pub(super) fn start(&self, from: Duration, until: Duration) -> Counts {
        std::mem::replace(&mut *self.lock(), Counts::new(from, until))
    }

    /// Takes the window's counts.
    pub(super) fn take(&self) -> Counts {
        self.start(Duration::MAX, Duration::MAX)
    }

    /// What was counted so far: messages, deliveries, and the latency below which half and 99 % of the arrivals lie.
    pub(super) fn glance(&self) -> (u64, u64, Percentiles) {
        let counts = self.lock();
        (counts.messages, counts.deliveries, counts.delivery_or_ack())
    }

    /// A message that should have been sent at `intended` was handed over.
    pub(super) fn sent(&self, intended: Duration, now: Duration) {
        let mut counts = self.lock();
        if counts.contains(intended) {
            counts.intended += 1;
            record(&mut counts.lateness, now.saturating_sub(intended));
        }
    }

    /// It was acknowledged.
    pub(super) fn acknowledged(&self, intended: Duration, now: Duration) {
        let mut counts = self.lock();
        if counts.contains(now) {
            counts.messages += 1;
            let at = counts.slice_of(now);
            counts.slices[at].0 += 1;
        }
        if counts.contains(intended) {
            let latency = now.saturating_sub(intended);
            record(&mut counts.ack, latency);
            let at = counts.slice_of(intended);
            record(&mut counts.slices[at].1, latency);
        }
    }

    /// It arrived at a device that is not its sender's.
    pub(super) fn delivered(&self, intended: Duration, now: Duration) {
        let mut counts = self.lock();
        counts.deliveries += u64::from(counts.contains(now));
        if counts.contains(intended) {
            let latency = now.saturating_sub(intended);
            record(&mut counts.delivery, latency);
            let at = counts.slice_of(intended);
            record(&mut counts.slices[at].2, latency);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are numbers: whatever a panic left half done, they can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn new(from: Duration, until: Duration) -> Self {
        let whole = until.saturating_sub(from);
        let slice = (whole / SLICES_MAX).max(Duration::from_secs(1));
        Self {
            from,
            until,
            slice,
            messages: 0,
            deliveries: 0,
            intended: 0,
            ack: histogram(3),
            delivery: histogram(3),
            lateness: histogram(3),
            slices: Vec::new(),
        }
    }

    fn contains(&self, time: Duration) -> bool {
        time >= self.from && time < self.until
    }

    /// The place of the slice of a time inside the window.
    fn slice_of(&mut self, time: Duration) -> usize {
        let at = time.saturating_sub(self.from).as_micros() / self.slice.as_micros().max(1);
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(SLICES_MAX as usize);
        while self.slices.len() <= at {
            self.slices.push((0, histogram(2), histogram(2)));
        }
        at
    }

    pub(super) fn slices(&self) -> Vec<Slice> {
        let slice = |(at, (messages, ack, delivery)): (u32, &(u64, Histogram<u32>, Histogram<u32>))| Slice {
            at: (self.slice * at).as_secs_f64(),
            messages: *messages,
            ack: percentiles(ack),
            delivery: percentiles(delivery),
        };
        (0..).zip(&self.slices).map(slice).collect()
    }

    /// Of the arrivals; of the acknowledgements where nothing arrives.
    fn delivery_or_ack(&self) -> Percentiles {
        percentiles(if self.delivery.is_empty() { &self.ack } else { &self.delivery })
    }

    /// The worse of the two latencies that 99 % keep.
    pub(super) fn p99(&self) -> Duration {
        let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
        Duration::from_micros(p99(&self.ack).max(p99(&self.delivery)))
    }
}

/// The percentiles of a histogram of microseconds.
pub(super) fn percentiles<C: hdrhistogram::Counter>(histogram: &Histogram<C>) -> Percentiles {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
}

/// The histogram in bars that widen with the values, ten for each decade.
pub(super) fn bars(histogram: &Histogram<u64>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for bar in histogram.iter_log(1, 10_f64.powf(0.1)) {
        let (to, count) = (bar.value_iterated_to(), bar.count_since_last_iteration());
        match bars.last_mut() {
            None if count == 0 => {}
            // Below ten, bars would be narrower than a microsecond.
            Some(Bar { to: last, count: sum }) if *last == to => *sum += count,
            _ => bars.push(Bar { to, count }),
        }
    }
    bars
}

pub(super) fn record<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, latency: Duration) {
    // It grows to any value of that size. (Recording "saturating" does not grow.)
    let recorded = histogram.record(micros(latency).clamp(1, LATENCY_MAX));
    debug_assert!(recorded.is_ok(), "{recorded:?}");
}

pub(super) fn histogram<C: hdrhistogram::Counter>(digits: u8) -> Histogram<C> {
    // It grows to what it needs; the bounds are valid constants.
    let mut histogram = Histogram::new(digits).expect("up to five digits are allowed");
    histogram.auto(true);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn counts_belong_to_the_window() {
        let stats = Stats::new();
        stats.acknowledged(ms(1), ms(2));
        stats.start(ms(1000), ms(3000));
        // Sent before the window, acknowledged inside it: counted, but its latency is not the window's.
        stats.acknowledged(ms(990), ms(1010));
        // Inside, and acknowledged inside or after.
        for end in [2600, 9000] {
            stats.sent(ms(2500), ms(2501));
            stats.acknowledged(ms(2500), ms(end));
            stats.delivered(ms(2500), ms(end));
        }
        stats.acknowledged(ms(3000), ms(3001));
        let counts = stats.take();
        assert_eq!((counts.messages, counts.deliveries, counts.intended), (2, 1, 2));
        assert_eq!((counts.ack.len(), counts.delivery.len()), (2, 2));
        let slices = counts.slices();
        assert_eq!(slices.len(), 2);
        assert_eq!((slices[0].messages, slices[1].messages), (1, 1));
        let near = |found: u64, expected: u64| found.abs_diff(expected) <= expected / 50;
        assert!(near(slices[1].ack.max, 6_500_000), "{:?}", slices[1]);
        assert!(near(counts.lateness.max(), 1000));
    }

    /// A server stands still for a second and then answers everything: whoever measured from the time of
    /// the sending, with one message on its way, would find one slow answer among a thousand.
    #[test]
    fn a_stall_shows_in_every_message_that_should_have_been_sent() {
        let stats = Stats::new();
        stats.start(ms(0), ms(10_000));
        for at in 0..1000 {
            let intended = ms(at * 10);
            // A sender with one message on its way sends the next one when the stall is over.
            let stalled = (ms(5000)..ms(6000)).contains(&intended);
            let answered = if stalled { ms(6000) } else { intended + ms(1) };
            stats.acknowledged(intended, answered);
        }
        let ack = percentiles(&stats.take().ack);
        assert!(ack.p50 < 2_000, "{ack:?}");
        assert!(ack.p99 > 850_000, "a tenth of the messages waited up to a second: {ack:?}");
        assert!((990_000..1_010_000).contains(&ack.max), "{ack:?}");
    }

    #[test]
    fn bars_hold_all_values() {
        let mut values = histogram(3);
        for value in [1, 2, 5, 9, 10, 99, 1000, 1001, 50_000, 700_000_000] {
            record(&mut values, Duration::from_micros(value));
        }
        let bars = bars(&values);
        assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 10);
        assert!(bars.windows(2).all(|pair| pair[0].to < pair[1].to), "{bars:?}");
        assert!(bars.len() < 120);
    }
}
