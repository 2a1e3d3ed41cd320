//! Which upstream is next, as nginx computes it for a `stream` upstream without a shared zone: `ngx_stream_upstream_round_robin.c`.
//!
//! Smooth weighted round robin. Each choice adds to every peer that can be had its effective weight; the one with the most is chosen, the
//! first of equals, and pays back the sum. A failure takes from the effective weight, each choice gives one back. After
//! `max_fails` failures a peer cannot be had until more than `fail_timeout` has passed since the last; then one connection may take
//! it. If that fails it is away for as long again; if it succeeds the failures are forgotten. When none can be had, the client is
//! refused: nothing is reset. A single peer is always chosen, and its failures do not count.
//!
//! Seconds are whole ones, as nginx counts them: a peer that failed is away for between one and two of them if `fail_timeout` is one.

use std::time::Duration;

use super::Upstream;

/// A clock's whole seconds. It starts beyond any `fail_timeout`.
pub type Seconds = i64;

/// The peers of one worker process.
#[derive(Debug)]
pub struct Peers(Vec<Peer>);

#[derive(Debug)]
struct Peer {
    weight: i64,
    max_fails: i64,
    fail_timeout: Seconds,
    down: bool,
    effective_weight: i64,
    current_weight: i64,
    fails: i64,
    /// When it failed last.
    accessed: Seconds,
    /// When it failed last, or was chosen again after the timeout.
    checked: Seconds,
}

/// One client's connection and its tries. It ends with [`Peers::ended`].
#[derive(Debug)]
pub struct Round {
    /// By peer.
    tried: Vec<bool>,
    tries_left: usize,
    /// The peer that is in use or being tried.
    current: Option<usize>,
}

impl Peers {
    /// Peers that nothing was heard of.
    pub fn new(upstreams: &[Upstream]) -> Self {
        let peer = |upstream: &Upstream| Peer {
            weight: upstream.weight.into(),
            max_fails: upstream.max_fails.into(),
            fail_timeout: seconds(upstream.fail_timeout),
            down: upstream.down,
            effective_weight: upstream.weight.into(),
            current_weight: 0,
            fails: 0,
            accessed: 0,
            checked: 0,
        };
        Self(upstreams.iter().map(peer).collect())
    }

    /// Begins a client's connection. It makes at most `tries_max` tries (0: as many as there are peers).
    pub fn begin(&self, tries_max: usize) -> Round {
        let tries = self.0.iter().filter(|peer| !peer.down).count();
        let tries_left = if tries_max == 0 { tries } else { tries.min(tries_max) };
        Round { tried: vec![false; self.0.len()], tries_left, current: None }
    }

    /// The peer to dial now, by its place among the upstreams; nothing if none can be had.
    pub fn choose(&mut self, round: &mut Round, now: Seconds) -> Option<usize> {
        if let [only] = self.0.as_slice() {
            round.current = (!only.down).then_some(0);
            return round.current;
        }
        let (mut best, mut total) = (None::<(usize, i64)>, 0);
        for (at, peer) in self.0.iter_mut().enumerate() {
            let failed = peer.max_fails > 0 && peer.fails >= peer.max_fails;
            if round.tried[at] || peer.down || failed && now - peer.checked <= peer.fail_timeout {
                continue;
            }
            peer.current_weight += peer.effective_weight;
            total += peer.effective_weight;
            if peer.effective_weight < peer.weight {
                peer.effective_weight += 1;
            }
            if best.is_none_or(|(_, weight)| peer.current_weight > weight) {
                best = Some((at, peer.current_weight));
            }
        }
        round.current = best.map(|(at, _)| at);
        let at = round.current?;
        round.tried[at] = true;
        let peer = &mut self.0[at];
        peer.current_weight -= total;
        if now - peer.checked > peer.fail_timeout {
            peer.checked = now;
        }
        round.current
    }

    /// The peer that was chosen answers.
    pub fn connected(&mut self, round: &Round) {
        if let Some(at) = round.current {
            self.0[at].clear();
        }
    }

    /// The peer that was chosen could not be reached. Returns whether another may be tried.
    pub fn failed(&mut self, round: &mut Round, now: Seconds) -> bool {
        let Some(at) = round.current.take() else { return false };
        if self.0.len() == 1 {
            self.0[at].fails = 0;
            round.tries_left = 0;
            return false;
        }
        let peer = &mut self.0[at];
        peer.fails += 1;
        peer.accessed = now;
        peer.checked = now;
        if peer.max_fails > 0 {
            peer.effective_weight = (peer.effective_weight - peer.weight / peer.max_fails).max(0);
        }
        round.tries_left = round.tries_left.saturating_sub(1);
        round.tries_left > 0
    }

