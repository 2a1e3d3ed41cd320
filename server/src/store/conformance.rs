//! What every store has to do: one suite, run on each implementation.
//!
//! [`suite`] states the contract call by call; [`compare`] runs a sequence of operations on two stores and compares every result.

use std::sync::Arc;

use protocol::{
    ClientMsgId, ConversationId, EntryBody, GroupId, Seq, UserId,
    message::{Account, Role},
};

use super::{
    Change, Effect, GroupOutcome, NewEntry, NewGroup, NewUser, Opening, Outcome, Period, Reader,
    RegisterOutcome, Store, StoreError, TokenHash, UsersFrom,
};
use crate::rights::{DirectRights, Rights};

mod at_once;
mod erasing;
mod sequence;

pub use self::sequence::{Operation, compare};

type Checked = Result<(), StoreError>;

/// Runs the whole contract on an empty store.
///
/// # Panics
/// When the store breaks it.
///
/// # Errors
/// When the store fails.
pub async fn suite(store: Arc<dyn Store>) -> Checked {
    let store = &*store;
    assert_eq!(store.deployment().await?, store.deployment().await?, "the deployment's id is one");
    accounts(store).await?;
    tokens(store).await?;
    appending(store).await?;
    paging(store).await?;
    friends(store).await?;
    groups(store).await?;
    delivered(store).await?;
    at_once::at_once(store).await?;
    sweep(store).await?;
    operators(store).await?;
    erasing::erasing(store).await
}

fn user(number: u64) -> UserId {
    UserId::new(number).expect("in range")
}

fn mid(number: u8) -> ClientMsgId {
    ClientMsgId([number; 16])
}

fn direct(a: u64, b: u64) -> ConversationId {
    ConversationId::direct(user(a), user(b)).expect("two users")
}

fn message(conv: ConversationId, seq: u64, from: u64, id: u8, text: &str) -> NewEntry {
    let body = EntryBody::Message { text: text.into() };
    NewEntry { conv, seq: Seq(seq), from: user(from), mid: mid(id), at: 1_700_000_000_000, body }
}

async fn accounts(store: &dyn Store) -> Checked {
    let new = |name: &str, id: u8| NewUser {
        mid: mid(id),
        name: name.into(),
        name_key: name.to_lowercase(),
        password_hash: format!("hash of {name}"),
        at: 1,
    };
    for (number, name) in [(1, "Kirito"), (2, "kir"), (3, "silica"), (4, "klein")] {
        assert_eq!(store.register(&new(name, number as u8)).await?, RegisterOutcome::Created(user(number)));
    }
    assert_eq!(store.register(&new("KIRITO", 9)).await?, RegisterOutcome::Conflict, "the name is taken");
    assert_eq!(store.register(&new("other", 1)).await?, RegisterOutcome::Conflict, "the message id is used");
    let known = store.registered_with(mid(1)).await?.expect("it was registered");
    assert_eq!((known.user, known.name.as_str()), (user(1), "Kirito"));
    assert_eq!(store.registered_with(mid(9)).await?, None, "what conflicted was not kept");
    assert_eq!(store.account(&Account::Name("kirito".into())).await?.as_ref(), Some(&known));
    assert_eq!(store.account(&Account::Number(user(1))).await?, Some(known));
    assert_eq!(store.account(&Account::Number(user(99))).await?, None);
    assert_eq!(store.account(&Account::Name("x' or 1=1 --".into())).await?, None);
    assert_eq!(store.user_name(user(2)).await?.as_deref(), Some("kir"));
    assert_eq!(store.user_name(user(99)).await?, None);
    Ok(())
}

