//! Who may do what in a conversation, as of an entry of its log. Pure: a fold over the log's rights entries.

use std::{collections::BTreeMap, fmt};

use protocol::{Conversation, ConversationId, EntryBody, ErrorCode, UserId, message::Role};
use serde::{Deserialize, Serialize};

use crate::store::TokenHash;

/// The rights in one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Of two users.
    Direct(DirectRights),
    /// Of a group.
    Group(GroupRights),
    /// A user's own notices: nobody sends there.
    Notices,
}

/// Friendship and blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectRights {
    /// Whether the two are friends.
    pub friends: bool,
    /// Whether the user with the lower number has blocked the other.
    pub low_blocks: bool,
    /// Whether the user with the higher number has blocked the other.
    pub high_blocks: bool,
}

/// Membership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRights {
    /// The group's name; empty of one that never was.
    pub title: String,
    /// Empty of a group that never was or was deleted.
    pub members: BTreeMap<UserId, Role>,
}

/// What a user does to a conversation, other than sending to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Direct.
    Befriend,
    /// Direct.
    Unfriend,
    /// Direct.
    Block,
    /// Direct.
    Unblock,
    /// Group.
    Join,
    /// Group.
    Quit,
    /// Group.
    Delete,
    /// Group: `user`, with their name.
    Remove {
        /// Whom.
        user: UserId,
        /// Their name.
        user_name: String,
    },
    /// Notices, of one's own: another password.
    ChangePassword(NewPassword),
    /// Notices, of one's own: another name, and a password that nobody knows.
    LockAccount(Lock),
    /// Notices: an operator ends all sessions; the password's hash may be another one, or locked.
    EndSessions(NewPassword),
}

/// A password to be set. Its `Debug` form hides the hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPassword {
    /// The hash of the password so far: if it is another one by now, nothing is changed.
    pub verified: String,
    /// The new one's.
    pub hash: String,
    /// The token of the session that asks: the only one that stays, and if it does not exist any more, nothing is changed. An operator
    /// has none, and none stays.
    pub token: Option<TokenHash>,
}

/// How an account is locked for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its name from now on.
    pub name: String,
    /// What names are compared by.
    pub name_key: String,
    /// The hash of its password.
    pub hash: String,
}

impl fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewPassword(..)")
    }
}

impl Act {
    /// Whether an entry is what this act, tried before, led to.
    pub fn led_to(&self, body: &EntryBody) -> bool {
        match (self, body) {
            (Self::Befriend, EntryBody::Befriended)
            | (Self::Unfriend, EntryBody::Unfriended)
            | (Self::Block, EntryBody::Blocked)
            | (Self::Unblock, EntryBody::Unblocked)
            | (Self::Join, EntryBody::Joined)
            | (Self::Quit, EntryBody::Left | EntryBody::Deleted)
            | (Self::Delete, EntryBody::Deleted)
            // The passwords are not compared: neither of them is kept.
            | (Self::ChangePassword(_) | Self::LockAccount(_), EntryBody::PasswordChanged)
            | (Self::EndSessions(_), EntryBody::SessionsEnded) => true,
            (Self::Remove { user, .. }, EntryBody::Removed { user: removed, .. }) => user == removed,
            _ => false,
        }
    }
}

impl Rights {
    /// The rights before the first entry.
    pub fn empty(conv: ConversationId) -> Self {
        match conv.parse() {
            Conversation::Direct(..) => Self::Direct(DirectRights::default()),
            Conversation::Group(_) => Self::Group(GroupRights::default()),
            Conversation::Notices(_) => Self::Notices,
        }
    }

    /// Takes an entry of the log into account.
    pub fn apply(&mut self, conv: ConversationId, from: UserId, body: &EntryBody) {
        match self {
            Self::Direct(direct) => direct.apply(conv, from, body),
            Self::Group(group) => group.apply(from, body),
            Self::Notices => {}
        }
    }

    /// Whether `user` may send a message to `conv`, whose rights these are.
    ///
    /// # Errors
    /// Why not.
    pub fn may_send(&self, conv: ConversationId, user: UserId) -> Result<(), ErrorCode> {
        match self {
            Self::Direct(direct) => match direct.blocked_by_peer(conv, user)? {
                true => Err(ErrorCode::Blocked),
                false if direct.friends => Ok(()),
                false => Err(ErrorCode::NotFriends),
            },
            Self::Group(group) => group.role(user).map(|_| ()),
            Self::Notices => Err(ErrorCode::NoSuchConversation),
        }
    }

