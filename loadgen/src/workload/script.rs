//! What a workload is to do, as a list: a value from which anything can be removed.
//!
//! Every operation says all that it needs: who, when, and what, in names that keep their meaning whatever else
//! is in the list. A user is the place in the list of users, a group the label that its creation gave it.
//! What refers to something that never came to be is skipped. So a list that shows a failure can be made
//! shorter, an operation at a time.

mod generate;

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::generate::{Shape, generate};

/// Something that one session of one user does.
///
/// A session does its operations one after the other, in the order of their times and then of the list, each
/// not before its time; operations of different sessions overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Since the operations began.
    #[serde(rename = "at_ms", with = "millis")]
    pub at: Duration,
    /// The place of the user among all; skipped if there is none.
    pub user: usize,
    /// Which of the user's sessions; skipped if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub session: usize,
    /// What.
    pub what: Action,
}

/// What a session does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Sends a message.
    Send {
        /// Where.
        to: Place,
        /// The text is at least so long.
        #[serde(default, skip_serializing_if = "is_zero")]
        text_bytes: usize,
    },
    /// Sends several messages without waiting for their answers.
    Burst {
        /// Where.
        to: Place,
        /// How many; [`BURST_MAX`] at most.
        count: usize,
    },
    /// Asks once more for something that the user asked for before, with the same message id.
    Repeat {
        /// How many of the user's requests are more recent.
        back: usize,
    },
    /// Reads a page of a log.
    History {
        /// Whose.
        of: Place,
        /// Entries below this one; absent: the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// As many at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Lists the friends.
    Friends,
    /// Lists the groups.
    Groups,
    /// Lists the members of a group.
    Members {
        /// Its label.
        group: u32,
    },
    /// Befriends a user.
    Befriend {
        /// Whom.
        user: usize,
    },
    /// Ends a friendship.
    Unfriend {
        /// With whom.
        user: usize,
    },
    /// Blocks a user.
    Block {
        /// Whom.
        user: usize,
    },
    /// Ends a block.
    Unblock {
        /// Of whom.
        user: usize,
    },
    /// Creates a group.
    CreateGroup {
        /// Its label from now on. The first group of a label keeps it.
        group: u32,
    },
    /// Joins a group.
    Join {
        /// Its label.
        group: u32,
    },
    /// Leaves a group.
    Quit {
        /// Its label.
        group: u32,
    },
    /// Deletes a group.
    DeleteGroup {
        /// Its label.
        group: u32,
    },
    /// Removes a member of a group.
    RemoveMember {
        /// Its label.
        group: u32,
        /// Whom.
        user: usize,
    },
    /// The device ends in good order, and a new one logs in.
    Reconnect {
        /// Whether it logs out first.
        #[serde(default, skip_serializing_if = "is_false")]
        logout: bool,
        /// How long there is none.
        #[serde(rename = "away_ms", with = "millis")]
        away: Duration,
    },
    /// The device is gone at once, and a new one logs in. It does not wait for what the session has asked
    /// before: the outcome of that is unknown.
    Crash {
        /// How long there is none.
        #[serde(rename = "away_ms", with = "millis")]
        away: Duration,
    },
    /// All devices of the user are gone at once, and new ones log in as soon as they can.
    Storm,
    /// The device takes nothing from its connection.
    Stall {
        /// For how long.
        #[serde(rename = "lasting_ms", with = "millis")]
        lasting: Duration,
    },
}

/// The most messages of a [`Action::Burst`]: fewer than a client has requests in flight.
pub const BURST_MAX: usize = 64;

/// A conversation, as the user sees it who does something there. Written `direct 3`, `group 1`, `hot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// With another user, by the place among all.
    Direct(usize),
    /// Of a group, by its label.
    Group(u32),
    /// Where the user was shown last that rights have changed; nowhere, if they never did.
    Hot,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(user) => write!(f, "direct {user}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Hot => f.write_str("hot"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = match text.split_once(' ') {
            Some(("direct", user)) => user.parse().ok().map(Self::Direct),
            Some(("group", group)) => group.parse().ok().map(Self::Group),
            None if text == "hot" => Some(Self::Hot),
            _ => None,
        };
        place.ok_or_else(|| format!("{text:?} is no place: direct USER, group LABEL, hot"))
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Durations as whole milliseconds, so that people can read a script.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64, user: usize, what: Action) -> Operation {
        Operation { at: Duration::from_millis(at), user, session: 0, what }
    }

    #[test]
    fn people_can_read_it() {
        let script = [
            at(0, 1, Action::CreateGroup { group: 7 }),
            at(1500, 0, Action::Send { to: Place::Direct(3), text_bytes: 0 }),
            Operation { session: 2, ..at(1500, 0, Action::Friends) },
            at(2000, 4, Action::Crash { away: Duration::from_millis(30) }),
        ];
        let text = script.map(|operation| serde_json::to_string(&operation).unwrap());
        assert_eq!(
            text,
            [
                r#"{"at_ms":0,"user":1,"what":{"create_group":{"group":7}}}"#,
                r#"{"at_ms":1500,"user":0,"what":{"send":{"to":"direct 3"}}}"#,
                r#"{"at_ms":1500,"user":0,"session":2,"what":"friends"}"#,
                r#"{"at_ms":2000,"user":4,"what":{"crash":{"away_ms":30}}}"#,
            ]
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for seed in 0..50 {
            let script = generate(seed, &Shape { operations: 200, ..Shape::default() });
            let text = serde_json::to_string(&script).unwrap();
            assert_eq!(serde_json::from_str::<Vec<Operation>>(&text).unwrap(), script);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text: &str| serde_json::from_str::<Operation>(text).unwrap_err().to_string();
        assert!(wrong(r#"{"at_ms":0,"user":1,"what":"dance"}"#).contains("unknown variant"));
        assert!(wrong(r#"{"at_ms":0,"user":1,"what":"storm","wen":1}"#).contains("unknown field"));
        let place = wrong(r#"{"at_ms":0,"user":1,"what":{"send":{"to":"gruop 1"}}}"#);
        assert!(place.contains("is no place"), "{place}");
        for text in ["", "direct", "direct ", "direct -1", "group 1 2", "group x", "hot 1", "Hot"] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }
}
