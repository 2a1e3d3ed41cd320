//! Erasing an account: what its user has written and what it was called are gone, for everybody, and the logs keep their numbers (SPEC.md,
//! section 5.1).
//!
//! First the account is locked: from then on it gains no rights, since whoever gains some has a notice, and the lock is an entry of the same log.
//! Then it is taken out of friendships and groups by entries like any others, so other nodes and clients learn of it as they always do. After
//! them no message of it can follow; so then its texts are erased, and its name where entries hold it.
//!
//! Each step can be repeated: an erasure that was cut short is completed by another one.

use std::sync::Arc;

use protocol::{
    ClientMsgId, Conversation, ConversationId, EntryBody, ErrorBody, ErrorCode, Seq, Token, UserId,
    message::Account,
    text::{name_key, user_name},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tracing::info;

use crate::{
    commands::{LIST_MAX, Who, submit},
    node::Node,
    rights::{Act, Lock},
    store::{AccountRecord, StoreError},
};

/// Entries looked at in one statement.
const STEP: usize = 500;
/// Conversations in one look.
const CONVERSATIONS: usize = 200;
/// Entries in one page of another user's notices.
const PAGE: usize = 256;
/// Bytes of text in one page.
const PAGE_BYTES: usize = 256 << 10;
/// What an erased account's name begins with; its number follows.
const NAME_PREFIX: &str = "erased-";
/// What the key of a name begins with that was an erased account's: no name holds a control character.
const RESERVED_PREFIX: char = '\u{1}';

/// What an erasure has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Whose account it was.
    pub user: UserId,
    /// Messages erased.
    pub messages: u64,
    /// Friendships ended.
    pub friendships: u64,
    /// Blocks lifted.
    pub blocks: u64,
    /// Groups left, and deleted where the user had created them.
    pub groups: u64,
    /// Entries of others from which the name was taken.
    pub names: u64,
}

/// Why an account was not erased.
#[derive(Debug, Error)]
pub enum ErasureError {
    /// There is none.
    #[error("there is no such account")]
    NoSuchAccount,
    /// Nothing was done.
    #[error("the account could not be looked up")]
    Lookup(#[source] StoreError),
    /// A part was done, perhaps: to do it again does the rest.
    #[error("account {user} may be erased in part; do it again, with that number")]
    Unfinished {
        /// Whose account it is: the name may be gone.
        user: UserId,
        /// What went wrong.
        #[source]
        why: Why,
    },
}

/// Why an erasure did not come to its end.
#[derive(Debug, Error)]
pub enum Why {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A change was not made.
    #[error("a change was refused: {0}")]
    Refused(ErrorCode),
}

/// What an erased account is called.
pub fn name_of(user: UserId) -> String {
    format!("{NAME_PREFIX}{user}")
}

/// The account that somebody has typed, by number or name; `None` if it can be none.
pub fn account(text: &str) -> Option<Account> {
    let erased = text.strip_prefix(NAME_PREFIX).filter(|_| is_reserved_form(text)).and_then(Account::parse);
    match erased.or_else(|| Account::parse(text)) {
        Some(Account::Name(name)) => user_name(&name).ok().map(|name| Account::Name(name_key(&name))),
        number => number,
    }
}

/// Whether an account is erased, by its name: nobody can take such a name.
pub fn is_erased(user: UserId, name: &str) -> bool {
    name.strip_prefix(NAME_PREFIX).is_some_and(|number| number == user.to_string())
}

/// Whether a name, by its key, is of the form that erased accounts' names have.
pub fn is_reserved_form(key: &str) -> bool {
    key.strip_prefix(NAME_PREFIX)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What stands for a name's key once its account is erased: the name stays taken, and is no longer stored.
pub fn reserved_key(deployment: [u8; 16], key: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(deployment);
    hash.update(key);
    let hash: [u8; 32] = hash.finalize().into();
    // A token is as long, and has the form wanted.
    format!("{RESERVED_PREFIX}{}", Token(hash))
}

/// Erases an account, by way of a node: one that serves clients, or one that was started for this.
///
/// # Errors
/// See [`ErasureError`].
pub async fn erase(node: &Arc<Node>, account: &Account) -> Result<Erasure, ErasureError> {
    let record = node.store.account(account).await.map_err(ErasureError::Lookup)?;
    let record = record.ok_or(ErasureError::NoSuchAccount)?;
    let user = record.user;
    let who = Who { user, name: name_of(user).into() };
    let erasure = Erasure { user, messages: 0, friendships: 0, blocks: 0, groups: 0, names: 0 };
    let mut work = Work { node, who, erasure };
    match work.run(record).await {
        Ok(()) => Ok(work.erasure),
        Err(why) => Err(ErasureError::Unfinished { user, why }),
    }
}

/// An erasure under way.
struct Work<'a> {
    node: &'a Arc<Node>,
    /// The user, by the name that stays.
    who: Who,
    erasure: Erasure,
}

impl Work<'_> {
    async fn run(&mut self, record: AccountRecord) -> Result<(), Why> {
        let user = self.who.user;
        if !is_erased(user, &record.name) {
            self.lock(&record.name).await?;
        }
        info!(%user, "the account is locked; erasing what is left of it");
        self.leave_friends().await?;
        self.leave_groups().await?;
        let mut after = None;
        loop {
            let convs = self.node.store.conversations(user, after, CONVERSATIONS).await?;
            for conv in &convs {
                self.erase_texts(*conv).await?;
                self.erase_names(*conv).await?;
            }
            after = convs.last().copied();
            if convs.len() < CONVERSATIONS {
                return Ok(());
            }
        }
    }

