//! The requests without a final answer.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Request, RequestId};

use super::Elapsed;
use crate::{config::Config, error::RequestError};

/// Requests without a final answer, by id, which is also the order in which they were asked.
#[derive(Debug)]
pub(super) struct Requests<K> {
    pending: BTreeMap<RequestId, Pending<K>>,
    /// Those to be written as soon as the connection allows.
    queued: BTreeSet<RequestId>,
    /// How many were written and not answered.
    sent: usize,
    /// How many wait for the end of a pause. Mostly none, and then nobody has to look for them among thousands.
    retries: usize,
    /// Bytes of text in `pending`.
    bytes: usize,
    next_id: RequestId,
}

/// One request.
#[derive(Debug)]
pub(super) struct Pending<K> {
    pub(super) request: Request,
    /// What the caller knows it by.
    pub(super) key: K,
    pub(super) state: State,
    /// How often it was written.
    pub(super) attempts: u32,
    /// Whether an earlier attempt may have had its effect.
    pub(super) perhaps: bool,
    /// When it is given up.
    until: Elapsed,
    bytes: usize,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be written.
    Queued,
    /// Written on this connection, not answered.
    Sent,
    /// Answered "not this time": to be written again at that time.
    Retry(Elapsed),
}

impl<K> Pending<K> {
    /// The error for its caller when no answer is to be expected any more.
    pub(super) fn given_up(&self) -> RequestError {
        if self.perhaps || self.state == State::Sent { RequestError::Unknown } else { RequestError::Closed }
    }
}

impl<K> Requests<K> {
    /// None yet; the first one gets the id `first_id`.
    pub(super) fn new(first_id: RequestId) -> Self {
        let (pending, queued) = (BTreeMap::new(), BTreeSet::new());
        Self { pending, queued, sent: 0, retries: 0, bytes: 0, next_id: first_id }
    }

    /// Takes a request on, or gives the key back when there are too many.
    pub(super) fn add(&mut self, now: Elapsed, config: &Config, request: Request, key: K) -> Result<(), K> {
        let bytes = text_bytes(&request);
        if self.pending.len() >= config.requests_max || self.bytes + bytes > config.request_bytes_max {
            return Err(key);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.bytes += bytes;
        self.queued.insert(id);
        let until = now.saturating_add(config.request_timeout);
        let pending =
            Pending { request, key, state: State::Queued, attempts: 0, perhaps: false, until, bytes };
        self.pending.insert(id, pending);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn any_sent(&self) -> bool {
        self.sent > 0
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Pending<K>> {
        self.pending.get(&id)
    }

    /// The oldest request to be written. Before a login, one that follows a login which is still to be repeated
    /// waits for it.
    pub(super) fn next_queued(&self, logged_in: bool) -> Option<RequestId> {
        let id = *self.queued.first()?;
        let waits = |pending: &Pending<K>| {
            matches!((&pending.request, pending.state), (Request::Login(_), State::Retry(_)))
        };
        (logged_in || !self.pending.range(..id).any(|(_, pending)| waits(pending))).then_some(id)
    }

    /// Moves a request to another state.
    pub(super) fn set(&mut self, id: RequestId, state: State) -> Option<&mut Pending<K>> {
        let pending = self.pending.get_mut(&id)?;
        self.sent -= usize::from(pending.state == State::Sent);
        self.sent += usize::from(state == State::Sent);
        self.retries -= usize::from(matches!(pending.state, State::Retry(_)));
        self.retries += usize::from(matches!(state, State::Retry(_)));
        pending.state = state;
        if state == State::Queued {
            self.queued.insert(id);
        } else {
            self.queued.remove(&id);
        }
        Some(pending)
    }

    /// Ends a request.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Pending<K>> {
        let pending = self.pending.remove(&id)?;
        self.queued.remove(&id);
        self.sent -= usize::from(pending.state == State::Sent);
        self.retries -= usize::from(matches!(pending.state, State::Retry(_)));
        self.bytes -= pending.bytes;
        Some(pending)
    }

    /// The connection is gone: everything is to be written again, in the order in which it was asked.
    pub(super) fn connection_lost(&mut self) {
        for (id, pending) in &mut self.pending {
            pending.perhaps |= pending.state == State::Sent;
            pending.state = State::Queued;
            self.queued.insert(*id);
        }
        self.sent = 0;
        self.retries = 0;
    }

    /// Queues the requests whose pause is over.
    pub(super) fn wake(&mut self, now: Elapsed) {
        if self.retries == 0 {
            return;
        }
        let due = |pending: &Pending<K>| matches!(pending.state, State::Retry(at) if at <= now);
        let ids: Vec<RequestId> = self.pending.iter().filter(|(_, p)| due(p)).map(|(id, _)| *id).collect();
        for id in ids {
            self.set(id, State::Queued);
        }
    }

    /// The oldest request, if its time is over.
    pub(super) fn expired(&self, now: Elapsed) -> Option<RequestId> {
        // All have the same time, so the oldest is the first whose time is over.
        self.pending.iter().next().filter(|(_, pending)| pending.until <= now).map(|(id, _)| *id)
    }

    /// The requests that `choose` picks.
    pub(super) fn ids(&self, choose: impl Fn(&Pending<K>) -> bool) -> Vec<RequestId> {
        self.pending.iter().filter(|(_, pending)| choose(pending)).map(|(id, _)| *id).collect()
    }

    /// When [`Self::wake`] or [`Self::expired`] will have something.
    pub(super) fn deadline(&self) -> Option<Elapsed> {
        let expiry = self.pending.values().next().map(|pending| pending.until);
        if self.retries == 0 {
            return expiry;
        }
        let retries = self.pending.values().filter_map(|pending| match pending.state {
            State::Retry(at) => Some(at),
            _ => None,
        });
        retries.chain(expiry).min()
    }
}

/// The bytes that make a request big.
fn text_bytes(request: &Request) -> usize {
    match request {
        Request::Send(send) => send.text.len(),
        Request::CreateGroup(group) => group.name.len() + group.description.len(),
        Request::Register(register) => register.name.len() + register.password.0.len(),
        Request::Login(login) => login.account.len() + login.password.0.len(),
        _ => 0,
    }
}