async fn tokens(store: &dyn Store) -> Checked {
    for (number, expires_at) in [(1, 100), (2, 300), (3, 200), (4, 400)] {
        let opening = store.add_token(&[number; 32], user(1), "hash of Kirito", expires_at, 3).await?;
        let opening = opening.expect("that is the password's hash");
        assert_eq!(opening.token.expires_at, expires_at);
        assert_eq!(store.opening(&[number; 32], &[]).await?, Some(opening));
    }
    assert!(store.add_token(&[9; 32], user(2), "hash of kir", 50, 3).await?.is_some());
    assert_eq!(
        store.add_token(&[8; 32], user(2), "an old hash", 60, 3).await?,
        None,
        "the password is another one"
    );
    assert_eq!(
        store.add_token(&[8; 32], user(99), "hash of kir", 60, 3).await?,
        None,
        "there is no such user"
    );
    assert_eq!(store.token(&[8; 32]).await?, None);
    assert_eq!(store.token(&[1; 32]).await?, None, "only the newest are kept");
    let token = store.token(&[3; 32]).await?.expect("it is among the newest");
    assert_eq!((token.user, token.name.as_str(), token.expires_at), (user(1), "Kirito", 200));
    assert_eq!(store.token(&[9; 32]).await?.map(|token| token.user), Some(user(2)), "another user's stay");
    assert_eq!(store.opening(&[3; 32], &[]).await?.map(|opening| opening.token), Some(token));
    let notices = [ConversationId::notices(user(1))];
    assert_eq!(store.heads_if_known(&[3; 32], &notices).await?, Some([(notices[0], Seq(0))].into()));
    store.remove_token(&[3; 32]).await?;
    store.remove_token(&[3; 32]).await?;
    assert_eq!(store.token(&[3; 32]).await?, None);
    assert_eq!(store.opening(&[3; 32], &[]).await?, None);
    assert_eq!(store.heads_if_known(&[3; 32], &notices).await?, None);

    assert!(!store.rehash(user(2), "an old hash", "x").await?);
    assert!(store.rehash(user(2), "hash of kir", "it's \\ better").await?);
    let account = store.account(&Account::Number(user(2))).await?.expect("it was registered");
    assert_eq!(account.password_hash, "it's \\ better");
    assert!(store.token(&[9; 32]).await?.is_some(), "the password is the same");
    // The oldest is not forgotten in favour of older ones when it is the one that is added.
    assert!(store.add_token(&[7; 32], user(1), "hash of Kirito", 1, 2).await?.is_some());
    assert!(store.token(&[7; 32]).await?.is_some() && store.token(&[4; 32]).await?.is_some());
    assert_eq!(store.token(&[2; 32]).await?, None);
    passwords(store).await
}

/// With another password, only one token stays; all of it with the entry, or nothing.
async fn passwords(store: &dyn Store) -> Checked {
    let notices = ConversationId::notices(user(4));
    for token in [40, 41, 42] {
        assert!(store.add_token(&[token; 32], user(4), "hash of klein", 1000, 8).await?.is_some());
    }
    let change = |seq, id, hash: &str, keep| Change {
        entries: vec![NewEntry { body: EntryBody::PasswordChanged, ..message(notices, seq, 4, id, "") }],
        effects: vec![Effect::SetPassword { user: user(4), hash: hash.into(), keep }],
    };
    let keep = Some([41; 32]);
    assert_eq!(store.apply(&change(1, 90, "second", keep)).await?, Outcome::Committed);
    assert_eq!(store.apply(&change(1, 91, "third", None)).await?, Outcome::Conflict, "the position is taken");
    let account = store.account(&Account::Number(user(4))).await?.expect("it was registered");
    assert_eq!(account.password_hash, "second");
    assert!(store.token(&[41; 32]).await?.is_some());
    assert_eq!((store.token(&[40; 32]).await?, store.token(&[42; 32]).await?), (None, None));
    assert!(store.token(&[9; 32]).await?.is_some(), "another user's stay");
    assert_eq!(store.add_token(&[43; 32], user(4), "hash of klein", 1000, 8).await?, None);
    assert_eq!(store.entries(notices, Seq(0), 9, 99).await?[0].body, EntryBody::PasswordChanged);
    let snapshot = &store.snapshots(&[notices]).await?[0];
    assert_eq!((snapshot.head, &snapshot.rights), (Seq(1), &Rights::Notices));
    assert_eq!(store.apply(&change(2, 91, "!second", None)).await?, Outcome::Committed);
    assert_eq!(store.token(&[41; 32]).await?, None, "none is kept");
    assert!(store.token(&[9; 32]).await?.is_some(), "another user's stay");
    Ok(())
}

