//! What operators may ask and do: `/admin/v1`, for those who have the token. `chatctl` is its client.
//!
//! What is in the store, or goes through a log, can be asked of any node; what a node holds, of that node alone. Nobody who asks holds a
//! node's end up, and at most so many are answered at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header::AUTHORIZATION, header::WWW_AUTHENTICATE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use protocol::{ConversationId, ErrorBody, ErrorCode, message::Account, text::name_key};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use super::{
    Admin, Readiness,
    view::{
        AccountView, CursorView, CursorsView, EntryView, EntryWanted, NodeView, OrderWanted, ReaderView,
        Refusal, RefusedView, SessionView, SessionsView, SessionsWanted, UserView, UsersView, UsersWanted,
    },
};
use crate::{
    commands::{Order, find_account, obey},
    node::Node,
    outbox::Outbox,
    session::Standing,
    store::{StoreError, UsersFrom},
};

/// Requests answered at once.
pub(super) const REQUESTS_MAX: usize = 8;
/// The longest body: a password, every byte of it escaped, and a name.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Lines of a list, unless fewer are asked for; and how many may be.
const LIST: (usize, usize) = (100, 500);
/// Sessions of one conversation that are asked where they stand.
const CURSORS_MAX: usize = 2000;
/// How long sessions may take to say where they stand: they do at once, unless they are being opened.
const SESSION_PATIENCE: Duration = Duration::from_secs(1);
/// Characters of what an operator typed that are logged.
const LOGGED_MAX: usize = 64;

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Operator(SocketAddr);

/// Why a request is refused.
#[derive(Debug)]
struct Refused(StatusCode, Refusal);

type Answer<T> = Result<Json<T>, Refused>;

impl Refused {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, Refusal { code: code.into(), message: message.into() })
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(RefusedView { error: self.1 })).into_response()
    }
}

impl From<ErrorBody> for Refused {
    fn from(error: ErrorBody) -> Self {
        let status = match error.code {
            ErrorCode::NoSuchUser | ErrorCode::NoSuchConversation => StatusCode::NOT_FOUND,
            ErrorCode::BadRequest | ErrorCode::BadPassword => StatusCode::BAD_REQUEST,
            ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::GoingAway => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.code.name(), error.message)
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        ErrorBody::from(code).into()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        error!(%error, "an operator's request failed");
        match error {
            StoreError::Unavailable(_) => ErrorCode::Unavailable.into(),
            StoreError::Corrupt(_) => ErrorCode::Internal.into(),
        }
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), rejection.body_text())
    }
}

impl Admin {
    fn node(&self) -> Result<Arc<Node>, Refused> {
        self.node.upgrade().ok_or_else(|| ErrorCode::GoingAway.into())
    }
}

/// The API, which answers nobody without the token.
pub(super) fn routes(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    Router::new()
        .route("/node", get(node))
        .route("/sessions", get(sessions))
        .route("/users", get(users))
        .route("/entry", get(entry))
        .route("/cursors", get(cursors))
        .route("/kick", post(kick))
        .route("/ban", post(ban))
        .route("/unban", post(unban))
        .route("/passwd", post(passwd))
        .route("/drain", post(drain))
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(admin), admit))
}

/// Lets those in who have the token, a few at once.
async fn admit(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(token) = &admin.config.token else {
        let how = "operators' requests are off: start the node with --admin-token-file FILE";
        return Refused::new(StatusCode::NOT_FOUND, "disabled", how).into_response();
    };
    if !token.is_in(request.headers().get(AUTHORIZATION).map(|value| value.as_bytes())) {
        admin.metrics.operator("refused");
        warn!(target: "server::audit", operator = %peer, "not the token: refused");
        let refused = Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", "not the token of this node");
        return ([(WWW_AUTHENTICATE, "Bearer")], refused).into_response();
    }
    let Ok(_permit) = admin.permits.try_acquire() else {
        return Refused::from(ErrorCode::Overloaded).into_response();
    };
    request.extensions_mut().insert(Operator(peer));
    next.run(request).await
}

// --- Looks ---

async fn node(State(admin): State<Arc<Admin>>) -> Answer<NodeView> {
    admin.metrics.operator("look");
    let node = admin.node()?;
    let Readiness { ready, reasons, degraded } = Readiness::of(&node, &*admin.relay, false).await;
    let texts = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    Ok(Json(NodeView {
        address: admin.config.address.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        ready,
        reasons: texts(reasons),
        degraded: texts(degraded),
        incarnation: admin.relay.incarnation(),
        sessions: node.registry.session_count() as u64,
        connections: u64::try_from(node.metrics.connections.get()).unwrap_or_default(),
        connections_max: node.config.connections_max as u64,
        draining: node.draining.is_cancelled(),
        uptime_seconds: admin.started.elapsed().as_secs(),
    }))
}

