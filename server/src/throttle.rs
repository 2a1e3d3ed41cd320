//! What one address, one account and one session may ask of a node, so that nobody takes it from the others.
//!
//! A session's requests, and those of an address before a login, are taken at a [`Rate`]: what comes faster waits in the client's
//! socket and is not refused. Registrations beyond their rate are refused. Failed logins make the next attempts on the same account, and
//! from the same address, wait for longer and longer (a [`Penalty`]). Nothing of that touches a session that is logged in.
//!
//! All of it is one node's, and forgotten at its end: on several nodes an attacker has as many times the attempts.

mod rate;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashlink::LruCache;
use ipnet::IpNet;
use protocol::UserId;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

pub use self::rate::{Pace, ParseRateError, Rate};

/// Addresses, and accounts, that are remembered; beyond, those that were quiet for longest are forgotten.
const REMEMBERED_MAX: usize = 1 << 16;
/// The longest time that a request waits for its address's turn.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);
/// Bits of an IPv6 address that count: what one customer is given.
const IPV6_BITS: u32 = 64;

/// What may be asked; the defaults are those of SPEC.md, section 8.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// Networks to which no limit per address applies, since many users share each of their addresses: the machine's own, and
    /// balancers that do not say whom they serve.
    pub exempt: Vec<IpNet>,
    /// Connections from one address.
    pub connections_per_address_max: usize,
    /// Requests from one address on connections that are not logged in.
    pub address_requests: Rate,
    /// Requests of one session.
    pub session_requests: Rate,
    /// Registrations from one address.
    pub address_registrations: Rate,
    /// Failed logins to one account.
    pub account_failures: Penalty,
    /// Failed logins from one address.
    pub address_failures: Penalty,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            exempt: loopback(),
            connections_per_address_max: 1000,
            address_requests: Rate::per_second(100, 1000),
            session_requests: Rate::per_second(1000, 2000),
            address_registrations: Rate::per_hour(60, 20),
            account_failures: Penalty { free: 10, ..Penalty::default() },
            address_failures: Penalty { free: 100, ..Penalty::default() },
        }
    }
}

/// The machine itself.
pub fn loopback() -> Vec<IpNet> {
    let net = |address: IpAddr, bits| IpNet::new_assert(address, bits);
    vec![net([127, 0, 0, 0].into(), 8), net(Ipv6Addr::LOCALHOST.into(), 128)]
}

/// What failing costs: after some failures the next attempt has to wait, twice as long after each further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalty {
    /// Failures that cost nothing.
    pub free: u32,
    /// The wait after the next.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Without failures for so long, all are forgotten.
    pub forgotten_after: Duration,
}

impl Default for Penalty {
    fn default() -> Self {
        Self {
            free: 10,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            forgotten_after: Duration::from_secs(15 * 60),
        }
    }
}

impl Penalty {
    /// How long to wait after so many failures.
    fn after(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(self.free).and_then(|beyond| beyond.checked_sub(1)) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// Failures on an account or from an address.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn none(now: Instant) -> Self {
        Self { count: 0, last: now }
    }

    /// How long to wait until the next attempt.
    fn wait(&mut self, penalty: &Penalty, now: Instant) -> Duration {
        if now.duration_since(self.last) >= penalty.forgotten_after {
            self.count = 0;
        }
        (self.last + penalty.after(self.count)).saturating_duration_since(now)
    }

    fn add(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        self.last = now;
    }
}

/// Which account somebody tries to log in to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One that exists.
    User(UserId),
    /// A name that nobody has, as a hash.
    Nobody([u8; 32]),
    /// One's own, in order to change the password: counted by itself, since what others try must not be felt in a session.
    Own(UserId),
}

impl Target {
    /// What was tried, when there is no such account: a name's key, or `None` for what is no name.
    pub fn nobody(name_key: Option<&str>) -> Self {
        Self::Nobody(Sha256::digest(name_key.unwrap_or_default()).into())
    }
}

/// An address, or the part of it that one customer is given.
type Prefix = IpAddr;

/// What is remembered of an address.
struct Remembered {
    requests: Pace,
    registrations: Pace,
    failures: Failures,
}

/// The limits of a node, and what it has seen.
pub struct Throttle {
    rates: Rates,
    /// Connections from each address that has some.
    open: Mutex<BTreeMap<Prefix, usize>>,
    addresses: Mutex<LruCache<Prefix, Remembered>>,
    accounts: Mutex<LruCache<Target, Failures>>,
}

impl Throttle {
    /// Nothing was seen yet.
    pub fn new(rates: Rates) -> Arc<Self> {
        Arc::new(Self {
            rates,
            open: Mutex::default(),
            addresses: Mutex::new(LruCache::new(REMEMBERED_MAX)),
            accounts: Mutex::new(LruCache::new(REMEMBERED_MAX)),
        })
    }