    /// The connection is over, however.
    pub fn ended(&mut self, round: &Round) {
        if let Some(at) = round.current {
            self.0[at].clear();
        }
    }
}

impl Peer {
    /// It lives, if it was chosen since it failed.
    fn clear(&mut self) {
        if self.accessed < self.checked {
            self.fails = 0;
        }
    }
}

/// Whole seconds: nginx's directive takes no others.
fn seconds(time: Duration) -> Seconds {
    Seconds::try_from(time.as_secs()).unwrap_or(Seconds::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(weight: u32, max_fails: u32, fail_timeout: u64) -> Upstream {
        Upstream {
            weight,
            max_fails,
            fail_timeout: Duration::from_secs(fail_timeout),
            ..Upstream::new("unused:1")
        }
    }

    /// One client: which peers it tried, in order, when those in `dead` refuse.
    fn client(peers: &mut Peers, dead: &[usize], now: Seconds) -> String {
        let mut round = peers.begin(0);
        let mut tried = String::new();
        loop {
            let Some(at) = peers.choose(&mut round, now) else { return tried + "-" };
            tried += &at.to_string();
            if !dead.contains(&at) {
                peers.connected(&round);
                peers.ended(&round);
                return tried;
            }
            tried += "!";
            if !peers.failed(&mut round, now) {
                return tried + "-";
            }
        }
    }

    fn check(peers: &mut Peers, clients: usize, dead: &[usize], now: Seconds, expected: &str) {
        let found: Vec<_> = (0..clients).map(|_| client(peers, dead, now)).collect();
        assert_eq!(found.join(" "), expected);
    }

    /// The example of the commit that brought the algorithm to nginx.
    #[test]
    fn weights_are_spread() {
        let mut peers = Peers::new(&[upstream(5, 1, 10), upstream(1, 1, 10), upstream(1, 1, 10)]);
        check(&mut peers, 14, &[], 100, "0 0 1 0 2 0 0 0 0 1 0 2 0 0");
    }

    #[test]
    fn a_peer_that_fails_is_away_and_then_probed() {
        let mut peers = Peers::new(&[upstream(1, 2, 10), upstream(1, 2, 10)]);
        // Half of its weight is lost with each failure, and none is half of it: it recovers at once.
        check(&mut peers, 4, &[0], 100, "0!1 1 0!1 1");
        check(&mut peers, 3, &[0], 110, "1 1 1");
        check(&mut peers, 3, &[0], 111, "1 0!1 1");
        check(&mut peers, 3, &[], 122, "1 0 1");
        // It was cleared: it takes two failures again.
        check(&mut peers, 6, &[0], 123, "0!1 1 0!1 1 1 1");
    }

    #[test]
    fn when_all_are_away_clients_are_refused_and_nothing_is_reset() {
        let mut peers = Peers::new(&[upstream(1, 1, 1), upstream(1, 1, 1)]);
        check(&mut peers, 3, &[0, 1], 100, "0!1!- - -");
        check(&mut peers, 1, &[], 101, "-");
        // Their weights are back only after that, so the first is chosen later than it was.
        check(&mut peers, 4, &[], 102, "1 1 0 1");
    }

    #[test]
    fn a_single_peer_is_always_tried() {
        let mut peers = Peers::new(&[upstream(1, 1, 10)]);
        check(&mut peers, 2, &[0], 100, "0!- 0!-");
        check(&mut peers, 1, &[], 100, "0");
    }

    #[test]
    fn a_peer_that_is_down_is_left_out() {
        let down = Upstream { down: true, ..upstream(1, 1, 10) };
        let mut peers = Peers::new(&[upstream(1, 1, 10), down.clone()]);
        check(&mut peers, 2, &[], 100, "0 0");
        check(&mut peers, 1, &[0], 100, "0!-");
        check(&mut Peers::new(&[down]), 1, &[], 100, "-");
    }

    #[test]
    fn without_max_fails_nothing_is_remembered() {
        let mut peers = Peers::new(&[upstream(1, 0, 10), upstream(1, 0, 10)]);
        check(&mut peers, 4, &[0], 100, "0!1 1 0!1 1");
    }

    #[test]
    fn tries_are_bounded() {
        let mut peers = Peers::new(&[upstream(1, 1, 10), upstream(1, 1, 10), upstream(1, 1, 10)]);
        let mut round = peers.begin(2);
        assert_eq!(peers.choose(&mut round, 100), Some(0));
        assert!(peers.failed(&mut round, 100));
        assert_eq!(peers.choose(&mut round, 100), Some(1));
        assert!(!peers.failed(&mut round, 100));
    }
}
