//! The supervisor: the one task that dials Redis, keeps the link alive, and starts over when it fails.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use protocol::{Net, tls};
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::debug;

use super::{
    Shared,
    canary::{LinkError, say_down, sing},
    inbox::Inbox,
    presence::Lease,
    publisher::publish,
    subscriptions::Plan,
};
use crate::relay::{Hint, RelayEvent, channels::Channel};

/// Channels in one command.
const CHANNELS_MAX: usize = 500;
/// Between two looks for channels that nobody reads any more, at least: without a linger time there would be no pause at all.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Owns the connection. The one part that is generic over the network.
pub(super) struct Supervisor<N> {
    net: N,
    shared: Arc<Shared>,
    events: mpsc::Sender<RelayEvent>,
    queue: mpsc::Receiver<Hint>,
    lease: Lease,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Made when it is first needed, unless the configuration has it.
    tls: Option<TlsConnector>,
}

/// A connection that is logged in. Dropping it closes the socket.
struct Link {
    connection: MultiplexedConnection,
    disconnected: Arc<Notify>,
    _driver: AbortOnDropHandle<()>,
}

/// Whether Redis answered and said no. Any other error ends the link.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

impl<N: Net> Supervisor<N> {
    pub(super) fn new(
        net: N,
        shared: Arc<Shared>,
        events: mpsc::Sender<RelayEvent>,
        queue: mpsc::Receiver<Hint>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let lease = Lease::new(&shared);
        let tls = shared.config.connector.clone();
        Self { net, shared, events, queue, lease, tracker, stop, tls }
    }

    /// Keeps a link until it is told to stop; then says that this node is gone, if there is a link to say it on.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let stop = self.stop.clone();
        let timing = &shared.config.timing;
        let (least, most) = timing.backoff;
        let mut pause = least;
        loop {
            let dialled = stop.run_until_cancelled(timeout(timing.connect_timeout, self.dial())).await;
            let Some(dialled) = dialled else { return };
            let began = Instant::now();
            let error = match dialled.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            {
                Ok(link) => {
                    let Some(Err(error)) = stop.clone().run_until_cancelled(self.serve(&link)).await else {
                        self.end(link).await;
                        return;
                    };
                    self.link_down();
                    error
                }
                Err(error) => error.into(),
            };
            say_down(&shared, &error);
            // A link that was of no use is no reason for haste.
            if began.elapsed() > most && !matches!(error, LinkError::Wedged) {
                pause = least;
            }
            // Half of it at random: the nodes lost their links at the same time.
            let jittered = pause / 2 + shared.entropy.jitter(pause / 2);
            if stop.run_until_cancelled(sleep(jittered)).await.is_none() {
                return;
            }
            pause = (2 * pause).min(most);
        }
    }

    async fn dial(&mut self) -> RedisResult<Link> {
        let config = &self.shared.config;
        let stream = self.net.connect(&config.address).await?;
        match config.tls_name.clone() {
            None => self.log_in(stream).await,
            Some(name) => {
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let tls = match &self.tls {
                    Some(tls) => tls.clone(),
                    None => self.tls.insert(tls::connector(None).map_err(io::Error::other)?).clone(),
                };
                let stream = tls.connect(name, stream).await?;
                self.log_in(stream).await
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> RedisResult<Link>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let disconnected = Arc::new(Notify::new());
        let inbox = Inbox {
            shared: Arc::clone(&self.shared),
            events: self.events.clone(),
            presence_channel: self.shared.name("presence").into_bytes(),
            canary_channel: self.shared.canary_channel().into_bytes(),
            disconnected: Arc::clone(&disconnected),
        };
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.shared.config.timing.response_timeout))
            .set_push_sender(move |push| {
                inbox.take(push);
                Ok::<(), Infallible>(())
            });
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.shared.config.login, stream, settings).await?;
        Ok(Link { connection, disconnected, _driver: AbortOnDropHandle::new(self.tracker.spawn(driver)) })
    }

    /// Uses a link until it fails.
    async fn serve(&mut self, link: &Link) -> Result<Infallible, LinkError> {
        let shared = &*self.shared;
        let mut connection = link.connection.clone();
        connection.subscribe(&[shared.name("presence"), shared.canary_channel()]).await?;
        // Whoever missed something until now is served by the look after the gap.
        reconcile(shared, &mut connection).await?;
        shared.subscriptions().link_up();
        shared.progress.send_replace(());
        let error = tokio::select! {
            () = link.disconnected.notified() => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            error = publish(shared, &mut self.queue, link.connection.clone()) => error,
            error = self.lease.keep(shared, link.connection.clone()) => error,
            error = keep_subscribed(shared, link.connection.clone()) => error,
            failed = sing(shared, link.connection.clone()) => return failed,
            never = look_after_gap(shared) => match never {},
        };
        Err(error.into())
    }

    fn link_down(&self) {
        self.shared.subscriptions().link_down();
        self.shared.progress.send_replace(());
        let mut served = self.shared.served();
        served.noting = false;
        served.changes.clear();
    }

    async fn end(&mut self, mut link: Link) {
        self.link_down();
        if let Err(error) = self.lease.end(&self.shared, &mut link.connection).await {
            debug!(%error, "presence ends with the lease");
        }
    }
}

/// What was committed before the subscriptions were there, no hint told of. Not all nodes ask the store at once.
async fn look_after_gap(shared: &Shared) -> Infallible {
    sleep(shared.entropy.jitter(shared.config.timing.spread)).await;
    shared.news.gap();
    std::future::pending().await
}

/// Asks for what is wanted and is not there, until all of it is. Returns whether someone missed something meanwhile.
async fn reconcile(shared: &Shared, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let mut owed = false;
    loop {
        let Plan { subscribe, unsubscribe } =
            shared.subscriptions().plan(shared.config.timing.linger, Instant::now());
        let names = |channels: &[Channel]| -> Vec<_> {
            channels.iter().map(|channel| shared.channel(*channel)).collect()
        };
        for channels in unsubscribe.chunks(CHANNELS_MAX) {
            connection.unsubscribe(names(channels)).await?;
        }
        if subscribe.is_empty() {
            return Ok(owed);
        }
        for channels in subscribe.chunks(CHANNELS_MAX) {
            connection.subscribe(names(channels)).await?;
            owed |= shared.subscriptions().confirm(channels);
            shared.progress.send_replace(());
        }
    }
}

async fn keep_subscribed(shared: &Shared, mut connection: MultiplexedConnection) -> RedisError {
    loop {
        tokio::select! {
            () = shared.subscriptions_changed.notified() => {}
            () = sleep((shared.config.timing.linger / 4).max(LOOK_MIN)) => {}
        }
        match reconcile(shared, &mut connection).await {
            Ok(true) => shared.news.gap(),
            Ok(false) => {}
            Err(error) => return error,
        }
    }
}
