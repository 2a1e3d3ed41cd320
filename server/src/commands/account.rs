//! Accounts: `register`, `login`, `passwd`.

use std::sync::Arc;

use protocol::{
    ClientMsgId, ConversationId, EntryBody, ErrorBody, ErrorCode, Token, UserId,
    message::{Account, Appended, ChangePassword, Cursors, LoggedIn, Login, Password, Register, Registered},
    text::{PASSWORD_BYTES_MAX, name_key, user_name},
};

use super::{Opened, Who, friends::submit, store_error, token_hash};
use crate::{
    erasure,
    node::Node,
    password::HashError,
    rights::{Act, NewPassword},
    store::{AccountRecord, NewUser, RegisterOutcome, TokenHash},
    throttle::{Target, Visitor},
};

/// Tokens kept per user: the newest.
const TOKENS_PER_USER: usize = 64;
/// How often a password is verified anew when its hash was changed meanwhile, and an account written anew when it gave way to another write.
/// Nobody meets that so often but by malice, or at a database in distress; then this attempt is refused as `overloaded`.
pub(super) const RACES_MAX: usize = 3;

pub(super) async fn register(
    node: &Arc<Node>,
    visitor: &Visitor,
    request: Register,
) -> Result<Registered, ErrorBody> {
    let Register { mid, name, password } = request;
    let name = user_name(&name).map_err(|why| ErrorBody::field(ErrorCode::BadName, "name", why))?;
    let password = check_password(password, "password")?;
    let store = &node.store;
    let name_key = name_key(&name);
    if erasure::is_reserved_form(&name_key) {
        return Err(ErrorBody::field(ErrorCode::BadName, "name", "that is what erased accounts are called"));
    }
    // What has happened is said again, however often it is asked. Beyond that looking is dear, and hashing dearer: they are for those who may register.
    if let Some(answer) = registered_before(node, &name, &password, mid).await? {
        return answer;
    }
    visitor.may_register().map_err(ErrorBody::rate_limited)?;
    if let Some(answer) = answer_if_taken(node, &name, &name_key, &password, mid).await? {
        return answer;
    }
    visitor.register().map_err(ErrorBody::rate_limited)?;
    let password_hash = node.passwords.hash(&password).await.map_err(hash_error)?;
    let new = NewUser { mid, name: name.clone(), name_key, password_hash, at: node.clock.now() };
    for _ in 0..RACES_MAX {
        match store.register(&new).await.map_err(|e| store_error(&e))? {
            RegisterOutcome::Created(user) => return Ok(Registered { user }),
            RegisterOutcome::Conflict => {}
        }
        if let Some(answer) = known_answer(node, &name, &new.name_key, &password, mid).await? {
            return answer;
        }
        // Nobody has the name: the store gave this up in favour of another write.
    }
    Err(ErrorCode::Overloaded.into())
}

/// The answer that the accounts there are give to a registration: it was carried out before, or the name is taken.
async fn known_answer(
    node: &Arc<Node>,
    name: &str,
    name_key: &str,
    password: &str,
    mid: ClientMsgId,
) -> Result<Option<Result<Registered, ErrorBody>>, ErrorBody> {
    match registered_before(node, name, password, mid).await? {
        None => answer_if_taken(node, name, name_key, password, mid).await,
        before => Ok(before),
    }
}

/// The answer to a registration that was not carried out a moment ago, if its name is taken.
async fn answer_if_taken(
    node: &Arc<Node>,
    name: &str,
    name_key: &str,
    password: &str,
    mid: ClientMsgId,
) -> Result<Option<Result<Registered, ErrorBody>>, ErrorBody> {
    if !is_taken(node, name_key).await? {
        return Ok(None);
    }
    // Perhaps by this very registration: an earlier attempt may have taken effect between the two looks.
    let by_itself = registered_before(node, name, password, mid).await?;
    Ok(Some(by_itself.unwrap_or_else(|| Err(ErrorCode::NameTaken.into()))))
}

