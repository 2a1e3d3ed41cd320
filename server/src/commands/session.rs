//! Sessions: opening one after a login or with a token, and closing it.

use std::{collections::BTreeSet, sync::Arc};

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
    store::{Opening, Result as StoreResult, TokenHash, TokenRecord},
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
    /// A session of a user, as yet without conversations, that the node knows of.
    ///
    /// # Errors
    /// The user has too many sessions here.
    pub fn new(node: &Arc<Node>, who: Who, token: TokenHash) -> Result<Self, ErrorBody> {
        let outbox = node.registry.enter(who.user).ok_or(ErrorCode::LimitReached)?;
        let session = Session::new(who.user);
        Ok(Self { session, outbox, who, token, watched: BTreeSet::new(), node: Arc::clone(node) })
    }

    /// Begins to read, with cursors that start at those named, or else at the delivered ones; returns which of those named were refused. `None`
    /// if the token was revoked: of a revocation from then on the session is told.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&mut self, opening: Opening, named: &Cursors) -> StoreResult<Option<Refused>> {
        let Opening { settled, periods, .. } = opening;
        let (node, user) = (&self.node, self.who.user);
        for period in periods.iter().filter(|period| period.friend) {
            self.watched.extend(period.conv.peer_of(user));
        }
        for friend in &self.watched {
            node.registry.watch(&self.outbox, *friend);
        }
        // The heads after that: whatever opens for the user after the list was made is told by a notice that is read, and all that is appended
        // is read from here on.
        let convs: BTreeSet<_> = periods.iter().map(|period| period.conv).collect();
        let convs: Vec<_> = convs.into_iter().collect();
        let mut attached = node.feeds.attach(&self.outbox, &convs).await;
        let Some(mut heads) = node.store.heads_if_known(&self.token, &convs).await? else { return Ok(None) };
        for place in &attached {
            node.feeds.start(place, heads.get(&place.cell.conv).copied().unwrap_or_default());
        }
        heads.insert(ConversationId::notices(user), settled);
        let (starts, refused) = starts(&periods, named, &heads);
        // In the order of the starts, without those where nothing is left to be read.
        attached.retain(|place| starts.contains_key(&place.cell.conv));
        self.session.open(attached, starts, settled);
        Ok(Some(refused))
    }

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

/// Opens a session with a token.
///
/// # Errors
/// Too many resumes wait, the token is unknown or expired, the user has too many sessions here, or the store failed.
pub async fn open_with_token(
    node: &Arc<Node>,
    token: Token,
    named: &Cursors,
) -> Result<(LoggedIn, Opened), ErrorBody> {
    let _admitted = node.resumes.enter().await?;
    let hash = token_hash(&token);
    let named_convs: Vec<_> = named.keys().copied().collect();
    let opening = node.store.opening(&hash, &named_convs).await.map_err(|e| store_error(&e))?;
    let valid = |opening: &Opening| opening.token.expires_at > node.clock.now();
    let opening = opening.filter(valid).ok_or(ErrorCode::BadToken)?;
    let TokenRecord { user, name, .. } = opening.token.clone();
    let mut opened = Opened::new(node, Who { user, name: name.as_str().into() }, hash)?;
    let refused = opened.begin(opening, named).await.map_err(|e| store_error(&e))?;
    let refused = refused.ok_or(ErrorCode::BadToken)?;
    node.metrics.login("token");
    Ok((LoggedIn { user, name, token: None, token_expires_at: None, refused }, opened))
}

/// Sees that a token is one of somebody's.
///
/// # Errors
/// The token is unknown or expired, or the store failed.
pub async fn check_token(node: &Arc<Node>, token: Token) -> Result<TokenRecord, ErrorBody> {
    let record = node.store.token(&token_hash(&token)).await.map_err(|e| store_error(&e))?;
    Ok(record.filter(|record| record.expires_at > node.clock.now()).ok_or(ErrorCode::BadToken)?)
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
