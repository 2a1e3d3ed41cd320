//! The store in memory: for tests and for the simulator, whose determinism wants one thread and no real I/O.
//!
//! Nothing is durable. Its own time is a count of its commits, or that of a clock, asked once a call.

mod erase;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use protocol::{
    ClientMsgId, Clock, Conversation, ConversationId, Entry, EntryBody, GroupId, Seq, UnixMillis, UserId,
    message::{Account, GroupInfo, Role},
};

use super::{
    AccountRecord, Advanced, Change, Counts, Effect, Erased, Expired, FriendRow, GroupOutcome, KnownGroup,
    Mark, MemberRow, MidKey, NewEntry, NewGroup, NewUser, Opening, Outcome, Period, Reader, RegisterOutcome,
    Resolved, Result, Snapshot, Store, TokenHash, TokenRecord, Trace, UserRow, UsersFrom, is_locked,
    record::affects_rights, renumber, within_bytes,
};
use crate::rights::{DirectRights, GroupRights, Rights};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    deployment: [u8; 16],
    clock: Option<Arc<dyn Clock>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, NewUserRow>,
    names: BTreeMap<String, UserId>,
    registrations: BTreeMap<ClientMsgId, UserId>,
    tokens: BTreeMap<TokenHash, Token>,
    logs: BTreeMap<ConversationId, Log>,
    friends: BTreeMap<(UserId, UserId), FriendState>,
    groups: BTreeMap<GroupId, GroupRow>,
    created: BTreeMap<(UserId, ClientMsgId), GroupId>,
    /// By (user, group): their periods, in order.
    memberships: BTreeMap<(UserId, GroupId), Vec<Membership>>,
    /// Who has an open period, by group.
    members: BTreeMap<GroupId, BTreeMap<UserId, Role>>,
    delivered: BTreeMap<(UserId, ConversationId), Seq>,
    /// Every entry by the time of its commit.
    committed: BTreeSet<(UnixMillis, ConversationId, Seq)>,
    commits: UnixMillis,
    /// The furthest that messages were expired to.
    expired: Option<Mark>,
}

#[derive(Debug)]
struct NewUserRow {
    name: String,
    password_hash: String,
    created_at: UnixMillis,
}

#[derive(Debug)]
struct Token {
    user: UserId,
    expires_at: UnixMillis,
}

#[derive(Debug, Default)]
struct Log {
    /// The entry with seq n is at n - 1.
    entries: Vec<Entry>,
    mids: BTreeMap<(UserId, ClientMsgId), usize>,
}

#[derive(Debug, Default, Clone, Copy)]
struct FriendState {
    after: Seq,
    friend: bool,
    blocked: bool,
}

#[derive(Debug)]
struct GroupRow {
    name: String,
    description: String,
}

#[derive(Debug)]
struct Membership {
    from: Seq,
    until: Option<Seq>,
}

impl MemoryStore {
    /// An empty store of a deployment with this id.
    pub fn new(deployment: [u8; 16]) -> Self {
        Self { deployment, clock: None, state: Mutex::default() }
    }

    /// An empty store whose own time is this clock's.
    pub fn with_clock(deployment: [u8; 16], clock: Arc<dyn Clock>) -> Self {
        Self { deployment, clock: Some(clock), state: Mutex::default() }
    }

    /// The time that a commit carries.
    fn commit_time(&self, state: &mut State) -> UnixMillis {
        state.commits += 1;
        self.now_as_of(state)
    }

