//! Turns at something of which there is little: who has lately had many waits for those who have not.
//!
//! The order is that of virtual clocks (L. Zhang, "Virtual Clock: a new traffic control algorithm for packet switching networks", 1990), with the
//! number of turns given as the time: each user has a clock, which a turn puts forward by `SHARE`, and which is never behind the time; turns
//! are given in the order of the clocks. So whoever takes less than one turn in `SHARE` does not wait for those who ask all the time, however
//! many they are. A clock is ahead by `AHEAD_MAX` at most: nobody who comes that many turns later, or after them, passes who waits.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashlink::LinkedHashMap;
use protocol::UserId;
use tokio::sync::oneshot;

/// How far a turn puts a clock forward: one turn in so many is everybody's due.
const SHARE: u64 = 1024;
/// How far a clock may be ahead.
const AHEAD_MAX: u64 = 4 * SHARE;

/// Turns: a fixed number at the same time.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Turns given so far: the time.
    now: u64,
    /// Counts all that ever waited: of two with the same clock, who came first.
    arrivals: u64,
    waiting: BTreeMap<Place, oneshot::Sender<()>>,
    /// The clocks that may be ahead, in the order in which turns were asked for. There are [`AHEAD_MAX`] at most: if more ask, while few turns are given,
    /// the oldest are forgotten.
    clocks: LinkedHashMap<UserId, u64>,
}

/// A place among those who wait: clock and arrival.
type Place = (u64, u64);

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

/// Somebody who waits, and may stop waiting.
struct Waiting<'a> {
    turns: &'a Turns,
    place: Option<Place>,
    /// Lives for as long as the place is in the queue.
    given: oneshot::Receiver<()>,
}