async fn appending(store: &dyn Store) -> Checked {
    let (a, b) = (direct(1, 2), direct(1, 3));
    let first = [
        message(b, 1, 1, 1, "one"),
        message(a, 1, 1, 1, "grüße 👋 \" \\ \0"),
        message(a, 2, 2, 1, "same id, other sender"),
    ];
    let mut sorted = first.to_vec();
    sorted.sort_by_key(|entry| (entry.conv, entry.seq));
    assert_eq!(store.append(&sorted).await?, Outcome::Committed);
    assert_eq!(
        store.heads(&[a, b, direct(2, 3)]).await?,
        [(a, Seq(2)), (b, Seq(1)), (direct(2, 3), Seq(0))].into()
    );

    // The position is a compare-and-set, and a conflict writes nothing, of no conversation.
    let taken = [message(a, 2, 1, 2, "late"), message(b, 2, 1, 2, "innocent")];
    assert_eq!(store.append(&taken).await?, Outcome::Conflict);
    let repeated = [message(a, 3, 1, 1, "known id")];
    assert_eq!(store.append(&repeated).await?, Outcome::Conflict);
    let twice = [message(a, 3, 1, 3, "x"), message(a, 4, 1, 3, "the same id in one batch")];
    assert_eq!(store.append(&twice).await?, Outcome::Conflict);
    assert_eq!(store.heads(&[a, b]).await?, [(a, Seq(2)), (b, Seq(1))].into());

    let resolved =
        store.resolve(&[(a, user(1), mid(1)), (a, user(1), mid(2)), (b, user(2), mid(1))], &[a]).await?;
    assert_eq!(resolved.heads, [(a, Seq(2))].into());
    let known: Vec<_> =
        resolved.known.iter().map(|entry| (entry.conv, entry.seq, entry.name.as_str())).collect();
    assert_eq!(known, [(a, Seq(1), "Kirito")]);
    assert_eq!(resolved.known[0].body, EntryBody::Message { text: "grüße 👋 \" \\ \0".into() });
    assert_eq!(store.append(&[]).await?, Outcome::Committed);

    after_the_head(store).await?;

    // A full batch, and the longest text.
    let long = "x".repeat(65_536);
    let c = direct(2, 3);
    let batch: Vec<_> = (1..=512)
        .map(|seq| NewEntry {
            mid: ClientMsgId(u128::from(seq).to_le_bytes()),
            ..message(c, seq, 2, 0, if seq == 7 { &long } else { "short" })
        })
        .collect();
    assert_eq!(store.append(&batch).await?, Outcome::Committed);
    assert_eq!(store.heads(&[c]).await?, [(c, Seq(512))].into());
    assert_eq!(store.entries(c, Seq(6), 1, 0).await?[0].body, EntryBody::Message { text: long });

    // Whatever a text says, and however it may be quoted on its way.
    let odd = "\0\u{1}\u{1f}\u{7f}\"\\/'\r\n\t\u{2028} \u{e9}\u{10ffff}";
    let c = ConversationId::group(GroupId::new(903).expect("in range"));
    let (first, second) = (message(c, 1, 3, 70, odd), message(c, 2, 3, 71, ""));
    assert_eq!(store.append(&[first, second]).await?, Outcome::Committed);
    let texts = [odd, ""].map(|text| EntryBody::Message { text: text.into() });
    let bodies =
        |entries: Vec<protocol::Entry>| entries.into_iter().map(|entry| entry.body).collect::<Vec<_>>();
    assert_eq!(bodies(store.entries(c, Seq(0), 9, 999).await?), texts);
    assert_eq!(bodies(store.entries_before(c, Seq(1), Seq(9), 9, 999).await?), texts);
    Ok(())
}