/// Whether an account has a name, or an erased one had it.
async fn is_taken(node: &Arc<Node>, name_key: &str) -> Result<bool, ErrorBody> {
    let name = Account::Name(name_key.to_owned());
    if node.store.account(&name).await.map_err(|e| store_error(&e))?.is_some() {
        return Ok(true);
    }
    // In this order: an erasure in between is seen.
    let deployment = node.store.deployment().await.map_err(|e| store_error(&e))?;
    let erased = Account::Name(erasure::reserved_key(deployment, name_key));
    Ok(node.store.account(&erased).await.map_err(|e| store_error(&e))?.is_some())
}

/// The answer to a registration whose message id was used before.
async fn registered_before(
    node: &Arc<Node>,
    name: &str,
    password: &str,
    mid: ClientMsgId,
) -> Result<Option<Result<Registered, ErrorBody>>, ErrorBody> {
    let Some(known) = node.store.registered_with(mid).await.map_err(|e| store_error(&e))? else {
        return Ok(None);
    };
    let same_password = node.passwords.verify(password, Some(known.hash())).await.map_err(hash_error)?;
    Ok(Some(if known.name == name && same_password {
        Ok(Registered { user: known.user })
    } else {
        Err(ErrorCode::IdReused.into())
    }))
}

pub(super) async fn login(
    node: &Arc<Node>,
    visitor: &Visitor,
    request: Login,
) -> Result<(LoggedIn, Opened), ErrorBody> {
    let account = named(&request.account);
    let _admitted = node.logins.enter().await?;
    for _ in 0..RACES_MAX {
        let record = match &account {
            Some(account) => node.store.account(account).await.map_err(|e| store_error(&e))?,
            None => None,
        };
        let target = match (&record, &account) {
            (Some(record), _) => Target::User(record.user),
            (None, Some(Account::Number(number))) => Target::User(*number),
            (None, Some(Account::Name(name_key))) => Target::nobody(Some(name_key)),
            (None, None) => Target::nobody(None),
        };
        let hash = record.as_ref().map(AccountRecord::hash);
        // Without an account a hash is computed all the same: the time taken does not tell.
        let verified = verify(node, visitor, target, &request.password.0, hash).await?;
        let Some(record) = record.filter(|_| verified) else {
            return Err(ErrorCode::BadCredentials.into());
        };
        // Who does not know the password is not told.
        if record.is_banned() {
            return Err(ErrorCode::Banned.into());
        }
        if let Some(done) = open_verified(node, record, &request.password.0).await? {
            return Ok(done);
        }
    }
    Err(ErrorCode::Overloaded.into())
}

/// Which account a number or a name names; `None` for what can be neither.
pub(super) fn named(account: &str) -> Option<Account> {
    match Account::parse(account) {
        Some(Account::Name(name)) => {
            // A text that cannot be a name need not be normalised: that is work for its length.
            user_name(&name).ok().map(|name| Account::Name(name_key(&name)))
        }
        number => number,
    }
}

/// Whether a password is right, if another may be tried.
async fn verify(
    node: &Arc<Node>,
    visitor: &Visitor,
    target: Target,
    password: &str,
    hash: Option<&str>,
) -> Result<bool, ErrorBody> {
    let attempt = visitor.try_password(target).map_err(ErrorBody::rate_limited)?;
    let verified = node.passwords.verify(password, hash).await;
    match verified {
        Ok(true) => attempt.succeeded(),
        Ok(false) => {}
        Err(_) => attempt.undecided(),
    }
    verified.map_err(hash_error)
}

