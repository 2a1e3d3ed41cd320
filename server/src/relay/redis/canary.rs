//! Whether what is published comes back. A node listens to a channel of its own, and says something there at every interval.
//!
//! A Redis that answers and delivers nothing, or what stands before one, shows in nothing else: commands succeed, and hints are missed by
//! nobody. Only a new connection repairs a subscription, so the link is given up when nothing has come back for too long. That a single canary is lost
//! means nothing yet. Since it is a command as well, it also notices that a peer has silently gone.

use std::{
    convert::Infallible,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use redis::{RedisError, aio::MultiplexedConnection};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, info, warn};

use super::{Shared, link::is_refusal};
use crate::relay::RelayState;

/// Why a link ended.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    /// Redis failed, or did not answer.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// It answered.
    #[error("redis answers, and delivers nothing that is published")]
    Wedged,
}

impl LinkError {
    fn state(&self) -> RelayState {
        match self {
            Self::Redis(_) => RelayState::Away,
            Self::Wedged => RelayState::Wedged,
        }
    }
}

/// What was said, what came back, and what follows from it for the relay's state. Outlives the links.
#[derive(Debug, Default)]
pub(super) struct Canary {
    /// The number of the last one: never used twice, so that none of an earlier link counts.
    said: AtomicU64,
    /// The highest that came back.
    heard: watch::Sender<u64>,
    /// `None` until there was a link, or an attempt has failed.
    state: Mutex<Option<RelayState>>,
    /// Links that were given up because nothing came back.
    wedges: AtomicU64,
}

impl Canary {
    /// The relay's state, as far as is known.
    pub(super) fn state(&self) -> RelayState {
        self.lock().unwrap_or(RelayState::Away)
    }

    /// How many links delivered nothing.
    pub(super) fn wedges(&self) -> u64 {
        self.wedges.load(Ordering::Relaxed)
    }

    /// One came back.
    pub(super) fn hear(&self, number: u64) {
        self.heard.send_if_modified(|heard| {
            let newer = number > *heard;
            *heard = number.max(*heard);
            newer
        });
    }

    fn next(&self) -> u64 {
        self.said.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sets the state, and returns what it was.
    fn set(&self, state: RelayState) -> Option<RelayState> {
        self.lock().replace(state)
    }

    fn lock(&self) -> MutexGuard<'_, Option<RelayState>> {
        // A word is valid at any point of a writer.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sings until the link fails, or nothing has come back for too long.
pub(super) async fn sing(
    shared: &Shared,
    mut connection: MultiplexedConnection,
) -> Result<Infallible, LinkError> {
    let (timing, canary) = (&shared.config.timing, &shared.canary);
    let mut heard = canary.heard.subscribe();
    let mut last = canary.said.load(Ordering::Relaxed);
    let mut deadline = Instant::now() + timing.canary_patience;
    loop {
        let next = Instant::now() + timing.canary_interval;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(shared.canary_channel()).arg(shared.origin.canary(canary.next()));
        match publish.query_async::<()>(&mut connection).await {
            Ok(()) => {}
            // What this Redis does not allow, no new link would make it allow; presence goes on.
            Err(error) if is_refusal(&error) => {
                if canary.set(RelayState::Wedged) != Some(RelayState::Wedged) {
                    warn!(%error, "redis refuses hints");
                }
                sleep_until(next).await;
                deadline = Instant::now() + timing.canary_patience;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let coming = async { heard.wait_for(|number| *number > last).await.map(|number| *number) };
        match timeout_at(next.min(deadline), coming).await {
            Ok(Ok(number)) => last = number,
            Ok(Err(_)) => std::future::pending().await,
            Err(_) if Instant::now() >= deadline => return Err(LinkError::Wedged),
            Err(_) => continue,
        }
        deadline = Instant::now() + timing.canary_patience;
        say_up(shared);
        sleep_until(next).await;
    }
}

fn say_up(shared: &Shared) {
    let address = &shared.config.address;
    match shared.canary.set(RelayState::Up) {
        Some(RelayState::Up) => {}
        Some(_) => info!(address, "redis is back"),
        None => info!(address, "redis is there"),
    }
}

/// There is no link: why not is said when it changes. It may last, and there is nothing else to say.
pub(super) fn say_down(shared: &Shared, error: &LinkError) {
    let (state, address) = (error.state(), &shared.config.address);
    if state == RelayState::Wedged {
        shared.canary.wedges.fetch_add(1, Ordering::Relaxed);
    }
    if shared.canary.set(state) == Some(state) {
        debug!(%error, "redis is still away");
    } else if state == RelayState::Wedged {
        warn!(address, "redis delivers nothing: messages of other nodes arrive at the sweep's pace");
    } else {
        warn!(%error, address, "redis is away: messages of other nodes arrive at the sweep's pace");
    }
}