async fn after_the_head(store: &dyn Store) -> Checked {
    let conv = ConversationId::group(GroupId::new(900).expect("in range"));
    // The seq of an entry that is given counts for nothing but the order.
    let two = |id| [message(conv, 7, 1, id, "a"), message(conv, 8, 2, id, "b")];
    assert_eq!(store.append_after(Seq(0), &two(1)).await?, Some(Seq(1)), "an empty log");
    assert_eq!(store.append_after(Seq(0), &two(2)).await?, Some(Seq(3)), "others have written messages");
    assert_eq!(store.append_after(Seq(4), &two(2)).await?, None, "a message id is known");
    assert_eq!(store.append_after(Seq(4), &two(3)[..1]).await?, Some(Seq(5)));
    let rights = Change {
        entries: vec![NewEntry { body: EntryBody::Joined, ..message(conv, 6, 3, 4, "") }],
        effects: vec![],
    };
    assert_eq!(store.apply(&rights).await?, Outcome::Committed);
    assert_eq!(store.append_after(Seq(5), &two(5)).await?, None, "rights have changed since");
    assert_eq!(store.append_after(Seq(6), &two(5)).await?, Some(Seq(7)), "which is known by now");
    let entries = store.entries(conv, Seq(0), 10, 1000).await?;
    let entries: Vec<_> = entries.iter().map(|e| (e.seq.0, e.from.number(), e.mid)).collect();
    let expected = [(1, 1, 1), (2, 2, 1), (3, 1, 2), (4, 2, 2), (5, 1, 3), (6, 3, 4), (7, 1, 5), (8, 2, 5)];
    assert_eq!(entries, expected.map(|(seq, from, id)| (seq, from, mid(id))));
    assert_eq!(store.append_after(Seq(8), &[]).await?, Some(Seq(9)), "nothing");
    Ok(())
}

async fn paging(store: &dyn Store) -> Checked {
    let c = direct(2, 3);
    let seqs = |entries: Vec<protocol::Entry>| entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(store.entries(c, Seq(0), 3, 1000).await?), [1, 2, 3]);
    assert_eq!(seqs(store.entries(c, Seq(510), 10, 1000).await?), [511, 512]);
    assert_eq!(seqs(store.entries(c, Seq(512), 10, 1000).await?), [0u64; 0]);
    assert_eq!(seqs(store.entries(c, Seq(u64::MAX), 10, 1000).await?), [0u64; 0]);
    assert_eq!(seqs(store.entries(c, Seq(4), 10, 12).await?), [5, 6], "bounded by bytes");
    assert_eq!(seqs(store.entries(c, Seq(6), 10, 12).await?), [7], "but at least one");
    assert_eq!(seqs(store.entries_before(c, Seq(1), Seq(4), 2, 1000).await?), [2, 3]);
    assert_eq!(seqs(store.entries_before(c, Seq(3), Seq(5), 10, 1000).await?), [3, 4]);
    assert_eq!(seqs(store.entries_before(c, Seq(1), Seq(u64::MAX), 2, 1000).await?), [511, 512]);
    assert_eq!(
        seqs(store.entries_before(c, Seq(1), Seq(10), 9, 10).await?),
        [8, 9],
        "the newest within the bytes"
    );
    assert_eq!(seqs(store.entries_before(c, Seq(1), Seq(8), 9, 10).await?), [7], "but at least one");
    assert_eq!(seqs(store.entries_before(c, Seq(1), Seq(1), 9, 10).await?), [0u64; 0]);
    Ok(())
}