/// Opens a session of a user whose password was verified; `None` if it was changed meanwhile.
async fn open_verified(
    node: &Arc<Node>,
    record: AccountRecord,
    password: &str,
) -> Result<Option<(LoggedIn, Opened)>, ErrorBody> {
    let AccountRecord { user, name, mut password_hash } = record;
    if node.passwords.is_outdated(&password_hash) {
        let better = node.passwords.hash(password).await.map_err(hash_error)?;
        if !node.store.rehash(user, &password_hash, &better).await.map_err(|e| store_error(&e))? {
            return Ok(None);
        }
        password_hash = better;
    }
    let token = Token::random(&*node.entropy);
    let hash = token_hash(&token);
    let expires_at = node.clock.after(node.config.token_lifetime);
    let who = Who { user, name: name.as_str().into() };
    let mut opened = Opened::new(node, who, hash)?;
    let added = node.store.add_token(&hash, user, &password_hash, expires_at, TOKENS_PER_USER).await;
    let Some(opening) = added.map_err(|e| store_error(&e))? else { return Ok(None) };
    let begun = opened.begin(opening, &Cursors::new()).await.map_err(|e| store_error(&e))?;
    // The password was changed meanwhile, or an operator ended the user's sessions.
    let Some(refused) = begun else { return Ok(None) };
    node.metrics.login("password");
    let reply = LoggedIn { user, name, token: Some(token), token_expires_at: Some(expires_at), refused };
    Ok(Some((reply, opened)))
}

pub(super) async fn passwd(
    node: &Arc<Node>,
    visitor: &Visitor,
    who: Who,
    token: TokenHash,
    request: ChangePassword,
) -> Result<Appended, ErrorBody> {
    let ChangePassword { mid, old, new } = request;
    let new = check_password(new, "new")?;
    let conv = ConversationId::notices(who.user);
    for _ in 0..RACES_MAX {
        // What happened gets its first answer, although the old password is no longer the user's. Others than the passwords' own
        // session cannot ask: they have ended.
        if let Some(answer) = changed_before(node, who.user, mid).await? {
            return answer;
        }
        let account = node.store.account(&Account::Number(who.user)).await.map_err(|e| store_error(&e))?;
        let account = account.ok_or(ErrorCode::Internal)?;
        if !verify(node, visitor, Target::Own(who.user), &old.0, Some(account.hash())).await? {
            // Perhaps no longer, by this very request: an earlier attempt may have taken effect between the two looks.
            let wrong = || Err(ErrorBody::field(ErrorCode::BadCredentials, "old", "not your password"));
            return changed_before(node, who.user, mid).await?.unwrap_or_else(wrong);
        }
        // The ban has ended this session, which has not heard of it yet.
        if account.is_banned() {
            return Err(ErrorCode::BadToken.into());
        }
        let verified = account.password_hash;
        let hash = node.passwords.hash(&new).await.map_err(hash_error)?;
        let act = Act::ChangePassword(NewPassword { verified, hash, token: Some(token) });
        match submit(node, who.clone(), conv, mid, act, String::new()).await {
            // The password's hash is another one by now: perhaps only at other costs.
            Err(error) if error.code == ErrorCode::BadCredentials => {}
            outcome => return outcome,
        }
    }
    Err(ErrorCode::Overloaded.into())
}

/// The answer to a change of password whose message id was used before.
async fn changed_before(
    node: &Arc<Node>,
    user: UserId,
    mid: ClientMsgId,
) -> Result<Option<Result<Appended, ErrorBody>>, ErrorBody> {
    let key = (ConversationId::notices(user), user, mid);
    let known = node.store.resolve(&[key], &[]).await.map_err(|e| store_error(&e))?.known;
    Ok(known.first().map(|entry| match entry.body {
        EntryBody::PasswordChanged => Ok(Appended { seq: entry.seq }),
        _ => Err(ErrorCode::IdReused.into()),
    }))
}

pub(super) fn check_password(password: Password, field: &str) -> Result<String, ErrorBody> {
    let password = password.0;
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(ErrorBody::field(ErrorCode::BadPassword, field, "1 to 1024 bytes"));
    }
    Ok(password)
}

pub(super) fn hash_error(error: HashError) -> ErrorBody {
    match error {
        HashError::Overloaded => ErrorCode::Overloaded.into(),
        HashError::Failed => ErrorCode::Internal.into(),
    }
}
