//! A whole cluster on turmoil: which hosts there are, and what runs on them.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use ipnet::{IpNet, Ipv6Net};
use loadgen::{
    Plan, Recorder,
    history::{Bounds, What as Recorded},
    rng::Rng,
    workload::{Signals, Workload},
};
use protocol::{ClientMsgId, Net as _, text};
use server::{
    gauges::Gauge,
    node::{Node, NodeConfig, RunningNode, World as NodeWorld},
    relay::{
        Relay,
        none::NoRelay,
        redis::{RedisConfig, RedisRelay, Timing},
    },
    sizes::Sizes,
    store::{NewUser, Store as _},
    throttle::Rates,
};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turmoil::Sim;

use crate::{
    balancer::{self, Balancer, Upstream},
    clock::HostClock,
    entropy::TracedEntropy,
    net::{Estate, SimNet},
    passwords::Plain,
    redis::{self, Redis},
    scenario::{Host, Knobs, Scenario, Topology},
    store::{self, Database, RemoteStore},
    trace::{self, Trace, What},
};

/// Where nodes listen.
const NODE_PORT: u16 = 6000;
/// Where the balancer listens.
const BALANCER_PORT: u16 = 8000;
/// Where Redis listens.
const REDIS_PORT: u16 = 6379;
/// Where the store listens.
const STORE_PORT: u16 = 3306;
/// Between two attempts of a node that starts to reach the store.
const START_PAUSE: Duration = Duration::from_millis(250);
/// How long a node may take after its drain to say that it is gone.
const RELAY_GRACE: Duration = Duration::from_secs(1);
/// Between two looks at how much a node holds.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// The deployment's id.
const DEPLOYMENT: [u8; 16] = [7; 16];

/// What the hosts share with whoever runs them.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    seed: u64,
    topology: Topology,
    knobs: Knobs,
    trace: Trace,
    workload: Workload,
    recorder: Recorder,
    redis: Redis,
    database: Database,
    clocks: BTreeMap<Host, HostClock>,
    /// What hosts leave behind when they are stopped.
    estates: BTreeMap<Host, Estate>,
    /// How often each host was started, and what tells its present node to end in order.
    lives: Mutex<BTreeMap<Host, (u64, CancellationToken)>>,
}

impl World {
    /// The world of a scenario: its store holds the accounts of users that are registered.
    pub fn new(scenario: &Scenario, trace: &Trace, signals: Signals) -> Self {
        let Scenario { seed, topology, knobs, .. } = scenario;
        let clocks: BTreeMap<Host, HostClock> =
            topology.hosts().into_iter().map(|host| (host, HostClock::default())).collect();
        let plan = plan(scenario);
        let database = Database::new(
            DEPLOYMENT,
            Arc::new(clocks.get(&Host::Store).cloned().unwrap_or_default()),
            part(*seed, "database"),
        );
        if plan.registered {
            register(&database, &plan);
        }
        let recorder = Recorder::with_time(bounds(knobs, topology), trace::now);
        let entropy = TracedEntropy::new(&"workload".into(), part(*seed, "workload").number(), trace);
        let addresses: Vec<String> = if topology.balancer {
            vec![format!("{}:{BALANCER_PORT}", Host::Balancer)]
        } else {
            (0..topology.nodes).map(|at| format!("{}:{NODE_PORT}", Host::Node(at))).collect()
        };
        let workload = Workload::new(
            &addresses,
            plan,
            recorder.clone(),
            Arc::new(entropy),
            signals,
            topology.client_hosts,
        );
        let redis = Redis::new(part(*seed, "redis"));
        redis.set_wedged(!knobs.hints);
        Self(Arc::new(Shared {
            seed: *seed,
            topology: *topology,
            knobs: *knobs,
            trace: trace.clone(),
            workload,
            recorder,
            redis,
            database,
            estates: clocks.keys().map(|host| (*host, Estate::default())).collect(),
            clocks,
            lives: Mutex::default(),
        }))
    }