    /// Whether `user` may do `act`, and what is then written to the log.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, conv: ConversationId, user: UserId, act: &Act) -> Result<EntryBody, ErrorCode> {
        match self {
            Self::Direct(direct) => direct.check(conv, user, act),
            Self::Group(group) => group.check(user, act),
            Self::Notices => match (conv.parse(), act) {
                (Conversation::Notices(owner), Act::ChangePassword(_) | Act::LockAccount(_))
                    if owner == user =>
                {
                    Ok(EntryBody::PasswordChanged)
                }
                (Conversation::Notices(owner), Act::EndSessions(_)) if owner == user => {
                    Ok(EntryBody::SessionsEnded)
                }
                _ => Err(ErrorCode::NoSuchConversation),
            },
        }
    }
}

impl DirectRights {
    /// Whether the other user of `conv` has blocked `user`.
    fn blocked_by_peer(&self, conv: ConversationId, user: UserId) -> Result<bool, ErrorCode> {
        match conv.parse() {
            Conversation::Direct(low, _) if low == user => Ok(self.high_blocks),
            Conversation::Direct(_, high) if high == user => Ok(self.low_blocks),
            _ => Err(ErrorCode::NoSuchConversation),
        }
    }

    fn blocks(&mut self, conv: ConversationId, user: UserId) -> &mut bool {
        match conv.parse() {
            Conversation::Direct(low, _) if low == user => &mut self.low_blocks,
            _ => &mut self.high_blocks,
        }
    }

    fn apply(&mut self, conv: ConversationId, from: UserId, body: &EntryBody) {
        match body {
            EntryBody::Befriended => self.friends = true,
            EntryBody::Unfriended => self.friends = false,
            EntryBody::Blocked => *self.blocks(conv, from) = true,
            EntryBody::Unblocked => *self.blocks(conv, from) = false,
            _ => {}
        }
    }

    fn check(mut self, conv: ConversationId, user: UserId, act: &Act) -> Result<EntryBody, ErrorCode> {
        let blocked_by_peer = self.blocked_by_peer(conv, user)?;
        let blocks = *self.blocks(conv, user);
        match act {
            Act::Befriend if self.friends => Err(ErrorCode::AlreadyFriends),
            Act::Befriend if blocked_by_peer => Err(ErrorCode::Blocked),
            Act::Befriend => Ok(EntryBody::Befriended),
            Act::Unfriend if self.friends => Ok(EntryBody::Unfriended),
            Act::Unfriend => Err(ErrorCode::NotFriends),
            Act::Block if blocks => Err(ErrorCode::AlreadyBlocked),
            Act::Block => Ok(EntryBody::Blocked),
            Act::Unblock if blocks => Ok(EntryBody::Unblocked),
            Act::Unblock => Err(ErrorCode::NotBlocked),
            _ => Err(ErrorCode::NoSuchGroup),
        }
    }
}

impl GroupRights {
    /// A member's role.
    fn role(&self, user: UserId) -> Result<Role, ErrorCode> {
        if self.members.is_empty() {
            return Err(ErrorCode::NoSuchGroup);
        }
        self.members.get(&user).copied().ok_or(ErrorCode::NotMember)
    }

    fn apply(&mut self, from: UserId, body: &EntryBody) {
        match body {
            EntryBody::Created { title } => {
                self.title.clone_from(title);
                self.members.insert(from, Role::Creator);
            }
            EntryBody::Joined => {
                self.members.insert(from, Role::Member);
            }
            EntryBody::Left => {
                self.members.remove(&from);
            }
            EntryBody::Removed { user, .. } => {
                self.members.remove(user);
            }
            EntryBody::Deleted => self.members.clear(),
            _ => {}
        }
    }

    fn check(&self, user: UserId, act: &Act) -> Result<EntryBody, ErrorCode> {
        match (self.role(user), act) {
            (Ok(_), Act::Join) => Err(ErrorCode::AlreadyMember),
            (Err(ErrorCode::NotMember), Act::Join) => Ok(EntryBody::Joined),
            (Err(code), _) => Err(code),
            (Ok(Role::Creator), Act::Quit | Act::Delete) => Ok(EntryBody::Deleted),
            (Ok(Role::Member), Act::Quit) => Ok(EntryBody::Left),
            (Ok(Role::Member), Act::Delete | Act::Remove { .. }) => Err(ErrorCode::NotCreator),
            (Ok(Role::Creator), Act::Remove { user: removed, .. }) if *removed == user => {
                Err(ErrorCode::SelfTarget)
            }
            (Ok(Role::Creator), Act::Remove { user, user_name }) => {
                self.role(*user)?;
                Ok(EntryBody::Removed { user: *user, user_name: user_name.clone() })
            }
            (Ok(_), _) => Err(ErrorCode::NoSuchUser),
        }
    }
}

