//! What all clients share, without sockets: databases, channels, and what becomes of publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use loadgen::rng::Rng;
use tokio::{sync::Notify, time::Instant};

use super::{
    Publishes, Tally,
    commands::{self, Command},
    keys::Keys,
    outbox::{Copy, Outbox},
    reply::Replies,
    request::ProtocolError,
};

/// Databases, as in Redis.
pub(super) const DATABASES: usize = 16;
/// Bytes stored before writes are refused, as with Redis's `maxmemory`.
pub(super) const STORED_BYTES_MAX: usize = 256 << 20;
/// Bytes that a subscriber leaves unread before it is thrown out, as in Redis.
const SUBSCRIBER_BYTES_MAX: usize = 32 << 20;
/// Bytes of a transaction's commands, and of channel names, before a client is thrown out; Redis has larger limits.
const CLIENT_BYTES_MAX: usize = 64 << 20;

/// The number of a connection, never used again.
pub(super) type ClientId = u64;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) databases: [Keys; DATABASES],
    pub(super) password: Option<Bytes>,
    clients: BTreeMap<ClientId, Client>,
    channels: BTreeMap<Bytes, BTreeSet<ClientId>>,
    last_client: ClientId,
    pub(super) publishes: Publishes,
    pub(super) wedged: bool,
    pub(super) tally: Tally,
    rng: Rng,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) resp3: bool,
    pub(super) database: usize,
    pub(super) name: Bytes,
    pub(super) logged_in: bool,
    pub(super) transaction: Option<Transaction>,
    pub(super) subscriptions: BTreeSet<Bytes>,
    /// Bytes of their names.
    names_bytes: usize,
    /// It said goodbye: it is closed when it was sent everything.
    pub(super) leaving: bool,
    outbox: Outbox,
    wake: Arc<Notify>,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) queue: Vec<(&'static Command, Vec<Bytes>)>,
    bytes: usize,
    /// One of them was refused.
    pub(super) spoilt: bool,
}

impl Transaction {
    pub(super) fn push(&mut self, command: &'static Command, arguments: Vec<Bytes>) {
        self.bytes += arguments.iter().map(|argument| argument.len() + 64).sum::<usize>();
        self.queue.push((command, arguments));
    }
}

/// What a connection has to do next.
#[derive(Debug)]
pub(super) struct Next {
    /// Bytes to write.
    pub(super) output: bytes::BytesMut,
    /// When there will be more, if nothing else happens.
    pub(super) due: Option<Instant>,
    /// Bytes that were not written yet.
    pub(super) pending: usize,
    pub(super) leaving: bool,
}

/// One command being executed.
pub(super) struct Call<'a> {
    pub(super) server: &'a mut Server,
    /// It is not among the server's while this runs.
    pub(super) client: &'a mut Client,
    pub(super) id: ClientId,
    /// The command's name is the first.
    pub(super) arguments: Vec<Bytes>,
    pub(super) replies: Replies,
    pub(super) now: Instant,
    /// Messages that it published to itself: they come after the reply.
    own: Vec<(Bytes, Bytes, Copy)>,
}

