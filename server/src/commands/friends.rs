//! Friends: `befriend`, `unfriend`, `block`, `unblock`, `friends`.

use std::sync::Arc;

use protocol::{
    ConversationId, ErrorBody, ErrorCode, Request, UserId,
    message::{Appended, Friend, FriendsPage, Page, PresenceState},
};
use tokio::sync::oneshot;

use super::{LIST_MAX, Who, next_page, store_error};
use crate::{
    committer::{ActJob, ChangeJob, Job},
    node::Node,
    rights::Act,
};

pub(super) async fn act(node: &Arc<Node>, who: Who, request: Request) -> Result<Appended, ErrorBody> {
    let (target, act) = match request {
        Request::Befriend(target) => (target, Act::Befriend),
        Request::Unfriend(target) => (target, Act::Unfriend),
        Request::Block(target) => (target, Act::Block),
        Request::Unblock(target) => (target, Act::Unblock),
        _ => return Err(ErrorCode::UnknownOp.into()),
    };
    let conv = ConversationId::direct(who.user, target.user).ok_or(ErrorCode::SelfTarget)?;
    let peer_name = node.store.user_name(target.user).await.map_err(|e| store_error(&e))?;
    let peer_name = peer_name.ok_or(ErrorCode::NoSuchUser)?;
    submit(node, who, conv, target.mid, act, peer_name).await
}

/// Has the committer carry out an act.
pub(crate) async fn submit(
    node: &Arc<Node>,
    who: Who,
    conv: ConversationId,
    mid: protocol::ClientMsgId,
    act: Act,
    peer_name: String,
) -> Result<Appended, ErrorBody> {
    let (done, outcome) = oneshot::channel();
    let cell = node.feeds.cell(conv);
    let job = ActJob { cell, from: who.user, name: who.name, mid, act, peer_name, done };
    node.committer.submit(Job::Change(ChangeJob::Act(Box::new(job))))?;
    // The committer answers everything, unless it fails.
    let seq = outcome.await.map_err(|_| ErrorCode::Internal)??;
    Ok(Appended { seq })
}

pub(super) async fn list(node: &Arc<Node>, user: UserId, page: Page) -> Result<FriendsPage, ErrorBody> {
    let rows = node.store.friends(user, page.after, LIST_MAX + 1).await.map_err(|e| store_error(&e))?;
    let mut friends: Vec<_> = rows
        .into_iter()
        .map(|row| Friend {
            user: row.peer,
            name: row.name,
            state: if row.friend { node.registry.presence(row.peer) } else { PresenceState::Unknown },
            friend: row.friend,
            blocked: row.blocked,
        })
        .collect();
    let next = next_page(&mut friends, |friend| friend.user.number());
    Ok(FriendsPage { friends, next })
}
