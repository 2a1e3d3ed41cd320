//! A store that fails: SPEC.md, guarantees 1, 3 and 10.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo},
};
use serde_json::json;
use server::store::{
    AccountRecord, Advanced, Change, Counts, Effect, Erased, Expired, FriendRow, GroupOutcome, KnownGroup,
    Listener, Mark, MemberRow, MidKey, NewEntry, NewGroup, NewUser, Opening, Outcome, Period,
    RegisterOutcome, Resolved, Result, Snapshot, Store, StoreError, TokenHash, TokenRecord, Trace, UserRow,
    UsersFrom, memory::MemoryStore,
};

use tokio::sync::Notify;

use crate::harness::{TestNode, mid};

/// A store whose writes to logs fail on demand.
#[derive(Default)]
pub(crate) struct Faulty {
    inner: Mutex<Arc<MemoryStore>>,
    listener: Mutex<Option<Listener>>,
    /// So many writes are carried out, and then said to have failed.
    lose_replies: AtomicU32,
    /// A registration is said to have failed, and takes effect as soon as somebody has looked for it in vain.
    late: AtomicBool,
    registering: Mutex<Option<NewUser>>,
    /// This takes effect as soon as somebody has looked for a message id.
    changing: Mutex<Option<Change>>,
    /// Nothing works.
    pub(crate) away: AtomicBool,
    /// A node that is nearer: before every append, user 2 has just written to group 1 there.
    rival: AtomicBool,
    /// What a session starts from, once read, is held back until it is released.
    hold_opening: AtomicBool,
    /// No page of a log is ever read.
    hold_entries: AtomicBool,
    /// How many were asked for.
    entries_held: AtomicU32,
    /// The next change is held back until it is released.
    hold_change: AtomicBool,
    holding: Notify,
    release: Notify,
    /// States of conversations that were read.
    snapshots_read: AtomicU32,
}

impl Faulty {
    /// From now on it is another store.
    pub(crate) fn replace(&self, by: Arc<MemoryStore>) {
        *self.inner.lock().unwrap() = by;
        let listener = self.listener.lock().unwrap().clone();
        listener.expect("the node listens")();
    }

    fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.inner.lock().unwrap())
    }

    fn check(&self) -> Result<()> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".into()));
        }
        Ok(())
    }

    async fn let_rival_write(&self, entries: &[NewEntry]) -> Result<()> {
        let conv = ConversationId::group(GroupId::new(1).unwrap());
        let Some(entry) = entries.iter().find(|entry| entry.conv == conv) else { return Ok(()) };
        if self.rival.load(Ordering::Relaxed) {
            let head = self.inner().heads(&[conv]).await?[&conv];
            let mid = ClientMsgId((u128::MAX - u128::from(head.0)).to_be_bytes());
            let from = UserId::new(2).unwrap();
            let body = EntryBody::Message { text: "first".into() };
            let rival = NewEntry { seq: head.next(), from, mid, body, ..entry.clone() };
            assert_eq!(self.inner().append(&[rival]).await?, Outcome::Committed);
        }
        Ok(())
    }

    /// Waits for the release, if it is wanted.
    async fn hold(&self, wanted: &AtomicBool) {
        if wanted.swap(false, Ordering::Relaxed) {
            self.holding.notify_one();
            self.release.notified().await;
        }
    }

    fn reply<T>(&self, value: T) -> Result<T> {
        let lose = |left: u32| left.checked_sub(1);
        match self.lose_replies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose) {
            Ok(_) => Err(StoreError::Unavailable("the reply was lost".into())),
            Err(_) => Ok(value),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn append(&self, entries: &[NewEntry]) -> Result<Outcome> {
        self.check()?;
        self.let_rival_write(entries).await?;
        self.reply(self.inner().append(entries).await?)
    }
    async fn append_after(&self, known: Seq, entries: &[NewEntry]) -> Result<Option<Seq>> {
        self.check()?;
        self.let_rival_write(entries).await?;
        self.reply(self.inner().append_after(known, entries).await?)
    }
    async fn apply(&self, change: &Change) -> Result<Outcome> {
        self.check()?;
        self.hold(&self.hold_change).await;
        self.reply(self.inner().apply(change).await?)
    }
    async fn create_group(&self, group: &NewGroup) -> Result<GroupOutcome> {
        self.check()?;
        self.reply(self.inner().create_group(group).await?)
    }
    async fn deployment(&self) -> Result<[u8; 16]> {
        self.inner().deployment().await
    }
    async fn register(&self, user: &NewUser) -> Result<RegisterOutcome> {
        self.check()?;
        if self.late.swap(false, Ordering::Relaxed) {
            *self.registering.lock().unwrap() = Some(user.clone());
            return Err(StoreError::Unavailable("it took too long".into()));
        }
        self.reply(self.inner().register(user).await?)
    }
    async fn registered_with(&self, mid: ClientMsgId) -> Result<Option<AccountRecord>> {
        self.check()?;
        let found = self.inner().registered_with(mid).await;
        let late = self.registering.lock().unwrap().take();
        if let Some(user) = late {
            self.inner().register(&user).await?;
        }
        found
    }
    async fn account(&self, account: &Account) -> Result<Option<AccountRecord>> {
        self.check()?;
        self.inner().account(account).await
    }
    async fn user_name(&self, user: UserId) -> Result<Option<String>> {
        self.check()?;
        self.inner().user_name(user).await
    }
    async fn rehash(&self, user: UserId, from: &str, to: &str) -> Result<bool> {
        self.check()?;
        self.inner().rehash(user, from, to).await
    }
    async fn add_token(
        &self,
        hash: &TokenHash,
        user: UserId,
        verified: &str,
        at: UnixMillis,
        keep: usize,
    ) -> Result<Option<Opening>> {
        self.check()?;
        let opening = self.inner().add_token(hash, user, verified, at, keep).await;
        self.hold(&self.hold_opening).await;
        opening
    }
    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>> {
        self.check()?;
        self.inner().token(hash).await
    }
    async fn remove_token(&self, hash: &TokenHash) -> Result<()> {
        self.check()?;
        self.inner().remove_token(hash).await
    }
    async fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Result<Option<KnownGroup>> {
        self.check()?;
        self.inner().created_with(creator, mid).await
    }
    async fn resolve(&self, keys: &[MidKey], convs: &[ConversationId]) -> Result<Resolved> {
        self.check()?;
        let found = self.inner().resolve(keys, convs).await;
        let late = self.changing.lock().unwrap().take();
        if let Some(change) = late {
            assert_eq!(self.inner().apply(&change).await?, Outcome::Committed);
        }
        found
    }
    async fn heads(&self, convs: &[ConversationId]) -> Result<BTreeMap<ConversationId, Seq>> {
        self.check()?;
        self.inner().heads(convs).await
    }
    async fn heads_if_known(
        &self,
        token: &TokenHash,
        convs: &[ConversationId],
    ) -> Result<Option<BTreeMap<ConversationId, Seq>>> {
        self.check()?;
        self.inner().heads_if_known(token, convs).await
    }
    async fn snapshots(&self, convs: &[ConversationId]) -> Result<Vec<Snapshot>> {
        self.check()?;
        self.snapshots_read.fetch_add(1, Ordering::Relaxed);
        self.inner().snapshots(convs).await
    }
    async fn entries(
        &self,
        conv: ConversationId,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>> {
        self.check()?;
        if self.hold_entries.load(Ordering::Relaxed) {
            self.entries_held.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        self.inner().entries(conv, after, limit, bytes).await
    }
    async fn entries_before(
        &self,
        conv: ConversationId,
        from: Seq,
        before: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Entry>> {
        self.check()?;
        self.inner().entries_before(conv, from, before, limit, bytes).await
    }
    async fn now(&self) -> Result<UnixMillis> {
        self.check()?;
        self.inner().now().await
    }
    async fn advanced(&self, since: UnixMillis, limit: usize) -> Result<Advanced> {
        self.check()?;
        self.inner().advanced(since, limit).await
    }
    async fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Result<Option<Opening>> {
        self.check()?;
        let opening = self.inner().opening(token, named).await;
        self.hold(&self.hold_opening).await;
        opening
    }
    async fn periods_in(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Period>> {
        self.check()?;
        self.inner().periods_in(user, convs).await
    }
    async fn set_delivered(&self, cursors: &[(UserId, ConversationId, Seq)]) -> Result<()> {
        self.check()?;
        self.inner().set_delivered(cursors).await
    }
    async fn friends(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<FriendRow>> {
        self.check()?;
        self.inner().friends(user, after, limit).await
    }
    async fn groups(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<GroupInfo>> {
        self.check()?;
        self.inner().groups(user, after, limit).await
    }
    async fn members(
        &self,
        g: GroupId,
        reader: UserId,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<MemberRow>>> {
        self.check()?;
        self.inner().members(g, reader, after, limit).await
    }
    async fn counts(&self, user: UserId) -> Result<Counts> {
        self.check()?;
        self.inner().counts(user).await
    }
    async fn expired(&self) -> Result<Option<Mark>> {
        self.check()?;
        self.inner().expired().await
    }
    async fn expire(&self, after: Option<Mark>, before: UnixMillis, limit: usize) -> Result<Expired> {
        self.check()?;
        self.inner().expire(after, before, limit).await
    }
    async fn erase(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased> {
        self.check()?;
        self.inner().erase(conv, user, from, limit).await
    }
    async fn rename_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()> {
        self.check()?;
        self.inner().rename_in(conv, seq, body).await
    }
    async fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        self.check()?;
        self.inner().conversations(user, after, limit).await
    }
    async fn users(&self, from: &UsersFrom, limit: usize) -> Result<Vec<UserRow>> {
        self.check()?;
        self.inner().users(from, limit).await
    }
    async fn trace(&self, conv: ConversationId, seq: Seq) -> Result<Option<Trace>> {
        self.check()?;
        self.inner().trace(conv, seq).await
    }
    fn on_change(&self, listener: Listener) {
        *self.listener.lock().unwrap() = Some(listener);
    }
    async fn close(&self) {}
}

/// Committed, but the reply was lost: the entry exists once, and every mutation gets its first answer.
#[tokio::test]
async fn an_unknown_outcome_is_found_out() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    store.lose_replies.store(2, Ordering::Relaxed);
    assert_eq!(alice.say("d1-2", "once").await, 2);
    assert_eq!(alice.say("d1-2", "next").await, 3);
    assert_eq!(bob.message("d1-2").await, "once");
    assert_eq!(bob.message("d1-2").await, "next");
    store.lose_replies.store(1, Ordering::Relaxed);
    let group = alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    assert_eq!(group["group"], 1);
    assert_eq!(alice.ok(json!({"op": "groups"})).await["groups"].as_array().unwrap().len(), 1);
    store.lose_replies.store(1, Ordering::Relaxed);
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    // A registration whose outcome is unknown says so, and its retry finds the account.
    store.lose_replies.store(1, Ordering::Relaxed);
    let register = json!({"op": "register", "mid": mid(), "name": "carol", "password": "x"});
    assert_eq!(alice.error(register.clone()).await, "unavailable");
    assert_eq!(alice.ok(register).await["user"], 3);
    let history = bob.ok(json!({"op": "history", "conv": "d1-2"})).await;
    assert_eq!(history["entries"].as_array().unwrap().len(), 3);
}

/// A registration takes effect between two looks of its retry, for its message id and for the name: it is not refused because of itself. SPEC.md,
/// guarantee 10.
#[tokio::test]
async fn a_registration_that_is_late_is_not_refused() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let mut wire = node.connect().await;
    let register = |mid: &str| json!({"op": "register", "mid": mid, "name": "carol", "password": "x"});
    let (own, other) = (mid(), mid());
    store.late.store(true, Ordering::Relaxed);
    assert_eq!(wire.error(register(&own)).await, "unavailable");
    assert_eq!(wire.ok(register(&own)).await["user"], 1);
    assert_eq!(wire.error(register(&other)).await, "name_taken");
}

/// Likewise a change of a password, between the look for its message id and the one at the old password.
#[tokio::test]
async fn a_change_of_a_password_that_is_late_is_not_refused() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), _bob) = node.friends().await;
    let user = UserId::new(1).unwrap();
    let (conv, mid) = (ConversationId::notices(user), mid());
    let seq = store.heads(&[conv]).await.unwrap()[&conv].next();
    let from_bob = store.account(&Account::Number(UserId::new(2).unwrap())).await.unwrap().unwrap();
    let body = EntryBody::PasswordChanged;
    *store.changing.lock().unwrap() = Some(Change {
        entries: vec![NewEntry { conv, seq, from: user, mid: mid.parse().unwrap(), at: 0, body }],
        effects: vec![Effect::SetPassword { user, hash: from_bob.password_hash, keep: None }],
    });
    let passwd = json!({"op": "passwd", "mid": mid, "old": "alice", "new": "bob"});
    assert_eq!(alice.ok(passwd).await["seq"], seq.0);
}

/// The store is away: errors are indefinite, nothing ends, and when it is back all goes on by itself.
#[tokio::test]
async fn a_store_that_is_away_comes_back() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    store.away.store(true, Ordering::Relaxed);
    let friends = alice.ask(json!({"op": "friends"})).await;
    let reply = alice.reply(friends).await;
    assert_eq!(
        (&reply["error"]["code"], &reply["error"]["definite"]),
        (&json!("unavailable"), &json!(false))
    );
    let send = json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "later"});
    assert_eq!(alice.error(send.clone()).await, "unavailable");
    // Back before patience ends: the client notices nothing.
    let other = alice.ask(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "soon"})).await;
    store.away.store(false, Ordering::Relaxed);
    assert_eq!(alice.reply(other).await["ok"]["seq"], 2);
    assert_eq!(alice.ok(send).await["seq"], 3);
    assert_eq!(bob.message("d1-2").await, "soon");
    assert_eq!(bob.message("d1-2").await, "later");
}

