//! The sessions that read a feed.

use std::{mem, sync::Arc};

use slab::Slab;

use crate::outbox::Outbox;

/// A local session that reads a feed.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) outbox: Arc<Outbox>,
    /// Whether the session was told and has not looked yet.
    pub(super) signalled: bool,
    /// Whether it may have been pushed what the log no longer has.
    pub(super) cut: bool,
}

/// Readers by their places. Most conversations have the sessions of two users: these need no memory beside the feed's.
#[derive(Debug)]
pub(super) enum Readers {
    Few([Option<Reader>; FEW]),
    Many(Box<Slab<Reader>>),
}

const FEW: usize = 2;

impl Readers {
    /// None.
    pub(super) const NONE: Self = Self::Few([const { None }; FEW]);

    /// Adds one; returns its place.
    pub(super) fn insert(&mut self, reader: Reader) -> u32 {
        let place = match self {
            Self::Few(few) => match few.iter().position(Option::is_none) {
                Some(free) => {
                    few[free] = Some(reader);
                    free
                }
                None => {
                    let mut many: Slab<_> = mem::take(few).into_iter().flatten().enumerate().collect();
                    let place = many.insert(reader);
                    *self = Self::Many(Box::new(many));
                    place
                }
            },
            Self::Many(many) => many.insert(reader),
        };
        u32::try_from(place)
            .expect("there are fewer sessions than connections, and fewer of these than file descriptors")
    }

    /// Removes the one at a place.
    pub(super) fn remove(&mut self, place: u32) -> Option<Reader> {
        match self {
            Self::Few(few) => few.get_mut(place as usize)?.take(),
            Self::Many(many) => {
                let removed = many.try_remove(place as usize);
                if many.is_empty() {
                    *self = Self::NONE;
                }
                removed
            }
        }
    }

    /// The one at a place.
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Reader> {
        match self {
            Self::Few(few) => few.get_mut(place as usize)?.as_mut(),
            Self::Many(many) => many.get_mut(place as usize),
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All, by their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reader> {
        let (few, many): (&[_], _) = match self {
            Self::Few(few) => (few, None),
            Self::Many(many) => (&[], Some(many)),
        };
        few.iter().flatten().chain(many.into_iter().flat_map(|many| many.iter().map(|(_, reader)| reader)))
    }

    /// All, by their places.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reader> {
        let (few, many): (&mut [_], _) = match self {
            Self::Few(few) => (few, None),
            Self::Many(many) => (&mut [], Some(many)),
        };
        few.iter_mut()
            .flatten()
            .chain(many.into_iter().flat_map(|many| many.iter_mut().map(|(_, reader)| reader)))
    }
}

#[cfg(test)]
mod tests {
    use protocol::UserId;

    use super::*;

    fn reader(user: u64) -> Reader {
        Reader { outbox: Outbox::new(UserId::new(user).unwrap()), signalled: false, cut: false }
    }

    fn users(readers: &mut Readers) -> Vec<u64> {
        let users: Vec<_> = readers.iter().map(|reader| reader.outbox.user.number()).collect();
        assert_eq!(readers.iter_mut().map(|reader| reader.outbox.user.number()).collect::<Vec<_>>(), users);
        assert_eq!(readers.is_empty(), users.is_empty());
        users
    }

    #[test]
    fn everybody_keeps_a_place() {
        let mut readers = Readers::NONE;
        assert_eq!(users(&mut readers), [0; 0]);
        let places: Vec<_> = (1..=5).map(|user| readers.insert(reader(user))).collect();
        assert_eq!(users(&mut readers), [1, 2, 3, 4, 5]);
        for (place, user) in places.iter().zip(1..) {
            assert_eq!(readers.get_mut(*place).map(|reader| reader.outbox.user.number()), Some(user));
        }
        assert_eq!(readers.remove(places[1]).map(|reader| reader.outbox.user.number()), Some(2));
        assert!(readers.remove(places[1]).is_none() && readers.get_mut(places[1]).is_none());
        assert_eq!(readers.insert(reader(6)), places[1], "a free place is taken again");
        for place in places {
            assert!(readers.remove(place).is_some());
        }
        assert_eq!(users(&mut readers), [0; 0]);
        let (first, second) = (readers.insert(reader(7)), readers.insert(reader(8)));
        assert!(readers.remove(first).is_some() && readers.get_mut(first).is_none());
        assert_eq!(users(&mut readers), [8]);
        assert!(readers.get_mut(9).is_none() && readers.remove(9).is_none());
        assert_eq!((readers.insert(reader(9)), users(&mut readers)), (first, vec![9, 8]));
        assert!(readers.remove(second).is_some());
    }
}
