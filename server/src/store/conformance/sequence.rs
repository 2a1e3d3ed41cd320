//! Random operations on two stores at once.

use std::sync::Arc;

use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Seq, UserId,
    message::{Account, Role},
};

use crate::rights::Rights;

use super::super::{Change, Effect, NewEntry, NewGroup, NewUser, Result, Store, UsersFrom};
use super::opening;

/// One step of a sequence. Numbers are small, so that steps meet; a position is given relative to the head, so that most fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make an account.
    Register {
        /// Its name and message id.
        id: u8,
    },
    /// Append messages: conversation, sender, message id, and how far from the next position (0 fits).
    Append(Vec<(u8, u8, u8, i8)>),
    /// Append messages after the head: conversation, how far below the head rights are known, and the messages' senders and ids.
    AppendAfter(u8, u8, Vec<(u8, u8)>),
    /// Befriend (`true`) or unfriend two users.
    Befriend {
        /// One.
        a: u8,
        /// The other.
        b: u8,
        /// The message id.
        id: u8,
        /// Which of the two.
        friends: bool,
    },
    /// Block (`true`) or unblock.
    Block {
        /// Who.
        a: u8,
        /// Whom.
        b: u8,
        /// The message id.
        id: u8,
        /// Which of the two.
        blocked: bool,
    },
    /// Make a group.
    CreateGroup {
        /// Who.
        a: u8,
        /// The message id.
        id: u8,
    },
    /// Join (`true`) or leave a group, whether or not that makes sense.
    Join {
        /// Who.
        a: u8,
        /// Which group.
        group: u8,
        /// The message id.
        id: u8,
        /// Which of the two.
        joins: bool,
    },
    /// Delete a group.
    DeleteGroup {
        /// Who.
        a: u8,
        /// Which group.
        group: u8,
        /// The message id.
        id: u8,
    },
    /// Keep a token.
    AddToken {
        /// Whose.
        a: u8,
        /// Which.
        token: u8,
        /// Of which password, perhaps an earlier one.
        password: u8,
    },
    /// Change a password.
    SetPassword {
        /// Whose.
        a: u8,
        /// The message id, and the password.
        id: u8,
        /// The token that stays; from 192 on, none does.
        keep: u8,
    },
    /// Erase a user's messages in a log.
    Erase {
        /// Whose.
        a: u8,
        /// In which conversation.
        conv: u8,
        /// From which message id on.
        id: u8,
        /// How many to look at.
        limit: u8,
    },
    /// Erase an account.
    EraseAccount {
        /// Whose.
        a: u8,
        /// The message id.
        id: u8,
    },
    /// Erase all messages there are.
    Expire,
    /// Raise a delivered cursor.
    Deliver {
        /// Whose.
        a: u8,
        /// In which conversation.
        conv: u8,
        /// To where.
        seq: u8,
    },
    /// Page through a log.
    Page {
        /// Which log.
        conv: u8,
        /// From where.
        seq: u8,
        /// How many.
        limit: u8,
        /// How many bytes.
        bytes: u8,
    },
}

fn user(number: u8) -> UserId {
    UserId::new(u64::from(number % 5) + 1).expect("in range")
}

fn group(number: u8) -> GroupId {
    GroupId::new(u64::from(number % 3) + 1).expect("in range")
}

/// Direct conversations of five users, three groups, and notices.
fn conv(number: u8) -> ConversationId {
    let direct = ConversationId::direct(user(number), user(number / 5));
    match number % 4 {
        0 => ConversationId::group(group(number / 4)),
        1 => ConversationId::notices(user(number / 4)),
        _ => direct.unwrap_or(ConversationId::group(group(number))),
    }
}

fn mid(id: u8) -> ClientMsgId {
    ClientMsgId([id; 16])
}

/// Runs the operations on both stores, which must be empty.
///
/// # Panics
/// At the first result that differs.
///
/// # Errors
/// When a store fails.
pub async fn compare(a: Arc<dyn Store>, b: Arc<dyn Store>, operations: &[Operation]) -> Result<()> {
    for (step, operation) in operations.iter().enumerate() {
        let (left, right) = (run(&*a, operation).await?, run(&*b, operation).await?);
        assert_eq!(left, right, "step {step}: {operation:?}");
        let (left, right) = (state(&*a).await?, state(&*b).await?);
        assert_eq!(left, right, "after step {step}: {operation:?}");
    }
    Ok(())
}