async fn friends(store: &dyn Store) -> Checked {
    let conv = direct(1, 4);
    let (a, b) = (user(1), user(4));
    let open = |user, peer, after| Effect::OpenDirect { user, peer, after: Seq(after) };
    let befriend = Change {
        entries: vec![
            NewEntry {
                body: EntryBody::Opened { opened: conv, after: Seq(0), title: "klein".into() },
                ..message(ConversationId::notices(a), 1, 1, 50, "")
            },
            NewEntry { body: EntryBody::Befriended, ..message(conv, 1, 1, 50, "") },
        ],
        effects: vec![open(a, b, 0), open(b, a, 0), Effect::SetFriends { a, b, friends: true }],
    };
    assert_eq!(store.apply(&befriend).await?, Outcome::Committed);
    assert_eq!(store.apply(&befriend).await?, Outcome::Conflict, "the same once more");
    let rows = store.friends(a, 0, 10).await?;
    assert_eq!(
        rows.iter().map(|row| (row.peer, row.name.as_str(), row.friend, row.blocked)).collect::<Vec<_>>(),
        [(b, "klein", true, false)]
    );
    assert_eq!(store.friends(a, 4, 10).await?, []);
    assert_eq!(store.counts(a).await?.friends, 1);
    let period =
        |delivered, friend| Period { conv, from: Seq(1), until: None, delivered: Seq(delivered), friend };
    assert_eq!(periods(store, b, &[]).await?, [period(0, true)]);

    let block = Change {
        entries: vec![NewEntry { body: EntryBody::Blocked, ..message(conv, 2, 4, 51, "") }],
        // Opening what is open keeps the earlier start.
        effects: vec![open(b, a, 1), Effect::SetBlocked { user: b, peer: a, blocked: true }],
    };
    assert_eq!(store.apply(&block).await?, Outcome::Committed);
    let rights = DirectRights { friends: true, low_blocks: false, high_blocks: true };
    let snapshots = store.snapshots(&[conv, direct(3, 4)]).await?;
    assert_eq!((snapshots[0].head, &snapshots[0].rights), (Seq(2), &Rights::Direct(rights)));
    assert_eq!((snapshots[1].head, &snapshots[1].rights), (Seq(0), &Rights::empty(direct(3, 4))));
    let unfriend = Change {
        entries: vec![NewEntry { body: EntryBody::Unfriended, ..message(conv, 3, 1, 52, "") }],
        effects: vec![Effect::SetFriends { a, b, friends: false }],
    };
    assert_eq!(store.apply(&unfriend).await?, Outcome::Committed);
    assert_eq!(store.friends(a, 0, 10).await?, [], "neither a friend nor blocked");
    assert_eq!(store.friends(b, 0, 10).await?.len(), 1, "blocked");
    assert_eq!(periods(store, b, &[]).await?, [period(0, false)]);
    assert_eq!(store.periods_in(b, &[conv, direct(3, 4), direct(1, 2)]).await?, [period(0, false)]);
    Ok(())
}