/// Another node is always first with the same conversation: this one's messages are written all the same, and those of other
/// conversations do not wait for it. What was allowed and what was repeated is found out on this way too. SPEC.md, guarantees 2, 3 and 5.
#[tokio::test]
async fn a_node_that_is_always_overtaken_is_not_starved() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    store.rival.store(true, Ordering::Relaxed);
    let send = |conv: &str, text: &str| json!({"op": "send", "mid": mid(), "conv": conv, "text": text});
    let mut asked = Vec::new();
    for n in 0..20 {
        asked.push(alice.ask(send("g1", &format!("hot {n}"))).await);
        asked.push(alice.ask(send("d1-2", &format!("cool {n}"))).await);
    }
    for id in asked {
        let reply = alice.reply(id).await;
        assert!(reply["ok"]["seq"].is_u64(), "{reply}");
    }
    let repeated = send("g1", "once");
    let first = alice.ok(repeated.clone()).await["seq"].clone();
    store.lose_replies.store(3, Ordering::Relaxed);
    assert_eq!(alice.ok(repeated.clone()).await["seq"], first);
    alice.ok(json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 2})).await;
    assert_eq!(bob.error(send("g1", "out")).await, "not_member");
    for n in 0..20 {
        assert_eq!(bob.message("d1-2").await, format!("cool {n}"));
    }
    let mut hot = Vec::new();
    while hot.len() < 20 {
        let text = alice.message("g1").await;
        if text != "first" {
            hot.push(text);
        }
    }
    assert_eq!(hot, (0..20).map(|n| format!("hot {n}")).collect::<Vec<_>>());
}

