//! This node's lease and its users in Redis, and the other nodes'.
//!
//! The lease holds the number of the incarnation's last change, of which this node is the only writer. So a renewal notices a lease that
//! was lost (frozen for too long, Redis emptied) or overwritten (by a command of an earlier link that arrived late), and
//! whoever reads compares one number to know whether to read the users.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use protocol::UserId;
use redis::{Pipeline, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::{
    Shared,
    link::is_refusal,
    wire::{Change, Incarnation, USERS_MAX},
};

/// Nodes whose leases are looked at in one round trip.
const NODES_MAX: usize = 1000;

/// What Redis was told, and what it was told last. Outlives the links.
#[derive(Debug)]
pub(super) struct Lease {
    incarnation: Incarnation,
    /// The number of the last change: never used twice, since a change that failed may still have happened.
    number: u64,
}

impl Lease {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { incarnation: Incarnation { node: shared.origin.node, number: 0 }, number: 0 }
    }

    /// Keeps presence on a link until that fails.
    pub(super) async fn keep(
        &mut self,
        shared: &Shared,
        mut connection: MultiplexedConnection,
    ) -> RedisError {
        let mut refused = false;
        loop {
            let Err(error) = self.keep_on(shared, &mut connection).await;
            if !is_refusal(&error) {
                return error;
            }
            // What this Redis does not allow, no new link would make it allow. Presence becomes unknown.
            if !std::mem::replace(&mut refused, true) {
                warn!(%error, "redis refuses presence");
            }
            tokio::time::sleep(shared.config.timing.heartbeat).await;
        }
    }

    async fn keep_on(
        &mut self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<std::convert::Infallible> {
        let heartbeat = shared.config.timing.heartbeat;
        // A new link: what the last one left undone is not known.
        let held = self.renew(shared, connection).await?;
        if held.is_none() && self.incarnation.number > 0 {
            self.begin_anew(shared, connection).await?;
        } else {
            self.rewrite(shared, connection, held.is_some()).await?;
        }
        self.read(shared, connection).await?;
        let mut beat = next_beat(shared);
        let mut read_at = None;
        loop {
            let now = Instant::now();
            if now >= beat {
                beat = next_beat(shared);
                if self.renew(shared, connection).await? != Some(self.number) {
                    self.begin_anew(shared, connection).await?;
                }
                read_at = Some(now);
            }
            if read_at.is_some_and(|at| now >= at) {
                read_at = None;
                self.read(shared, connection).await?;
            }
            tokio::select! {
                () = sleep_until(read_at.map_or(beat, |at| beat.min(at))) => {}
                () = shared.served_changed.notified() => self.write_changes(shared, connection).await?,
                // Not at once: others are told at the same time, and more may follow.
                () = shared.read_soon.notified(), if read_at.is_none() => {
                    read_at = Some(Instant::now() + heartbeat / 100 + shared.entropy.jitter(heartbeat / 30));
                }
            }
        }
    }

    /// Renews the lease; returns the number that it held, or `None` if it was lost.
    async fn renew(
        &self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<u64>> {
        let mut pipe = redis::pipe();
        self.prolong(shared, pipe.atomic());
        let (held,): (Option<u64>,) = pipe.query_async(connection).await?;
        Ok(held)
    }

    /// The commands that state the lease's number, if there still is a lease. Their one reply is the number before.
    fn prolong(&self, shared: &Shared, pipe: &mut Pipeline) {
        let millis = shared.config.timing.lease.as_millis() as u64;
        let who = self.incarnation.to_string();
        pipe.cmd("SET").arg(shared.name(format_args!("lease:{who}"))).arg(self.number);
        pipe.arg("XX").arg("GET").arg("PX").arg(millis);
        pipe.cmd("PEXPIRE").arg(shared.name(format_args!("users:{who}"))).arg(millis).ignore();
        // Whoever looks removes those that have no lease; so say it again each time.
        pipe.cmd("SADD").arg(shared.name("nodes")).arg(&who).ignore();
        pipe.cmd("PEXPIRE").arg(shared.name("nodes")).arg(millis).ignore();
    }

    /// After the lease was lost: while this node was taken for gone, its clients may have gone as well.
    async fn begin_anew(
        &mut self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        info!("the presence lease was lost; taking a new one");
        shared.news.lease_lost();
        self.rewrite(shared, connection, false).await
    }

    /// Writes all that is served, as the incarnation that `held` its lease or as a new one.
    async fn rewrite(
        &mut self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
        held: bool,
    ) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        if held {
            self.number += 1;
        } else {
            self.forget(shared, &mut pipe);
            self.incarnation.number += 1;
            self.number = 1;
        }
        let users: Vec<_> = {
            let mut served = shared.served();
            served.noting = true;
            served.changes.clear();
            served.users.iter().map(|user| user.number()).collect()
        };
        let millis = shared.config.timing.lease.as_millis() as u64;
        let who = self.incarnation.to_string();
        let key = shared.name(format_args!("users:{who}"));
        pipe.cmd("DEL").arg(&key).ignore();
        for users in users.chunks(USERS_MAX) {
            pipe.cmd("SADD").arg(&key).arg(users).ignore();
        }
        pipe.cmd("SET").arg(shared.name(format_args!("lease:{who}"))).arg(self.number);
        pipe.arg("PX").arg(millis).ignore();
        self.prolong(shared, &mut pipe);
        self.announce(shared, &mut pipe, &Change::Rewritten);
        let _: (Option<u64>,) = pipe.query_async(connection).await?;
        shared.incarnation.store(self.incarnation.number, Ordering::Relaxed);
        debug!(incarnation = %who, users = users.len(), "presence written");
        Ok(())
    }

    /// Writes and publishes what changed.
    async fn write_changes(
        &mut self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        loop {
            let changes: Vec<_> = {
                let mut served = shared.served();
                let rest = served.changes.keys().nth(USERS_MAX).copied();
                let rest = rest.map(|user| served.changes.split_off(&user)).unwrap_or_default();
                std::mem::replace(&mut served.changes, rest).into_iter().collect()
            };
            if changes.is_empty() {
                return Ok(());
            }
            self.number += 1;
            let key = shared.name(format_args!("users:{}", self.incarnation));
            let mut pipe = redis::pipe();
            pipe.atomic();
            for (command, wanted) in [("SADD", true), ("SREM", false)] {
                let users: Vec<_> = changes.iter().filter(|(_, online)| *online == wanted).collect();
                if !users.is_empty() {
                    let users: Vec<_> = users.iter().map(|(user, _)| user.number()).collect();
                    pipe.cmd(command).arg(&key).arg(users).ignore();
                }
            }
            self.prolong(shared, &mut pipe);
            self.announce(shared, &mut pipe, &Change::Users(changes));
            let (held,): (Option<u64>,) = pipe.query_async(connection).await?;
            if held.is_none_or(|held| held + 1 != self.number) {
                self.begin_anew(shared, connection).await?;
            }
        }
    }

    /// Says that this node is gone.
    pub(super) async fn end(
        &mut self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        self.number += 1;
        let mut pipe = redis::pipe();
        self.forget(shared, pipe.atomic());
        self.announce(shared, &mut pipe, &Change::Gone);
        pipe.query_async(connection).await
    }

    fn forget(&self, shared: &Shared, pipe: &mut Pipeline) {
        let who = self.incarnation.to_string();
        pipe.cmd("DEL").arg(shared.name(format_args!("lease:{who}")));
        pipe.arg(shared.name(format_args!("users:{who}"))).ignore();
        pipe.cmd("SREM").arg(shared.name("nodes")).arg(&who).ignore();
    }

    fn announce(&self, shared: &Shared, pipe: &mut Pipeline, change: &Change) {
        let payload = shared.origin.presence(self.incarnation.number, self.number, change);
        pipe.cmd("PUBLISH").arg(shared.name("presence")).arg(payload).ignore();
    }

    /// Reads what the other nodes say: who is alive, and the users of those that changed.
    async fn read(&self, shared: &Shared, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let began = Instant::now();
        shared.view().begin_read();
        let nodes: Vec<String> =
            redis::cmd("SMEMBERS").arg(shared.name("nodes")).query_async(connection).await?;
        let others: BTreeSet<_> = nodes.iter().filter_map(|text| Incarnation::parse(text)).collect();
        let others: Vec<_> = others.into_iter().filter(|who| who.node != shared.origin.node).collect();
        let mut alive = BTreeSet::new();
        for others in others.chunks(NODES_MAX) {
            let mut pipe = redis::pipe();
            for who in others {
                pipe.cmd("GET").arg(shared.name(format_args!("lease:{who}")));
            }
            let numbers: Vec<Option<u64>> = pipe.query_async(connection).await?;
            let mut dead = redis::pipe();
            for (who, number) in others.iter().zip(numbers) {
                match number {
                    Some(number) if shared.view().is_news(*who, number) => {
                        if self.read_users(shared, connection, *who).await? {
                            alive.insert(*who);
                        }
                    }
                    Some(_) => {
                        alive.insert(*who);
                    }
                    // An incarnation never comes back, so nobody misses it.
                    None => {
                        dead.cmd("SREM").arg(shared.name("nodes")).arg(who.to_string()).ignore();
                    }
                }
            }
            if !dead.is_empty() {
                dead.query_async::<()>(connection).await?;
            }
        }
        let until = began + shared.config.timing.lease;
        let (changed, anew) = shared.view().end_read(&alive, until, Instant::now());
        shared.view_changed.notify_one();
        if anew {
            shared.news.presence_of_all();
        } else {
            shared.news.presence(changed);
        }
        Ok(())
    }

    /// Reads the users of one incarnation; returns whether it is alive.
    async fn read_users(
        &self,
        shared: &Shared,
        connection: &mut MultiplexedConnection,
        who: Incarnation,
    ) -> RedisResult<bool> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("GET").arg(shared.name(format_args!("lease:{who}")));
        pipe.cmd("SMEMBERS").arg(shared.name(format_args!("users:{who}")));
        let (number, users): (Option<u64>, Vec<u64>) = pipe.query_async(connection).await?;
        let Some(number) = number else { return Ok(false) };
        let users = users.into_iter().filter_map(UserId::new).collect();
        let changed = shared.view().read(who, number, users);
        shared.news.presence(changed);
        Ok(true)
    }
}

/// A heartbeat from now at most, and not all nodes at the same time.
fn next_beat(shared: &Shared) -> Instant {
    let heartbeat: Duration = shared.config.timing.heartbeat;
    Instant::now() + heartbeat - shared.entropy.jitter(heartbeat / 4)
}
