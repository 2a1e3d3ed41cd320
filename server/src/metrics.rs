//! What a node counts, for whoever watches it. ARCHITECTURE.md, "What to watch", says what each is for.
//!
//! Labels have a few values each, known beforehand: nothing that a client chooses becomes one.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use protocol::{ErrorCode, Request, message::ClosingCode};

use crate::{
    node::Node,
    relay::{Relay, RelayState},
};

/// One label.
type Label = [(&'static str, &'static str); 1];

/// Seconds, from what a local disk needs to what a database that fails over does.
const COMMIT_SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// A node's counters. Cheap to count in: each is an atomic number.
pub struct Metrics {
    /// Open connections.
    pub connections: Gauge,
    /// Entries committed, of messages and of changes of rights.
    pub committed: Counter,
    /// Statements that wrote messages.
    pub batches: Counter,
    /// Of those, the ones that another node's came before.
    pub conflicts: Counter,
    /// Attempts to write that failed, their outcome unknown.
    pub store_failures: Counter,
    /// Messages erased since they were too old.
    pub expired: Counter,
    /// How long a statement that wrote messages took.
    pub commit_seconds: Histogram,
    /// Entries that other nodes told of.
    pub hints: Counter,
    /// Times when hints may have been lost.
    pub gaps: Counter,
    refused_connections: Family<Label, Counter>,
    tls_failures: Family<Label, Counter>,
    closings: Family<Label, Counter>,
    requests: Family<Label, Counter>,
    /// Of those, the two that there are most of, without a look for their label.
    sends: Counter,
    acks: Counter,
    refusals: Family<Label, Counter>,
    pauses: Family<Label, Counter>,
    logins: Family<Label, Counter>,
    operators: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<Label, Counter>::default();
        let of = |op| requests.get_or_create(&[("op", op)]).clone();
        let metrics = Self {
            sends: of("send"),
            acks: of("ack"),
            connections: Gauge::default(),
            committed: Counter::default(),
            batches: Counter::default(),
            conflicts: Counter::default(),
            store_failures: Counter::default(),
            expired: Counter::default(),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            hints: Counter::default(),
            gaps: Counter::default(),
            refused_connections: Family::default(),
            tls_failures: Family::default(),
            closings: Family::default(),
            requests,
            refusals: Family::default(),
            pauses: Family::default(),
            logins: Family::default(),
            operators: Family::default(),
        };
        // What is 0 is shown as well, so that a rise from there is seen.
        let zero = |family: &Family<Label, Counter>, label, values: &[&'static str]| {
            for value in values {
                drop(family.get_or_create(&[(label, *value)]));
            }
        };
        let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        zero(&metrics.refusals, "code", &codes);
        let reasons = ["node_full", "address_full", "not_a_balancer", "no_proxy_header"];
        zero(&metrics.refused_connections, "reason", &reasons);
        let whys = ["no_tls", "late", "refused_by_client", "invalid", "ended"];
        zero(&metrics.tls_failures, "why", &whys);
        zero(&metrics.pauses, "whose", &["session", "address", "replies"]);
        zero(&metrics.logins, "by", &["password", "token"]);
        let acts = ["look", "kick", "ban", "unban", "passwd", "drain", "refused"];
        zero(&metrics.operators, "act", &acts);
        metrics
    }
}

