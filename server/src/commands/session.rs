//! Sessions: opening one after a login or with a token, and closing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    ConversationId, ErrorBody, ErrorCode, Token, UserId,
    message::{Cursors, LoggedIn, Refused},
};
use sha2::{Digest as _, Sha256};

use super::{Who, store_error};
use crate::{
    node::Node,
    outbox::Outbox,
    session::{Session, starts},
    store::{Opening, Result as StoreResult, TokenHash},
};

/// A session that was opened, with what the node knows of it.
///
/// Dropping it makes the node forget the session.
pub struct Opened {
    /// Its cursors.
    pub session: Session,
    /// What the node has for it.
    pub outbox: Arc<Outbox>,
    /// Whose it is.
    pub who: Who,
    /// Its token's hash.
    pub token: TokenHash,
    /// Whose presence it watches.
    watched: BTreeSet<UserId>,
    node: Arc<Node>,
}

impl Opened {
    /// From now on the session is told of this friend's presence.
    pub fn watch(&mut self, friend: UserId) {
        self.node.registry.watch(&self.outbox, friend);
        self.watched.insert(friend);
    }

    /// No longer.
    pub fn unwatch(&mut self, friend: UserId) {
        self.node.registry.unwatch(&self.outbox, friend);
        self.watched.remove(&friend);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.node.registry.leave(&self.outbox, std::mem::take(&mut self.watched));
    }
}

/// What of a token is stored.
pub fn token_hash(token: &Token) -> TokenHash {
    Sha256::digest(token.0).into()
}

/// Opens a session whose cursors start at those named, or else at the delivered ones; and says whether its token was known when it had begun to
/// read the user's notices: of a revocation from then on the session is told.
///
/// # Errors
/// The user has too many sessions here, or the store failed.
pub async fn open(
    node: &Arc<Node>,
    who: Who,
    token: TokenHash,
    named: &Cursors,
) -> Result<(Opened, Refused, bool), ErrorBody> {
    let user = who.user;
    let outbox = node.registry.enter(user).ok_or(ErrorCode::LimitReached)?;
    let session = Session::new(user);
    let mut opened = Opened { session, outbox, who, token, watched: BTreeSet::new(), node: Arc::clone(node) };
    let (refused, token_known) = fill(node, &mut opened, named).await.map_err(|e| store_error(&e))?;
    Ok((opened, refused, token_known))
}

async fn fill(node: &Arc<Node>, opened: &mut Opened, named: &Cursors) -> StoreResult<(Refused, bool)> {
    let user = opened.who.user;
    let own = ConversationId::notices(user);
    // The notices first: whatever opens for the user after their head is told there, and what opened before is among the periods.
    let mut attached = node.feeds.attach(&opened.outbox, &[own]).await;
    let named_convs: Vec<_> = named.keys().copied().collect();
    let Opening { token_known, settled, periods } =
        node.store.opening(user, &opened.token, &named_convs).await?;
    node.feeds.start(&attached[0], settled);
    for period in periods.iter().filter(|period| period.friend) {
        opened.watched.extend(period.conv.peer_of(user));
    }
    for friend in &opened.watched {
        node.registry.watch(&opened.outbox, *friend);
    }
    let others: BTreeSet<_> = periods.iter().map(|period| period.conv).filter(|conv| *conv != own).collect();
    let others: Vec<_> = others.into_iter().collect();
    attached.extend(node.feeds.attach(&opened.outbox, &others).await);
    let mut heads = if others.is_empty() { BTreeMap::new() } else { node.store.heads(&others).await? };
    for place in &attached[1..] {
        node.feeds.start(place, heads.get(&place.cell.conv).copied().unwrap_or_default());
    }
    heads.insert(own, settled);
    let (starts, refused) = starts(&periods, named, &heads);
    // In the order of the starts, without those where nothing is left to be read.
    attached.retain(|place| starts.contains_key(&place.cell.conv));
    attached.sort_by_key(|place| place.cell.conv);
    opened.session.open(attached, starts, settled);
    Ok((refused, token_known))
}

/// Opens a session with a token.
///
/// # Errors
/// Too many resumes wait, or the token is unknown or expired; see also [`open`].
pub async fn open_with_token(
    node: &Arc<Node>,
    token: Token,
    named: &Cursors,
) -> Result<(LoggedIn, Opened), ErrorBody> {
    let _admitted = node.resumes.enter().await?;
    let (who, hash) = check_token(node, token).await?;
    let (user, name) = (who.user, who.name.to_string());
    let (opened, refused, token_known) = open(node, who, hash, named).await?;
    if !token_known {
        return Err(ErrorCode::BadToken.into());
    }
    node.metrics.login("token");
    Ok((LoggedIn { user, name, token: None, token_expires_at: None, refused }, opened))
}

/// Whom a token belongs to.
///
/// # Errors
/// The token is unknown or expired, or the store failed.
pub async fn check_token(node: &Arc<Node>, token: Token) -> Result<(Who, TokenHash), ErrorBody> {
    let hash = token_hash(&token);
    let record = node.store.token(&hash).await.map_err(|e| store_error(&e))?;
    let record = record.filter(|record| record.expires_at > node.clock.now()).ok_or(ErrorCode::BadToken)?;
    Ok((Who { user: record.user, name: record.name.as_str().into() }, hash))
}

/// Whether a token was not revoked; it may have expired, which ends no session.
///
/// # Errors
/// The store's.
pub async fn is_valid(node: &Arc<Node>, token: &TokenHash) -> StoreResult<bool> {
    Ok(node.store.token(token).await?.is_some())
}

/// Writes a session's delivered cursors and forgets its token.
///
/// # Errors
/// The store failed; then the session goes on.
pub async fn close(node: &Arc<Node>, user: UserId, token: TokenHash) -> Result<(), ErrorBody> {
    node.delivered.write_user(user).await.map_err(|e| store_error(&e))?;
    node.store.remove_token(&token).await.map_err(|e| store_error(&e))
}
