//! What operators do to accounts.
//!
//! All of it goes through the user's notices, as a change of the password does: so it has one place among everything else that is done to
//! the account, and each node ends the user's sessions when it reads the entry, told by a hint or by the sweep.

use std::sync::Arc;

use protocol::{ClientMsgId, ConversationId, ErrorBody, ErrorCode, Seq, UserId, message::Password};

use super::{
    Who,
    account::{RACES_MAX, check_password, hash_error, named},
    friends::submit,
    store_error,
};
use crate::{
    node::Node,
    rights::{Act, NewPassword},
    store::{AccountRecord, locked},
};

/// What an operator wants of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// All its sessions end.
    Kick,
    /// Likewise, and nobody can log in.
    Ban,
    /// Its owner can log in again.
    Unban,
    /// It has another password, and all its sessions end. Banned or not, it stays so.
    SetPassword(&'a Password),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obeyed {
    /// Whose account it is.
    pub user: UserId,
    /// The user's name.
    pub name: String,
    /// Whether it is banned now.
    pub banned: bool,
    /// The entry in the user's notices; `None` if nothing had to be done.
    pub seq: Option<Seq>,
}

/// The account that a number or a name names.
///
/// # Errors
/// There is none, or the store failed.
pub async fn find_account(node: &Node, account: &str) -> Result<AccountRecord, ErrorBody> {
    let account = named(account).ok_or(ErrorCode::NoSuchUser)?;
    let record = node.store.account(&account).await.map_err(|e| store_error(&e))?;
    record.ok_or_else(|| ErrorCode::NoSuchUser.into())
}

/// Carries out an order.
///
/// # Errors
/// There is no such account, the password cannot be one, or see [`ErrorCode`]: an order whose outcome is unknown can be repeated.
pub async fn obey(node: &Arc<Node>, account: &str, order: Order<'_>) -> Result<Obeyed, ErrorBody> {
    let new_hash = match order {
        Order::SetPassword(password) => {
            // Before the password is hashed, which is dear.
            find_account(node, account).await?;
            let password = check_password(password.clone(), "password")?;
            Some(node.passwords.hash(&password).await.map_err(hash_error)?)
        }
        _ => None,
    };
    let mid = ClientMsgId::random(&*node.entropy);
    for _ in 0..RACES_MAX {
        let record = find_account(node, account).await?;
        let banned = match order {
            Order::Ban => true,
            Order::Unban => false,
            Order::Kick | Order::SetPassword(_) => record.is_banned(),
        };
        let done = |seq| Obeyed { user: record.user, name: record.name.clone(), banned, seq };
        if matches!(order, Order::Ban | Order::Unban) && banned == record.is_banned() {
            return Ok(done(None));
        }
        let hash = new_hash.as_deref().unwrap_or(record.hash());
        let hash = if banned { locked(hash) } else { hash.to_owned() };
        let new = NewPassword { verified: record.password_hash.clone(), hash, token: None };
        let act = match order {
            Order::SetPassword(_) => Act::ChangePassword(new),
            Order::Kick | Order::Ban | Order::Unban => Act::EndSessions(new),
        };
        let who = Who { user: record.user, name: record.name.as_str().into() };
        let conv = ConversationId::notices(record.user);
        match submit(node, who, conv, mid, act, String::new()).await {
            Ok(appended) => return Ok(done(Some(appended.seq))),
            // The password's hash is another one by now.
            Err(error) if error.code == ErrorCode::BadCredentials => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorCode::Overloaded.into())
}