impl Metrics {
    /// A connection was refused: `node_full`, `address_full`, `not_a_balancer` or `no_proxy_header`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused_connections.get_or_create(&[("reason", reason)]).inc();
    }

    /// A connection did not come to speak TLS: `no_tls`, `late`, `refused_by_client`, `invalid` or `ended`.
    pub fn tls_failed(&self, why: &'static str) {
        self.tls_failures.get_or_create(&[("why", why)]).inc();
    }

    /// How many did not, for this reason.
    pub fn tls_failures(&self, why: &'static str) -> u64 {
        self.tls_failures.get_or_create(&[("why", why)]).get()
    }

    /// The node ended a connection.
    pub fn closing(&self, code: ClosingCode) {
        self.closings.get_or_create(&[("code", code.name())]).inc();
    }

    /// A request was taken.
    pub fn request(&self, request: &Request) {
        match request {
            Request::Send(_) => self.sends.inc(),
            Request::Ack(_) => self.acks.inc(),
            _ => self.requests.get_or_create(&[("op", request.name())]).inc(),
        };
    }

    /// A request, or a line that is none, was refused.
    pub fn refusal(&self, code: ErrorCode) {
        self.refusals.get_or_create(&[("code", code.name())]).inc();
    }

    /// Requests came too fast: of a `session`, or of an `address` before a login.
    pub fn pause(&self, whose: &'static str) {
        self.pauses.get_or_create(&[("whose", whose)]).inc();
    }

    /// A session was opened: by `password` or by `token`.
    pub fn login(&self, by: &'static str) {
        self.logins.get_or_create(&[("by", by)]).inc();
    }

    /// An operator asked: for a `look`, to `kick`, `ban`, `unban`, `passwd` or `drain`; or was `refused`, having no right token.
    pub fn operator(&self, act: &'static str) {
        self.operators.get_or_create(&[("act", act)]).inc();
    }

    /// Everything in Prometheus' text format, with what the node holds at this moment.
    pub fn registry(self: &Arc<Self>, node: &Arc<Node>, relay: Arc<dyn Relay>) -> Registry {
        let mut registry = Registry::with_prefix("chat");
        let r = &mut registry;
        r.register("connections", "Open connections", self.connections.clone());
        r.register("connections_refused", "Connections refused, by reason", self.refused_connections.clone());
        r.register("tls_failures", "Connections that did not come to speak TLS", self.tls_failures.clone());
        r.register("closings", "Connections that the node ended, by code", self.closings.clone());
        r.register("requests", "Requests taken, by operation", self.requests.clone());
        r.register("refusals", "Requests refused, by error code", self.refusals.clone());
        r.register("pauses", "Requests that came too fast and had to wait", self.pauses.clone());
        r.register("logins", "Sessions opened, by password or token", self.logins.clone());
        r.register("operator_requests", "Requests of operators, by act", self.operators.clone());
        r.register("entries_committed", "Entries written", self.committed.clone());
        r.register("batches", "Statements that wrote messages", self.batches.clone());
        r.register("batch_conflicts", "Of those, overtaken by another node", self.conflicts.clone());
        r.register(
            "store_failures",
            "Attempts to write whose outcome is unknown",
            self.store_failures.clone(),
        );
        r.register("messages_expired", "Messages erased since they were too old", self.expired.clone());
        r.register("commit_seconds", "Time of a statement that wrote messages", self.commit_seconds.clone());
        r.register("hints", "Entries that other nodes told of", self.hints.clone());
        r.register("relay_gaps", "Times when hints may have been lost", self.gaps.clone());
        registry.register_collector(Box::new(Now { node: Arc::downgrade(node), relay }));
        registry
    }
}

/// What is only looked at when somebody asks.
struct Now {
    node: Weak<Node>,
    relay: Arc<dyn Relay>,
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(node) = self.node.upgrade() else { return Ok(()) };
        let flows = !matches!(self.relay.state(), RelayState::Away | RelayState::Wedged);
        let up = ConstGauge::new(i64::from(flows));
        let metric = encoder.encode_descriptor(
            "relay_up",
            "Whether hints flow, as far as is known",
            None,
            up.metric_type(),
        )?;
        up.encode(metric)?;
        let wedges = ConstCounter::new(self.relay.wedges());
        let metric = encoder.encode_descriptor(
            "relay_wedged",
            "Links to Redis given up because nothing that was published came back",
            None,
            wedges.metric_type(),
        )?;
        wedges.encode(metric)?;
        let ends = node.config.tls.as_ref().map_or(0, |tls| tls.ends() / 1000);
        let ends = ConstGauge::new(ends);
        let metric = encoder.encode_descriptor(
            "tls_certificate_ends_seconds",
            "Until when the certificate is valid, in seconds since 1970; 0 without TLS",
            None,
            ends.metric_type(),
        )?;
        ends.encode(metric)?;
        let gauges = node.gauges();
        for (name, help, bound) in
            [("held", "What the node holds", false), ("held_max", "How much it may hold", true)]
        {
            let mut family = encoder.encode_descriptor(name, help, None, up.metric_type())?;
            for gauge in &gauges {
                let amount = if bound { gauge.bound } else { gauge.amount };
                let amount = ConstGauge::new(i64::try_from(amount).unwrap_or(i64::MAX));
                amount.encode(family.encode_family(&[("what", gauge.label)])?)?;
            }
        }
        Ok(())
    }
}

/// The text that Prometheus reads.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // It fails where the string does, which is never.
    let _ = encode(&mut text, registry);
    text
}
