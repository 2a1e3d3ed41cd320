//! A scenario: everything that a run depends on, as a value.
//!
//! A run is a pure function of it. It is written as JSON, an operation or fault on a line, so that people read it and can change it; a
//! failing one is kept as it is, since a seed means something else once the generator has changed.

use std::{fmt, io, str::FromStr};

use loadgen::workload::script::Operation;
use serde::{Deserialize, Serialize, de};
use strum::{EnumDiscriminants, IntoStaticStr, VariantArray};
use thiserror::Error;

use crate::net::Restless;

/// Milliseconds of simulated time.
pub type Millis = u64;

/// Everything that a run depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Of everything that the rest leaves open: latencies, orders of tasks, ids, jitter.
    pub seed: u64,
    /// Who takes part.
    #[serde(default)]
    pub topology: Topology,
    /// How the system is set.
    #[serde(default)]
    pub knobs: Knobs,
    /// What the users do.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// What is done to the system.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Nodes.
    pub nodes: usize,
    /// Hosts that the clients are spread over.
    pub client_hosts: usize,
    /// Users.
    pub users: usize,
    /// Sessions of each user.
    pub sessions: usize,
    /// Whether clients go through the balancer, or to the nodes themselves.
    pub balancer: bool,
    /// Whether there is a Redis, or nodes find each other's entries in the store alone.
    pub redis: bool,
    /// Whether the users have accounts already, or register before they do anything else.
    pub registered: bool,
}

/// How the system is set. Times are shorter than in production, in the same proportions, so that a run is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// One step of the simulation: nothing happens in between.
    pub tick_ms: Millis,
    /// Latency of a message: at least.
    pub latency_ms_min: Millis,
    /// Latency of a message: at most.
    pub latency_ms_max: Millis,
    /// How restless the network is.
    pub restless: Restless,
    /// See [`server::node::NodeConfig::sweep_interval`].
    pub sweep_interval_ms: Millis,
    /// See [`server::node::NodeConfig::sweep_round`].
    pub sweep_round_ms: Millis,
    /// Silence after which a node takes a client for gone.
    pub idle_timeout_ms: Millis,
    /// In which a reader must take something.
    pub write_timeout_ms: Millis,
    /// For a drain.
    pub drain_grace_ms: Millis,
    /// A node's presence lasts so long after its last sign of life.
    pub lease_ms: Millis,
    /// Between two renewals of it.
    pub heartbeat_ms: Millis,
    /// How long a channel that nobody reads is kept.
    pub linger_ms: Millis,
    /// The longest pause of a client between two attempts to connect.
    pub backoff_ms_max: Millis,
    /// The longest wait of a user for the answer to one request.
    pub request_timeout_ms: Millis,
    /// For a call of the store.
    pub store_timeout_ms: Millis,
    /// Connections of a node to the store.
    pub store_connections: usize,
    /// See [`server::sizes::Sizes::ring_entries_max`].
    pub ring_entries: usize,
    /// See [`server::sizes::Sizes::held_entries_max`].
    pub held_entries: usize,
    /// See [`server::sizes::Sizes::page_entries_max`].
    pub page_entries: usize,
    /// See [`server::sizes::Sizes::batch_max`].
    pub batch: usize,
    /// See [`server::sizes::Sizes::outbox_bytes`].
    pub outbox_bytes: usize,
    /// See [`server::sizes::Sizes::sweep_heads_max`].
    pub sweep_heads: usize,
    /// See [`server::sizes::Sizes::sweep_look_back`].
    pub sweep_look_back_ms: Millis,
    /// See [`server::sizes::Sizes::commit_patience`].
    pub commit_patience_ms: Millis,
    /// Whether Redis delivers what is published; without, it is all found in the store.
    pub hints: bool,
}

/// A host of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A node, counted from 1 in its name.
    Node(usize),
    /// Where clients run, counted likewise.
    Clients(usize),
    /// The relay.
    Redis,
    /// The database.
    Store,
    /// What stands before the nodes.
    Balancer,
}

/// Something that is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub at_ms: Millis,
    /// After how long it is undone: what was cut is mended, what was stopped is started again.
    pub for_ms: Millis,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What can be done to the system. Probabilities are in parts of a thousand.