async fn sessions(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<SessionsWanted>, QueryRejection>,
) -> Answer<SessionsView> {
    admin.metrics.operator("look");
    let node = admin.node()?;
    let Query(SessionsWanted { user, after, limit }) = wanted?;
    let (outboxes, next) = match user {
        Some(user) => (node.registry.of_user(find_account(&node, &user).await?.user), None),
        None => node.registry.page(after, within_list(limit)),
    };
    let standings = ask(&outboxes, None).await;
    let (now, clock) = (Instant::now(), node.clock.now());
    // Those without a peer are being opened.
    let known = outboxes.iter().zip(standings).filter_map(|(outbox, standing)| {
        let peer = outbox.peer.get()?;
        let age = i64::try_from(now.saturating_duration_since(peer.since).as_millis()).unwrap_or(i64::MAX);
        Some(SessionView {
            id: peer.connection,
            user: outbox.user,
            name: peer.name.to_string(),
            address: peer.address,
            since: clock.saturating_sub(age),
            unwritten: outbox.unwritten() as u64,
            conversations: standing.map(|standing| standing.conversations as u64),
            behind: standing.map(|standing| standing.behind),
        })
    });
    Ok(Json(SessionsView { sessions: known.collect(), next }))
}

async fn users(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<UsersWanted>, QueryRejection>,
) -> Answer<UsersView> {
    admin.metrics.operator("look");
    let node = admin.node()?;
    let Query(UsersWanted { prefix, after, limit }) = wanted?;
    let limit = within_list(limit);
    let prefix = prefix.map(|prefix| name_key(&prefix));
    let from = match (&prefix, after) {
        (Some(prefix), None) => UsersFrom::Name(prefix.clone()),
        (Some(prefix), Some(after)) => {
            // From that name on; it is left out below.
            let after = match Account::parse(&after) {
                Some(Account::Name(name)) => name_key(&name),
                _ => name_key(&find_account(&node, &after).await?.name),
            };
            UsersFrom::Name(after.max(prefix.clone()))
        }
        (None, None) => UsersFrom::Number(1),
        (None, Some(after)) => UsersFrom::Number(match Account::parse(&after) {
            Some(Account::Number(number)) => number.number() + 1,
            _ => find_account(&node, &after).await?.user.number() + 1,
        }),
    };
    let after = match &from {
        UsersFrom::Name(key) if prefix.as_ref() != Some(key) => Some(key.clone()),
        _ => None,
    };
    let rows = node.store.users(&from, limit + 2).await?;
    let rows =
        rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| name_key(&row.name) != *after));
    let mut rows: Vec<_> = rows
        .take_while(|row| prefix.as_ref().is_none_or(|prefix| name_key(&row.name).starts_with(prefix)))
        .collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| match prefix {
        Some(_) => row.name.clone(),
        None => row.user.to_string(),
    });
    let users = rows.into_iter().map(|row| UserView {
        user: row.user,
        name: row.name,
        created_at: row.created_at,
        banned: row.banned,
        state: node.registry.presence(row.user),
    });
    Ok(Json(UsersView { users: users.collect(), next }))
}

async fn entry(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<EntryWanted>, QueryRejection>,
) -> Answer<EntryView> {
    admin.metrics.operator("look");
    let node = admin.node()?;
    let Query(EntryWanted { conv, seq }) = wanted?;
    let none =
        || Refused::new(StatusCode::NOT_FOUND, "not_found", format!("there is no entry {seq} in {conv}"));
    let trace = node.store.trace(conv, seq).await?.ok_or_else(none)?;
    let entries = node.store.entries(conv, seq.previous(), 1, usize::MAX).await?;
    let entry = entries.into_iter().find(|entry| entry.seq == seq).ok_or_else(none)?;
    let readers = trace.readers.into_iter();
    let readers = readers.map(|row| ReaderView { user: row.user, name: row.name, delivered: row.delivered });
    Ok(Json(EntryView {
        conv,
        seq,
        kind: entry.body.kind().to_owned(),
        from: entry.from,
        name: entry.name,
        mid: entry.mid,
        at: entry.at,
        committed_at: trace.committed_at,
        readers: readers.collect(),
    }))
}

