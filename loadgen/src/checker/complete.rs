//! Delivered completely.

use std::{collections::BTreeMap, time::Duration};

use protocol::{ConversationId, Seq, UserId};

use super::{
    Findings, Invariant,
    facts::{Device, Facts, Log, Slot},
};
use crate::history::{DeviceId, Index};

/// [`Invariant::Completeness`], for every device that did not end.
///
/// An entry is due at a device within the bound after the faults stopped, the entry was first heard of, and
/// the device logged in, whichever is last. Where a device starts is the server's choice, within limits: it
/// was shown something, and then that is the start; in any case nothing may be left out that no other device
/// of the user had been shown when this one began.
pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(healed) = facts.healed else { return };
    let mut devices_of: BTreeMap<UserId, Vec<DeviceId>> = BTreeMap::new();
    for (id, device) in &facts.devices {
        if let Some(user) = device.user {
            devices_of.entry(user).or_default().push(*id);
        }
    }
    for (conv, log) in &facts.logs {
        for user in log.periods.keys() {
            let devices = devices_of.get(user).map_or(&[][..], Vec::as_slice);
            for id in devices {
                let device = &facts.devices[id];
                let Some(began) = device.logged_in.filter(|_| device.ended.is_none()) else { continue };
                if device.lost.contains(conv) {
                    continue;
                }
                let place = Place { facts, conv: *conv, log, user: *user, id: *id, device, began, healed };
                place.check(devices, findings);
            }
        }
    }
}

/// A device and a conversation.
struct Place<'a> {
    facts: &'a Facts<'a>,
    conv: ConversationId,
    log: &'a Log<'a>,
    user: UserId,
    id: DeviceId,
    device: &'a Device,
    began: Index,
    healed: Duration,
}

impl Place<'_> {
    fn check(&self, devices: &[DeviceId], findings: &mut Findings) {
        let shown = self.facts.shown.get(&(self.id, self.conv)).map_or(&[][..], Vec::as_slice);
        let first = shown.first();
        // The server chose the start at the last beginning of the session that precedes the first entry.
        let precedes = |at: &&Index| first.is_none_or(|(_, first)| *at < first);
        let horizon = self.device.resumed.iter().rfind(precedes).map_or(self.began, |at| self.began.max(*at));
        let confirmed = devices.iter().filter(|other| **other != self.id).filter_map(|other| {
            let shown = self.facts.shown.get(&(*other, self.conv))?;
            let before = shown.partition_point(|(_, at)| *at < horizon);
            shown[..before].last().map(|(seq, _)| *seq)
        });
        let start = confirmed.max().unwrap_or(Seq::ZERO).next();
        let before_first = start..first.map_or(start, |(seq, _)| (*seq).max(start));
        // What is missing in between is a gap, and reported as one.
        let after_last = shown.iter().map(|(seq, _)| *seq).max().map_or(start, Seq::next);
        for (seq, slot) in self.log.slots.range(before_first).chain(self.log.slots.range(after_last..)) {
            if self.log.may_read(self.user, *seq) {
                self.missing(*seq, slot, findings);
            }
        }
        for (seq, at) in shown.iter().rev() {
            let time = self.facts.time(*at);
            if time < self.healed + self.facts.bounds.delivery {
                break;
            }
            if let Some(slot) = self.log.slots.get(seq).filter(|slot| self.due(slot) < time) {
                findings.anomaly(
                    Invariant::Completeness,
                    vec![slot.first, *at],
                    format!("{} of user {} is late with {}/{seq}", self.name(), self.user, self.conv),
                );
            }
        }
    }

    fn missing(&self, seq: Seq, slot: &Slot<'_>, findings: &mut Findings) {
        let detail = format!("{} of user {} was not shown {}/{seq}", self.name(), self.user, self.conv);
        if self.due(slot) < self.facts.end() {
            findings.anomaly(Invariant::Completeness, vec![self.began, slot.first], detail);
        } else {
            findings.pending(detail);
        }
    }

    fn due(&self, slot: &Slot<'_>) -> Duration {
        let heard = self.facts.time(slot.first);
        heard.max(self.healed).max(self.facts.time(self.began)) + self.facts.bounds.delivery
    }

    fn name(&self) -> String {
        format!("device {}", self.id.0)
    }
}