///
/// Each is of a [`Kind`], in the order in which seeds draw them: a new one comes last, or what old seeds lead to changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumDiscriminants)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[strum_discriminants(
    name(Kind),
    doc = "What there is of [`What`], by name alone.",
    derive(IntoStaticStr, VariantArray),
    strum(serialize_all = "snake_case")
)]
pub enum What {
    /// What is on the way between two hosts waits, and arrives afterwards.
    Stall {
        /// One of them.
        a: Host,
        /// The other.
        b: Host,
    },
    /// What is sent between two hosts is lost. Connections that lost something stay silent, since nothing is sent again.
    Cut {
        /// One of them.
        a: Host,
        /// The other.
        b: Host,
    },
    /// What one host sends to another is lost.
    CutOneWay {
        /// Who is not heard.
        from: Host,
        /// By whom.
        to: Host,
    },
    /// A host is cut off from all others.
    CutOff {
        /// Which.
        host: Host,
    },
    /// A host stands still as far as others can see: all that it sends and is sent waits.
    Freeze {
        /// Which.
        host: Host,
    },
    /// Messages between two hosts take longer.
    Slow {
        /// One of them.
        a: Host,
        /// The other.
        b: Host,
        /// How long.
        latency_ms: Millis,
    },
    /// A host's process ends without a word, and connections to it end; it is started again.
    Exit {
        /// Which: not where clients run.
        host: Host,
    },
    /// A host is gone, and those it was connected to are not told; it is started again.
    PowerLoss {
        /// Which: not where clients run.
        host: Host,
    },
    /// A node is told to end, ends in order, and is started again.
    Drain {
        /// Which of the nodes.
        host: Host,
    },
    /// Redis loses all its keys.
    RedisEmptied,
    /// Redis takes what is published, and delivers nothing.
    RedisWedged,
    /// What is published is lost on its way to a subscriber.
    PublishesLost {
        /// How often.
        permille: u16,
    },
    /// What is published comes twice.
    PublishesDoubled {
        /// How often.
        permille: u16,
    },
    /// What is published is held back, and overtaken by what comes later.
    PublishesReordered {
        /// How often.
        permille: u16,
        /// For how long at most.
        ms_max: Millis,
    },
    /// What is published is held back, and what comes later with it.
    PublishesDelayed {
        /// How often.
        permille: u16,
        /// For how long at most.
        ms_max: Millis,
    },
    /// Calls of the store take up to so much longer.
    StoreSlow {
        /// How long.
        ms_max: Millis,
    },
    /// The store carries out a write, or does not, and the connection ends without an answer.
    CommitUnknown {
        /// How often.
        permille: u16,
    },
    /// A write takes effect only after its caller has given up.
    CommitLate {
        /// How often.
        permille: u16,
        /// By up to so much.
        ms_max: Millis,
    },
    /// Reads of the store fail.
    StoreReadErrors {
        /// How often.
        permille: u16,
    },
    /// The store gives up writes that stand in each other's way.
    StoreBusy {
        /// How often.
        permille: u16,
    },
    /// A host's wall clock jumps, and jumps back afterwards.
    ClockJump {
        /// Whose.
        host: Host,
        /// Forward, or back.
        by_ms: i64,
    },
    /// A host's wall clock goes too fast, or too slow.
    ClockDrift {
        /// Whose.
        host: Host,
        /// By so many parts per million.
        ppm: i64,
    },
}

