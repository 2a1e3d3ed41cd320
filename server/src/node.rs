//! A node: what its connections share, and the tasks that serve them. No global state: a process can hold several.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use protocol::{Clock, Entropy, Limits, Net};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    admission::Admission,
    backlog::Backlog,
    committer::{Bounds, Committer, Dispatcher},
    delivered::Delivered,
    feeds::Feeds,
    listener,
    metrics::Metrics,
    outbox::Wakes,
    password::Passwords,
    registry::Registry,
    relay::{Relay, RelayEvent, RelayEvents},
    retention::Retention,
    sizes::Sizes,
    store::{self, Store},
    sweep::{Prompts, Sweep},
    throttle::{Rates, Throttle, loopback},
    tls::Tls,
};

/// What a node needs of the world.
pub struct World {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The other nodes.
    pub relay: Arc<dyn Relay>,
    /// What they say.
    pub relay_events: RelayEvents,
    /// Password hashing.
    pub passwords: Arc<dyn Passwords>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// A node's settings; the defaults are those of SPEC.md, sections 8 and 10.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// What the greeting states.
    pub limits: Limits,
    /// Connections at once.
    pub connections_max: usize,
    /// From connection to login.
    pub login_timeout: Duration,
    /// In which a reader must take all that waits for it, or as much as the next says.
    pub write_timeout: Duration,
    /// Bytes a second that a reader must take, on average over that time.
    pub reading_rate_min: u32,
    /// Sessions of one user on this node.
    pub sessions_per_user_max: usize,
    /// What the committer checks.
    pub bounds: Bounds,
    /// How long a resume token lasts.
    pub token_lifetime: Duration,
    /// Between two looks of the sweep.
    pub sweep_interval: Duration,
    /// In which every local head is compared once.
    pub sweep_round: Duration,
    /// How long a drain takes at most.
    pub drain_grace: Duration,
    /// What all connections together may hold for clients that do not take their part, in bytes.
    pub backlog_bytes_max: usize,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Who may send one; nobody else may connect then.
    pub proxies: Vec<IpNet>,
    /// What the port speaks TLS with; without it, it speaks plain text.
    pub tls: Option<Arc<Tls>>,
    /// How much one address, account or session may ask.
    pub rates: Rates,
    /// How long messages are kept, if not for ever.
    pub retention: Option<Retention>,
    /// What is a matter of speed.
    pub sizes: Sizes,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connections_max: 16_000,
            login_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            reading_rate_min: 256,
            sessions_per_user_max: 64,
            bounds: Bounds {
                members_per_group_max: 2000,
                groups_per_user_max: 1000,
                friends_per_user_max: 5000,
            },
            token_lifetime: Duration::from_secs(7 * 24 * 3600),
            sweep_interval: Duration::from_secs(2),
            sweep_round: Duration::from_secs(60),
            drain_grace: Duration::from_secs(10),
            backlog_bytes_max: 64 << 20,
            proxy_protocol: false,
            proxies: loopback(),
            tls: None,
            rates: Rates::default(),
            retention: None,
            sizes: Sizes::default(),
        }
    }
}

/// What the connections of a node share.
pub struct Node {
    /// Settings.
    pub config: NodeConfig,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Conversations with local readers.
    pub feeds: Arc<Feeds>,
    /// Live sessions.
    pub registry: Arc<Registry>,
    /// The way to the logs.
    pub committer: Committer,
    /// Delivered cursors on their way to the store.
    pub delivered: Arc<Delivered>,
    /// Password hashing.
    pub passwords: Arc<dyn Passwords>,
    /// Logins, which hash passwords.
    pub logins: Admission,
    /// Resumes: not behind logins, of which anyone can ask for many.
    pub resumes: Admission,
    /// What addresses, accounts and sessions may ask.
    pub throttle: Arc<Throttle>,
    /// What connections hold for clients that do not take their part.
    pub backlog: Arc<Backlog>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Cancelled when the node takes no more requests.
    pub draining: CancellationToken,
}

/// A node at work.
pub struct RunningNode {
    node: Arc<Node>,
    /// Connections.
    connections: TaskTracker,
    /// Everything else.
    services: TaskTracker,
    stop_services: CancellationToken,
    committer: JoinHandle<()>,
}

impl RunningNode {
    /// Starts a node that accepts connections on `listener`.
    pub fn start<N: Net>(net: N, listener: N::Listener, world: World, config: NodeConfig) -> Self {
        let running = Self::start_unheard(world, config);
        let (node, connections) = (Arc::clone(&running.node), running.connections.clone());
        running.connections.spawn(listener::accept(net, listener, node, connections));
        running
    }