    /// Puts all hosts into a simulation.
    pub fn populate(&self, sim: &mut Sim<'_>) {
        for host in self.0.topology.hosts() {
            let world = self.clone();
            let name = host.to_string();
            match host {
                Host::Clients(at) => sim.client(name, async move { world.clients(at).await }),
                _ => sim.host(name, move || {
                    let world = world.clone();
                    async move {
                        match host {
                            Host::Node(_) => world.node(host).await,
                            Host::Redis => world.redis_host().await,
                            Host::Store => world.store_host().await,
                            Host::Balancer | Host::Clients(_) => world.balancer_host().await,
                        }
                    }
                }),
            }
        }
    }

    /// What users and hosts are recorded in.
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// The workload on the client hosts.
    pub fn workload(&self) -> &Workload {
        &self.0.workload
    }

    /// Redis.
    pub fn redis(&self) -> &Redis {
        &self.0.redis
    }

    /// The store.
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// A host's wall clock.
    pub fn clock(&self, host: Host) -> HostClock {
        self.0.clocks.get(&host).cloned().unwrap_or_default()
    }

    /// Says whether a host is being stopped or started anew: see [`Estate`].
    pub fn stopping(&self, host: Host, stopping: bool) {
        if let Some(estate) = self.0.estates.get(&host) {
            estate.stopping(stopping);
        }
    }

    /// Tells a node to end in order.
    pub fn drain(&self, host: Host) {
        if let Some((_, drain)) = self.lives().get(&host) {
            drain.cancel();
        }
    }