impl What {
    /// Its name, as in a scenario's file.
    pub fn name(&self) -> &'static str {
        Kind::from(self).into()
    }

    /// The hosts it names.
    pub fn hosts(&self) -> Vec<Host> {
        match *self {
            Self::Stall { a, b } | Self::Cut { a, b } | Self::Slow { a, b, .. } => vec![a, b],
            Self::CutOneWay { from, to } => vec![from, to],
            Self::CutOff { host }
            | Self::Freeze { host }
            | Self::Exit { host }
            | Self::PowerLoss { host }
            | Self::Drain { host }
            | Self::ClockJump { host, .. }
            | Self::ClockDrift { host, .. } => vec![host],
            Self::RedisEmptied
            | Self::RedisWedged
            | Self::PublishesLost { .. }
            | Self::PublishesDoubled { .. }
            | Self::PublishesReordered { .. }
            | Self::PublishesDelayed { .. } => vec![Host::Redis],
            Self::StoreSlow { .. }
            | Self::StoreReadErrors { .. }
            | Self::CommitUnknown { .. }
            | Self::CommitLate { .. }
            | Self::StoreBusy { .. } => vec![Host::Store],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.what.name().replace('_', " ");
        match self.what {
            What::Stall { a, b } | What::Cut { a, b } => write!(f, "{name} {a} - {b}"),
            What::CutOneWay { from, to } => write!(f, "{name} {from} -> {to}"),
            What::CutOff { host } | What::Freeze { host } | What::Exit { host } => write!(f, "{name} {host}"),
            What::PowerLoss { host } | What::Drain { host } => write!(f, "{name} {host}"),
            What::Slow { a, b, latency_ms } => write!(f, "{name} {a} - {b}: {latency_ms} ms"),
            What::RedisEmptied | What::RedisWedged => f.write_str(&name),
            What::PublishesLost { permille }
            | What::PublishesDoubled { permille }
            | What::CommitUnknown { permille }
            | What::StoreReadErrors { permille }
            | What::StoreBusy { permille } => write!(f, "{name}: {permille} ‰"),
            What::PublishesReordered { permille, ms_max }
            | What::PublishesDelayed { permille, ms_max }
            | What::CommitLate { permille, ms_max } => write!(f, "{name}: {permille} ‰ by {ms_max} ms"),
            What::StoreSlow { ms_max } => write!(f, "{name}: {ms_max} ms"),
            What::ClockJump { host, by_ms } => write!(f, "{name} {host}: {by_ms} ms"),
            What::ClockDrift { host, ppm } => write!(f, "{name} {host}: {ppm} ppm"),
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            nodes: 3,
            client_hosts: 2,
            users: 12,
            sessions: 1,
            balancer: true,
            redis: true,
            registered: true,
        }
    }
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            tick_ms: 5,
            latency_ms_min: 0,
            latency_ms_max: 5,
            restless: Restless::default(),
            sweep_interval_ms: 500,
            sweep_round_ms: 4000,
            idle_timeout_ms: 6000,
            write_timeout_ms: 4000,
            drain_grace_ms: 3000,
            lease_ms: 3000,
            heartbeat_ms: 1000,
            linger_ms: 5000,
            backoff_ms_max: 1000,
            request_timeout_ms: 20_000,
            store_timeout_ms: 2000,
            store_connections: 4,
            ring_entries: 256,
            held_entries: 64,
            page_entries: 256,
            batch: 512,
            outbox_bytes: 64 << 10,
            sweep_heads: 10_000,
            sweep_look_back_ms: 500,
            commit_patience_ms: 2000,
            hints: true,
        }
    }
}

impl Topology {
    /// All hosts, in the order in which they are started.
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts = vec![Host::Store];
        hosts.extend(self.redis.then_some(Host::Redis));
        hosts.extend((0..self.nodes).map(Host::Node));
        hosts.extend(self.balancer.then_some(Host::Balancer));
        hosts.extend((0..self.client_hosts).map(Host::Clients));
        hosts
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(at) => write!(f, "node{}", at + 1),
            Self::Clients(at) => write!(f, "clients{}", at + 1),
            Self::Redis => f.write_str("redis"),
            Self::Store => f.write_str("store"),
            Self::Balancer => f.write_str("balancer"),
        }
    }
}

/// Not the name of a host.
#[derive(Debug, Error)]
#[error("{0:?} is no host: expected node1, clients1, redis, store or balancer")]
pub struct HostError(String);

impl FromStr for Host {
    type Err = HostError;

    fn from_str(name: &str) -> Result<Self, HostError> {
        let numbered = |prefix| {
            let number: usize = name.strip_prefix(prefix)?.parse().ok()?;
            number.checked_sub(1)
        };
        match name {
            "redis" => Ok(Self::Redis),
            "store" => Ok(Self::Store),
            "balancer" => Ok(Self::Balancer),
            _ => numbered("node")
                .map(Self::Node)
                .or_else(|| numbered("clients").map(Self::Clients))
                .ok_or_else(|| HostError(name.to_owned())),
        }
    }
}

impl Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// Not the form of one.
    #[error("not a scenario: {0}")]
    Form(#[from] serde_json::Error),
    /// It contradicts itself, or is out of bounds.
    #[error("{0}")]
    Sense(String),
}

/// The longest run, in simulated time before the end of the last fault.
const DURATION_MS_MAX: Millis = 3_600_000;

