//! Ids: small copyable newtypes whose text forms are those of the wire.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::clock::Entropy;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseIdError {
    /// Not a number in the id's range.
    #[error("a number from 1 to {max}")]
    Number {
        /// The highest number allowed.
        max: u64,
    },
    /// Not a conversation id.
    #[error("a conversation such as d1-2, g7 or u1")]
    Conversation,
    /// Not so many hexadecimal digits.
    #[error("{digits} hexadecimal digits")]
    Hex {
        /// How many digits it takes.
        digits: usize,
    },
}

/// A user's account number: 1 to [`UserId::MAX`], never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UserId(u32);

impl UserId {
    /// The highest account number: two of them fit into a conversation's key.
    pub const MAX: u32 = (1 << 31) - 1;

    /// The account with this number, if it is in range.
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= Self::MAX as u64 { Some(Self(number as u32)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0 as u64
    }
}

/// A group's number: 1 to [`GroupId::MAX`], never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct GroupId(u64);

impl GroupId {
    /// The highest group number; exact in every JSON implementation.
    pub const MAX: u64 = (1 << 53) - 1;

    /// The group with this number, if it is in range.
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a conversation is: the parsed form of a [`ConversationId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conversation {
    /// Of two users, the lower number first.
    Direct(UserId, UserId),
    /// Of a group.
    Group(GroupId),
    /// A user's own notices.
    Notices(UserId),
}

/// A conversation's key, as stored: one positive 63-bit number.
///
/// Bit 62 set: direct, with the lower user in bits 31 to 61 and the higher in bits 0 to 30. Bit 61 set: a
/// group. Neither: a user's notices. So a direct conversation's id is a function of its two users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(i64);

const DIRECT: i64 = 1 << 62;
const GROUP: i64 = 1 << 61;

impl ConversationId {
    /// The direct conversation of two users; none with oneself.
    pub fn direct(a: UserId, b: UserId) -> Option<Self> {
        let (low, high) = (a.min(b), a.max(b));
        (low != high).then_some(Self(DIRECT | (i64::from(low.0) << 31) | i64::from(high.0)))
    }

    /// A group's conversation.
    pub const fn group(group: GroupId) -> Self {
        Self(GROUP | group.0 as i64)
    }

    /// A user's notices.
    pub const fn notices(user: UserId) -> Self {
        Self(user.0 as i64)
    }

    /// The stored key.
    pub const fn key(self) -> i64 {
        self.0
    }

    /// From a stored key; `None` if no conversation has it.
    pub fn from_key(key: i64) -> Option<Self> {
        let user = |bits: i64| UserId::new((bits & i64::from(UserId::MAX)) as u64);
        let same = if key & DIRECT != 0 {
            Self::direct(user(key >> 31)?, user(key)?)?
        } else if key & GROUP != 0 {
            Self::group(GroupId::new((key & !GROUP) as u64)?)
        } else {
            Self::notices(UserId::new(u64::try_from(key).ok()?)?)
        };
        (same.0 == key).then_some(same)
    }

    /// What it is.
    pub fn parse(self) -> Conversation {
        let user = |bits: i64| UserId((bits & i64::from(UserId::MAX)) as u32);
        if self.0 & DIRECT != 0 {
            Conversation::Direct(user(self.0 >> 31), user(self.0))
        } else if self.0 & GROUP != 0 {
            Conversation::Group(GroupId((self.0 & !GROUP) as u64))
        } else {
            Conversation::Notices(user(self.0))
        }
    }

    /// The other user of a direct conversation that `user` is one of.
    pub fn peer_of(self, user: UserId) -> Option<UserId> {
        match self.parse() {
            Conversation::Direct(a, b) if a == user => Some(b),
            Conversation::Direct(a, b) if b == user => Some(a),
            _ => None,
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Conversation::Direct(a, b) => write!(f, "d{a}-{b}"),
            Conversation::Group(group) => write!(f, "g{group}"),
            Conversation::Notices(user) => write!(f, "u{user}"),
        }
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConversationId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let (kind, rest) = text.split_at_checked(1)?;
            let id = match kind {
                "d" => {
                    let (a, b) = rest.split_once('-')?;
                    Self::direct(a.parse().ok()?, b.parse().ok()?)?
                }
                "g" => Self::group(rest.parse().ok()?),
                "u" => Self::notices(rest.parse().ok()?),
                _ => return None,
            };
            // One text for each id: "d2-1", "g007" and "g+7" are none.
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or(ParseIdError::Conversation)
    }
}

/// A position in a conversation's log: 1, 2, 3 …; 0 stands before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Seq = Seq(0);

    /// The next position.
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The position before, or [`Seq::ZERO`].
    pub const fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

/// A request's id, chosen by the client and repeated in the reply.
pub type RequestId = u64;

/// The sender's idempotency key: 16 random bytes, compared bytewise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientMsgId(pub [u8; 16]);

impl ClientMsgId {
    /// A fresh one.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        Self(bytes)
    }
}

/// A session's resume token: 32 random bytes. Its `Debug` form hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 32]);

impl Token {
    /// A fresh one.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (at, byte) in bytes.iter().enumerate() {
        text[2 * at] = DIGITS[usize::from(byte >> 4)];
        text[2 * at + 1] = DIGITS[usize::from(byte & 15)];
    }
    f.write_str(std::str::from_utf8(&text[..2 * bytes.len()]).map_err(|_| fmt::Error)?)
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return Err(ParseIdError::Hex { digits: 2 * N });
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])
            .zip(digit(pair[1]))
            .map(|(high, low)| high << 4 | low)
            .ok_or(ParseIdError::Hex { digits: 2 * N })?;
    }
    Ok(bytes)
}

impl fmt::Display for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for ClientMsgId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Token {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text).map(Self)
    }
}

fn parse_digits(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_digits(text).and_then(Self::new).ok_or(ParseIdError::Number { max: u64::from(Self::MAX) })
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GroupId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_digits(text).and_then(Self::new).ok_or(ParseIdError::Number { max: Self::MAX })
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<UserId> for u64 {
    fn from(id: UserId) -> u64 {
        id.number()
    }
}

impl TryFrom<u64> for UserId {
    type Error = ParseIdError;
    fn try_from(number: u64) -> Result<Self, ParseIdError> {
        Self::new(number).ok_or(ParseIdError::Number { max: u64::from(Self::MAX) })
    }
}

impl From<GroupId> for u64 {
    fn from(id: GroupId) -> u64 {
        id.number()
    }
}

impl TryFrom<u64> for GroupId {
    type Error = ParseIdError;
    fn try_from(number: u64) -> Result<Self, ParseIdError> {
        Self::new(number).ok_or(ParseIdError::Number { max: Self::MAX })
    }
}

/// Reads an id from a string without copying it.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = ParseIdError>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl Serialize for ConversationId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConversationId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(PhantomData))
    }
}

impl Serialize for ClientMsgId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientMsgId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(PhantomData))
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_text_for_each_conversation() {
        for good in ["d1-2", "d1-2147483647", "g1", "g9007199254740991", "u1"] {
            let id: ConversationId = good.parse().unwrap();
            assert_eq!(id.to_string(), good);
            assert_eq!(ConversationId::from_key(id.key()), Some(id));
        }
        for bad in [
            "",
            "d",
            "d1",
            "d2-1",
            "d1-1",
            "d0-1",
            "d1-2147483648",
            "g0",
            "g-1",
            "g+1",
            "g01",
            "u",
            "u0",
            "x1",
            "d1-2-3",
            " g1",
            "é1",
            "g9007199254740992",
        ] {
            assert_eq!(bad.parse::<ConversationId>(), Err(ParseIdError::Conversation), "{bad}");
        }
    }

    #[test]
    fn hexadecimal_ids_have_one_length() {
        let text = "00ff00000000000000000000000000aB";
        assert_eq!(text.parse::<ClientMsgId>().unwrap().to_string(), text.to_lowercase());
        assert!(text[1..].parse::<ClientMsgId>().is_err());
        assert!("é".repeat(16).parse::<ClientMsgId>().is_err());
    }

    proptest! {
        #[test]
        fn keys_round_trip(a in 1..=u64::from(UserId::MAX), b in 1..=u64::from(UserId::MAX), g in 1..=GroupId::MAX) {
            let (a, b) = (UserId::new(a).unwrap(), UserId::new(b).unwrap());
            let ids = [
                ConversationId::direct(a, b),
                Some(ConversationId::notices(a)),
                GroupId::new(g).map(ConversationId::group),
            ];
            for id in ids.into_iter().flatten() {
                prop_assert!(id.key() > 0);
                prop_assert_eq!(ConversationId::from_key(id.key()), Some(id));
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
            if a != b {
                let id = ConversationId::direct(a, b).unwrap();
                prop_assert_eq!(id.peer_of(a), Some(b));
                prop_assert_eq!(id.peer_of(b), Some(a));
            }
        }

        #[test]
        fn any_key_is_a_conversation_or_none(key: i64) {
            if let Some(id) = ConversationId::from_key(key) {
                prop_assert_eq!(id.key(), key);
            }
        }
    }
}
