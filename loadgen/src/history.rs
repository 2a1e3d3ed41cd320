//! The record of a run: who asked what and was answered what, what each device was shown, and what was done
//! to the system.
//!
//! Times and indexes are the observer's. An invocation is recorded before its request leaves, an outcome
//! after its reply has come; so what the record calls earlier really was earlier, and what overlapped in it
//! may have happened in any order.

mod file;
mod recorder;

use std::time::Duration;

use protocol::{
    ClientMsgId, ConversationId, Entry, ErrorCode, GroupId, Seq, UserId,
    message::{Friend, GroupInfo, MemberInfo, PresenceState},
};
use serde::{Deserialize, Serialize};

pub use self::recorder::Recorder;

/// The place of an event in its history.
pub type Index = usize;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// What the run promises as to time.
    pub bounds: Bounds,
    /// In the order in which they were recorded; an event's index is its place here.
    pub events: Vec<Event>,
}

/// How long things may take after the faults have stopped (SPEC.md, section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Until a device has been shown what there is.
    #[serde(with = "micros")]
    pub delivery: Duration,
    /// Until every node shows who is online.
    #[serde(with = "micros")]
    pub presence: Duration,
    /// Until a request has a final answer.
    #[serde(with = "micros")]
    pub operation: Duration,
    /// Whether the nodes share a relay, so that `unknown` is no answer to who is online.
    pub presence_is_shared: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // The stated bound, and the client's longest pause between two attempts to connect.
            delivery: Duration::from_secs(70),
            // A silent client is taken for gone after 90 s; that is longer than any lease.
            presence: Duration::from_secs(100),
            // As long as the client library goes on repeating a request.
            operation: Duration::from_secs(60),
            presence_is_shared: true,
        }
    }
}

/// One running client: a user can have several, and nothing of it outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u32);