async fn groups(store: &dyn Store) -> Checked {
    let new = |creator: u64, id: u8, notice: u64| NewGroup {
        creator: user(creator),
        mid: mid(id),
        name: "happy game".into(),
        description: "happy play".into(),
        at: 7,
        notice_seq: Seq(notice),
    };
    let group = GroupId::new(1).expect("in range");
    assert_eq!(
        store.create_group(&new(1, 60, 1)).await?,
        GroupOutcome::Conflict,
        "the notice's position is taken"
    );
    assert_eq!(store.created_with(user(1), mid(60)).await?, None);
    let GroupOutcome::Created(made) = store.create_group(&new(1, 60, 2)).await? else { panic!("it is free") };
    let conv = ConversationId::group(made);
    let known = store.created_with(user(1), mid(60)).await?.expect("it was made");
    assert_eq!(
        (known.group, known.name.as_str(), known.description.as_str()),
        (made, "happy game", "happy play")
    );
    assert_eq!(store.create_group(&new(1, 60, 3)).await?, GroupOutcome::Known(known), "the same once more");
    assert!(made >= group);
    let created = store.entries(conv, Seq(0), 10, 100).await?;
    assert_eq!(created[0].body, EntryBody::Created { title: "happy game".into() });
    let notices = store.entries(ConversationId::notices(user(1)), Seq(1), 10, 100).await?;
    assert_eq!(
        notices[0].body,
        EntryBody::Opened { opened: conv, after: Seq(0), title: "happy game".into() }
    );
    let settled = opening(store, user(1), &[]).await?.map(|opening| opening.settled);
    assert_eq!(settled, notices.last().map(|last| last.seq));

    let join = |who: u64, seq: u64, id: u8| Change {
        entries: vec![NewEntry { body: EntryBody::Joined, ..message(conv, seq, who, id, "") }],
        effects: vec![Effect::BeginMembership {
            group: made,
            user: user(who),
            role: Role::Member,
            from: Seq(seq),
        }],
    };
    let leave = |who: u64, seq: u64, id: u8| Change {
        entries: vec![NewEntry { body: EntryBody::Left, ..message(conv, seq, who, id, "") }],
        effects: vec![Effect::EndMembership { group: made, user: user(who), until: Seq(seq) }],
    };
    for change in [join(2, 2, 61), join(3, 3, 61), leave(2, 4, 62), join(2, 5, 63)] {
        assert_eq!(store.apply(&change).await?, Outcome::Committed);
    }
    let members = store.members(made, user(1), 0, 10).await?.expect("a member asks");
    let members: Vec<_> =
        members.iter().map(|row| (row.user.number(), row.name.as_str(), row.role)).collect();
    assert_eq!(
        members,
        [(1, "Kirito", Role::Creator), (2, "kir", Role::Member), (3, "silica", Role::Member)]
    );
    assert_eq!(store.members(made, user(1), 2, 10).await?.map(|rows| rows.len()), Some(1));
    assert_eq!(store.members(made, user(4), 0, 10).await?, None, "a stranger asks");
    assert_eq!(store.groups(user(2), 0, 10).await?[0].members, 3);
    assert_eq!(store.counts(user(2)).await?.groups, 1);
    let period = |from, until, delivered| Period {
        conv,
        from: Seq(from),
        until,
        delivered: Seq(delivered),
        friend: false,
    };
    assert_eq!(periods(store, user(2), &[]).await?, [period(2, Some(Seq(4)), 0), period(5, None, 0)]);
    store.set_delivered(&[(user(2), conv, Seq(4))]).await?;
    assert_eq!(
        periods(store, user(2), &[]).await?,
        [period(5, None, 4)],
        "what ended and was delivered is done with"
    );
    assert_eq!(store.periods_in(user(2), &[conv]).await?.len(), 2, "but it can be asked for");
    let named = [conv, direct(1, 2), ConversationId::notices(user(1))];
    assert_eq!(
        periods(store, user(2), &named).await?,
        [period(2, Some(Seq(4)), 4), period(5, None, 4)],
        "by a session too, of its user's groups alone"
    );

    let delete = Change {
        entries: vec![NewEntry { body: EntryBody::Deleted, ..message(conv, 6, 1, 64, "") }],
        effects: vec![Effect::DeleteGroup { group: made, until: Seq(6) }],
    };
    assert_eq!(store.apply(&delete).await?, Outcome::Committed);
    assert_eq!(store.groups(user(2), 0, 10).await?, []);
    assert_eq!(store.members(made, user(1), 0, 10).await?, None);
    let Rights::Group(rights) = &store.snapshots(&[conv]).await?[0].rights else { panic!("it is a group") };
    assert!(rights.members.is_empty());
    assert_eq!(
        periods(store, user(3), &[]).await?.last(),
        Some(&period(3, Some(Seq(6)), 0)),
        "until it was deleted"
    );
    let nowhere = ConversationId::group(GroupId::new(GroupId::MAX).expect("in range"));
    assert_eq!(store.snapshots(&[nowhere]).await?[0].rights, Rights::empty(nowhere));
    assert_eq!(store.members(GroupId::new(77).expect("in range"), user(1), 0, 10).await?, None);
    Ok(())
}

async fn delivered(store: &dyn Store) -> Checked {
    let delivered = async |number| {
        let notices = ConversationId::notices(user(number));
        let periods = opening(store, user(number), &[]).await?.expect("it was registered").periods;
        let own = periods.iter().find(|period| period.conv == notices).expect("everyone has notices");
        assert_eq!((own.from, own.until), (Seq(1), None));
        Ok::<_, StoreError>(own.delivered)
    };
    let (first, second) = (ConversationId::notices(user(1)), ConversationId::notices(user(2)));
    assert_eq!(delivered(1).await?, Seq(0));
    store
        .set_delivered(&[(user(1), first, Seq(2)), (user(2), first, Seq(7)), (user(2), second, Seq(1))])
        .await?;
    store.set_delivered(&[(user(1), first, Seq(1))]).await?;
    assert_eq!(delivered(1).await?, Seq(2), "it only grows");
    assert_eq!(delivered(2).await?, Seq(1));
    store.set_delivered(&[]).await
}

/// What a session of the user starts from, by a token that is theirs for that long; `None` if there is no such user.
async fn opening(
    store: &dyn Store,
    user: UserId,
    named: &[ConversationId],
) -> Result<Option<Opening>, StoreError> {
    const TOKEN: TokenHash = [200; 32];
    let Some(account) = store.account(&Account::Number(user)).await? else { return Ok(None) };
    let added = store.add_token(&TOKEN, user, &account.password_hash, 0, 64).await?;
    assert_eq!(added.map(|opening| opening.token.user), Some(user));
    let opening = store.opening(&TOKEN, named).await?;
    store.remove_token(&TOKEN).await?;
    Ok(opening)
}