    /// A connection from an address, for as long as what is returned lives; `None`: there are too many.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Visitor> {
        let address = address.to_canonical();
        let exempt = self.rates.exempt.iter().any(|net| net.contains(&address));
        let prefix = (!exempt).then(|| prefix(address));
        if let Some(prefix) = prefix {
            let mut open = lock(&self.open);
            let count = open.get(&prefix).copied().unwrap_or(0);
            if count >= self.rates.connections_per_address_max {
                return None;
            }
            open.insert(prefix, count + 1);
        }
        Some(Visitor { throttle: Arc::clone(self), prefix })
    }

    /// The most connections that an address has.
    pub fn connections_of_an_address(&self) -> usize {
        lock(&self.open).values().copied().max().unwrap_or(0)
    }

    /// The rate of a session's requests.
    pub fn session_requests(&self) -> &Rate {
        &self.rates.session_requests
    }

    fn remembered<T>(&self, prefix: Prefix, ask: impl FnOnce(&Rates, &mut Remembered, Instant) -> T) -> T {
        let now = Instant::now();
        let mut addresses = lock(&self.addresses);
        if !addresses.contains_key(&prefix) {
            let new = Remembered {
                requests: Pace::new(now),
                registrations: Pace::new(now),
                failures: Failures::none(now),
            };
            addresses.insert(prefix, new);
        }
        // Beyond its bound the cache forgets another one.
        let remembered = addresses.get_mut(&prefix).expect("it was inserted");
        ask(&self.rates, remembered, now)
    }
}

/// One who is connected.
pub struct Visitor {
    throttle: Arc<Throttle>,
    /// Nothing for one to whom limits per address do not apply.
    prefix: Option<Prefix>,
}

impl Visitor {
    /// How long to wait before a request that was received before a login is carried out.
    ///
    /// # Errors
    /// It would be too long: it is not to be carried out, and costs nothing. Or else whoever asks and goes, again and again, would make
    /// everyone at the address wait for ever.
    pub fn request(&self) -> Result<Duration, Duration> {
        let Some(prefix) = self.prefix else { return Ok(Duration::ZERO) };
        self.throttle.remembered(prefix, |rates, address, now| {
            address.requests.take_within(&rates.address_requests, REQUEST_WAIT_MAX, now)
        })
    }

    /// Whether another account could be registered now. To ask costs nothing.
    ///
    /// # Errors
    /// Not before so much time has passed.
    pub fn may_register(&self) -> Result<(), Duration> {
        let Some(prefix) = self.prefix else { return Ok(()) };
        self.throttle.remembered(prefix, |rates, address, now| {
            // What is taken from a copy is not taken.
            let mut registrations = address.registrations;
            registrations.try_take(&rates.address_registrations, now)
        })
    }

    /// Whether another account may be registered, which is then counted.
    ///
    /// # Errors
    /// Not before so much time has passed.
    pub fn register(&self) -> Result<(), Duration> {
        let Some(prefix) = self.prefix else { return Ok(()) };
        self.throttle.remembered(prefix, |rates, address, now| {
            address.registrations.try_take(&rates.address_registrations, now)
        })
    }

    /// Whether a password may be tried. The attempt counts as failed until it is said to have [succeeded](Attempt::succeeded): so those that
    /// are made at once count, too.
    ///
    /// # Errors
    /// Not before so much time has passed.
    pub fn try_password(&self, target: Target) -> Result<Attempt, Duration> {
        // A session does not pay for others at its address.
        let prefix = self.prefix.filter(|_| !matches!(target, Target::Own(_)));
        let rates = &self.throttle.rates;
        let now = Instant::now();
        let mut accounts = lock(&self.throttle.accounts);
        let mut failures = accounts.get(&target).copied().unwrap_or(Failures::none(now));
        let wait = failures.wait(&rates.account_failures, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        if let Some(prefix) = prefix {
            self.throttle.remembered(prefix, |rates, address, now| {
                let wait = address.failures.wait(&rates.address_failures, now);
                if wait.is_zero() {
                    address.failures.add(now);
                    Ok(())
                } else {
                    Err(wait)
                }
            })?;
        }
        failures.add(now);
        accounts.insert(target.clone(), failures);
        Ok(Attempt { throttle: Arc::clone(&self.throttle), prefix, target })
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let Some(prefix) = self.prefix else { return };
        let mut open = lock(&self.throttle.open);
        if let Some(count) = open.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                open.remove(&prefix);
            }
        }
    }
}

/// A password that is being tried.
pub struct Attempt {
    throttle: Arc<Throttle>,
    prefix: Option<Prefix>,
    target: Target,
}

impl Attempt {
    /// The password was right: the account's failures are forgiven, and of the address this one, since someone who has an account there can
    /// succeed at will.
    pub fn succeeded(self) {
        lock(&self.throttle.accounts).remove(&self.target);
        self.take_back();
    }

    /// Nobody knows whether it was: it counts for nothing.
    pub fn undecided(self) {
        if let Some(failures) = lock(&self.throttle.accounts).get_mut(&self.target) {
            failures.count = failures.count.saturating_sub(1);
        }
        self.take_back();
    }

    fn take_back(&self) {
        let Some(prefix) = self.prefix else { return };
        self.throttle.remembered(prefix, |_, address, _| {
            address.failures.count = address.failures.count.saturating_sub(1);
        });
    }
}

fn prefix(address: IpAddr) -> Prefix {
    match address {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - IPV6_BITS))).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is counted stays what it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
