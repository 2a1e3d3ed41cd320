//! What all connections together hold for clients that do not take their part: replies and pushes that were not read, lines that do not end.
//!
//! Each connection is bounded by itself, but thousands of them hold thousands of times as much. When all hold more than there may be, those that
//! have held something for longest are ended: they resume when they can read, and lose nothing. Who reads what they ask for is never among the
//! oldest for long.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// What one connection holds is looked at from so many bytes on: most never reach it.
const SHARE_BYTES_MIN: usize = 16 << 10;

/// The connections that hold something, in the order in which they began to.
pub struct Backlog {
    bytes_max: usize,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    next: u64,
    bytes: usize,
    by_age: BTreeMap<u64, Holder>,
}

struct Holder {
    bytes: usize,
    ended: CancellationToken,
}

impl Backlog {
    /// Nobody holds anything, and all together may hold so much.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, holders: Mutex::default() })
    }

    /// For a connection.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { backlog: Arc::clone(self), place: None }
    }

    /// What is held, and what may be.
    pub fn sizes(&self) -> (usize, usize) {
        (self.lock().bytes, self.bytes_max)
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    fn remove(&mut self, place: u64) {
        if let Some(holder) = self.by_age.remove(&place) {
            self.bytes -= holder.bytes;
        }
    }

    /// Ends the oldest, until the others hold no more than there may be.
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.bytes -= oldest.bytes;
            oldest.ended.cancel();
        }
    }
}

/// What one connection holds.
pub struct Share {
    backlog: Arc<Backlog>,
    /// Among the holders, if it is one or was ended as one.
    place: Option<Place>,
}

struct Place {
    number: u64,
    ended: CancellationToken,
}

impl Share {
    /// The connection holds so much now.
    pub fn set(&mut self, bytes: usize) {
        if bytes < SHARE_BYTES_MIN {
            self.give_back();
            return;
        }
        let mut holders = self.backlog.lock();
        let holders = &mut *holders;
        let place = self.place.get_or_insert_with(|| {
            holders.next += 1;
            Place { number: holders.next, ended: CancellationToken::new() }
        });
        if place.ended.is_cancelled() {
            return;
        }
        let made = || Holder { bytes: 0, ended: place.ended.clone() };
        let holder = holders.by_age.entry(place.number).or_insert_with(made);
        holders.bytes = holders.bytes - holder.bytes + bytes;
        holder.bytes = bytes;
        holders.shrink(self.backlog.bytes_max);
    }

    /// Resolves when the connection is to end, since all hold too much and it has for longest; `None` while it holds nothing.
    pub fn ended(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let ended = self.place.as_ref()?.ended.clone();
        Some(Box::pin(ended.cancelled_owned()))
    }

    fn give_back(&mut self) {
        if let Some(place) = self.place.take() {
            self.backlog.lock().remove(place.number);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    /// Plays `shares` of (who, KiB) against a bound of 100 KiB; who is ended, and what is held at the end.
    #[track_caller]
    fn check(shares: &[(usize, usize)], ended: &[usize], held: usize) {
        let backlog = Backlog::new(100 * KIB);
        let mut all: Vec<Share> = (0..5).map(|_| backlog.share()).collect();
        for (who, kib) in shares {
            all[*who].set(kib * KIB);
        }
        let found: Vec<usize> = (0..5)
            .filter(|who| all[*who].place.as_ref().is_some_and(|place| place.ended.is_cancelled()))
            .collect();
        assert_eq!((found.as_slice(), backlog.sizes().0), (ended, held * KIB), "{shares:?}");
        drop(all);
        assert_eq!(backlog.sizes().0, 0);
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_need_be() {
        check(&[(0, 60), (1, 40)], &[], 100);
        check(&[(0, 60), (1, 41)], &[0], 41);
        check(&[(0, 20), (1, 60), (2, 40)], &[0], 100);
        check(&[(0, 20), (1, 60), (2, 70)], &[0, 1], 70);
        // Who has read all is young again.
        check(&[(0, 60), (1, 40), (0, 0), (0, 20), (2, 60)], &[1], 80);
        // Who grows keeps its age.
        check(&[(0, 40), (1, 40), (0, 70)], &[0], 40);
        // Little is not looked at.
        check(&[(0, 15), (1, 95)], &[], 95);
        // What is too much by itself goes.
        check(&[(0, 101)], &[0], 0);
        // Who is ended and not yet gone counts no more.
        check(&[(0, 101), (0, 90), (1, 90)], &[0], 90);
    }
}
