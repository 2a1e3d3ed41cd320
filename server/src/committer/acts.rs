//! Changes of rights: an entry and its side rows in one transaction, with notices to those who gain rights.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    Conversation, ConversationId, EntryBody, ErrorBody, ErrorCode, GroupId, Seq, UserId,
    message::{Account, Role},
};
use tokio::time::Instant;

use super::{ActJob, CONFLICTS_MAX, GroupJob, Worker, code, sends::line};
use crate::{
    erasure,
    outbox::Wakes,
    relay::Hint,
    rights::{Act, Lock, NewPassword, Rights},
    store::{Change, Effect, GroupOutcome, NewEntry, NewGroup, Outcome, StoreError},
};

/// What an attempt came to.
enum Attempt<T> {
    Done(T),
    Refused(ErrorCode),
    Conflict,
}

/// How often something was tried.
struct Tries {
    deadline: Instant,
    conflicts: u32,
    failures: u32,
}

impl Tries {
    fn new(patience: Duration) -> Self {
        Self { deadline: Instant::now() + patience, conflicts: 0, failures: 0 }
    }
}

impl Worker {
    pub(super) async fn commit_act(&self, job: ActJob) {
        let mut tries = Tries::new(self.sizes.commit_patience);
        let result = loop {
            let attempt = self.attempt_act(&job).await;
            if let Some(result) = self.judge(attempt, &mut tries).await {
                break result;
            }
        };
        // Who asked may be gone.
        let _ = job.done.send(result);
    }

    pub(super) async fn commit_group(&self, job: GroupJob) {
        let mut tries = Tries::new(self.sizes.commit_patience);
        let result = loop {
            let attempt = self.attempt_group(&job).await;
            if let Some(result) = self.judge(attempt, &mut tries).await {
                break result;
            }
        };
        let _ = job.done.send(result);
    }

    /// The result, or `None` to try again.
    async fn judge<T: Send>(
        &self,
        attempt: Result<Attempt<T>, StoreError>,
        tries: &mut Tries,
    ) -> Option<Result<T, ErrorBody>> {
        match attempt {
            Ok(Attempt::Done(value)) => Some(Ok(value)),
            Ok(Attempt::Refused(code)) => Some(Err(code.into())),
            Ok(Attempt::Conflict) => {
                tries.conflicts += 1;
                (tries.conflicts > CONFLICTS_MAX).then(|| Err(ErrorCode::Overloaded.into()))
            }
            Err(error) => {
                tries.failures += 1;
                let again = self.pause(&error, tries.failures, tries.deadline).await;
                (!again).then(|| Err(code(&error).into()))
            }
        }
    }

    /// Has the cell hold the rights of the store's present state, which are read only if what it holds is older: whoever acts in a large
    /// group, in vain or not, does not have its members read each time.
    async fn look_again(&self, job: &ActJob) -> Result<(), StoreError> {
        let conv = job.cell.conv;
        let held = job.cell.lock().rights().map(|(_, confirmed)| confirmed);
        let cells = BTreeMap::from([(conv, Arc::clone(&job.cell))]);
        if held.is_some() {
            if held == self.store.heads(&[conv]).await?.get(&conv).copied() {
                return Ok(());
            }
            Self::forget(&cells);
        }
        self.load_rights(&cells).await?;
        Ok(())
    }

    /// One attempt. It starts from the store's present state, since a refusal has to be certain.
    async fn attempt_act(&self, job: &ActJob) -> Result<Attempt<Seq>, StoreError> {
        let conv = job.cell.conv;
        self.look_again(job).await?;
        let Some((rights, confirmed)) =
            job.cell.lock().rights().map(|(rights, confirmed)| (rights.clone(), confirmed))
        else {
            return Ok(Attempt::Conflict);
        };
        let allowed = match rights.check(conv, job.from, &job.act) {
            Ok(body) => self.check_elsewhere(job, &rights).await?.map(|()| body),
            Err(code) => Err(code),
        };
        let body = match allowed {
            Ok(body) => body,
            // What happened before gets its first answer.
            Err(code) => return Ok(self.known(job).await?.unwrap_or(Attempt::Refused(code))),
        };
        let change = match self.change(job, &rights, confirmed.next(), body).await? {
            Ok(change) => change,
            Err(code) => return Ok(self.known(job).await?.unwrap_or(Attempt::Refused(code))),
        };
        match self.store.apply(&change).await? {
            Outcome::Committed => {
                self.metrics.committed.inc_by(change.entries.len() as u64);
                self.announce(change.entries, &job.name);
                Ok(Attempt::Done(confirmed.next()))
            }
            Outcome::Conflict => Ok(self.known(job).await?.unwrap_or(Attempt::Conflict)),
        }
    }