    /// A new life of a host: its name, its network, its seed, and what tells it to end.
    fn begin(&self, host: Host) -> Life {
        let name: Arc<str> = host.to_string().into();
        let (number, drain) = {
            let mut lives = self.lives();
            let life = lives.entry(host).or_default();
            *life = (life.0 + 1, CancellationToken::new());
            life.clone()
        };
        self.0.trace.note(&name, What::Said(format!("starts, for the {number}. time")));
        let mut rng = part(self.0.seed ^ number.rotate_left(32), &name);
        let estate = self.0.estates.get(&host).cloned().unwrap_or_default();
        estate.settle(&name, &self.0.trace);
        let net = SimNet::new(&name, rng.number(), self.0.knobs.restless, &self.0.trace, &estate);
        let heir = Heir { estate, name: Arc::clone(&name), trace: self.0.trace.clone() };
        let entropy = Arc::new(TracedEntropy::new(&name, rng.number(), &self.0.trace));
        Life { name, net, entropy, drain, _heir: heir }
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<Host, (u64, CancellationToken)>> {
        // Valid at any point of a writer.
        self.0.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn clients(&self, at: usize) -> turmoil::Result {
        let life = self.begin(Host::Clients(at));
        self.0.workload.part(life.net, at, TaskTracker::new()).await;
        Ok(())
    }

    async fn store_host(&self) -> turmoil::Result {
        let life = self.begin(Host::Store);
        let address = format!("0.0.0.0:{STORE_PORT}");
        Ok(store::serve(life.net, &address, self.0.database.clone(), TaskTracker::new()).await?)
    }

    async fn redis_host(&self) -> turmoil::Result {
        let life = self.begin(Host::Redis);
        let address = format!("0.0.0.0:{REDIS_PORT}");
        Ok(redis::serve(life.net, &address, self.0.redis.clone(), TaskTracker::new()).await?)
    }

    async fn balancer_host(&self) -> turmoil::Result {
        let life = self.begin(Host::Balancer);
        let upstreams = (0..self.0.topology.nodes)
            .map(|at| Upstream {
                max_fails: 3,
                fail_timeout: Duration::from_secs(2),
                ..Upstream::new(&format!("{}:{NODE_PORT}", Host::Node(at)))
            })
            .collect();
        let balancer = Balancer {
            connect_timeout: Duration::from_secs(1),
            sessions_max: 64.max(4 * self.0.topology.users * self.0.topology.sessions),
            ..Balancer::new(&format!("0.0.0.0:{BALANCER_PORT}"), upstreams)
        };
        Ok(balancer::serve(life.net, balancer, TaskTracker::new()).await?)
    }

    /// A node, as `chatserver` starts and ends one.
    async fn node(&self, host: Host) -> turmoil::Result {
        let Life { name, net, entropy, drain, _heir } = self.begin(host);
        let (topology, knobs) = (&self.0.topology, &self.0.knobs);
        let patience = Duration::from_millis(knobs.store_timeout_ms);
        let limits = store::Limits {
            shared: knobs.store_connections,
            call: patience,
            connect: patience / 2,
            idle: patience,
        };
        let address = format!("{}:{STORE_PORT}", Host::Store);
        let store = Arc::new(RemoteStore::new(&net, &address, limits));
        let deployment = loop {
            match store.deployment().await {
                Ok(deployment) => break deployment,
                Err(_) => sleep(START_PAUSE).await,
            }
        };
        let (relays, stop_relay) = (TaskTracker::new(), CancellationToken::new());
        let (relay, relay_events): (Arc<dyn Relay>, _) = if topology.redis {
            let mut config = RedisConfig::parse(&format!("redis://{}:{REDIS_PORT}", Host::Redis), "chat")?;
            config.timing = timing(knobs);
            let (relay, events) =
                RedisRelay::start(net.clone(), config, deployment, entropy.clone(), &relays, &stop_relay);
            (Arc::new(relay), events)
        } else {
            let (relay, events) = NoRelay::new();
            (Arc::new(relay), events)
        };
        let listener = net.bind(&format!("0.0.0.0:{NODE_PORT}")).await?;
        let world = NodeWorld {
            store,
            relay,
            relay_events,
            passwords: Arc::new(Plain),
            clock: Arc::new(self.clock(host)),
            entropy,
        };
        let mut node = RunningNode::start(net, listener, world, node_config(knobs));
        self.0.trace.note(&name, What::Said("listens".into()));
        let watched = Arc::clone(node.node());
        tokio::select! {
            () = drain.cancelled() => {}
            () = self.watch(&name, watched) => {}
            () = node.failed() => return Err("the node's committer has ended".into()),
        }
        self.0.trace.note(&name, What::Said("drains".into()));
        let drained = node.drain().await;
        stop_relay.cancel();
        relays.close();
        let _ = timeout(RELAY_GRACE, relays.wait()).await;
        self.0.trace.note(&name, What::Said(format!("drained, in time: {drained}")));
        Ok(())
    }
}

impl World {
    /// Writes down how much a node holds, whenever it is more than ever before.
    async fn watch(&self, name: &str, node: Arc<Node>) {
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        loop {
            sleep(WATCH_INTERVAL).await;
            for Gauge { name: gauge, amount, bound, .. } in node.gauges() {
                let seen = most.entry(gauge).or_default();
                if amount > *seen {
                    *seen = amount;
                    let (node, gauge) = (name.to_owned(), gauge.to_owned());
                    let (amount, bound) = (amount as u64, bound as u64);
                    self.0.recorder.record(Recorded::Memory { node, gauge, amount, bound });
                }
            }
        }
    }
}

/// A host between two starts.
struct Life {
    name: Arc<str>,
    net: SimNet,
    entropy: Arc<TracedEntropy>,
    drain: CancellationToken,
    _heir: Heir,
}

/// Lives as long as the host's first task, which turmoil drops after all others.
struct Heir {
    estate: Estate,
    name: Arc<str>,
    trace: Trace,
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.estate.settle(&self.name, &self.trace);
    }
}

/// A sequence of its own for each name.
fn part(seed: u64, name: &str) -> Rng {
    let number = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Rng::of_part(seed, number)
}

fn plan(scenario: &Scenario) -> Plan {
    let Scenario { seed, topology, knobs, operations, .. } = scenario;
    Plan {
        seed: *seed,
        users: topology.users,
        sessions: topology.sessions,
        registered: topology.registered,
        script: Some(operations.clone()),
        request_timeout: Duration::from_millis(knobs.request_timeout_ms),
        backoff_max: Duration::from_millis(knobs.backoff_ms_max),
        ..Plan::compressed()
    }
}

/// Most runs begin with accounts: to register, one request after the other, takes seconds of a run, and is the same every time.
fn register(database: &Database, plan: &Plan) {
    for at in 0..plan.users {
        let name = plan.name(at);
        let user = NewUser {
            mid: ClientMsgId((at as u128 + 1).to_be_bytes()),
            name_key: text::name_key(&name),
            password_hash: Plain::hashed(&name),
            name,
            at: 0,
        };
        let mut registering = pin!(database.store().register(&user));
        let done = registering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(done, Poll::Ready(Ok(_))), "memory takes an account at once");
    }
}

