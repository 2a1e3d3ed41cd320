//! Presence converges.

use std::collections::BTreeMap;

use protocol::{
    UserId,
    message::{Friend, MemberInfo, PresenceState},
};

use super::{Findings, Invariant, facts::Facts};
use crate::history::{DeviceId, Index, Outcome, Reply, What};

/// [`Invariant::Presence`], for everything that a device was told of anybody.
///
/// The truth is what the devices themselves know: whether one of the user's has a session that lives. It
/// needs the bound to become known after it has changed, and so does everything after the faults have
/// stopped. What was told earlier may be wrong; but if it is the last that a device knows of a friend, the
/// history should have gone on.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(healed) = facts.healed else { return };
    let truths = truths(facts);
    let mut doubtful: BTreeMap<(DeviceId, UserId), String> = BTreeMap::new();
    let mut judge = |device: DeviceId, user: UserId, at: Index, state: PresenceState| {
        let changes = truths.get(&user)?;
        let changes = &changes[..changes.partition_point(|(change, _)| *change < at)];
        let (changed, online) = changes.last().copied().unwrap_or((0, false));
        let agrees = match state {
            PresenceState::Online => online,
            PresenceState::Offline => !online,
            PresenceState::Unknown => !facts.bounds.presence_is_shared,
        };
        if agrees {
            return None;
        }
        let detail = format!("device {} was told that user {user} is {state:?}", device.0);
        if facts.time(at) > healed.max(facts.time(changed)) + facts.bounds.presence {
            findings.anomaly(Invariant::Presence, vec![changed, at], detail);
            return None;
        }
        Some(detail)
    };
    for (at, told) in told(facts) {
        match told {
            Told::Push { device, user, state } => {
                let doubt = judge(device, user, at, state);
                set(&mut doubtful, (device, user), doubt);
            }
            Told::List(device, friends) => {
                // Of whoever is no friend any more nothing is told.
                doubtful.retain(|(of, _), _| *of != device);
                for friend in friends.iter().filter(|friend| friend.friend) {
                    let doubt = judge(device, friend.user, at, friend.state);
                    set(&mut doubtful, (device, friend.user), doubt);
                }
            }
            Told::Members(device, members) => {
                for member in members {
                    // Asked once, never told again: what is not yet certain stays so.
                    judge(device, member.user, at, member.state);
                }
            }
        }
    }
    doubtful.retain(|(device, _), _| facts.devices.get(device).is_some_and(|device| device.ended.is_none()));
    doubtful.into_values().for_each(|doubt| findings.pending(doubt));
}

fn set(doubtful: &mut BTreeMap<(DeviceId, UserId), String>, of: (DeviceId, UserId), doubt: Option<String>) {
    match doubt {
        Some(doubt) => drop(doubtful.insert(of, doubt)),
        None => drop(doubtful.remove(&of)),
    }
}

/// How a device hears of states.
enum Told<'a> {
    Push { device: DeviceId, user: UserId, state: PresenceState },
    List(DeviceId, &'a [Friend]),
    Members(DeviceId, &'a [MemberInfo]),
}

/// What devices were told, in the order of the events.
fn told<'a>(facts: &Facts<'a>) -> Vec<(Index, Told<'a>)> {
    let mut all: Vec<_> = facts
        .operations
        .iter()
        .filter_map(|operation| {
            let (at, Outcome::Ok { reply }) = operation.returned? else { return None };
            match reply {
                Reply::Friends { friends } => Some((at, Told::List(operation.device, friends))),
                Reply::Members { members } => Some((at, Told::Members(operation.device, members))),
                _ => None,
            }
        })
        .collect();
    all.extend(facts.events.iter().enumerate().filter_map(|(at, event)| match event.what {
        What::Presence { device, user, state } => Some((at, Told::Push { device, user, state })),
        _ => None,
    }));
    all.sort_by_key(|(at, _)| *at);
    all
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