impl Server {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            databases: Default::default(),
            password: None,
            clients: BTreeMap::new(),
            channels: BTreeMap::new(),
            last_client: 0,
            publishes: Publishes::default(),
            wedged: false,
            tally: Tally::default(),
            rng,
        }
    }

    /// Forgets everything that a process does.
    pub(super) fn restart(&mut self) {
        self.empty();
        self.channels.clear();
        for (_, client) in std::mem::take(&mut self.clients) {
            client.wake.notify_one();
        }
    }

    pub(super) fn empty(&mut self) {
        self.databases = Default::default();
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// A new connection.
    pub(super) fn join(&mut self, wake: Arc<Notify>) -> ClientId {
        self.last_client += 1;
        let client = Client {
            resp3: false,
            database: 0,
            name: Bytes::new(),
            logged_in: self.password.is_none(),
            transaction: None,
            subscriptions: BTreeSet::new(),
            names_bytes: 0,
            leaving: false,
            outbox: Outbox::default(),
            wake,
        };
        self.clients.insert(self.last_client, client);
        self.last_client
    }

    /// A connection is gone.
    pub(super) fn leave(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        client.wake.notify_one();
        for channel in &client.subscriptions {
            self.unlist(channel, id);
        }
    }

    /// Whether it has not logged in; nothing if it was thrown out.
    pub(super) fn is_stranger(&self, id: ClientId) -> Option<bool> {
        self.clients.get(&id).map(|client| !client.logged_in)
    }

    /// What it has to do now; nothing if it was thrown out.
    pub(super) fn next(&mut self, id: ClientId, now: Instant) -> Option<Next> {
        let client = self.clients.get_mut(&id)?;
        let output = client.outbox.take(now);
        Some(Next {
            output,
            due: client.outbox.due(),
            pending: client.outbox.pending(),
            leaving: client.leaving,
        })
    }

    pub(super) fn written(&mut self, id: ClientId, bytes: usize) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.outbox.written(bytes);
        }
    }

    /// The client does not speak the protocol.
    pub(super) fn protocol_error(&mut self, id: ClientId, error: ProtocolError) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut replies = Replies::new(client.resp3);
        replies.error(format!("ERR Protocol error: {error}").as_bytes());
        client.outbox.reply(&replies.bytes);
        client.leaving = true;
    }

    /// Executes a request.
    pub(super) fn request(&mut self, id: ClientId, arguments: Vec<Bytes>, now: Instant) {
        // Nobody else can be at it meanwhile.
        let Some(mut client) = self.clients.remove(&id) else { return };
        let replies = Replies::new(client.resp3);
        let mut call =
            Call { server: self, client: &mut client, id, arguments, replies, now, own: Vec::new() };
        commands::dispatch(&mut call);
        let Call { replies, own, .. } = call;
        client.outbox.reply(&replies.bytes);
        for (channel, push, copy) in own {
            client.outbox.message(&channel, &push, copy, now);
        }
        let queued = client.transaction.as_ref().map_or(0, |transaction| transaction.bytes);
        let greedy = queued + client.names_bytes > CLIENT_BYTES_MAX;
        let throw_out = greedy || client.is_too_slow();
        self.clients.insert(id, client);
        if throw_out {
            self.tally.thrown_out += 1;
            self.leave(id);
        }
    }

    fn unlist(&mut self, channel: &[u8], id: ClientId) {
        if let Some(listeners) = self.channels.get_mut(channel) {
            listeners.remove(&id);
            if listeners.is_empty() {
                self.channels.remove(channel);
            }
        }
    }

    /// Draws the copies that one subscriber gets of one message.
    fn copies(&mut self) -> Vec<Copy> {
        let Publishes { drop, duplicate, reorder, delay, delay_max } = self.publishes;
        self.tally.messages += 1;
        if self.wedged || self.rng.chance(drop.into(), 1000) {
            self.tally.dropped += 1;
            return Vec::new();
        }
        let doubled = self.rng.chance(duplicate.into(), 1000);
        self.tally.duplicated += u64::from(doubled);
        let mut copy = || {
            let overtaken = self.rng.chance(reorder.into(), 1000);
            let late = self.rng.chance(delay.into(), 1000);
            let most = u64::try_from(delay_max.as_micros()).unwrap_or(u64::MAX);
            let hold = std::time::Duration::from_micros(1 + self.rng.below(most));
            self.tally.reordered += u64::from(overtaken);
            self.tally.delayed += u64::from(late && !overtaken);
            Copy { hold: if overtaken || late { hold } else { std::time::Duration::ZERO }, overtaken }
        };
        (0..=u8::from(doubled)).map(|_| copy()).collect()
    }
}

impl Client {
    fn is_too_slow(&self) -> bool {
        !self.subscriptions.is_empty() && self.outbox.pending() > SUBSCRIBER_BYTES_MAX
    }
}

impl Call<'_> {
    pub(super) fn keys(&mut self) -> &mut Keys {
        &mut self.server.databases[self.client.database]
    }

    pub(super) fn subscribe(&mut self, channel: &Bytes) {
        if self.client.subscriptions.insert(channel.clone()) {
            self.client.names_bytes += channel.len() + 64;
            self.server.channels.entry(channel.clone()).or_default().insert(self.id);
        }
    }

    pub(super) fn unsubscribe(&mut self, channel: &Bytes) {
        if self.client.subscriptions.remove(channel) {
            self.client.names_bytes -= channel.len() + 64;
            self.client.outbox.forget(channel);
            self.own.retain(|(on, ..)| on != channel);
            self.server.unlist(channel, self.id);
        }
    }

    /// Hands a message to the channel's subscribers, and returns how many there are.
    pub(super) fn publish(&mut self, channel: &Bytes, message: &[u8]) -> usize {
        let listeners = self.server.channels.get(channel).cloned().unwrap_or_default();
        let push = |resp3| {
            let mut replies = Replies::new(resp3);
            replies.push(3);
            replies.bulk(b"message");
            replies.bulk(channel);
            replies.bulk(message);
            replies.bytes.freeze()
        };
        let (old, new) = (push(false), push(true));
        for id in &listeners {
            for copy in self.server.copies() {
                if *id == self.id {
                    let push = if self.client.resp3 { &new } else { &old };
                    self.own.push((channel.clone(), push.clone(), copy));
                    continue;
                }
                let Some(client) = self.server.clients.get_mut(id) else { continue };
                client.outbox.message(channel, if client.resp3 { &new } else { &old }, copy, self.now);
                client.wake.notify_one();
                if client.is_too_slow() {
                    self.server.tally.thrown_out += 1;
                    self.server.leave(*id);
                }
            }
        }
        listeners.len()
    }
}