    /// Takes the account its name, its password and its tokens. Sessions end on every node, as after a change of the password.
    async fn lock(&self, name: &str) -> Result<(), Why> {
        let user = self.who.user;
        let deployment = self.node.store.deployment().await?;
        // A password that nobody knows: what a login costs does not tell that the account is erased.
        let password = Token::random(&*self.node.entropy).to_string();
        let hash = self.node.passwords.hash(&password).await;
        let lock = Lock {
            name: self.who.name.to_string(),
            name_key: reserved_key(deployment, &name_key(name)),
            hash: hash.map_err(|_| Why::Refused(ErrorCode::Overloaded))?,
        };
        let act = Act::LockAccount(lock);
        match self.act(ConversationId::notices(user), act, String::new()).await {
            // Somebody else has erased it at the same time.
            Err(ErrorCode::NoSuchUser) => Ok(()),
            done => done.map_err(Why::Refused),
        }
    }

    async fn leave_friends(&mut self) -> Result<(), Why> {
        let user = self.who.user;
        let mut after = 0;
        loop {
            let rows = self.node.store.friends(user, after, LIST_MAX).await?;
            for row in &rows {
                let Some(conv) = ConversationId::direct(user, row.peer) else { continue };
                if row.friend {
                    let done = self.act(conv, Act::Unfriend, row.name.clone()).await;
                    self.erasure.friendships += counted(done, &[ErrorCode::NotFriends])?;
                }
                if row.blocked {
                    let done = self.act(conv, Act::Unblock, row.name.clone()).await;
                    self.erasure.blocks += counted(done, &[ErrorCode::NotBlocked])?;
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() == LIST_MAX) else { return Ok(()) };
            after = last.peer.number();
        }
    }

    async fn leave_groups(&mut self) -> Result<(), Why> {
        let mut after = 0;
        loop {
            let rows = self.node.store.groups(self.who.user, after, LIST_MAX).await?;
            for row in &rows {
                let done = self.act(ConversationId::group(row.group), Act::Quit, String::new()).await;
                self.erasure.groups += counted(done, &[ErrorCode::NotMember, ErrorCode::NoSuchGroup])?;
            }
            let Some(last) = rows.last().filter(|_| rows.len() == LIST_MAX) else { return Ok(()) };
            after = last.group.number();
        }
    }

    async fn erase_texts(&mut self, conv: ConversationId) -> Result<(), Why> {
        let mut from = Some(ClientMsgId([0; 16]));
        while let Some(mid) = from {
            let step = self.node.store.erase(conv, self.who.user, mid, STEP).await?;
            self.erasure.messages += step.erased;
            from = step.next;
        }
        Ok(())
    }

    /// Takes the name from the other user's notices, and from the entries that say who was removed from a group.
    async fn erase_names(&mut self, conv: ConversationId) -> Result<(), Why> {
        match (conv.parse(), conv.peer_of(self.who.user)) {
            (Conversation::Group(_), _) => self.erase_removals(conv).await,
            (_, Some(peer)) => self.erase_titles(conv, peer).await,
            _ => Ok(()),
        }
    }

    async fn erase_titles(&mut self, conv: ConversationId, peer: UserId) -> Result<(), Why> {
        let (notices, name) = (ConversationId::notices(peer), self.who.name.to_string());
        let mut seen = Seq::ZERO;
        loop {
            let page = self.node.store.entries(notices, seen, PAGE, PAGE_BYTES).await?;
            let Some(last) = page.last() else { return Ok(()) };
            seen = last.seq;
            for entry in &page {
                match &entry.body {
                    EntryBody::Opened { opened, after, title } if *opened == conv && *title != name => {
                        let body = EntryBody::Opened { opened: conv, after: *after, title: name.clone() };
                        self.node.store.rename_in(notices, entry.seq, &body).await?;
                        self.erasure.names += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    async fn erase_removals(&mut self, conv: ConversationId) -> Result<(), Why> {
        let (user, name) = (self.who.user, self.who.name.to_string());
        let periods = self.node.store.periods_in(user, &[conv]).await?;
        for end in periods.iter().filter_map(|period| period.until) {
            let entry = self.node.store.entries(conv, end.previous(), 1, 0).await?.pop();
            let Some(EntryBody::Removed { user: removed, user_name }) = entry.map(|entry| entry.body) else {
                continue;
            };
            if removed == user && user_name != name {
                let body = EntryBody::Removed { user, user_name: name.clone() };
                self.node.store.rename_in(conv, end, &body).await?;
                self.erasure.names += 1;
            }
        }
        Ok(())
    }

    async fn act(&self, conv: ConversationId, act: Act, peer_name: String) -> Result<(), ErrorCode> {
        let mid = ClientMsgId::random(&*self.node.entropy);
        let done = submit(self.node, self.who.clone(), conv, mid, act, peer_name).await;
        done.map(drop).map_err(|ErrorBody { code, .. }| code)
    }
}

/// One, or none if it was so already: others act at the same time.
fn counted(done: Result<(), ErrorCode>, already: &[ErrorCode]) -> Result<u64, Why> {
    match done {
        Ok(()) => Ok(1),
        Err(code) if already.contains(&code) => Ok(0),
        Err(code) => Err(Why::Refused(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_erased_accounts() {
        let user = |number| UserId::new(number).unwrap();
        assert_eq!(name_of(user(7)), "erased-7");
        assert!(is_erased(user(7), "erased-7"));
        for name in ["erased-8", "erased-", "erased-07", "Erased-7", "kirito"] {
            assert!(!is_erased(user(7), name), "{name}");
        }
        for name in ["erased-7", "erased-07", "Erased-7", "\u{ff45}rased-7"] {
            assert!(is_reserved_form(&name_key(name)), "{name}");
        }
        for name in ["erased-", "erased-x", "erased", "not-erased-7", "erased-7a"] {
            assert!(!is_reserved_form(&name_key(name)), "{name}");
        }
    }

    #[test]
    fn accounts_as_they_are_typed() {
        let number = |number| Account::Number(UserId::new(number).unwrap());
        let name = |key: &str| Account::Name(key.into());
        assert_eq!(account("7"), Some(number(7)));
        assert_eq!(account("erased-7"), Some(number(7)));
        assert_eq!(account("Kirito"), Some(name("kirito")));
        assert_eq!(account("erased-x"), Some(name("erased-x")));
        for nobody in ["", "0", "99999999999999999999", "a\u{1}"] {
            assert_eq!(account(nobody), None, "{nobody:?}");
        }
    }

    /// No name can have the key that stands for an erased one, and another deployment's says nothing here.
    #[test]
    fn reserved_keys() {
        let key = reserved_key([1; 16], "kirito");
        assert_eq!(key.len(), 65);
        assert!(protocol::text::user_name(&key).is_err() && !key.contains("kirito"));
        assert_eq!(key, reserved_key([1; 16], "kirito"));
        assert_ne!(key, reserved_key([1; 16], "klein"));
        assert_ne!(key, reserved_key([2; 16], "kirito"));
    }
}