impl Turns {
    /// So many at the same time.
    pub fn new(at_once: usize) -> Self {
        let state = State {
            free: at_once,
            now: 0,
            arrivals: 0,
            waiting: BTreeMap::new(),
            clocks: LinkedHashMap::new(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Waits for a turn. The node itself (`None`) has no clock: its turns come before those of all who have one ahead of the time.
    pub async fn turn(&self, user: Option<UserId>) -> Turn<'_> {
        let mut waiting = {
            let mut state = self.state();
            let clock = state.put_forward(user);
            if state.free > 0 {
                state.free -= 1;
                state.now += 1;
                return Turn(self);
            }
            let place = (clock, state.arrivals);
            state.arrivals += 1;
            let (give, given) = oneshot::channel();
            state.waiting.insert(place, give);
            Waiting { turns: self, place: Some(place), given }
        };
        (&mut waiting.given).await.expect("whoever waits is in the queue until it is given a turn");
        waiting.place = None;
        Turn(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between its changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The clock of somebody who asks for a turn, and puts it forward.
    fn put_forward(&mut self, user: Option<UserId>) -> u64 {
        let Some(user) = user else { return self.now };
        let clock = self.clocks.remove(&user).unwrap_or_default().max(self.now);
        self.clocks.insert(user, (clock + SHARE).min(self.now + AHEAD_MAX));
        while let Some((_, oldest)) = self.clocks.front()
            && (*oldest <= self.now || self.clocks.len() as u64 > AHEAD_MAX)
        {
            self.clocks.pop_front();
        }
        clock
    }

    /// Gives a turn that has become free to the next.
    fn give(&mut self) {
        let Some((_, next)) = self.waiting.pop_first() else {
            self.free += 1;
            return;
        };
        self.now += 1;
        next.send(()).expect("whoever is in the queue listens");
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().give();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut state = self.turns.state();
        // If it is not in the queue any more, it was given a turn that it did not live to take.
        if state.waiting.remove(&place).is_none() {
            state.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    fn user(number: u64) -> Option<UserId> {
        Some(UserId::new(number + 1).unwrap())
    }

    /// Asks for a turn for a user, in the background, and says who has it.
    async fn ask(turns: &Arc<Turns>, all: &mut JoinSet<u64>, order: &Arc<Mutex<Vec<u64>>>, number: u64) {
        let (turns, order) = (Arc::clone(turns), Arc::clone(order));
        all.spawn(async move {
            let _turn = turns.turn(user(number)).await;
            order.lock().unwrap().push(number);
            number
        });
        yield_now().await;
    }

    #[tokio::test]
    async fn there_are_so_many_at_once() {
        let turns = Arc::new(Turns::new(2));
        let first = turns.turn(user(1)).await;
        let _second = turns.turn(user(1)).await;
        let (mut all, order) = (JoinSet::new(), Arc::default());
        ask(&turns, &mut all, &order, 2).await;
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        assert_eq!(all.join_next().await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn of_those_who_ask_for_the_first_time_the_first_is_first() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.turn(None).await;
        let (mut all, order) = (JoinSet::new(), Arc::default());
        for user in [3, 1, 2] {
            ask(&turns, &mut all, &order, user).await;
        }
        drop(held);
        all.join_all().await;
        assert_eq!(*order.lock().unwrap(), [3, 1, 2]);
    }

    #[tokio::test]
    async fn whoever_asks_once_passes_those_who_ask_all_the_time() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.turn(None).await;
        let (mut all, order) = (JoinSet::new(), Arc::default());
        // Each has had one already.
        let (many, once) = (1..=300, 1000);
        for user in many.clone().chain(many.clone()) {
            ask(&turns, &mut all, &order, user).await;
        }
        ask(&turns, &mut all, &order, once).await;
        drop(held);
        all.join_all().await;
        let expected: Vec<u64> = many.clone().chain([once]).chain(many).collect();
        assert_eq!(*order.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn whoever_has_had_many_is_overtaken_for_so_many_turns_and_no_longer() {
        let turns = Turns::new(1);
        let greedy = user(0);
        for _ in 0..100 {
            drop(turns.turn(greedy).await);
        }
        // There is always somebody new who waits as well.
        let mut held = turns.turn(None).await;
        let mut asked = Box::pin(turns.turn(greedy));
        assert!((&mut asked).now_or_never().is_none());
        let mut overtaken = 0;
        for number in 1.. {
            let mut new = Box::pin(turns.turn(user(number)));
            assert!((&mut new).now_or_never().is_none());
            drop(held);
            if (&mut asked).now_or_never().is_some() {
                break;
            }
            held = new.await;
            overtaken += 1;
        }
        assert!((AHEAD_MAX - SHARE..=AHEAD_MAX).contains(&overtaken), "{overtaken}");
    }

    #[tokio::test]
    async fn whoever_stops_waiting_takes_no_turn_from_the_others() {
        let turns = Turns::new(1);
        let held = turns.turn(None).await;
        let mut asked: Vec<_> = (1..=3).map(|number| Box::pin(turns.turn(user(number)))).collect();
        for waiting in &mut asked {
            assert!(waiting.now_or_never().is_none());
        }
        // The second before its turn; the first when it was given it and has not looked yet.
        drop(asked.remove(1));
        drop(held);
        drop(asked.remove(0));
        let third = asked.remove(0).now_or_never().expect("it is the third's turn");
        assert!(turns.turn(None).now_or_never().is_none(), "there is one at a time");
        drop(third);
        assert!(turns.turn(None).now_or_never().is_some());
    }

    #[tokio::test]
    async fn few_clocks_are_kept() {
        let turns = Turns::new(1);
        for number in 0..3 * AHEAD_MAX {
            drop(turns.turn(user(number)).await);
        }
        assert!(turns.state().clocks.len() as u64 <= SHARE);
        // Nobody is given a turn meanwhile.
        let _held = turns.turn(None).await;
        for number in 0..3 * AHEAD_MAX {
            assert!(turns.turn(user(number)).now_or_never().is_none());
        }
        let state = turns.state();
        assert!(state.clocks.len() as u64 <= AHEAD_MAX);
        assert!(state.waiting.is_empty());
    }
}
