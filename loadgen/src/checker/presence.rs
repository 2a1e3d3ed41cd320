//! Presence converges.

use std::collections::BTreeMap;

use protocol::{UserId, message::PresenceState};

use super::{Findings, Invariant, facts::Facts};
use crate::history::{DeviceId, Index, Outcome, Reply, What};

/// [`Invariant::Presence`]: of each watched user, the last that a device was told.
///
/// The truth is what the devices themselves know: whether one of the user's has a session that lives. It needs the bound to become
/// known after it has changed, and so does everything after the faults have stopped.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(healed) = facts.healed else { return };
    let truths = truths(facts);
    for ((device, user), (at, state)) in last_told(facts) {
        let Some(changes) = truths.get(&user) else { continue };
        let agrees = |online: bool| match state {
            PresenceState::Online => online,
            PresenceState::Offline => !online,
            PresenceState::Unknown => !facts.bounds.presence_is_shared,
        };
        let before = &changes[..changes.partition_point(|(change, _)| *change < at)];
        let (changed, online) = before.last().copied().unwrap_or((0, false));
        // A node can tell of a login before the device that logs in has its reply: what is true in the end is no lie either.
        if agrees(online) || changes.last().is_some_and(|(_, online)| agrees(*online)) {
            continue;
        }
        let detail = format!("device {} was told that user {user} is {state:?}", device.0);
        let due = healed.max(facts.time(changed)) + facts.bounds.presence;
        if facts.time(at) > due {
            findings.anomaly(Invariant::Presence, vec![changed, at], detail);
        } else {
            findings.pending(detail);
        }
    }
}

/// What each device was told last of each user.
fn last_told(facts: &Facts<'_>) -> BTreeMap<(DeviceId, UserId), (Index, PresenceState)> {
    let mut told = BTreeMap::new();
    let mut tell = |device, user, at, state| {
        let last = told.entry((device, user)).or_insert((at, state));
        if at >= last.0 {
            *last = (at, state);
        }
    };
    for (at, event) in facts.events.iter().enumerate() {
        if let What::Presence { device, user, state } = event.what {
            tell(device, user, at, state);
        }
    }
    for operation in &facts.operations {
        let Some((at, Outcome::Ok { reply })) = operation.returned else { continue };
        match reply {
            Reply::Friends { friends } => {
                for friend in friends.iter().filter(|friend| friend.friend) {
                    tell(operation.device, friend.user, at, friend.state);
                }
            }
            Reply::Members { members } => {
                members.iter().for_each(|member| tell(operation.device, member.user, at, member.state));
            }
            _ => {}
        }
    }
    // What a device was told that is gone helps nobody.
    told.retain(|(device, _), _| facts.devices.get(device).is_some_and(|device| device.ended.is_none()));
    told
}

/// Whether each user is online: changes, in their order.
fn truths(facts: &Facts<'_>) -> BTreeMap<UserId, Vec<(Index, bool)>> {
    let mut changes: BTreeMap<UserId, Vec<(Index, DeviceId, bool)>> = BTreeMap::new();
    for (id, device) in &facts.devices {
        if let Some(user) = device.user {
            let all = changes.entry(user).or_default();
            all.extend(device.online.iter().map(|(at, online)| (*at, *id, *online)));
        }
    }
    let fold = |mut changes: Vec<(Index, DeviceId, bool)>| {
        changes.sort_unstable();
        let mut online: BTreeMap<DeviceId, bool> = BTreeMap::new();
        let mut truth: Vec<(Index, bool)> = Vec::new();
        for (at, device, up) in changes {
            online.insert(device, up);
            let any = online.values().any(|up| *up);
            if truth.last().map_or(any, |(_, was)| *was != any) {
                truth.push((at, any));
            }
        }
        truth
    };
    changes.into_iter().map(|(user, changes)| (user, fold(changes))).collect()
}
