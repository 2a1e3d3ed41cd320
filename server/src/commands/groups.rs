//! Groups: `create_group`, `join`, `quit`, `delete_group`, `remove_member`, `groups`, `members`.

use std::sync::Arc;

use protocol::{
    ConversationId, ErrorBody, ErrorCode, GroupId, Request, Seq, UserId,
    message::{Appended, CreateGroup, GroupCreated, GroupsPage, MemberInfo, Members, MembersPage, Page},
    text::{description, group_name},
};
use tokio::sync::oneshot;

use super::{LIST_MAX, Who, friends::submit, next_page, store_error};
use crate::{
    committer::{ChangeJob, GroupJob, Job},
    node::Node,
    rights::Act,
};

pub(super) async fn create(
    node: &Arc<Node>,
    who: Who,
    request: CreateGroup,
) -> Result<GroupCreated, ErrorBody> {
    let title = group_name(&request.name).map_err(|why| ErrorBody::field(ErrorCode::BadName, "name", why))?;
    let description = description(&request.description)
        .map_err(|why| ErrorBody::field(ErrorCode::BadText, "description", why))?;
    let (done, outcome) = oneshot::channel();
    let job = GroupJob { from: who.user, name: who.name, mid: request.mid, title, description, done };
    node.committer.submit(Job::Change(ChangeJob::Group(Box::new(job))))?;
    let group = outcome.await.map_err(|_| ErrorCode::Internal)??;
    Ok(GroupCreated { group, seq: Seq(1) })
}

pub(super) async fn act(node: &Arc<Node>, who: Who, request: Request) -> Result<Appended, ErrorBody> {
    let (group, mid, act) = match request {
        Request::Join(target) => (target.group, target.mid, Act::Join),
        Request::Quit(target) => (target.group, target.mid, Act::Quit),
        Request::DeleteGroup(target) => (target.group, target.mid, Act::Delete),
        Request::RemoveMember(target) => {
            let name = node.store.user_name(target.user).await.map_err(|e| store_error(&e))?;
            let user_name = name.unwrap_or_default();
            (target.group, target.mid, Act::Remove { user: target.user, user_name })
        }
        _ => return Err(ErrorCode::UnknownOp.into()),
    };
    submit(node, who, ConversationId::group(group), mid, act, String::new()).await
}

pub(super) async fn list(node: &Arc<Node>, user: UserId, page: Page) -> Result<GroupsPage, ErrorBody> {
    let mut groups = node.store.groups(user, page.after, LIST_MAX + 1).await.map_err(|e| store_error(&e))?;
    let next = next_page(&mut groups, |group| group.group.number());
    Ok(GroupsPage { groups, next })
}

pub(super) async fn members(
    node: &Arc<Node>,
    user: UserId,
    request: Members,
) -> Result<MembersPage, ErrorBody> {
    let rows = node.store.members(request.group, user, request.after, LIST_MAX + 1).await;
    let Some(rows) = rows.map_err(|e| store_error(&e))? else {
        return Err(why_not(node, user, request.group).await?.into());
    };
    let mut members: Vec<_> = rows
        .into_iter()
        .map(|row| MemberInfo {
            user: row.user,
            name: row.name,
            role: row.role,
            state: node.registry.presence(row.user),
        })
        .collect();
    let next = next_page(&mut members, |member| member.user.number());
    Ok(MembersPage { members, next })
}

/// Why somebody who is not a member may not look into a group.
async fn why_not(node: &Arc<Node>, user: UserId, group: GroupId) -> Result<ErrorCode, ErrorBody> {
    let conv = ConversationId::group(group);
    let snapshots = node.store.snapshots(&[conv]).await.map_err(|e| store_error(&e))?;
    let refused = snapshots.first().map(|snapshot| snapshot.rights.may_send(conv, user));
    Ok(match refused {
        None => ErrorCode::NoSuchGroup,
        Some(Err(code)) => code,
        // Who has joined meanwhile may ask again.
        Some(Ok(())) => ErrorCode::NotMember,
    })
}