async fn cursors(
    State(admin): State<Arc<Admin>>,
    wanted: Result<Query<EntryWanted>, QueryRejection>,
) -> Answer<CursorsView> {
    admin.metrics.operator("look");
    let node = admin.node()?;
    let Query(EntryWanted { conv, seq }) = wanted?;
    let mut outboxes = node.feeds.existing(conv).map(|cell| cell.lock().readers()).unwrap_or_default();
    let more = outboxes.len() > CURSORS_MAX;
    outboxes.truncate(CURSORS_MAX);
    let standings = ask(&outboxes, Some(conv)).await;
    let sessions = outboxes.iter().zip(standings).filter_map(|(outbox, standing)| {
        let at = standing.and_then(|standing| standing.at);
        let id = outbox.peer.get()?.connection;
        Some(CursorView { id, user: outbox.user, pushed: at.map(|at| at.0), confirmed: at.map(|at| at.1) })
    });
    let committed_here = node.committer.has_committed(conv, seq);
    Ok(Json(CursorsView { committed_here, sessions: sessions.collect(), more }))
}

fn within_list(limit: Option<usize>) -> usize {
    limit.unwrap_or(LIST.0).clamp(1, LIST.1)
}

/// Asks sessions where they stand.
async fn ask(outboxes: &[Arc<Outbox>], conv: Option<ConversationId>) -> Vec<Option<Standing>> {
    let deadline = Instant::now() + SESSION_PATIENCE;
    let asked: Vec<_> = outboxes.iter().map(|outbox| outbox.inquire(conv)).collect();
    let mut standings = Vec::with_capacity(asked.len());
    for standing in asked {
        standings.push(timeout_at(deadline, standing).await.ok().and_then(Result::ok));
    }
    standings
}

// --- Acts ---

async fn kick(State(admin): State<Arc<Admin>>, by: Extension<Operator>, body: Bytes) -> Answer<AccountView> {
    carry_out(&admin, by, "kick", &body, |_| Ok(Order::Kick)).await
}

async fn ban(State(admin): State<Arc<Admin>>, by: Extension<Operator>, body: Bytes) -> Answer<AccountView> {
    carry_out(&admin, by, "ban", &body, |_| Ok(Order::Ban)).await
}

async fn unban(State(admin): State<Arc<Admin>>, by: Extension<Operator>, body: Bytes) -> Answer<AccountView> {
    carry_out(&admin, by, "unban", &body, |_| Ok(Order::Unban)).await
}

async fn passwd(
    State(admin): State<Arc<Admin>>,
    by: Extension<Operator>,
    body: Bytes,
) -> Answer<AccountView> {
    carry_out(&admin, by, "passwd", &body, |wanted| {
        wanted.password.as_ref().map(Order::SetPassword).ok_or(ErrorCode::BadPassword)
    })
    .await
}

/// Carries out an order, and keeps account of it: before it is tried, since whoever asked may go before the outcome is known, and after.
async fn carry_out(
    admin: &Admin,
    Extension(Operator(operator)): Extension<Operator>,
    act: &'static str,
    body: &[u8],
    order: impl FnOnce(&OrderWanted) -> Result<Order<'_>, ErrorCode>,
) -> Answer<AccountView> {
    let node = admin.node()?;
    if node.draining.is_cancelled() {
        return Err(ErrorCode::GoingAway.into());
    }
    let wanted: OrderWanted = serde_json::from_slice(body).map_err(|error| {
        // What is wrong, and not what was sent: that may be a password.
        let message = format!("not what {act} takes, at column {}", error.column());
        Refused::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest.name(), message)
    })?;
    admin.metrics.operator(act);
    let account: String = wanted.user.chars().take(LOGGED_MAX).collect();
    info!(target: "server::audit", %operator, act, ?account, "asked");
    match obey(&node, &wanted.user, order(&wanted)?).await {
        Ok(done) => {
            let changed = done.seq.is_some();
            info!(target: "server::audit", %operator, act, user = %done.user, name = %done.name, changed, "done");
            Ok(Json(AccountView { user: done.user, name: done.name, banned: done.banned, seq: done.seq }))
        }
        Err(error) => {
            info!(target: "server::audit", %operator, act, ?account, code = %error.code, "not done");
            Err(error.into())
        }
    }
}

/// That a node was told to drain.
#[derive(Debug, Serialize)]
struct Draining {
    draining: bool,
}

async fn drain(
    State(admin): State<Arc<Admin>>,
    Extension(Operator(operator)): Extension<Operator>,
) -> (StatusCode, Json<Draining>) {
    admin.metrics.operator("drain");
    info!(target: "server::audit", %operator, act = "drain", "done");
    admin.config.drain.cancel();
    (StatusCode::ACCEPTED, Json(Draining { draining: true }))
}