/// A group is joined elsewhere after a login has read which groups there are, and before it is done: the session reads the group all the same.
/// (The notice was taken for one that the list had taken into account.)
#[tokio::test]
async fn what_opens_in_the_middle_of_a_login_is_not_missed() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    store.hold_opening.store(true, Ordering::Relaxed);
    let mut second = node.connect().await;
    let login = second.ask(json!({"op": "login", "account": "bob", "password": "bob"})).await;
    store.holding.notified().await;
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    alice.say("g1", "in the middle").await;
    store.release.notify_one();
    assert!(second.reply(login).await["ok"].is_object());
    assert_eq!(second.message("g1").await, "in the middle");
}

/// Whoever looks back does not wait behind all those who come back and read whole logs.
#[tokio::test]
async fn looking_back_does_not_wait_for_who_catches_up() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), _bob) = node.friends().await;
    alice.say("d1-2", "hi").await;
    // A node that has nothing in memory yet.
    let other = TestNode::alone(store.clone()).await;
    store.hold_entries.store(true, Ordering::Relaxed);
    let mut behind = Vec::new();
    for _ in 0..6 {
        behind.push(other.connect().await);
        let wire = behind.last_mut().expect("it was pushed");
        wire.ok(json!({"op": "login", "account": "bob", "password": "bob"})).await;
    }
    while store.entries_held.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Time for more to be read at once, were it allowed.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let page = behind[0].ok(json!({"op": "history", "conv": "d1-2"})).await;
    let texts: Vec<_> = page["entries"].as_array().unwrap().iter().map(|entry| &entry["text"]).collect();
    assert!(texts.contains(&&json!("hi")), "{page}");
}