/// The same, but the period in their notices, and whose it is.
async fn periods(
    store: &dyn Store,
    user: UserId,
    named: &[ConversationId],
) -> Result<Vec<Period>, StoreError> {
    let mut periods = opening(store, user, named).await?.expect("it was registered").periods;
    assert!(periods.is_sorted());
    periods.retain(|period| period.conv != ConversationId::notices(user));
    Ok(periods)
}

async fn sweep(store: &dyn Store) -> Checked {
    let conv = direct(3, 4);
    let before = store.advanced(i64::MAX, 100).await?;
    assert_eq!(before.heads, [], "nothing is later than everything");
    store.append(&[message(conv, 1, 3, 70, "x")]).await?;
    let all = store.advanced(i64::MIN, 100).await?;
    assert!(all.heads.contains(&(conv, Seq(1))) && !all.truncated);
    let latest = store.advanced(all.until, 100).await?;
    assert!(latest.heads.contains(&(conv, Seq(1))), "the latest commit is found again from its own time on");
    assert!(store.now().await? >= all.until, "the store's time goes on");
    let some = store.advanced(i64::MIN, 2).await?;
    assert!(some.heads.len() == 2 && some.truncated);
    Ok(())
}

/// What only operators ask for. The accounts and logs are those of the parts before.
async fn operators(store: &dyn Store) -> Checked {
    let from = async |from: UsersFrom, limit| -> Result<Vec<(u64, String)>, StoreError> {
        let rows = store.users(&from, limit).await?;
        Ok(rows.into_iter().map(|row| (row.user.number(), row.name)).collect())
    };
    let named = |names: &[(u64, &str)]| -> Vec<_> {
        names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
    };
    assert_eq!(from(UsersFrom::Number(2), 2).await?, named(&[(2, "kir"), (3, "silica")]));
    assert_eq!(from(UsersFrom::Number(5), 2).await?, []);
    let by_name = named(&[(2, "kir"), (1, "Kirito"), (4, "klein")]);
    assert_eq!(from(UsersFrom::Name("ki".into()), 3).await?, by_name);
    assert_eq!(from(UsersFrom::Name("kirito".into()), 9).await?.len(), 3, "that name and those after it");
    let rows = store.users(&UsersFrom::Number(3), 9).await?;
    assert_eq!(
        rows.iter().map(|row| (row.created_at, row.banned)).collect::<Vec<_>>(),
        [(1, false), (1, true)]
    );

    let group = store.created_with(user(1), mid(60)).await?.expect("it was made").group;
    let readers = async |conv, seq| -> Result<Option<Vec<(u64, u64)>>, StoreError> {
        let Some(trace) = store.trace(conv, Seq(seq)).await? else { return Ok(None) };
        assert!(trace.committed_at <= store.now().await?, "it was committed");
        Ok(Some(trace.readers.iter().map(|row| (row.user.number(), row.delivered.0)).collect()))
    };
    let conv = ConversationId::group(group);
    assert_eq!(readers(conv, 1).await?, Some(vec![(1, 0)]));
    assert_eq!(readers(conv, 2).await?, Some(vec![(1, 0), (2, 4)]), "in a period that has ended");
    assert_eq!(readers(conv, 6).await?, Some(vec![(1, 0), (2, 4), (3, 0)]), "up to the last entry");
    assert_eq!(readers(conv, 7).await?, None);
    assert_eq!(readers(direct(1, 4), 3).await?, Some(vec![(1, 0), (4, 0)]));
    assert_eq!(readers(ConversationId::notices(user(4)), 1).await?, Some(vec![(4, 0)]));
    let trace = store.trace(conv, Seq(1)).await?.expect("it is there");
    let kirito = Reader { user: user(1), name: "Kirito".into(), delivered: Seq(0) };
    assert_eq!(trace.readers, [kirito]);
    Ok(())
}
