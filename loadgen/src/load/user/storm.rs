//! Storms: logins and reconnects, one after the other for each user, many users at once.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use client::RequestError;
use protocol::{
    Request,
    message::{Login, Password},
};
use tokio::{
    select,
    time::{Instant, timeout},
};

use super::{User, turn};
use crate::load::{driver::Pace, options::Scenario, schedule::Schedule};

/// A user who is not there again by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);

impl User {
    /// Goes away and comes back, again and again, until the next stage.
    pub(super) async fn storm(&mut self, pace: &Pace) {
        let shared = Arc::clone(&self.shared);
        let share = pace.rate / f64::from(shared.senders);
        let spacing = shared.options.spacing.into();
        let place = (self.index, shared.senders);
        let seed = shared.options.seed ^ pace.number;
        let mut schedule = Schedule::new(share, shared.options.ramp, spacing, seed, place);
        loop {
            // In a closed loop, whoever has waited longest comes first.
            let (intended, _permit) = if pace.window.is_some() {
                let Some(permit) = self.unless_over(shared.storm_permits.acquire()).await else { return };
                (shared.elapsed(), permit.ok())
            } else {
                let Some(due) = schedule.peek().map(|due| pace.start + due) else {
                    return self.until_next_stage().await;
                };
                let at = shared.began + due;
                if self.unless_over(tokio::time::sleep_until(at)).await.is_none() {
                    return;
                }
                schedule.advance();
                (due, None)
            };
            shared.counts.sent.fetch_add(1, Relaxed);
            shared.stats.sent(intended, shared.elapsed());
            // Once begun it is carried through, so that every attempt has an outcome.
            let came_back = match shared.options.scenario {
                Scenario::LoginStorm => timeout(PATIENCE, self.log_in_anew(intended)).await,
                _ => timeout(PATIENCE, self.reconnect(intended)).await,
            };
            match came_back.unwrap_or(Err(RequestError::Unknown)) {
                Ok(()) => drop(shared.counts.answered.fetch_add(1, Relaxed)),
                Err(error) => {
                    shared.failed(&error);
                    if shared.options.scenario == Scenario::LoginStorm {
                        self.retire();
                    }
                }
            }
        }
    }

    /// Waits, unless the next stage comes first.
    async fn unless_over<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            select! {
                biased;
                _ = self.stages.changed() => return None,
                done = &mut what => return Some(done),
                () = turn(&mut self.connection, None) => self.take_all(),
            }
        }
    }

    /// A new connection, a login with the password, everything that is new; then away without a word.
    async fn log_in_anew(&mut self, intended: Duration) -> Result<(), RequestError> {
        let shared = Arc::clone(&self.shared);
        self.connect();
        self.caught_up = false;
        let (account, password) = shared.account(self.index);
        self.ask_once(Request::Login(Login { account, password: Password(password) })).await?;
        shared.stats.acknowledged(intended, shared.elapsed());
        self.until_caught_up().await;
        shared.stats.delivered(intended, shared.elapsed());
        self.retire();
        Ok(())
    }

    /// The connection breaks; the client library makes another one and goes on with the session.
    async fn reconnect(&mut self, intended: Duration) -> Result<(), RequestError> {
        let shared = Arc::clone(&self.shared);
        let Some(connection) = &mut self.connection else { return Err(RequestError::Closed) };
        (self.caught_up, self.resumed, self.cutting) = (false, false, true);
        connection.cut();
        self.take_all();
        while !self.resumed {
            turn(&mut self.connection, None::<Instant>).await;
            self.take_all();
        }
        shared.stats.acknowledged(intended, shared.elapsed());
        self.until_caught_up().await;
        shared.stats.delivered(intended, shared.elapsed());
        Ok(())
    }

    async fn until_caught_up(&mut self) {
        while !self.caught_up {
            turn(&mut self.connection, None).await;
            self.take_all();
        }
    }
}
