//! What a request does, apart from `send` and `ack`, which the connection hands on without waiting.
//!
//! A command is a future that ends in an [`Effect`] on its connection. It is carried out in order with the connection's others.

mod account;
mod friends;
mod groups;
mod history;
mod operator;
mod session;

use std::sync::Arc;

use protocol::{
    ErrorBody, ErrorCode, Request, RequestId, Token, UserId,
    message::{Cursors, write_error, write_reply},
};
use serde::Serialize;
use tracing::error;

pub(crate) use self::friends::submit;
pub use self::{
    operator::{Obeyed, Order, find_account, obey},
    session::{Opened, check_token, close, is_valid, open_with_token, token_hash},
};
use crate::{
    node::Node,
    store::{StoreError, TokenHash},
    throttle::Visitor,
};

/// Lines in one page of a list.
pub const LIST_MAX: usize = 200;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Who {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub name: Arc<str>,
}

/// What a command's outcome is for its connection.
pub enum Effect {
    /// A reply.
    Reply(Reply),
    /// A reply, and a session.
    Opened(Reply, Box<Opened>),
    /// A reply, and more cursors to come for a resume with this token.
    Resuming(Reply, Token, Cursors),
    /// A reply, and the end of the connection.
    LoggedOut(Reply),
}

/// A reply.
pub struct Reply {
    /// As a line.
    pub line: Vec<u8>,
    /// Why the request was refused, if it was.
    pub refused: Option<ErrorCode>,
}

/// Carries out a request of a session.
pub async fn run(node: Arc<Node>, who: Who, id: RequestId, request: Request) -> Effect {
    let node = &node;
    let user = who.user;
    let _turn = match request {
        Request::Friends(_) | Request::Groups(_) | Request::Members(_) | Request::History(_) => {
            Some(node.feeds.turn_to_read(Some(user)).await)
        }
        _ => None,
    };
    Effect::Reply(match request {
        Request::Befriend(_) | Request::Unfriend(_) | Request::Block(_) | Request::Unblock(_) => {
            reply(id, friends::act(node, who, request).await)
        }
        Request::Friends(page) => reply(id, friends::list(node, user, page).await),
        Request::CreateGroup(request) => reply(id, groups::create(node, who, request).await),
        Request::Join(_) | Request::Quit(_) | Request::DeleteGroup(_) | Request::RemoveMember(_) => {
            reply(id, groups::act(node, who, request).await)
        }
        Request::Groups(page) => reply(id, groups::list(node, user, page).await),
        Request::Members(request) => reply(id, groups::members(node, user, request).await),
        Request::History(request) => reply(id, history::read(node, user, request).await),
        // The connection sees to the others.
        _ => reply::<()>(id, Err(ErrorCode::UnknownOp.into())),
    })
}

/// Carries out `register`.
pub async fn register(
    node: Arc<Node>,
    visitor: Arc<Visitor>,
    id: RequestId,
    request: protocol::message::Register,
) -> Effect {
    Effect::Reply(reply(id, account::register(&node, &visitor, request).await))
}

/// Carries out `login`.
pub async fn login(
    node: Arc<Node>,
    visitor: Arc<Visitor>,
    id: RequestId,
    request: protocol::message::Login,
) -> Effect {
    opened(id, account::login(&node, &visitor, request).await)
}

/// Carries out `passwd`.
pub async fn passwd(
    node: Arc<Node>,
    visitor: Arc<Visitor>,
    who: Who,
    token: TokenHash,
    id: RequestId,
    request: protocol::message::ChangePassword,
) -> Effect {
    Effect::Reply(reply(id, account::passwd(&node, &visitor, who, token, request).await))
}

/// The effect of a command that opens a session.
pub fn opened<T: Serialize>(id: RequestId, result: Result<(T, Opened), ErrorBody>) -> Effect {
    match result {
        Ok((ok, opened)) => Effect::Opened(reply(id, Ok(ok)), Box::new(opened)),
        Err(error) => Effect::Reply(reply::<()>(id, Err(error))),
    }
}

/// The reply to a request.
pub fn reply<T: Serialize>(id: RequestId, result: Result<T, ErrorBody>) -> Reply {
    let mut line = Vec::with_capacity(128);
    let refused = match result {
        Ok(ok) => {
            write_reply(&mut line, id, &ok);
            None
        }
        Err(error) => {
            write_error(&mut line, Some(id), &error);
            Some(error.code)
        }
    };
    Reply { line, refused }
}

/// What a client is told of a failed store. The details stay in the log.
fn store_error(error: &StoreError) -> ErrorBody {
    error!(%error, "a command failed");
    match error {
        StoreError::Unavailable(_) => ErrorCode::Unavailable.into(),
        StoreError::Corrupt(_) => ErrorCode::Internal.into(),
    }
}

/// The number at which the next page of a list starts, if this one is full.
fn next_page<T>(page: &mut Vec<T>, number: impl Fn(&T) -> u64) -> Option<u64> {
    if page.len() <= LIST_MAX {
        return None;
    }
    page.truncate(LIST_MAX);
    page.last().map(number)
}