/// Whether `entry` is the last one that `user` may read, if they may read it.
pub fn ends_membership(entry: &EntryBody, from: UserId, user: UserId) -> bool {
    match entry {
        EntryBody::Left => from == user,
        EntryBody::Removed { user: removed, .. } => *removed == user,
        EntryBody::Deleted => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    /// Applies acts by users and compares what each led to.
    fn check(conv: &str, acts: &[(u64, Act, Result<&str, ErrorCode>)]) {
        let conv: ConversationId = conv.parse().unwrap();
        let mut rights = Rights::empty(conv);
        if let Rights::Group(_) = rights {
            rights.apply(conv, user(1), &EntryBody::Created { title: "t".into() });
        }
        for (at, (by, act, expected)) in acts.iter().enumerate() {
            let found = rights.check(conv, user(*by), act);
            assert_eq!(found.as_ref().map(EntryBody::kind).map_err(|e| *e), *expected, "act {at}");
            if let Ok(body) = found {
                assert!(act.led_to(&body), "act {at}");
                rights.apply(conv, user(*by), &body);
            }
        }
    }

    #[test]
    fn friends_and_blocks() {
        check(
            "d1-2",
            &[
                (1, Act::Unfriend, Err(ErrorCode::NotFriends)),
                (1, Act::Befriend, Ok("befriended")),
                (2, Act::Befriend, Err(ErrorCode::AlreadyFriends)),
                (3, Act::Befriend, Err(ErrorCode::NoSuchConversation)),
                (2, Act::Block, Ok("blocked")),
                (2, Act::Block, Err(ErrorCode::AlreadyBlocked)),
                (1, Act::Unblock, Err(ErrorCode::NotBlocked)),
                (1, Act::Unfriend, Ok("unfriended")),
                (1, Act::Befriend, Err(ErrorCode::Blocked)),
                (2, Act::Unblock, Ok("unblocked")),
                (1, Act::Befriend, Ok("befriended")),
                (1, Act::Join, Err(ErrorCode::NoSuchGroup)),
            ],
        );
    }

    #[test]
    fn a_block_ends_what_the_other_may_send() {
        let conv: ConversationId = "d1-2".parse().unwrap();
        let may = |rights: DirectRights, by| Rights::Direct(rights).may_send(conv, user(by));
        let friends = DirectRights { friends: true, ..DirectRights::default() };
        assert_eq!(may(DirectRights::default(), 1), Err(ErrorCode::NotFriends));
        assert_eq!(may(friends, 1), Ok(()));
        assert_eq!(may(friends, 3), Err(ErrorCode::NoSuchConversation));
        assert_eq!(may(DirectRights { low_blocks: true, ..friends }, 2), Err(ErrorCode::Blocked));
        assert_eq!(may(DirectRights { low_blocks: true, ..friends }, 1), Ok(()));
    }

    #[test]
    fn members_and_roles() {
        let remove = |number| Act::Remove { user: user(number), user_name: "x".into() };
        check(
            "g7",
            &[
                (2, Act::Quit, Err(ErrorCode::NotMember)),
                (2, Act::Join, Ok("joined")),
                (2, Act::Join, Err(ErrorCode::AlreadyMember)),
                (2, Act::Delete, Err(ErrorCode::NotCreator)),
                (2, remove(1), Err(ErrorCode::NotCreator)),
                (1, remove(1), Err(ErrorCode::SelfTarget)),
                (1, remove(3), Err(ErrorCode::NotMember)),
                (1, remove(2), Ok("removed")),
                (2, Act::Join, Ok("joined")),
                (2, Act::Quit, Ok("left")),
                (2, Act::Befriend, Err(ErrorCode::NotMember)),
                (1, Act::Quit, Ok("deleted")),
                (1, Act::Delete, Err(ErrorCode::NoSuchGroup)),
                (2, Act::Join, Err(ErrorCode::NoSuchGroup)),
            ],
        );
    }
}