    /// The answer to an act that was tried before with this message id.
    async fn known(&self, job: &ActJob) -> Result<Option<Attempt<Seq>>, StoreError> {
        let resolved = self.store.resolve(&[(job.cell.conv, job.from, job.mid)], &[]).await?;
        Ok(resolved.known.first().map(|entry| {
            if job.act.led_to(&entry.body) {
                Attempt::Done(entry.seq)
            } else {
                Attempt::Refused(ErrorCode::IdReused)
            }
        }))
    }

    /// Whether none of these users' accounts is erased.
    async fn check_not_erased(&self, users: &[UserId]) -> Result<Result<(), ErrorCode>, StoreError> {
        for user in users {
            let name = self.store.user_name(*user).await?;
            if name.is_none_or(|name| erasure::is_erased(*user, &name)) {
                return Ok(Err(ErrorCode::NoSuchUser));
            }
        }
        Ok(Ok(()))
    }

    /// Whether the password is still the one that was verified, and the session, if one asks, still one that may change it. Read after the head of
    /// the user's notices: what another session changes later takes the position that this change is to have.
    async fn may_change_password(
        &self,
        user: UserId,
        new: &NewPassword,
    ) -> Result<Result<(), ErrorCode>, StoreError> {
        if let Some(token) = &new.token
            && self.store.token(token).await?.is_none_or(|token| token.user != user)
        {
            return Ok(Err(ErrorCode::BadToken));
        }
        let account = self.store.account(&Account::Number(user)).await?;
        let same = account.is_some_and(|account| account.password_hash == new.verified);
        Ok(if same { Ok(()) } else { Err(ErrorCode::BadCredentials) })
    }

    /// What the conversation alone does not tell: the limits on friends, groups and members, and the password to be replaced.
    async fn check_elsewhere(
        &self,
        job: &ActJob,
        rights: &Rights,
    ) -> Result<Result<(), ErrorCode>, StoreError> {
        let bounds = self.bounds;
        let reached = match (&job.act, rights) {
            (Act::ChangePassword(new), _) => return self.may_change_password(job.from, new).await,
            (Act::LockAccount(_), _) => return self.check_not_erased(&[job.from]).await,
            (Act::EndSessions(new), _) => {
                return Ok(match self.check_not_erased(&[job.from]).await? {
                    Ok(()) => self.may_change_password(job.from, new).await?,
                    refused => refused,
                });
            }
            (Act::Join, Rights::Group(group)) => {
                group.members.len() >= bounds.members_per_group_max
                    || self.store.counts(job.from).await?.groups >= bounds.groups_per_user_max
            }
            (Act::Befriend, _) => {
                let mut reached = false;
                for user in [Some(job.from), job.cell.conv.peer_of(job.from)].into_iter().flatten() {
                    reached |= self.store.counts(user).await?.friends >= bounds.friends_per_user_max;
                }
                reached
            }
            (Act::Block, _) => self.store.counts(job.from).await?.friends >= bounds.friends_per_user_max,
            _ => false,
        };
        Ok(if reached { Err(ErrorCode::LimitReached) } else { Ok(()) })
    }

    /// The entry, its side rows, and notices to those who gain rights, unless one of them is erased.
    async fn change(
        &self,
        job: &ActJob,
        rights: &Rights,
        seq: Seq,
        body: EntryBody,
    ) -> Result<Result<Change, ErrorCode>, StoreError> {
        let (conv, from) = (job.cell.conv, job.from);
        let (effects, opened) = effects(conv, from, seq, &body, job, rights);
        let mut entries = vec![NewEntry { seq, ..self.new_entry(conv, from, job.mid, body) }];
        let gaining: Vec<_> = opened.iter().map(|(user, _)| *user).collect();
        let notices: Vec<_> = gaining.iter().copied().map(ConversationId::notices).collect();
        let heads = self.store.heads(&notices).await?;
        // After the heads: an erasure later than this look takes the position of a notice.
        if let Err(code) = self.check_not_erased(&gaining).await? {
            return Ok(Err(code));
        }
        for (user, title) in opened {
            let notices = ConversationId::notices(user);
            let body = EntryBody::Opened { opened: conv, after: seq.previous(), title };
            let seq = heads.get(&notices).copied().unwrap_or_default().next();
            entries.push(NewEntry { seq, ..self.new_entry(notices, from, job.mid, body) });
        }
        entries.sort_by_key(|entry| entry.conv);
        Ok(Ok(Change { entries, effects }))
    }