/// A change of rights that takes its time holds up what follows it on the same conversation, and nothing else.
#[tokio::test]
async fn a_slow_change_holds_up_its_own_conversation_alone() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    alice.say("g1", "before").await;
    store.hold_change.store(true, Ordering::Relaxed);
    let join = bob.ask(json!({"op": "join", "mid": mid(), "group": 1})).await;
    store.holding.notified().await;
    let after = alice.ask(json!({"op": "send", "mid": mid(), "conv": "g1", "text": "after"})).await;
    let elsewhere = alice.ask(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "hi"})).await;
    // Were it not, there would be no reply before the release.
    let first = alice.find("a reply", |line| line["ok"].is_object() || line["error"].is_object()).await;
    assert_eq!(first["id"], elsewhere);
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "y", "description": ""})).await;
    store.release.notify_one();
    assert_eq!(bob.reply(join).await["ok"]["seq"], 3);
    assert_eq!(alice.reply(after).await["ok"]["seq"], 4);
    assert_eq!(bob.message("g1").await, "after");
}

/// Who acts in vain, again and again, does not have all members of the group read each time; who was let in or left elsewhere is known.
#[tokio::test]
async fn acts_in_vain_do_not_read_the_group() {
    let store = Arc::new(Faulty::default());
    let node = TestNode::alone(store.clone()).await;
    let other = TestNode::alone(store.clone()).await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    let act = |op: &str| json!({"op": op, "mid": mid(), "group": 1});
    bob.ok(act("join")).await;
    let read = store.snapshots_read.load(Ordering::Relaxed);
    for _ in 0..50 {
        assert_eq!(bob.error(act("join")).await, "already_member");
    }
    assert_eq!(store.snapshots_read.load(Ordering::Relaxed), read);
    // On a node that tells this one nothing.
    let mut elsewhere = other.connect().await;
    elsewhere.login("bob").await;
    elsewhere.ok(act("quit")).await;
    bob.ok(act("join")).await;
    assert_eq!(elsewhere.error(act("join")).await, "already_member");
}