    fn now_as_of(&self, state: &State) -> UnixMillis {
        self.clock.as_ref().map_or(state.commits, |clock| clock.now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug that has been reported; the maps are still maps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn user_name(&self, user: UserId) -> String {
        self.users.get(&user).map_or_else(String::new, |row| row.name.clone())
    }

    fn account(&self, user: UserId) -> Option<AccountRecord> {
        let row = self.users.get(&user)?;
        Some(AccountRecord { user, name: row.name.clone(), password_hash: row.password_hash.clone() })
    }

    fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Option<KnownGroup> {
        let group = *self.created.get(&(creator, mid))?;
        let GroupRow { name, description } = &self.groups[&group];
        Some(KnownGroup { group, name: name.clone(), description: description.clone() })
    }

    fn head(&self, conv: ConversationId) -> Seq {
        Seq(self.logs.get(&conv).map_or(0, |log| log.entries.len() as u64))
    }

    /// Whether these entries can all be written: each at the next position of its log, with a new message id.
    fn fits(&self, entries: &[NewEntry]) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = BTreeMap::new();
        entries.iter().all(|entry| {
            let next = next.entry(entry.conv).or_insert_with(|| self.head(entry.conv).next());
            let fits = entry.seq == *next;
            *next = next.next();
            let known =
                self.logs.get(&entry.conv).is_some_and(|log| log.mids.contains_key(&(entry.from, entry.mid)));
            fits && !known && seen.insert((entry.conv, entry.from, entry.mid))
        })
    }

    fn write(&mut self, at: UnixMillis, entries: &[NewEntry]) {
        for new in entries {
            let name = self.user_name(new.from);
            let log = self.logs.entry(new.conv).or_default();
            log.mids.insert((new.from, new.mid), log.entries.len());
            self.committed.insert((at, new.conv, new.seq));
            log.entries.push(Entry {
                conv: new.conv,
                seq: new.seq,
                at: new.at,
                from: new.from,
                name,
                mid: new.mid,
                body: new.body.clone(),
            });
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::OpenDirect { user, peer, after } => {
                self.friends.entry((user, peer)).or_insert(FriendState { after, ..FriendState::default() });
            }
            Effect::SetFriends { a, b, friends } => {
                for key in [(a, b), (b, a)] {
                    if let Some(row) = self.friends.get_mut(&key) {
                        row.friend = friends;
                    }
                }
            }
            Effect::SetBlocked { user, peer, blocked } => {
                if let Some(row) = self.friends.get_mut(&(user, peer)) {
                    row.blocked = blocked;
                }
            }
            Effect::BeginMembership { group, user, role, from } => {
                self.memberships.entry((user, group)).or_default().push(Membership { from, until: None });
                self.members.entry(group).or_default().insert(user, role);
            }
            Effect::EndMembership { group, user, until } => self.end_membership(group, user, until),
            Effect::DeleteGroup { group, until } => {
                for user in
                    self.members.get(&group).into_iter().flat_map(BTreeMap::keys).copied().collect::<Vec<_>>()
                {
                    self.end_membership(group, user, until);
                }
            }
            Effect::EraseAccount { user, name, name_key, hash } => {
                self.erase_account(user, &name, name_key, hash);
            }
            Effect::SetPassword { user, hash, keep } => {
                if let Some(row) = self.users.get_mut(&user) {
                    row.password_hash = hash;
                }
                self.tokens.retain(|token, row| row.user != user || Some(*token) == keep);
            }
        }
    }

    fn end_membership(&mut self, group: GroupId, user: UserId, until: Seq) {
        if let Some(members) = self.members.get_mut(&group) {
            members.remove(&user);
        }
        for period in self.memberships.get_mut(&(user, group)).into_iter().flatten() {
            period.until.get_or_insert(until);
        }
    }

    fn delivered(&self, user: UserId, conv: ConversationId) -> Seq {
        self.delivered.get(&(user, conv)).copied().unwrap_or_default()
    }

    fn token(&self, hash: &TokenHash) -> Option<TokenRecord> {
        let Token { user, expires_at } = *self.tokens.get(hash)?;
        Some(TokenRecord { user, name: self.user_name(user), expires_at })
    }

    /// See [`Store::opening`].
    fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Option<Opening> {
        let token = self.token(token)?;
        let notices = ConversationId::notices(token.user);
        let mut periods = self.all_periods(token.user);
        periods.retain(|period| {
            period.until.is_none_or(|until| until > period.delivered) || named.contains(&period.conv)
        });
        periods.push(Period::of_notices(token.user, self.delivered(token.user, notices)));
        periods.sort();
        Some(Opening { token, settled: self.head(notices), periods })
    }

    /// All periods of a user in direct conversations and groups, ordered.
    fn all_periods(&self, user: UserId) -> Vec<Period> {
        let direct = self.friends.range((user, lowest())..).take_while(|((owner, _), _)| *owner == user);
        let direct = direct.filter_map(|((_, peer), row)| {
            let conv = ConversationId::direct(user, *peer)?;
            let delivered = self.delivered(user, conv);
            Some(Period { conv, from: row.after.next(), until: None, delivered, friend: row.friend })
        });
        let groups = self
            .memberships
            .range((user, GroupId::new(1).expect("1 is in range"))..)
            .take_while(|((member, _), _)| *member == user);
        let groups = groups.flat_map(|((_, group), periods)| {
            let conv = ConversationId::group(*group);
            let delivered = self.delivered(user, conv);
            periods.iter().map(move |p| Period {
                conv,
                from: p.from,
                until: p.until,
                delivered,
                friend: false,
            })
        });
        let mut all: Vec<_> = direct.chain(groups).collect();
        all.sort();
        all
    }

    fn snapshot(&self, conv: ConversationId) -> Snapshot {
        let rights = match conv.parse() {
            Conversation::Direct(low, high) => {
                let row = |a, b| self.friends.get(&(a, b)).copied().unwrap_or_default();
                Rights::Direct(DirectRights {
                    friends: row(low, high).friend,
                    low_blocks: row(low, high).blocked,
                    high_blocks: row(high, low).blocked,
                })
            }
            Conversation::Group(group) => Rights::Group(GroupRights {
                title: self.groups.get(&group).map(|row| row.name.clone()).unwrap_or_default(),
                members: self.members.get(&group).cloned().unwrap_or_default(),
            }),
            Conversation::Notices(_) => Rights::Notices,
        };
        Snapshot { conv, head: self.head(conv), rights }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn deployment(&self) -> Result<[u8; 16]> {
        Ok(self.deployment)
    }

    async fn register(&self, new: &NewUser) -> Result<RegisterOutcome> {
        let mut state = self.state();
        if state.names.contains_key(&new.name_key) || state.registrations.contains_key(&new.mid) {
            return Ok(RegisterOutcome::Conflict);
        }
        let user = UserId::new(state.users.len() as u64 + 1).expect("memory ends before account numbers do");
        let (name, password_hash) = (new.name.clone(), new.password_hash.clone());
        let row = NewUserRow { name, password_hash, created_at: new.at };
        state.users.insert(user, row);
        state.names.insert(new.name_key.clone(), user);
        state.registrations.insert(new.mid, user);
        Ok(RegisterOutcome::Created(user))
    }

    async fn registered_with(&self, mid: ClientMsgId) -> Result<Option<AccountRecord>> {
        let state = self.state();
        Ok(state.registrations.get(&mid).and_then(|user| state.account(*user)))
    }

    async fn account(&self, account: &Account) -> Result<Option<AccountRecord>> {
        let state = self.state();
        let user = match account {
            Account::Number(user) => Some(*user),
            Account::Name(key) => state.names.get(key).copied(),
        };
        Ok(user.and_then(|user| state.account(user)))
    }

    async fn user_name(&self, user: UserId) -> Result<Option<String>> {
        Ok(self.state().users.get(&user).map(|row| row.name.clone()))
    }

    async fn rehash(&self, user: UserId, from: &str, to: &str) -> Result<bool> {
        let mut state = self.state();
        let row = state.users.get_mut(&user).filter(|row| row.password_hash == from);
        Ok(row.map(|row| to.clone_into(&mut row.password_hash)).is_some())
    }

    async fn add_token(
        &self,
        hash: &TokenHash,
        user: UserId,
        verified: &str,
        expires_at: UnixMillis,
        keep: usize,
    ) -> Result<Option<Opening>> {
        let mut state = self.state();
        if state.users.get(&user).is_none_or(|row| row.password_hash != verified) {
            return Ok(None);
        }
        let mut own: Vec<_> = state
            .tokens
            .iter()
            .filter(|(_, t)| t.user == user)
            .map(|(hash, t)| (t.expires_at, *hash))
            .collect();
        own.sort();
        for (_, old) in own.iter().rev().skip(keep.saturating_sub(1)) {
            state.tokens.remove(old);
        }
        state.tokens.insert(*hash, Token { user, expires_at });
        Ok(state.opening(hash, &[]))
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>> {
        Ok(self.state().token(hash))
    }

    async fn remove_token(&self, hash: &TokenHash) -> Result<()> {
        self.state().tokens.remove(hash);
        Ok(())
    }

    async fn append(&self, entries: &[NewEntry]) -> Result<Outcome> {
        let mut state = self.state();
        if !state.fits(entries) {
            return Ok(Outcome::Conflict);
        }
        let at = self.commit_time(&mut state);
        state.write(at, entries);
        Ok(Outcome::Committed)
    }

    async fn append_after(&self, known: Seq, entries: &[NewEntry]) -> Result<Option<Seq>> {
        let mut state = self.state();
        let Some(first) = entries.first() else { return Ok(Some(known.next())) };
        let from = usize::try_from(known.0).unwrap_or(usize::MAX);
        let above = state.logs.get(&first.conv).and_then(|log| log.entries.get(from..)).unwrap_or_default();
        let allowed = !above.iter().any(|entry| affects_rights(&entry.body));
        let entries = renumber(entries, state.head(first.conv));
        if !allowed || !state.fits(&entries) {
            return Ok(None);
        }
        let at = self.commit_time(&mut state);
        state.write(at, &entries);
        Ok(Some(entries[0].seq))
    }

    async fn apply(&self, change: &Change) -> Result<Outcome> {
        let mut state = self.state();
        if !state.fits(&change.entries) {
            return Ok(Outcome::Conflict);
        }
        let at = self.commit_time(&mut state);
        state.write(at, &change.entries);
        for effect in &change.effects {
            state.effect(effect.clone());
        }
        Ok(Outcome::Committed)
    }

    async fn created_with(&self, creator: UserId, mid: ClientMsgId) -> Result<Option<KnownGroup>> {
        Ok(self.state().created_with(creator, mid))
    }

    async fn create_group(&self, new: &NewGroup) -> Result<GroupOutcome> {
        let mut state = self.state();
        if let Some(known) = state.created_with(new.creator, new.mid) {
            return Ok(GroupOutcome::Known(known));
        }
        let group = GroupId::new(state.groups.len() as u64 + 1).expect("memory ends before group numbers do");
        let entries = new.entries(group);
        if !state.fits(&entries) {
            return Ok(GroupOutcome::Conflict);
        }
        state.groups.insert(group, GroupRow { name: new.name.clone(), description: new.description.clone() });
        state.created.insert((new.creator, new.mid), group);
        let at = self.commit_time(&mut state);
        state.write(at, &entries);
        state.effect(Effect::BeginMembership { group, user: new.creator, role: Role::Creator, from: Seq(1) });
        Ok(GroupOutcome::Created(group))
    }

    async fn resolve(&self, keys: &[MidKey], convs: &[ConversationId]) -> Result<Resolved> {
        let state = self.state();
        let known = keys.iter().filter_map(|(conv, user, mid)| {
            let log = state.logs.get(conv)?;
            log.mids.get(&(*user, *mid)).map(|at| log.entries[*at].clone())
        });
        Ok(Resolved {
            known: known.collect(),
            heads: convs.iter().map(|conv| (*conv, state.head(*conv))).collect(),
        })
    }

    async fn heads(&self, convs: &[ConversationId]) -> Result<BTreeMap<ConversationId, Seq>> {
        let state = self.state();
        Ok(convs.iter().map(|conv| (*conv, state.head(*conv))).collect())
    }

    async fn heads_if_known(
        &self,
        token: &TokenHash,
        convs: &[ConversationId],
    ) -> Result<Option<BTreeMap<ConversationId, Seq>>> {
        let state = self.state();
        let heads = || convs.iter().map(|conv| (*conv, state.head(*conv))).collect();
        Ok(state.tokens.contains_key(token).then(heads))
    }

    async fn snapshots(&self, convs: &[ConversationId]) -> Result<Vec<Snapshot>> {
        let state = self.state();
        Ok(convs.iter().map(|conv| state.snapshot(*conv)).collect())
    }

    async fn entries(
        &self,
        conv: ConversationId,
        after: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        let state = self.state();
        let Some(log) = state.logs.get(&conv) else { return Ok(Vec::new()) };
        let from = usize::try_from(after.0).unwrap_or(usize::MAX).min(log.entries.len());
        let run = || log.entries[from..].iter().take(limit);
        Ok(run().take(within_bytes(run(), bytes_max)).cloned().collect())
    }

    async fn entries_before(
        &self,
        conv: ConversationId,
        from: Seq,
        before: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>> {
        let state = self.state();
        let Some(log) = state.logs.get(&conv) else { return Ok(Vec::new()) };
        let run = || {
            log.entries.iter().rev().skip_while(|e| e.seq >= before).take_while(|e| e.seq >= from).take(limit)
        };
        let mut page: Vec<_> = run().take(within_bytes(run(), bytes_max)).cloned().collect();
        page.reverse();
        Ok(page)
    }

    async fn now(&self) -> Result<UnixMillis> {
        Ok(self.now_as_of(&self.state()))
    }

    async fn advanced(&self, since: UnixMillis, limit: usize) -> Result<Advanced> {
        let state = self.state();
        // As an index on commit times gives it: what became visible late is not the head of a look that starts after its time.
        let mut heads = BTreeMap::<_, Seq>::new();
        let mut latest = since;
        for (at, conv, seq) in state.committed.range((since, ConversationId::notices(lowest()), Seq::ZERO)..)
        {
            let head = heads.entry(*conv).or_default();
            *head = (*head).max(*seq);
            latest = *at;
        }
        let truncated = heads.len() > limit;
        let until = if truncated { self.now_as_of(&state) } else { latest };
        Ok(Advanced { until, heads: heads.into_iter().take(limit).collect(), truncated })
    }

    async fn opening(&self, token: &TokenHash, named: &[ConversationId]) -> Result<Option<Opening>> {
        Ok(self.state().opening(token, named))
    }

    async fn periods_in(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Period>> {
        let mut periods = self.state().all_periods(user);
        periods.retain(|period| convs.contains(&period.conv));
        Ok(periods)
    }

    async fn set_delivered(&self, cursors: &[(UserId, ConversationId, Seq)]) -> Result<()> {
        let mut state = self.state();
        for (user, conv, seq) in cursors {
            let delivered = state.delivered.entry((*user, *conv)).or_default();
            *delivered = (*delivered).max(*seq);
        }
        Ok(())
    }

    async fn friends(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<FriendRow>> {
        let state = self.state();
        let own = state.friends.range((user, lowest())..).take_while(|((owner, _), _)| *owner == user);
        let rows = own.filter(|((_, peer), row)| peer.number() > after && (row.friend || row.blocked));
        Ok(rows
            .take(limit)
            .map(|((_, peer), row)| FriendRow {
                peer: *peer,
                name: state.user_name(*peer),
                friend: row.friend,
                blocked: row.blocked,
            })
            .collect())
    }

    async fn groups(&self, user: UserId, after: u64, limit: usize) -> Result<Vec<GroupInfo>> {
        let state = self.state();
        let own = state.members.iter().filter(|(group, _)| group.number() > after);
        Ok(own
            .filter_map(|(group, members)| {
                let row = &state.groups[group];
                Some(GroupInfo {
                    group: *group,
                    name: row.name.clone(),
                    description: row.description.clone(),
                    role: *members.get(&user)?,
                    members: members.len() as u64,
                })
            })
            .take(limit)
            .collect())
    }

    async fn members(
        &self,
        group: GroupId,
        reader: UserId,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<MemberRow>>> {
        let state = self.state();
        let Some(members) = state.members.get(&group).filter(|members| members.contains_key(&reader)) else {
            return Ok(None);
        };
        let rows = members.iter().filter(|(user, _)| user.number() > after).take(limit);
        Ok(Some(
            rows.map(|(user, role)| MemberRow { user: *user, name: state.user_name(*user), role: *role })
                .collect(),
        ))
    }

    async fn counts(&self, user: UserId) -> Result<Counts> {
        let state = self.state();
        let own = state.friends.range((user, lowest())..).take_while(|((owner, _), _)| *owner == user);
        Ok(Counts {
            friends: own.filter(|(_, row)| row.friend || row.blocked).count() as u64,
            groups: state.members.values().filter(|members| members.contains_key(&user)).count() as u64,
        })
    }

    async fn expired(&self) -> Result<Option<Mark>> {
        Ok(self.state().expired)
    }

    async fn expire(&self, after: Option<Mark>, before: UnixMillis, limit: usize) -> Result<Expired> {
        Ok(self.state().expire(after, before, limit))
    }

    async fn erase(
        &self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Result<Erased> {
        Ok(self.state().erase(conv, user, from, limit))
    }

    async fn rename_in(&self, conv: ConversationId, seq: Seq, body: &EntryBody) -> Result<()> {
        self.state().rename_in(conv, seq, body);
        Ok(())
    }

    async fn conversations(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        let mut convs: Vec<_> = self.state().all_periods(user).iter().map(|period| period.conv).collect();
        convs.dedup();
        convs.retain(|conv| after.is_none_or(|after| *conv > after));
        convs.truncate(limit);
        Ok(convs)
    }

    async fn users(&self, from: &UsersFrom, limit: usize) -> Result<Vec<UserRow>> {
        let state = self.state();
        let line = |user: UserId| {
            let row = &state.users[&user];
            let banned = is_locked(&row.password_hash);
            UserRow { user, name: row.name.clone(), created_at: row.created_at, banned }
        };
        Ok(match from {
            UsersFrom::Number(from) => {
                let users = state.users.keys().filter(|user| user.number() >= *from);
                users.take(limit).map(|user| line(*user)).collect()
            }
            UsersFrom::Name(from) => {
                state.names.range(from.clone()..).take(limit).map(|(_, user)| line(*user)).collect()
            }
        })
    }

    async fn trace(&self, conv: ConversationId, seq: Seq) -> Result<Option<Trace>> {
        let state = self.state();
        let Some((committed_at, ..)) = state.committed.iter().find(|entry| (entry.1, entry.2) == (conv, seq))
        else {
            return Ok(None);
        };
        let reads = |user: &UserId| {
            conv == ConversationId::notices(*user)
                || state.all_periods(*user).iter().any(|period| {
                    period.conv == conv && period.from <= seq && period.until.is_none_or(|until| until >= seq)
                })
        };
        let readers = state.users.keys().filter(|user| reads(user)).map(|user| Reader {
            user: *user,
            name: state.user_name(*user),
            delivered: state.delivered(*user, conv),
        });
        Ok(Some(Trace { committed_at: *committed_at, readers: readers.collect() }))
    }

    async fn close(&self) {}
}

fn lowest() -> UserId {
    UserId::new(1).expect("1 is in range")
}