fn node_config(knobs: &Knobs) -> NodeConfig {
    let ms = Duration::from_millis;
    let mut config = NodeConfig {
        sweep_interval: ms(knobs.sweep_interval_ms),
        sweep_round: ms(knobs.sweep_round_ms),
        write_timeout: ms(knobs.write_timeout_ms),
        drain_grace: ms(knobs.drain_grace_ms),
        login_timeout: ms(knobs.idle_timeout_ms),
        sizes: Sizes {
            ring_entries_max: knobs.ring_entries,
            held_entries_max: knobs.held_entries,
            page_entries_max: knobs.page_entries,
            batch_max: knobs.batch,
            outbox_bytes: knobs.outbox_bytes,
            sweep_heads_max: knobs.sweep_heads,
            sweep_look_back: ms(knobs.sweep_look_back_ms),
            commit_patience: ms(knobs.commit_patience_ms),
            openings_max: knobs.store_connections,
            ..Sizes::default()
        },
        // Its users share the addresses of a few hosts.
        rates: Rates { exempt: vec![IpNet::default(), Ipv6Net::default().into()], ..Rates::default() },
        ..NodeConfig::default()
    };
    config.limits.idle_timeout_ms = knobs.idle_timeout_ms;
    config
}

/// In the proportions of the defaults.
fn timing(knobs: &Knobs) -> Timing {
    let lease = Duration::from_millis(knobs.lease_ms);
    Timing {
        connect_timeout: lease * 3 / 10,
        response_timeout: lease / 5,
        canary_interval: lease / 10,
        canary_patience: lease * 3 / 10,
        lease,
        heartbeat: Duration::from_millis(knobs.heartbeat_ms),
        backoff: (lease / 100, lease / 5),
        linger: Duration::from_millis(knobs.linger_ms),
        subscribe_wait: lease / 5,
        spread: lease / 20,
    }
}

/// What is promised after the faults have stopped, for these knobs.
///
/// SPEC.md's bounds, and what it takes until connections are given up that have silently lost something: the simulated network sends nothing
/// again, as a real one does, so a connection that a cut went through never comes back by itself.
fn bounds(knobs: &Knobs, topology: &Topology) -> Bounds {
    let ms = Duration::from_millis;
    let calls = knobs.store_connections as u32 + 2;
    // A node needs so long until it has a store again: each of its connections has to be tried.
    let store = ms(knobs.store_timeout_ms) * calls;
    // A client or a node needs so long to notice that the other is gone, and to come back.
    let clients = ms(knobs.idle_timeout_ms + knobs.backoff_ms_max + knobs.drain_grace_ms);
    Bounds {
        delivery: store + clients + ms(knobs.sweep_round_ms),
        presence: store + clients + ms(knobs.lease_ms) * 2 + ms(knobs.heartbeat_ms),
        operation: ms(knobs.request_timeout_ms) + store,
        presence_is_shared: topology.redis || topology.nodes == 1,
    }
}
