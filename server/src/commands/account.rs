//! Accounts: `register`, `login`.

use std::sync::Arc;

use protocol::{
    ErrorBody, ErrorCode, Token,
    message::{Account, LoggedIn, Login, Register, Registered},
    text::{PASSWORD_BYTES_MAX, name_key, user_name},
};

use super::{Opened, Who, open, store_error, token_hash};
use crate::{
    node::Node,
    password::HashError,
    store::{NewUser, RegisterOutcome},
};

/// Tokens kept per user: the newest.
const TOKENS_PER_USER: usize = 64;

pub(super) async fn register(node: &Arc<Node>, request: Register) -> Result<Registered, ErrorBody> {
    let Register { mid, name, password } = request;
    let name = user_name(&name).map_err(|why| ErrorBody::field(ErrorCode::BadName, "name", why))?;
    let password = password.0;
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(ErrorBody::field(ErrorCode::BadPassword, "password", "1 to 1024 bytes"));
    }
    let store = &node.store;
    let name_key = name_key(&name);
    // Hashing is dear: what can be answered without comes first.
    if let Some(answer) = registered_before(node, &name, &password, mid).await? {
        return answer;
    }
    let taken = store.account(&Account::Name(name_key.clone())).await.map_err(|e| store_error(&e))?;
    if taken.is_some() {
        return Err(ErrorCode::NameTaken.into());
    }
    let password_hash = node.passwords.hash(&password).await.map_err(hash_error)?;
    let new = NewUser { mid, name: name.clone(), name_key, password_hash, at: node.clock.now() };
    match store.register(&new).await.map_err(|e| store_error(&e))? {
        RegisterOutcome::Created(user) => Ok(Registered { user }),
        RegisterOutcome::Conflict => {
            registered_before(node, &name, &password, mid).await?.unwrap_or(Err(ErrorCode::NameTaken.into()))
        }
    }
}

/// The answer to a registration whose message id was used before.
async fn registered_before(
    node: &Arc<Node>,
    name: &str,
    password: &str,
    mid: protocol::ClientMsgId,
) -> Result<Option<Result<Registered, ErrorBody>>, ErrorBody> {
    let Some(known) = node.store.registered_with(mid).await.map_err(|e| store_error(&e))? else {
        return Ok(None);
    };
    let same_password =
        node.passwords.verify(password, Some(&known.password_hash)).await.map_err(hash_error)?;
    Ok(Some(if known.name == name && same_password {
        Ok(Registered { user: known.user })
    } else {
        Err(ErrorCode::IdReused.into())
    }))
}

pub(super) async fn login(node: &Arc<Node>, request: Login) -> Result<(LoggedIn, Opened), ErrorBody> {
    let account = match Account::parse(&request.account) {
        Some(Account::Name(name)) => {
            // A text that cannot be a name need not be normalised: that is work for its length.
            user_name(&name).ok().map(|name| Account::Name(name_key(&name)))
        }
        number => number,
    };
    let record = match account {
        Some(account) => node.store.account(&account).await.map_err(|e| store_error(&e))?,
        None => None,
    };
    let hash = record.as_ref().map(|record| record.password_hash.as_str());
    let verified = node.passwords.verify(&request.password.0, hash).await.map_err(hash_error)?;
    let Some(record) = record.filter(|_| verified) else {
        return Err(ErrorCode::BadCredentials.into());
    };
    let token = Token::random(&*node.entropy);
    let hash = token_hash(&token);
    let expires_at = node.clock.after(node.config.token_lifetime);
    node.store
        .add_token(&hash, record.user, expires_at, TOKENS_PER_USER)
        .await
        .map_err(|e| store_error(&e))?;
    let who = Who { user: record.user, name: record.name.as_str().into() };
    let (opened, refused) = open(node, who, hash, &Default::default()).await?;
    let reply = LoggedIn {
        user: record.user,
        name: record.name,
        token: Some(token),
        token_expires_at: Some(expires_at),
        refused,
    };
    Ok((reply, opened))
}

fn hash_error(error: HashError) -> ErrorBody {
    match error {
        HashError::Overloaded => ErrorCode::Overloaded.into(),
        HashError::Failed => ErrorCode::Internal.into(),
    }
}