/// Everything that can be read, as text.
async fn state(store: &dyn Store) -> Result<Vec<String>> {
    let mut state = Vec::new();
    let convs: Vec<_> = (0..40).map(conv).collect();
    state.push(format!("{:?}", store.heads(&convs).await?));
    state.push(format!("{:?}", store.snapshots(&convs).await?));
    for number in 0..5 {
        let user = user(number);
        state.push(format!("{:?}", opening(store, user, &convs[..3]).await?));
        state.push(format!("{:?}", store.periods_in(user, &convs[..7]).await?));
        state.push(format!("{:?}", store.friends(user, 1, 3).await?));
        state.push(format!("{:?}", store.groups(user, 0, 2).await?));
        state.push(format!("{:?}", store.counts(user).await?));
        let first = store.conversations(user, None, 3).await?;
        state.push(format!("{first:?} {:?}", store.conversations(user, first.last().copied(), 9).await?));
        state.push(format!("{:?}", store.members(group(number), user, 1, 2).await?));
    }
    for conv in &convs[..4] {
        for seq in 1..3 {
            let trace = store.trace(*conv, Seq(seq)).await?;
            state.push(format!("{:?}", trace.map(|trace| trace.readers)));
        }
    }
    state.push(format!("{:?}", store.users(&UsersFrom::Number(2), 3).await?));
    state.push(format!("{:?}", store.users(&UsersFrom::Name("user3".into()), 3).await?));
    let mut advanced = store.advanced(i64::MIN, 1000).await?.heads;
    advanced.sort();
    state.push(format!("{advanced:?}"));
    Ok(state)
}

async fn next(store: &dyn Store, conv: ConversationId) -> Result<Seq> {
    Ok(store.heads(&[conv]).await?[&conv].next())
}

fn entry(conv: ConversationId, seq: Seq, from: UserId, id: u8, body: EntryBody) -> NewEntry {
    NewEntry { conv, seq, from, mid: mid(id), at: 5, body }
}

async fn change(
    store: &dyn Store,
    conv: ConversationId,
    from: UserId,
    id: u8,
    body: EntryBody,
    effects: impl FnOnce(Seq) -> Vec<Effect>,
) -> Result<String> {
    let seq = next(store, conv).await?;
    let change = Change { entries: vec![entry(conv, seq, from, id, body)], effects: effects(seq) };
    Ok(format!("{:?}", store.apply(&change).await?))
}

async fn run(store: &dyn Store, operation: &Operation) -> Result<String> {
    match *operation {
        Operation::Register { id } => {
            let name = format!("user{}", id % 9);
            let new =
                NewUser { mid: mid(id), name_key: name.clone(), name, password_hash: "x".into(), at: 1 };
            Ok(format!("{:?} {:?}", store.register(&new).await?, store.registered_with(mid(id)).await?))
        }
        Operation::Append(ref messages) => append(store, messages).await,
        Operation::AppendAfter(number, below, ref messages) => {
            let conv = conv(number);
            let head = next(store, conv).await?.previous();
            let body = || EntryBody::Message { text: "x".into() };
            let entries: Vec<_> =
                messages.iter().map(|(from, id)| entry(conv, Seq(1), user(*from), *id, body())).collect();
            let known = Seq(head.0.saturating_sub(u64::from(below)));
            Ok(format!("{:?} {:?}", store.append_after(known, &entries).await?, store.heads(&[conv]).await?))
        }
        Operation::Befriend { a, b, id, friends } => {
            let (a, b) = (user(a), user(b));
            let Some(conv) = ConversationId::direct(a, b) else { return Ok(String::new()) };
            let body = if friends { EntryBody::Befriended } else { EntryBody::Unfriended };
            let open = |user, peer, seq: Seq| Effect::OpenDirect { user, peer, after: seq.previous() };
            let set = Effect::SetFriends { a, b, friends };
            change(store, conv, a, id, body, |seq| {
                if friends { vec![open(a, b, seq), open(b, a, seq), set] } else { vec![set] }
            })
            .await
        }
        Operation::Block { a, b, id, blocked } => {
            let (a, b) = (user(a), user(b));
            let Some(conv) = ConversationId::direct(a, b) else { return Ok(String::new()) };
            let body = if blocked { EntryBody::Blocked } else { EntryBody::Unblocked };
            change(store, conv, a, id, body, |seq| {
                vec![
                    Effect::OpenDirect { user: a, peer: b, after: seq.previous() },
                    Effect::SetBlocked { user: a, peer: b, blocked },
                ]
            })
            .await
        }
        Operation::CreateGroup { a, id } => {
            let notice_seq = next(store, ConversationId::notices(user(a))).await?;
            let (name, description) = ("group".to_owned(), format!("{id}"));
            let new = NewGroup { creator: user(a), mid: mid(id), name, description, at: 1, notice_seq };
            let (made, known) =
                (store.create_group(&new).await?, store.created_with(user(a), mid(id)).await?);
            // Numbers that were never given out may differ between stores, but not those that were.
            Ok(format!("{made:?} {known:?}"))
        }
        Operation::Join { a, group: number, id, joins } => {
            let (user, group) = (user(a), group(number));
            let conv = ConversationId::group(group);
            let member = store.members(group, user, 0, 100).await?.is_some();
            let exists = matches!(&store.snapshots(&[conv]).await?[0].rights, Rights::Group(rights) if !rights.title.is_empty());
            if member == joins || !exists {
                return Ok(String::new());
            }
            let body = if joins { EntryBody::Joined } else { EntryBody::Left };
            change(store, conv, user, id, body, |seq| {
                vec![if joins {
                    Effect::BeginMembership { group, user, role: Role::Member, from: seq }
                } else {
                    Effect::EndMembership { group, user, until: seq }
                }]
            })
            .await
        }
        Operation::DeleteGroup { a, group: number, id } => {
            let (user, group) = (user(a), group(number));
            let effects = |until| vec![Effect::DeleteGroup { group, until }];
            change(store, ConversationId::group(group), user, id, EntryBody::Deleted, effects).await
        }
        Operation::AddToken { a, token, password } => {
            let hash = [token % 8; 32];
            // No token is made twice.
            let made = match store.token(&hash).await? {
                None => store.add_token(&hash, user(a), password_hash(password), i64::from(token), 3).await?,
                Some(_) => None,
            };
            Ok(format!("{made:?} {}", tokens(store).await?))
        }
        Operation::SetPassword { a, id, keep } => {
            let hash = password_hash(id).into();
            let set =
                Effect::SetPassword { user: user(a), hash, keep: (keep < 192).then_some([keep % 8; 32]) };
            let conv = ConversationId::notices(user(a));
            let changed = change(store, conv, user(a), id, EntryBody::PasswordChanged, |_| vec![set]).await?;
            let account = store.account(&Account::Number(user(a))).await?;
            Ok(format!("{changed} {account:?} {}", tokens(store).await?))
        }
        Operation::Erase { a, conv: number, id, limit } => {
            let conv = conv(number);
            let erased = store.erase(conv, user(a), mid(id), usize::from(limit % 6)).await?;
            Ok(format!("{erased:?} {:?}", store.entries(conv, Seq(0), 100, 10_000).await?))
        }
        Operation::EraseAccount { a, id } => {
            let user = user(a);
            let erase = Effect::EraseAccount {
                user,
                name: format!("erased-{user}"),
                name_key: format!("\u{1}{user}"),
                hash: password_hash(id).into(),
            };
            let conv = ConversationId::notices(user);
            let changed = change(store, conv, user, id, EntryBody::PasswordChanged, |_| vec![erase]).await?;
            let account = store.account(&Account::Number(user)).await?;
            Ok(format!("{changed} {account:?} {} {}", tokens(store).await?, texts(store).await?))
        }
        // The stores' own times differ, and with them the order; not what comes of it.
        Operation::Expire => {
            let expired = store.expire(None, i64::MAX, 100_000).await?;
            Ok(format!("{expired:?} {}", texts(store).await?))
        }
        Operation::Deliver { a, conv: number, seq } => {
            store.set_delivered(&[(user(a), conv(number), Seq(u64::from(seq)))]).await?;
            Ok(format!("{:?}", opening(store, user(a), &[]).await?))
        }
        Operation::Page { conv: number, seq, limit, bytes } => {
            page(store, conv(number), seq, limit, bytes).await
        }
    }
}

