//! What a node wants to hear, and what Redis has confirmed that it hears.
//!
//! Sans-IO: one reconciler asks for a [`Plan`], carries it out, and reports back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::channels::Channel;

/// Channels that nobody reads any more and that are kept for those who come back. Beyond it all of them are given up.
const LINGERING_MAX: usize = 10_000;

/// The channels wanted, each with its readers.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    wanted: BTreeMap<Channel, Want>,
    /// Whether the link is up: what is not confirmed will be soon.
    up: bool,
}

#[derive(Debug)]
struct Want {
    readers: usize,
    /// Since when there are none.
    idle_since: Option<Instant>,
    confirmed: bool,
    /// A reader did not wait for the confirmation: what was committed until it came, it was not told.
    owed: bool,
}

/// What to ask of Redis.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) subscribe: Vec<Channel>,
    pub(super) unsubscribe: Vec<Channel>,
}

impl Subscriptions {
    /// One more reader of a channel.
    pub(super) fn add(&mut self, channel: Channel) {
        let new = Want { readers: 0, idle_since: None, confirmed: false, owed: false };
        let want = self.wanted.entry(channel).or_insert(new);
        want.readers += 1;
        want.idle_since = None;
    }

    /// One reader less.
    pub(super) fn remove(&mut self, channel: Channel, now: Instant) {
        if let Some(want) = self.wanted.get_mut(&channel) {
            want.readers = want.readers.saturating_sub(1);
            if want.readers == 0 {
                want.idle_since.get_or_insert(now);
            }
        }
    }

    /// Whether there is anything to wait for: a link, and channels that it has not confirmed.
    pub(super) fn pending(&self, channels: &[Channel]) -> bool {
        self.up && channels.iter().any(|channel| self.wanted.get(channel).is_some_and(|want| !want.confirmed))
    }

    /// Nobody waits for these: whoever is confirmed from now on has missed something.
    pub(super) fn give_up(&mut self, channels: &[Channel]) {
        for channel in channels {
            if let Some(want) = self.wanted.get_mut(channel) {
                want.owed |= !want.confirmed;
            }
        }
    }

    /// What to ask for now. What is to be unsubscribed is forgotten at once: who wants it again asks anew.
    pub(super) fn plan(&mut self, linger: Duration, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let idle = self.wanted.values().filter(|want| want.readers == 0).count();
        self.wanted.retain(|channel, want| {
            let over = want.idle_since.is_some_and(|since| now.duration_since(since) >= linger);
            if over || (want.readers == 0 && (!want.confirmed || idle > LINGERING_MAX)) {
                if want.confirmed {
                    plan.unsubscribe.push(*channel);
                }
                return false;
            }
            if !want.confirmed {
                plan.subscribe.push(*channel);
            }
            true
        });
        plan
    }

    /// Redis has confirmed these. Returns whether someone missed something meanwhile.
    pub(super) fn confirm(&mut self, channels: &[Channel]) -> bool {
        let mut owed = false;
        for channel in channels {
            if let Some(want) = self.wanted.get_mut(channel) {
                want.confirmed = true;
                owed |= std::mem::take(&mut want.owed);
            }
        }
        owed
    }

    /// Everything that was asked for is confirmed: from now on it is worth waiting.
    pub(super) fn link_up(&mut self) {
        self.up = true;
    }

    /// The link is gone, and all that it had confirmed.
    pub(super) fn link_down(&mut self) {
        self.up = false;
        self.wanted.retain(|_, want| {
            want.confirmed = false;
            want.readers > 0
        });
    }

    /// Whether the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }
}

#[cfg(test)]
mod tests {
    use protocol::UserId;

    use super::*;

    const LINGER: Duration = Duration::from_secs(30);

    fn channel(number: u64) -> Channel {
        Channel::User(UserId::new(number).unwrap())
    }

    fn plan(subscriptions: &mut Subscriptions, now: Instant) -> (Vec<Channel>, Vec<Channel>) {
        let Plan { subscribe, unsubscribe } = subscriptions.plan(LINGER, now);
        (subscribe, unsubscribe)
    }

    #[test]
    fn a_channel_is_wanted_as_long_as_anyone_reads_it() {
        let (mut all, now) = (Subscriptions::default(), Instant::now());
        all.link_up();
        all.add(channel(1));
        all.add(channel(1));
        assert!(all.pending(&[channel(1)]));
        assert_eq!(plan(&mut all, now), (vec![channel(1)], vec![]));
        assert!(!all.confirm(&[channel(1)]));
        assert!(!all.pending(&[channel(1)]));
        all.remove(channel(1), now);
        assert_eq!(plan(&mut all, now + LINGER), (vec![], vec![]), "one reader is left");
        all.remove(channel(1), now);
        assert_eq!(plan(&mut all, now + LINGER / 2), (vec![], vec![]), "it lingers");
        all.add(channel(1));
        assert!(!all.pending(&[channel(1)]), "whoever comes back need not wait");
        all.remove(channel(1), now + LINGER);
        assert_eq!(plan(&mut all, now + LINGER), (vec![], vec![]));
        assert_eq!(plan(&mut all, now + 2 * LINGER), (vec![], vec![channel(1)]));
        all.add(channel(1));
        assert_eq!(plan(&mut all, now + 2 * LINGER), (vec![channel(1)], vec![]), "asked anew");
    }

    #[test]
    fn who_did_not_wait_is_owed_a_look() {
        let (mut all, now) = (Subscriptions::default(), Instant::now());
        all.add(channel(1));
        assert!(!all.pending(&[channel(1)]), "the link is away");
        all.give_up(&[channel(1)]);
        plan(&mut all, now);
        assert!(all.confirm(&[channel(1)]));
        assert!(!all.confirm(&[channel(1)]), "once");
        all.give_up(&[channel(1)]);
        assert!(!all.confirm(&[channel(1)]), "it was confirmed already");
    }

    #[test]
    fn a_new_link_has_confirmed_nothing() {
        let (mut all, now) = (Subscriptions::default(), Instant::now());
        all.link_up();
        for number in 1..=2 {
            all.add(channel(number));
        }
        plan(&mut all, now);
        all.confirm(&[channel(1), channel(2)]);
        all.remove(channel(2), now);
        all.link_down();
        assert_eq!(plan(&mut all, now), (vec![channel(1)], vec![]), "what lingered is let go of");
    }

    #[test]
    fn what_lingers_is_bounded() {
        let (mut all, now) = (Subscriptions::default(), Instant::now());
        let channels: Vec<_> = (1..=LINGERING_MAX as u64 + 1).map(channel).collect();
        for channel in &channels {
            all.add(*channel);
        }
        plan(&mut all, now);
        all.confirm(&channels);
        for channel in &channels {
            all.remove(*channel, now);
        }
        assert_eq!(plan(&mut all, now).1.len(), LINGERING_MAX + 1);
    }
}
