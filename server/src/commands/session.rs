//! Sessions: opening one after a login or with a token, and closing it.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    Conversation, ConversationId, ErrorBody, ErrorCode, Token, UserId,
    message::{Cursors, LoggedIn, Refused},
};
use sha2::{Digest as _, Sha256};

use super::{Who, store_error};
use crate::{
    node::Node,
    outbox::Outbox,
    session::{Session, starts},
    store::{Period, Result as StoreResult, TokenHash},
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

/// Opens a session whose cursors start at those named, or else at the delivered ones.
///
/// # Errors
/// The user has too many sessions here, or the store failed.
pub async fn open(
    node: &Arc<Node>,
    who: Who,
    token: TokenHash,
    named: &Cursors,
) -> Result<(Opened, Refused), ErrorBody> {
    let user = who.user;
    let outbox = node.registry.enter(user).ok_or(ErrorCode::LimitReached)?;
    let session = Session::new(user);
    let mut opened = Opened { session, outbox, who, token, watched: BTreeSet::new(), node: Arc::clone(node) };
    let refused = fill(node, &mut opened, named).await.map_err(|e| store_error(&e))?;
    Ok((opened, refused))
}

async fn fill(node: &Arc<Node>, opened: &mut Opened, named: &Cursors) -> StoreResult<Refused> {
    let user = opened.who.user;
    let own = ConversationId::notices(user);
    // The notices first: whatever opens for the user after this head is told there, and what opened before is listed below.
    let mut attached = node.feeds.attach(&opened.outbox, &[own]).await?;
    let settled = attached[0].cell.lock().head();
    let mut periods = vec![Period {
        conv: own,
        from: protocol::Seq(1),
        until: None,
        delivered: node.store.delivered(user, own).await?,
        friend: false,
    }];
    let listed = node.store.periods(user).await?;
    for period in listed.iter().filter(|period| period.friend) {
        opened.watched.extend(period.conv.peer_of(user));
    }
    for friend in &opened.watched {
        node.registry.watch(&opened.outbox, *friend);
    }
    // Of conversations that the client names all periods count, also delivered ones.
    let others: Vec<_> = named.keys().copied().filter(|conv| readable(*conv, user)).collect();
    periods.extend(listed.into_iter().filter(|period| !named.contains_key(&period.conv)));
    if !others.is_empty() {
        periods.extend(node.store.periods_in(user, &others).await?);
    }
    periods.sort();
    let named_convs: Vec<_> = named.keys().copied().collect();
    let heads = node.store.heads(&named_convs).await?;
    let (starts, refused) = starts(&periods, named, &heads);
    let convs: Vec<_> = starts.keys().copied().filter(|conv| *conv != own).collect();
    attached.extend(node.feeds.attach(&opened.outbox, &convs).await?);
    // In the order of the starts.
    attached.sort_by_key(|place| place.cell.conv);
    opened.session.open(attached, starts, settled);
    Ok(refused)
}

/// Whether a user can ever be a member of a conversation, other than of their notices.
fn readable(conv: ConversationId, user: UserId) -> bool {
    match conv.parse() {
        Conversation::Direct(a, b) => a == user || b == user,
        Conversation::Group(_) => true,
        Conversation::Notices(_) => false,
    }
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
    let (opened, refused) = open(node, who, hash, named).await?;
    // A revocation up to here is seen by this look; of a later one the session is told, since it reads the user's notices by now.
    if !is_valid(node, &hash).await.map_err(|e| store_error(&e))? {
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
