//! What is stored: strings and sets, which may expire.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

/// What a key and a member of a set cost beyond their bytes, roughly.
const ITEM_BYTES: usize = 64;

/// A key holds something of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongType;

/// One database.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: BTreeMap<Bytes, Entry>,
    /// What they take, roughly.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    expires: Option<Instant>,
}

#[derive(Debug)]
enum Value {
    Text(Bytes),
    Set(BTreeSet<Bytes>),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Set(members) => members.iter().map(|member| member.len() + ITEM_BYTES).sum(),
        }
    }
}

impl Keys {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn exists(&mut self, key: &[u8], now: Instant) -> bool {
        self.live(key, now).is_some()
    }

    pub(super) fn text(&mut self, key: &[u8], now: Instant) -> Result<Option<Bytes>, WrongType> {
        match self.live(key, now).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(Value::Set(_)) => Err(WrongType),
        }
    }

    /// Whatever was there before.
    pub(super) fn set_text(&mut self, key: &Bytes, text: &Bytes, expires: Option<Instant>) {
        self.remove(key);
        let value = Value::Text(text.clone());
        self.bytes += key.len() + ITEM_BYTES + value.bytes();
        self.entries.insert(key.clone(), Entry { value, expires });
    }

    /// When it expires, if it does; nothing if it is not there.
    pub(super) fn expires(&mut self, key: &[u8], now: Instant) -> Option<Option<Instant>> {
        self.live(key, now).map(|entry| entry.expires)
    }

    /// Whether there was something to expire. In no time, it is removed.
    pub(super) fn expire(&mut self, key: &[u8], after: Option<Duration>, now: Instant) -> bool {
        let Some(entry) = self.live(key, now) else { return false };
        match after {
            None => {
                self.remove(key);
            }
            Some(after) => entry.expires = now.checked_add(after),
        }
        true
    }

    /// Whether it was there.
    pub(super) fn delete(&mut self, key: &[u8], now: Instant) -> bool {
        self.exists(key, now) && self.remove(key)
    }

    pub(super) fn members(
        &mut self,
        key: &[u8],
        now: Instant,
    ) -> Result<Option<&BTreeSet<Bytes>>, WrongType> {
        match self.live(key, now).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Set(members)) => Ok(Some(members)),
            Some(Value::Text(_)) => Err(WrongType),
        }
    }

    /// Returns how many were not in it yet.
    pub(super) fn add(&mut self, key: &Bytes, members: &[Bytes], now: Instant) -> Result<usize, WrongType> {
        if self.live(key, now).is_none() {
            let value = Value::Set(BTreeSet::new());
            self.bytes += key.len() + ITEM_BYTES;
            self.entries.insert(key.clone(), Entry { value, expires: None });
        }
        let Some(Entry { value: Value::Set(set), .. }) = self.entries.get_mut(key) else {
            return Err(WrongType);
        };
        let mut added = 0;
        for member in members {
            if set.insert(member.clone()) {
                added += 1;
                self.bytes += member.len() + ITEM_BYTES;
            }
        }
        Ok(added)
    }

    /// Returns how many were in it.
    pub(super) fn take(&mut self, key: &[u8], members: &[Bytes], now: Instant) -> Result<usize, WrongType> {
        let Some(entry) = self.live(key, now) else { return Ok(0) };
        let Value::Set(set) = &mut entry.value else { return Err(WrongType) };
        let (mut taken, mut bytes) = (0, 0);
        for member in members {
            if set.remove(member) {
                taken += 1;
                bytes += member.len() + ITEM_BYTES;
            }
        }
        let empty = set.is_empty();
        self.bytes -= bytes;
        if empty {
            self.remove(key);
        }
        Ok(taken)
    }

    /// What is there and has not expired.
    fn live(&mut self, key: &[u8], now: Instant) -> Option<&mut Entry> {
        let expires = self.entries.get(key)?.expires;
        if expires.is_some_and(|expires| expires <= now) {
            self.remove(key);
        }
        self.entries.get_mut(key)
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.bytes -= key.len() + ITEM_BYTES + entry.value.bytes();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_not_counted() {
        let now = Instant::now();
        let word = Bytes::from_static;
        let mut keys = Keys::default();
        keys.set_text(&word(b"a"), &word(b"text"), None);
        keys.set_text(&word(b"a"), &word(b"longer text"), None);
        assert_eq!(keys.add(&word(b"a"), &[word(b"x")], now), Err(WrongType));
        assert_eq!(keys.add(&word(b"s"), &[word(b"x"), word(b"y"), word(b"x")], now), Ok(2));
        assert_eq!(keys.take(b"s", &[word(b"x"), word(b"z")], now), Ok(1));
        assert!(keys.bytes() > 0);
        assert!(keys.delete(b"a", now));
        assert_eq!(keys.take(b"s", &[word(b"y")], now), Ok(1));
        assert!(!keys.exists(b"s", now), "an empty set is none");
        assert_eq!(keys.bytes(), 0);
    }

    #[test]
    fn what_has_expired_is_not_there() {
        let now = Instant::now();
        let (key, later) = (Bytes::from_static(b"k"), now + Duration::from_millis(5));
        let mut keys = Keys::default();
        keys.set_text(&key, &key, Some(later));
        assert_eq!(keys.text(&key, now), Ok(Some(key.clone())));
        assert_eq!(keys.text(&key, later), Ok(None));
        assert_eq!(keys.bytes(), 0);
        keys.set_text(&key, &key, None);
        assert!(keys.expire(&key, Some(Duration::from_millis(5)), now));
        assert_eq!(keys.expires(&key, now), Some(Some(later)));
        assert!(!keys.expire(&key, None, later));
    }
}