impl Scenario {
    /// Reads a scenario and checks that it can be run.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = serde_json::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks that it can be run: hosts exist, numbers are within bounds.
    ///
    /// # Errors
    /// [`ScenarioError::Sense`].
    pub fn check(&self) -> Result<(), ScenarioError> {
        let Topology { nodes, client_hosts, users, sessions, .. } = self.topology;
        let knobs = &self.knobs;
        let within = |what: &str, value: u64, least: u64, most: u64| {
            let error = || ScenarioError::Sense(format!("{what} is {value}: expected {least} to {most}"));
            (least..=most).contains(&value).then_some(()).ok_or_else(error)
        };
        within("nodes", nodes as u64, 1, 64)?;
        within("client_hosts", client_hosts as u64, 1, 64)?;
        within("users", users as u64, 1, 10_000)?;
        within("sessions", sessions as u64, 1, 16)?;
        within("tick_ms", knobs.tick_ms, 1, 1000)?;
        within("latency_ms_max", knobs.latency_ms_max, knobs.latency_ms_min, 10_000)?;
        within("store_connections", knobs.store_connections as u64, 1, 64)?;
        let sizes = [
            ("ring_entries", knobs.ring_entries),
            ("held_entries", knobs.held_entries),
            ("page_entries", knobs.page_entries),
            ("batch", knobs.batch),
            ("outbox_bytes", knobs.outbox_bytes),
            ("sweep_heads", knobs.sweep_heads),
        ];
        for (what, size) in sizes {
            within(what, size as u64, 1, 1 << 20)?;
        }
        let hosts = self.topology.hosts();
        for fault in &self.faults {
            within("at_ms", fault.at_ms, 0, DURATION_MS_MAX)?;
            within("for_ms", fault.for_ms, 0, DURATION_MS_MAX)?;
            let named = fault.what.hosts();
            if let Some(host) = named.iter().find(|host| !hosts.contains(host)) {
                return Err(ScenarioError::Sense(format!("{fault}: there is no {host}")));
            }
            if let [a, b] = named[..]
                && a == b
            {
                return Err(ScenarioError::Sense(format!("{fault}: {a} is no link")));
            }
            let fits = match fault.what {
                What::Exit { host } | What::PowerLoss { host } => !matches!(host, Host::Clients(_)),
                What::Drain { host } => matches!(host, Host::Node(_)),
                _ => true,
            };
            if !fits {
                return Err(ScenarioError::Sense(format!("{fault}: not on this host")));
            }
        }
        Ok(())
    }

    /// Writes it, an operation or fault on a line.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl io::Write) -> io::Result<()> {
        writeln!(to, "{{")?;
        writeln!(to, "\"seed\": {},", self.seed)?;
        writeln!(to, "\"topology\": {},", serde_json::to_string(&self.topology)?)?;
        writeln!(to, "\"knobs\": {},", serde_json::to_string(&self.knobs)?)?;
        lines(&mut to, "operations", &self.operations)?;
        writeln!(to, ",")?;
        lines(&mut to, "faults", &self.faults)?;
        writeln!(to, "\n}}")
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

fn lines<T: Serialize>(to: &mut impl io::Write, name: &str, items: &[T]) -> io::Result<()> {
    write!(to, "\"{name}\": [")?;
    for (at, item) in items.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(to, "{comma}\n  {}", serde_json::to_string(item)?)?;
    }
    write!(to, "{}]", if items.is_empty() { "" } else { "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_as_it_was_written() {
        let fault = |what| Fault { at_ms: 10, for_ms: 20, what };
        let scenario = Scenario {
            seed: 7,
            topology: Topology::default(),
            knobs: Knobs::default(),
            operations: Vec::new(),
            faults: vec![
                fault(What::CutOneWay { from: Host::Node(0), to: Host::Clients(1) }),
                fault(What::RedisEmptied),
                fault(What::ClockJump { host: Host::Store, by_ms: -5 }),
            ],
        };
        let text = scenario.to_string();
        assert_eq!(Scenario::parse(&text).unwrap(), scenario);
        assert!(
            text.contains(r#"{"at_ms":10,"for_ms":20,"fault":"cut_one_way","from":"node1","to":"clients2"}"#),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let parse = |faults: &str| {
            Scenario::parse(&format!(r#"{{"seed":1,"faults":[{faults}]}}"#)).unwrap_err().to_string()
        };
        let fault = |rest: &str| format!(r#"{{"at_ms":1,"for_ms":1,{rest}}}"#);
        assert!(parse(&fault(r#""fault":"exit","host":"node9""#)).contains("no node9"));
        assert!(parse(&fault(r#""fault":"exit","host":"clients1""#)).contains("not on this host"));
        assert!(parse(&fault(r#""fault":"cut","a":"redis","b":"redis""#)).contains("no link"));
        assert!(parse(&fault(r#""fault":"cut","a":"redis","b":"postgres""#)).contains("no host"));
        assert!(Scenario::parse(r#"{"seed":1,"topology":{"nodes":0}}"#).is_err());
        assert!(Scenario::parse(r#"{"seed":1,"surplus":0}"#).is_err());
    }
}
