//! The listener for operators and their tools: metrics, and whether this node is well, for whoever reaches it; and what operators may ask
//! and do, for those who have the token.

mod operators;
mod token;
pub mod view;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use self::token::AdminToken;
use crate::{
    metrics::{self, Metrics},
    node::Node,
    relay::{Relay, RelayState},
};

/// How long the store may take to answer before it counts as unreachable.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

struct Admin {
    /// Gone at the end of a drain, which waits for nobody who only watches.
    node: Weak<Node>,
    relay: Arc<dyn Relay>,
    registry: Registry,
    metrics: Arc<Metrics>,
    config: AdminConfig,
    started: Instant,
    /// Of operators' requests, one for each that is answered at once.
    permits: Semaphore,
}

/// What operators are told and may do.
#[derive(Debug, Default)]
pub struct AdminConfig {
    /// What they are asked for; without one they may only look at metrics and readiness.
    pub token: Option<AdminToken>,
    /// Where clients reach the node.
    pub address: String,
    /// Cancelled when an operator wants the node to end in order.
    pub drain: CancellationToken,
}

/// Whether a node should be sent clients, and why not.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Whether it should.
    pub ready: bool,
    /// Why not: `draining`, `store`.
    pub reasons: Vec<&'static str>,
    /// What is amiss and stops nobody: `relay`, without which messages of other nodes arrive at the sweep's pace; `relay_wedged` if it is there
    /// and delivers nothing.
    pub degraded: Vec<&'static str>,
}

impl Readiness {
    /// As of now. `strict`: what is degraded counts as well.
    pub async fn of(node: &Node, relay: &dyn Relay, strict: bool) -> Self {
        let mut reasons = Vec::new();
        if node.draining.is_cancelled() {
            reasons.push("draining");
        }
        if !matches!(timeout(STORE_PATIENCE, node.store.now()).await, Ok(Ok(_))) {
            reasons.push("store");
        }
        let mut degraded = Vec::new();
        match relay.state() {
            RelayState::Away => degraded.push("relay"),
            RelayState::Wedged => degraded.push("relay_wedged"),
            RelayState::Up | RelayState::Absent => {}
        }
        Self { ready: reasons.is_empty() && (!strict || degraded.is_empty()), reasons, degraded }
    }
}

/// Answers until `stop`.
pub async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    relay: Arc<dyn Relay>,
    config: AdminConfig,
    stop: CancellationToken,
) {
    let registry = node.metrics.registry(&node, Arc::clone(&relay));
    let admin = Arc::new(Admin {
        node: Arc::downgrade(&node),
        relay,
        registry,
        metrics: Arc::clone(&node.metrics),
        config,
        started: Instant::now(),
        permits: Semaphore::new(operators::REQUESTS_MAX),
    });
    drop(node);
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .nest("/admin/v1", operators::routes(&admin))
        .with_state(admin)
        .into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        error!(%error, "the admin listener has ended");
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, TEXT)], metrics::text(&admin.registry))
}

async fn readyz(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let strict =
        query.is_some_and(|query| query.split('&').any(|part| part == "strict" || part == "strict=true"));
    let readiness = match admin.node.upgrade() {
        Some(node) => Readiness::of(&node, &*admin.relay, strict).await,
        None => Readiness { ready: false, reasons: vec!["draining"], degraded: Vec::new() },
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}