    /// Starts a node that has no clients: for what operators do to a database.
    pub fn start_unheard(world: World, config: NodeConfig) -> Self {
        let World { store, relay, relay_events, passwords, clock, entropy } = world;
        let (services, stop_services) = (TaskTracker::new(), CancellationToken::new());
        let feeds = Feeds::new(
            Arc::clone(&store),
            Arc::clone(&relay),
            services.clone(),
            stop_services.child_token(),
            config.sizes,
        );
        let registry = Arc::new(Registry::new(Arc::clone(&relay), config.sessions_per_user_max));
        let metrics = Arc::<Metrics>::default();
        let (committer, dispatcher) = Dispatcher::new(
            Arc::clone(&store),
            Arc::clone(&feeds),
            relay,
            Arc::clone(&clock),
            Arc::clone(&entropy),
            Arc::clone(&metrics),
            &config,
        );
        let delivered = Arc::new(Delivered::new(Arc::clone(&store)));
        let sweep = Sweep::new(Arc::clone(&store), Arc::clone(&feeds), &config);
        let draining = CancellationToken::new();
        // Well before the clients take the node for dead.
        let patience = config.limits.idle_timeout() / 6;
        let admission = || Admission::new(config.sizes.openings_max, patience, draining.clone());
        let (logins, resumes) = (admission(), admission());
        let throttle = Throttle::new(config.rates.clone());
        let backlog = Backlog::new(config.backlog_bytes_max);
        let node = Arc::new(Node {
            config,
            store,
            feeds,
            registry,
            committer,
            delivered,
            passwords,
            logins,
            resumes,
            throttle,
            backlog,
            metrics,
            clock,
            entropy,
            draining,
        });

        let committer = services.spawn(dispatcher.run());
        let prompts = Arc::<Prompts>::default();
        node.store.on_change(when_the_store_changes(&node, &prompts));
        services.spawn(sweep.run(Arc::clone(&prompts), stop_services.child_token()));
        let listening =
            listen_to_relay(Arc::clone(&node), relay_events, prompts, stop_services.child_token());
        services.spawn(listening);
        let writer = (Arc::clone(&node.delivered), stop_services.child_token());
        services.spawn(async move { writer.0.run(writer.1).await });
        if let Some(retention) = node.config.retention {
            let (store, entropy) = (Arc::clone(&node.store), Arc::clone(&node.entropy));
            let metrics = Arc::clone(&node.metrics);
            services.spawn(retention.run(store, entropy, metrics, stop_services.child_token()));
        }
        Self { node, connections: TaskTracker::new(), services, stop_services, committer }
    }

    /// What its connections share.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Resolves if the node can no longer work: its committer has failed.
    pub async fn failed(&mut self) {
        let outcome = (&mut self.committer).await;
        error!(?outcome, "the committer has ended");
    }

    /// Stops accepting, tells clients, answers what was asked, flushes, writes cursors, and closes the store: within the grace
    /// period. Returns whether everything was done in time.
    pub async fn drain(self) -> bool {
        let Self { node, connections, services, stop_services, .. } = self;
        info!(sessions = node.registry.session_count(), "draining");
        let grace = node.config.drain_grace;
        node.draining.cancel();
        connections.close();
        let drained = tokio::time::timeout(grace, connections.wait()).await.is_ok();
        if !drained {
            warn!(left = connections.len(), "connections did not end in time");
        }
        // Whatever has not ended holds the committer open: it is abandoned with the process.
        stop_services.cancel();
        let mut saved = node.delivered.write_all().await.is_ok();
        let store = Arc::clone(&node.store);
        drop(node);
        services.close();
        if drained {
            saved &= tokio::time::timeout(grace, services.wait()).await.is_ok();
            store.close().await;
        }
        info!("drained");
        drained && saved
    }
}

/// What this node believes of heads and rights came from other logs: nothing is numbered from it, and it is compared with what there is now.
fn when_the_store_changes(node: &Arc<Node>, prompts: &Arc<Prompts>) -> store::Listener {
    let (node, prompts) = (Arc::downgrade(node), Arc::clone(prompts));
    Arc::new(move || {
        if let Some(node) = node.upgrade() {
            node.feeds.doubt_all();
            node.delivered.forget();
            prompts.changed.notify_one();
        }
    })
}

async fn listen_to_relay(
    node: Arc<Node>,
    mut events: RelayEvents,
    prompts: Arc<Prompts>,
    stop: CancellationToken,
) {
    while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
        match event {
            RelayEvent::Hint(hint) => {
                node.metrics.hints.inc_by(hint.lines.len() as u64);
                if let Some(cell) = node.feeds.existing(hint.conv) {
                    let mut wakes = Wakes::default();
                    cell.lock().hint(hint.lines, &mut wakes);
                    wakes.fire();
                    node.feeds.fill(&cell);
                }
            }
            RelayEvent::Head(conv, head) => node.feeds.observe([(conv, head)]),
            RelayEvent::Gap => {
                node.metrics.gaps.inc();
                prompts.gap.notify_one();
            }
            RelayEvent::Presence(user) => node.registry.changed_elsewhere(user),
            RelayEvent::PresenceOfAll => node.registry.all_changed_elsewhere(),
            RelayEvent::LeaseLost => node.registry.probe(),
        }
    }
}