/// One request of an application, with all the repetitions that the client library makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the recorder was made.
    #[serde(with = "micros")]
    pub at: Duration,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A device was made.
    Started {
        /// Which.
        device: DeviceId,
        /// Whose; nobody's if it only registers.
        user: Option<UserId>,
    },
    /// A device is gone, with the cursors it had.
    Ended {
        /// Which.
        device: DeviceId,
    },
    /// A device was gone at once. What it had asked has no outcome that anybody saw.
    Crashed {
        /// Which.
        device: DeviceId,
    },
    /// A server has greeted the device.
    Connected {
        /// Which.
        device: DeviceId,
    },
    /// The device's connection is gone.
    Disconnected {
        /// Which.
        device: DeviceId,
    },
    /// The device's session goes on, on a new connection.
    Resumed {
        /// Which.
        device: DeviceId,
    },
    /// The device was told that it is up to date with what there was at its login.
    CaughtUp {
        /// Which.
        device: DeviceId,
    },
    /// The device was told that a conversation cannot be delivered further.
    Lost {
        /// Which.
        device: DeviceId,
        /// Of what.
        conv: ConversationId,
        /// The last entry there was.
        after: Seq,
    },
    /// A request is about to leave.
    Invoked {
        /// Named so in [`What::Returned`].
        operation: OperationId,
        /// From where.
        device: DeviceId,
        /// What is asked.
        call: Call,
    },
    /// Its outcome. An operation without one is like one whose outcome is unknown.
    Returned {
        /// Of which.
        operation: OperationId,
        /// What became of it.
        outcome: Outcome,
    },
    /// An entry was shown on a device.
    Entry {
        /// Where.
        device: DeviceId,
        /// What.
        entry: Box<Entry>,
    },
    /// A device was told somebody's state unasked.
    Presence {
        /// Who was told.
        device: DeviceId,
        /// Whose.
        user: UserId,
        /// Which.
        state: PresenceState,
    },
    /// The canary of a conversation was seen among the bytes that a device received.
    Canary {
        /// Where.
        device: DeviceId,
        /// Whose words.
        conv: ConversationId,
    },
    /// Something is being done to the system.
    FaultBegan {
        /// For people.
        name: String,
    },
    /// It is over.
    FaultEnded {
        /// As it began.
        name: String,
    },
    /// No fault is at work from here on.
    Healed,
    /// How much of something a node held.
    Memory {
        /// Which node.
        node: String,
        /// Of what.
        gauge: String,
        /// How much.
        amount: u64,
        /// How much it may be.
        bound: u64,
    },
    /// What the store shows a user of a conversation at the end, read to its beginning.
    Final {
        /// Who read.
        user: UserId,
        /// What.
        conv: ConversationId,
        /// In ascending order.
        entries: Vec<Entry>,
    },
    /// What the store lists for a user at the end.
    FinalLists {
        /// Whose.
        user: UserId,
        /// Groups they are in.
        groups: Vec<GroupId>,
        /// Users who are friends.
        friends: Vec<UserId>,
        /// Users they have blocked.
        blocked: Vec<UserId>,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in SPEC.md, section 4")]
pub enum Call {
    Register { mid: ClientMsgId, name: String },
    Login,
    Logout,
    Befriend { mid: ClientMsgId, user: UserId },
    Unfriend { mid: ClientMsgId, user: UserId },
    Block { mid: ClientMsgId, user: UserId },
    Unblock { mid: ClientMsgId, user: UserId },
    CreateGroup { mid: ClientMsgId, name: String },
    Join { mid: ClientMsgId, group: GroupId },
    Quit { mid: ClientMsgId, group: GroupId },
    DeleteGroup { mid: ClientMsgId, group: GroupId },
    RemoveMember { mid: ClientMsgId, group: GroupId, user: UserId },
    Send { mid: ClientMsgId, conv: ConversationId, text: String },
    History { conv: ConversationId, before: Option<Seq>, limit: Option<u32> },
    Friends,
    Groups,
    Members { group: GroupId },
}

impl Call {
    /// The idempotency key of what changes something.
    pub fn mid(&self) -> Option<ClientMsgId> {
        match self {
            Self::Register { mid, .. }
            | Self::Befriend { mid, .. }
            | Self::Unfriend { mid, .. }
            | Self::Block { mid, .. }
            | Self::Unblock { mid, .. }
            | Self::CreateGroup { mid, .. }
            | Self::Join { mid, .. }
            | Self::Quit { mid, .. }
            | Self::DeleteGroup { mid, .. }
            | Self::RemoveMember { mid, .. }
            | Self::Send { mid, .. } => Some(*mid),
            Self::Login
            | Self::Logout
            | Self::History { .. }
            | Self::Friends
            | Self::Groups
            | Self::Members { .. } => None,
        }
    }

    /// The log that it writes to, asked by `user`; of a new group, the reply says.
    pub fn target(&self, user: UserId) -> Option<ConversationId> {
        match self {
            Self::Befriend { user: peer, .. }
            | Self::Unfriend { user: peer, .. }
            | Self::Block { user: peer, .. }
            | Self::Unblock { user: peer, .. } => ConversationId::direct(user, *peer),
            Self::Join { group, .. }
            | Self::Quit { group, .. }
            | Self::DeleteGroup { group, .. }
            | Self::RemoveMember { group, .. } => Some(ConversationId::group(*group)),
            Self::Send { conv, .. } => Some(*conv),
            _ => None,
        }
    }
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Ok {
        /// What was answered.
        reply: Reply,
    },
    /// It did not happen and will not.
    Failed {
        /// Why; absent if it was never sent.
        code: Option<ErrorCode>,
    },
    /// It may have happened.
    Unknown,
}

/// What an operation that was carried out was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in SPEC.md, section 4")]
pub enum Reply {
    Done,
    Registered { user: UserId },
    LoggedIn { user: UserId },
    Appended { seq: Seq },
    GroupCreated { group: GroupId, seq: Seq },
    Friends { friends: Vec<Friend> },
    Groups { groups: Vec<GroupInfo> },
    Members { members: Vec<MemberInfo> },
    History { entries: Vec<Entry>, more: bool },
}

/// Durations as whole microseconds, so that a history's lines are short and exact.
pub(crate) mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
