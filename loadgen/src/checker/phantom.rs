//! No phantom, no forgery.

use protocol::{Conversation, Entry, EntryBody};

use super::{
    Findings, Invariant,
    facts::{Facts, Operation},
};
use crate::history::{Call, Index};

/// [`Invariant::Phantom`], once for every entry of the logs and for everything that differs from them.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let logs = facts.logs.values().flat_map(|log| log.slots.values());
    let all = logs.map(|slot| (slot.first, slot.entry)).chain(facts.deviants.iter().copied());
    for (at, entry) in all {
        if let Err((request, why)) = justified(facts, at, entry) {
            let events = request.into_iter().chain([at]).collect();
            findings.anomaly(Invariant::Phantom, events, format!("{why}: {entry:?}"));
        }
    }
}

/// Whether somebody asked for an entry, before anybody heard of it.
fn justified(facts: &Facts<'_>, at: Index, entry: &Entry) -> Result<(), (Option<Index>, &'static str)> {
    let requests = facts.requests.get(&(entry.from, entry.mid)).map_or(&[][..], Vec::as_slice);
    let asked = || requests.iter().map(|place| &facts.operations[*place]);
    let Some(first) = asked().next() else { return Err((None, "nobody asked for it")) };
    if !asked().any(|operation| led_to(operation, entry)) {
        return Err((Some(first.invoked), "it is not what was asked for"));
    }
    if !asked().any(|operation| led_to(operation, entry) && operation.invoked < at) {
        return Err((Some(first.invoked), "it was there before it was asked for"));
    }
    let refused = |operation: &Operation<'_>| operation.failed() || !led_to(operation, entry);
    match asked().all(refused) {
        true => Err((first.returned.map(|(at, _)| at), "it was refused")),
        false => Ok(()),
    }
}

/// Whether a request can lead to an entry.
fn led_to(operation: &Operation<'_>, entry: &Entry) -> bool {
    // A notice tells what any request of its author led to.
    if let (Conversation::Notices(_), EntryBody::Opened { opened, .. }) = (entry.conv.parse(), &entry.body) {
        let conv = operation.call.target(entry.from);
        return matches!(operation.call, Call::CreateGroup { .. }) || conv == Some(*opened);
    }
    let created = operation.acknowledged().map(|(conv, ..)| conv);
    if operation.call.target(entry.from).or(created).is_some_and(|conv| conv != entry.conv) {
        return false;
    }
    match (operation.call, &entry.body) {
        (Call::Send { text: asked, .. }, EntryBody::Message { text }) => asked == text,
        (Call::CreateGroup { name, .. }, EntryBody::Created { title }) => name == title,
        (Call::RemoveMember { user: asked, .. }, EntryBody::Removed { user, .. }) => asked == user,
        (Call::Befriend { .. }, EntryBody::Befriended)
        | (Call::Unfriend { .. }, EntryBody::Unfriended)
        | (Call::Block { .. }, EntryBody::Blocked)
        | (Call::Unblock { .. }, EntryBody::Unblocked)
        | (Call::Join { .. }, EntryBody::Joined)
        | (Call::Quit { .. }, EntryBody::Left | EntryBody::Deleted)
        | (Call::DeleteGroup { .. }, EntryBody::Deleted) => true,
        _ => false,
    }
}
