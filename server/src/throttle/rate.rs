//! So many in a time, and some at once.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;
use tokio::time::Instant;

/// So many in a time, and a burst of some at once: a token bucket. Written as `100/s:1000`, where the time is `s`, `m` or `h`, and the burst
/// is what follows; or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many in [`Self::time`]; 0: there is no limit.
    count: u32,
    time: Unit,
    burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const fn of(self) -> (&'static str, Duration) {
        match self {
            Self::Second => ("s", Duration::from_secs(1)),
            Self::Minute => ("m", Duration::from_secs(60)),
            Self::Hour => ("h", Duration::from_secs(3600)),
        }
    }
}

/// Not a rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected off, or a number, /s, /m or /h, a colon and how many at once, such as 100/s:1000")]
pub struct ParseRateError;

impl Rate {
    /// No limit.
    pub const OFF: Self = Self { count: 0, time: Unit::Second, burst: 0 };

    /// So many in a second, and a burst of at least one.
    pub const fn per_second(count: u32, burst: u32) -> Self {
        Self { count, time: Unit::Second, burst }
    }

    /// So many in an hour, and a burst of at least one.
    pub const fn per_hour(count: u32, burst: u32) -> Self {
        Self { count, time: Unit::Hour, burst }
    }

    /// Between two, in the long run; `None`: there is no limit.
    fn interval(&self) -> Option<Duration> {
        self.time.of().1.checked_div(self.count)
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let (rate, burst) = text.split_once(':').ok_or(ParseRateError)?;
        let (count, unit) = rate.split_once('/').ok_or(ParseRateError)?;
        let units = [Unit::Second, Unit::Minute, Unit::Hour];
        let time = units.into_iter().find(|known| known.of().0 == unit).ok_or(ParseRateError)?;
        let number = |text: &str| text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
        let (count, burst) = (number(count).ok_or(ParseRateError)?, number(burst).ok_or(ParseRateError)?);
        Ok(Self { count, time, burst })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => f.write_str("off"),
            count => write!(f, "{count}/{}:{}", self.time.of().0, self.burst),
        }
    }
}

/// Someone who is held to a rate. (The generic cell rate algorithm of ITU-T I.371: one moment is all that has to be kept.)
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// When everything taken so far is paid for.
    paid: Instant,
}

impl Pace {
    /// Nothing was taken yet.
    pub fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    /// Takes one, and says how long to wait before it is used.
    pub fn take(&mut self, rate: &Rate, now: Instant) -> Duration {
        // So long a wait there is not.
        self.take_within(rate, Duration::MAX, now).unwrap_or(Duration::MAX)
    }

    /// Takes one, if that needs no waiting.
    ///
    /// # Errors
    /// Not before so much time has passed.
    pub fn try_take(&mut self, rate: &Rate, now: Instant) -> Result<(), Duration> {
        self.take_within(rate, Duration::ZERO, now).map(drop)
    }

    /// Takes one and says how long to wait before it is used, if that is not longer than `longest`.
    ///
    /// # Errors
    /// It would be so long. None is taken.
    pub fn take_within(
        &mut self,
        rate: &Rate,
        longest: Duration,
        now: Instant,
    ) -> Result<Duration, Duration> {
        let Some(interval) = rate.interval() else { return Ok(Duration::ZERO) };
        let paid = self.paid.max(now) + interval;
        let wait = Self::debt(paid, interval, rate, now);
        if wait > longest {
            return Err(wait);
        }
        self.paid = paid;
        Ok(wait)
    }

    fn debt(paid: Instant, interval: Duration, rate: &Rate, now: Instant) -> Duration {
        paid.duration_since(now).saturating_sub(interval * rate.burst.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["off", "100/s:1000", "60/h:20", "5/m:1"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "100", "100/s", "0/s:1", "1/s:0", "1/d:1", "-1/s:1", "1/s:1:1", "9999999/s:1"] {
            assert_eq!(text.parse::<Rate>(), Err(ParseRateError), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_waits_its_turn() {
        let rate: Rate = "10/s:3".parse().unwrap();
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let waits: Vec<u128> = (0..6).map(|_| pace.take(&rate, now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        // All is paid for in the end, and no more than a burst is saved.
        let later = now + Duration::from_secs(60);
        let waits: Vec<u128> = (0..4).map(|_| pace.take(&rate, later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_costs_nothing() {
        let rate: Rate = "1/s:1".parse().unwrap();
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.try_take(&rate, now), Ok(()));
        for _ in 0..10 {
            assert_eq!(pace.try_take(&rate, now), Err(Duration::from_secs(1)));
        }
        assert_eq!(pace.try_take(&rate, now + Duration::from_secs(1)), Ok(()));
        assert_eq!(Pace::new(now).take(&Rate::OFF, now), Duration::ZERO);
    }
}