/// One of three hashes; the first is that of a new account.
fn password_hash(password: u8) -> &'static str {
    ["x", "y", "z"][usize::from(password % 3)]
}

async fn tokens(store: &dyn Store) -> Result<String> {
    let mut found = Vec::new();
    for token in 0..8 {
        found.push(store.token(&[token; 32]).await?.map(|row| (row.user, row.expires_at)));
    }
    Ok(format!("{found:?}"))
}

/// The beginning of every log.
async fn texts(store: &dyn Store) -> Result<String> {
    let mut texts = Vec::new();
    for conv in (0..40).map(conv) {
        texts.push(store.entries(conv, Seq(0), 100, 10_000).await?);
    }
    Ok(format!("{texts:?}"))
}

async fn append(store: &dyn Store, messages: &[(u8, u8, u8, i8)]) -> Result<String> {
    let mut entries: Vec<NewEntry> = Vec::new();
    for (number, from, id, off) in messages {
        let conv = conv(*number);
        let before = entries.iter().filter(|entry| entry.conv == conv).count() as u64;
        let fits = next(store, conv).await?.0 + before;
        // Never beyond the next: a node numbers from what is confirmed, and no store has to look for gaps.
        let seq = Seq(fits.saturating_add_signed(i64::from((*off).min(0))).max(1));
        let text = "x".repeat(usize::from(*id));
        entries.push(entry(conv, seq, user(*from), *id, EntryBody::Message { text }));
    }
    entries.sort_by_key(|entry| (entry.conv, entry.seq));
    let outcome = store.append(&entries).await?;
    let keys: Vec<_> = entries.iter().map(|entry| (entry.conv, entry.from, entry.mid)).collect();
    let convs: Vec<_> = entries.iter().map(|entry| entry.conv).collect();
    let mut resolved = store.resolve(&keys, &convs).await?;
    resolved.known.sort_by_key(|entry| (entry.conv, entry.seq));
    resolved.known.dedup();
    Ok(format!("{outcome:?} {resolved:?}"))
}

async fn page(store: &dyn Store, conv: ConversationId, seq: u8, limit: u8, bytes: u8) -> Result<String> {
    let (seq, limit, bytes) = (Seq(u64::from(seq % 8)), usize::from(limit % 6), usize::from(bytes));
    let up: Vec<Entry> = store.entries(conv, seq, limit, bytes).await?;
    let down: Vec<Entry> = store.entries_before(conv, Seq(2), seq, limit, bytes).await?;
    Ok(format!("{up:?} {down:?}"))
}