    async fn attempt_group(&self, job: &GroupJob) -> Result<Attempt<GroupId>, StoreError> {
        let notices = ConversationId::notices(job.from);
        let head = self.store.heads(&[notices]).await?.get(&notices).copied().unwrap_or_default();
        let new = NewGroup {
            creator: job.from,
            mid: job.mid,
            name: job.title.clone(),
            description: job.description.clone(),
            at: self.clock.now(),
            notice_seq: head.next(),
        };
        let erased = self.check_not_erased(&[job.from]).await?;
        let full = self.store.counts(job.from).await?.groups >= self.bounds.groups_per_user_max;
        let refused = erased.err().or(full.then_some(ErrorCode::LimitReached));
        let outcome = match refused {
            None => self.store.create_group(&new).await?,
            Some(code) => match self.store.created_with(job.from, job.mid).await? {
                Some(known) => GroupOutcome::Known(known),
                None => return Ok(Attempt::Refused(code)),
            },
        };
        Ok(match outcome {
            GroupOutcome::Created(group) => {
                self.announce(new.entries(group), &job.name);
                Attempt::Done(group)
            }
            GroupOutcome::Known(known) if known.name == job.title && known.description == job.description => {
                Attempt::Done(known.group)
            }
            GroupOutcome::Known(_) => Attempt::Refused(ErrorCode::IdReused),
            GroupOutcome::Conflict => Attempt::Conflict,
        })
    }

    /// After a commit: to the local sessions and to the other nodes.
    fn announce(&self, entries: Vec<NewEntry>, name: &str) {
        let mut wakes = Wakes::default();
        self.recent.add(entries.iter().map(|entry| (entry.conv, entry.seq, entry.seq)));
        let mut hints = Vec::with_capacity(entries.len());
        for entry in entries {
            let conv = entry.conv;
            let lines = vec![line(entry, name)];
            hints.push(Hint { conv, lines: lines.clone() });
            if let Some(cell) = self.feeds.existing(conv) {
                self.feeds.confirm(&cell, lines, &mut wakes);
            }
        }
        wakes.fire();
        self.relay.publish(hints);
    }
}

/// The side rows of an entry, and who gains the right to read, with the title they see.
fn effects(
    conv: ConversationId,
    from: UserId,
    seq: Seq,
    body: &EntryBody,
    job: &ActJob,
    rights: &Rights,
) -> (Vec<Effect>, Vec<(UserId, String)>) {
    let open = |user, peer| Effect::OpenDirect { user, peer, after: seq.previous() };
    match (conv.parse(), body) {
        (Conversation::Direct(a, b), _) => {
            let peer = if a == from { b } else { a };
            let own = (from, job.peer_name.clone());
            match body {
                EntryBody::Befriended => (
                    vec![open(a, b), open(b, a), Effect::SetFriends { a, b, friends: true }],
                    vec![own, (peer, job.name.to_string())],
                ),
                EntryBody::Unfriended => (vec![Effect::SetFriends { a, b, friends: false }], vec![]),
                EntryBody::Blocked => (
                    vec![open(from, peer), Effect::SetBlocked { user: from, peer, blocked: true }],
                    vec![own],
                ),
                _ => (vec![Effect::SetBlocked { user: from, peer, blocked: false }], vec![]),
            }
        }
        (Conversation::Group(group), EntryBody::Joined) => {
            let title = match rights {
                Rights::Group(group) => group.title.clone(),
                _ => String::new(),
            };
            (
                vec![Effect::BeginMembership { group, user: from, role: Role::Member, from: seq }],
                vec![(from, title)],
            )
        }
        (Conversation::Group(group), EntryBody::Left) => {
            (vec![Effect::EndMembership { group, user: from, until: seq }], vec![])
        }
        (Conversation::Group(group), EntryBody::Removed { user, .. }) => {
            (vec![Effect::EndMembership { group, user: *user, until: seq }], vec![])
        }
        (Conversation::Group(group), _) => (vec![Effect::DeleteGroup { group, until: seq }], vec![]),
        (Conversation::Notices(user), _) => match &job.act {
            Act::ChangePassword(new) | Act::EndSessions(new) => {
                let (hash, keep) = (new.hash.clone(), new.token);
                (vec![Effect::SetPassword { user, hash, keep }], vec![])
            }
            Act::LockAccount(Lock { name, name_key, hash }) => {
                let (name, name_key, hash) = (name.clone(), name_key.clone(), hash.clone());
                (vec![Effect::EraseAccount { user, name, name_key, hash }], vec![])
            }
            _ => (vec![], vec![]),
        },
    }
}
