//! A TCP balancer with the semantics of nginx's `stream` module, one worker process of it.
//!
//! [`peers`] chooses, without I/O; [`serve`] dials, and copies both ways through bounded buffers as nginx does with `proxy_half_close off`:
//! when one side ends, what it said is passed on, and both connections are closed. Like a process that was started again,
//! each call of [`serve`] knows nothing of its upstreams; when it is dropped, all connections end.
//!
//! The PROXY header gives as the destination the address that is listened on.

pub mod peers;
mod session;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use protocol::Net;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::peers::{Peers, Round, Seconds};

/// What the clock of a balancer that just started shows: beyond any `fail_timeout`, as nginx's is.
const START: Seconds = 1 << 40;

/// A balancer's configuration. Where nothing else is said, its defaults are nginx's.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// What clients connect to, as `HOST:PORT`.
    pub listen: String,
    /// What they are connected to.
    pub upstreams: Vec<Upstream>,
    /// `proxy_connect_timeout`.
    pub connect_timeout: Duration,
    /// `proxy_next_upstream`: a failed connect is followed by one to the next peer, each at most once.
    pub next_upstream: bool,
    /// `proxy_next_upstream_tries`: at most so many connects; 0 is no limit.
    pub next_upstream_tries: usize,
    /// `proxy_timeout`: a connection over which nothing passes for so long is closed.
    pub idle_timeout: Duration,
    /// `proxy_protocol`: upstreams are told the client's address first, in version 1.
    pub proxy_protocol: bool,
    /// Connections at a time; one more is closed at once. Half of nginx's default `worker_connections`, as each needs two of those.
    pub sessions_max: usize,
}

/// A server of the `upstream` block.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// As `HOST:PORT`.
    pub address: String,
    /// Its share.
    pub weight: u32,
    /// Failures that put it away; 0 if none do.
    pub max_fails: u32,
    /// For how long, in whole seconds.
    pub fail_timeout: Duration,
    /// It is never used.
    pub down: bool,
}

impl Balancer {
    /// One with nginx's defaults.
    pub fn new(listen: &str, upstreams: Vec<Upstream>) -> Self {
        Self {
            listen: listen.to_owned(),
            upstreams,
            connect_timeout: Duration::from_secs(60),
            next_upstream: true,
            next_upstream_tries: 0,
            idle_timeout: Duration::from_secs(600),
            proxy_protocol: false,
            sessions_max: 256,
        }
    }
}

impl Upstream {
    /// One with nginx's defaults.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            down: false,
        }
    }
}

/// Runs a balancer until the network fails. When this is dropped, its connections end.
pub async fn serve<N: Net>(net: N, balancer: Balancer, tracker: TaskTracker) -> io::Result<()> {
    let listener = net.bind(&balancer.listen).await?;
    serve_on(net, listener, balancer, tracker).await
}

/// As [`serve`], on what is bound already.
pub async fn serve_on<N: Net>(
    net: N,
    listener: N::Listener,
    balancer: Balancer,
    tracker: TaskTracker,
) -> io::Result<()> {
    let here = net.local_addr(&listener)?;
    let stop = CancellationToken::new();
    let _ends_connections = stop.clone().drop_guard();
    let worker = Arc::new(Worker {
        net,
        here,
        peers: Mutex::new(Peers::new(&balancer.upstreams)),
        balancer,
        began: Instant::now(),
        sessions: AtomicUsize::new(0),
    });
    loop {
        let (stream, client) = worker.net.accept(&listener).await?;
        if worker.sessions.load(Ordering::Relaxed) >= worker.balancer.sessions_max {
            continue;
        }
        let session = Session::new(&worker);
        let stop = stop.clone();
        tracker.spawn(async move { stop.run_until_cancelled(session.run(stream, client)).await });
    }
}

/// What the sessions share.
struct Worker<N> {
    net: N,
    here: SocketAddr,
    peers: Mutex<Peers>,
    balancer: Balancer,
    began: Instant,
    /// How many there are.
    sessions: AtomicUsize,
}

/// A client, and its way through the peers. They learn of its end when it is dropped.
struct Session<N> {
    worker: Arc<Worker<N>>,
    round: Round,
}

impl<N> Worker<N> {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        // Nothing panics half-way through.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Seconds {
        START + Seconds::try_from(self.began.elapsed().as_secs()).unwrap_or(Seconds::MAX - START)
    }
}

impl<N: Net> Session<N> {
    fn new(worker: &Arc<Worker<N>>) -> Self {
        worker.sessions.fetch_add(1, Ordering::Relaxed);
        let round = worker.peers().begin(worker.balancer.next_upstream_tries);
        Self { worker: Arc::clone(worker), round }
    }

    async fn run(mut self, stream: N::Stream, client: SocketAddr) {
        let Some(upstream) = self.dial().await else { return };
        let Balancer { proxy_protocol, idle_timeout, .. } = self.worker.balancer;
        let header = proxy_protocol.then(|| session::proxy_header(client, self.worker.here));
        session::copy(stream, upstream, header, idle_timeout).await;
    }

    /// The first peer that answers.
    async fn dial(&mut self) -> Option<N::Stream> {
        let Worker { net, balancer, .. } = &*self.worker;
        loop {
            let at = self.worker.peers().choose(&mut self.round, self.worker.now())?;
            let dialled = net.connect(&balancer.upstreams[at].address);
            if let Ok(Ok(stream)) = timeout(balancer.connect_timeout, dialled).await {
                self.worker.peers().connected(&self.round);
                return Some(stream);
            }
            let again = self.worker.peers().failed(&mut self.round, self.worker.now());
            if !again || !balancer.next_upstream {
                return None;
            }
        }
    }
}

impl<N> Drop for Session<N> {
    fn drop(&mut self) {
        self.worker.peers().ended(&self.round);
        self.worker.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
