//! What is wrong at a moment, out of all faults that are at work then, and how turmoil is told.
//!
//! Faults overlap. So each change works out anew how every link, host and service should be, and applies the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use turmoil::Sim;

use crate::{
    redis::Publishes,
    scenario::{Fault, Host, Knobs, What},
    store,
};

/// How a link is, in one direction or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// What is sent waits. Both ways.
    pub held: bool,
    /// What the first host sends is lost.
    pub cut_to: bool,
    /// What the second host sends is lost.
    pub cut_from: bool,
    /// The latency, if it is not the usual one.
    pub latency_ms: Option<u64>,
}

/// How everything is. Links are between a host and a later one, in the order of [`Host`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Condition {
    /// Links that are not as usual.
    pub links: BTreeMap<(Host, Host), Link>,
    /// Hosts that are down.
    pub down: BTreeSet<Host>,
    /// Redis delivers nothing.
    pub wedged: bool,
    /// What Redis does with what is published.
    pub publishes: Publishes,
    /// What the store does.
    pub store: store::Faults,
    /// How fast wall clocks are: too fast by so many parts per million.
    pub drifts: BTreeMap<Host, i64>,
}

impl Condition {
    /// How everything is while these faults are at work.
    pub fn of<'a>(faults: impl Iterator<Item = &'a Fault>, hosts: &[Host]) -> Self {
        let mut all = Self::default();
        for fault in faults {
            all.add(&fault.what, hosts);
        }
        all
    }

    fn add(&mut self, what: &What, hosts: &[Host]) {
        match *what {
            What::Stall { a, b } => self.link(a, b).held = true,
            What::Cut { a, b } => self.cut(a, b),
            What::CutOneWay { from, to } => {
                let forward = from < to;
                let link = self.link(from, to);
                if forward { link.cut_to = true } else { link.cut_from = true }
            }
            What::CutOff { host } => self.with_all(host, hosts, Self::cut),
            What::Freeze { host } => self.with_all(host, hosts, |all, a, b| all.link(a, b).held = true),
            What::Slow { a, b, latency_ms } => {
                let slowest = self.link(a, b).latency_ms.max(Some(latency_ms));
                self.link(a, b).latency_ms = slowest;
            }
            What::Exit { host } => drop(self.down.insert(host)),
            What::PowerLoss { host } => {
                self.with_all(host, hosts, Self::cut);
                self.down.insert(host);
            }
            What::RedisWedged => self.wedged = true,
            What::PublishesLost { permille } => raise(&mut self.publishes.drop, permille),
            What::PublishesDoubled { permille } => raise(&mut self.publishes.duplicate, permille),
            What::PublishesReordered { permille, ms_max } => {
                raise(&mut self.publishes.reorder, permille);
                raise(&mut self.publishes.delay_max, Duration::from_millis(ms_max));
            }
            What::PublishesDelayed { permille, ms_max } => {
                raise(&mut self.publishes.delay, permille);
                raise(&mut self.publishes.delay_max, Duration::from_millis(ms_max));
            }
            What::StoreSlow { ms_max } => raise(&mut self.store.slow_max_ms, ms_max as u32),
            What::CommitUnknown { permille } => raise(&mut self.store.commit_unknown, permille),
            What::CommitLate { permille, ms_max } => {
                raise(&mut self.store.late_commit, permille);
                raise(&mut self.store.late_max_ms, ms_max as u32);
            }
            What::StoreReadErrors { permille } => raise(&mut self.store.read_error, permille),
            What::StoreBusy { permille } => raise(&mut self.store.deadlock, permille),
            What::ClockDrift { host, ppm } => *self.drifts.entry(host).or_default() += ppm,
            // At once, when they begin and end.
            What::Drain { .. } | What::RedisEmptied | What::ClockJump { .. } => {}
        }
    }

    fn cut(&mut self, a: Host, b: Host) {
        let link = self.link(a, b);
        (link.cut_to, link.cut_from) = (true, true);
    }

    fn with_all(&mut self, host: Host, hosts: &[Host], each: fn(&mut Self, Host, Host)) {
        for other in hosts.iter().filter(|other| **other != host) {
            each(self, host, *other);
        }
    }

    fn link(&mut self, a: Host, b: Host) -> &mut Link {
        self.links.entry((a.min(b), a.max(b))).or_default()
    }
}

fn raise<T: Ord>(value: &mut T, to: T) {
    if *value < to {
        *value = to;
    }
}

/// Brings turmoil's links from one condition to another.
pub fn change_links(sim: &Sim<'_>, knobs: &Knobs, from: &Condition, to: &Condition) {
    let pairs: BTreeSet<(Host, Host)> = from.links.keys().chain(to.links.keys()).copied().collect();
    for pair in pairs {
        let link = |condition: &Condition| condition.links.get(&pair).copied().unwrap_or_default();
        let (before, after) = (link(from), link(to));
        if before == after {
            continue;
        }
        let (a, b) = (pair.0.to_string(), pair.1.to_string());
        let (a, b) = (a.as_str(), b.as_str());
        if before.latency_ms != after.latency_ms {
            let least = after.latency_ms.unwrap_or(knobs.latency_ms_min);
            sim.set_link_latency(a, b, Duration::from_millis(least));
            if after.latency_ms.is_none() {
                sim.set_link_max_message_latency(a, b, Duration::from_millis(knobs.latency_ms_max));
            }
        }
        // turmoil does not know a link that is held and cut at once: a cut outweighs.
        let held = |link: Link| link.held && !link.cut_to && !link.cut_from;
        if held(before) && !held(after) {
            sim.release(a, b);
        }
        for (was, is, from, to) in
            [(before.cut_to, after.cut_to, a, b), (before.cut_from, after.cut_from, b, a)]
        {
            match (was, is) {
                (false, true) => sim.partition_oneway(from, to),
                (true, false) => sim.repair_oneway(from, to),
                _ => {}
            }
        }
        if !held(before) && held(after) {
            sim.hold(a, b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Topology;

    fn condition(faults: &[What]) -> Condition {
        let faults: Vec<Fault> =
            faults.iter().map(|what| Fault { at_ms: 0, for_ms: 1, what: *what }).collect();
        Condition::of(faults.iter(), &Topology::default().hosts())
    }

    #[test]
    fn what_overlaps_adds_up() {
        let (node, store) = (Host::Node(0), Host::Store);
        let all = condition(&[
            What::CutOneWay { from: store, to: node },
            What::Stall { a: store, b: node },
            What::CommitUnknown { permille: 5 },
            What::CommitUnknown { permille: 3 },
        ]);
        let link = all.links[&(node, store)];
        assert_eq!((link.held, link.cut_to, link.cut_from), (true, false, true));
        assert_eq!(all.store.commit_unknown, 5);
        assert_eq!(condition(&[]), Condition::default());
    }

    #[test]
    fn a_host_without_power_is_down_and_says_nothing() {
        let all = condition(&[What::PowerLoss { host: Host::Redis }]);
        assert!(all.down.contains(&Host::Redis));
        assert_eq!(all.links.len(), Topology::default().hosts().len() - 1);
        assert!(all.links.values().all(|link| link.cut_to && link.cut_from));
    }
}
