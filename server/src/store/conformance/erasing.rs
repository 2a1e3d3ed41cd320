//! Erasing: what is deleted, and what stays.

use protocol::{ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Seq, message::Account};

use super::{
    super::{Change, Effect, Mark, NewEntry, Outcome, RegisterOutcome, Store},
    Checked, NewUser, direct, message, mid, user,
};

/// Entries looked at in a step of the long way through the whole store.
const STEP: usize = 100;

pub(super) async fn erasing(store: &dyn Store) -> Checked {
    conversations(store).await?;
    of_one_user(store).await?;
    names(store).await?;
    account(store).await?;
    by_age(store).await
}

fn log() -> ConversationId {
    ConversationId::group(GroupId::new(901).expect("in range"))
}

/// An entry as it is when its text was deleted.
fn erased(entry: &Entry) -> Entry {
    Entry { body: EntryBody::Erased, ..entry.clone() }
}

async fn conversations(store: &dyn Store) -> Checked {
    let own = |number: u64| store.conversations(user(number), None, 10);
    let all = own(1).await?;
    assert_eq!(all.len(), 2, "a group that was deleted, and one direct conversation: {all:?}");
    assert_eq!(all[1], direct(1, 4));
    assert_eq!(own(2).await?, all[..1], "once, however often it was joined");
    assert_eq!(own(4).await?, all[1..]);
    assert_eq!(own(99).await?, []);
    assert_eq!(store.conversations(user(1), None, 1).await?, all[..1]);
    assert_eq!(store.conversations(user(1), Some(all[0]), 10).await?, all[1..]);
    assert_eq!(store.conversations(user(1), Some(all[1]), 10).await?, []);
    Ok(())
}

async fn of_one_user(store: &dyn Store) -> Checked {
    let conv = log();
    let last = ClientMsgId([u8::MAX; 16]);
    let entries = [
        message(conv, 1, 1, 1, "mine"),
        message(conv, 2, 2, 1, "theirs"),
        message(conv, 3, 1, 2, "mine, too"),
        NewEntry { body: EntryBody::Joined, ..message(conv, 4, 1, 3, "") },
        NewEntry { mid: last, ..message(conv, 5, 1, 0, "mine as well") },
    ];
    assert_eq!(store.append(&entries).await?, Outcome::Committed);
    let before = store.entries(conv, Seq(0), 10, 1000).await?;
    let snapshot = store.snapshots(&[conv]).await?;

    let first = store.erase(conv, user(1), ClientMsgId([0; 16]), 2).await?;
    let next = first.next.expect("a full look");
    assert_eq!((first.erased, next > mid(2) && next < mid(3)), (2, true));
    let second = store.erase(conv, user(1), next, 2).await?;
    assert_eq!((second.erased, second.next), (1, None), "no message id comes after the last one");
    let again = store.erase(conv, user(1), ClientMsgId([0; 16]), 10).await?;
    assert_eq!((again.erased, again.next), (0, None), "it is done");
    assert_eq!(store.erase(conv, user(3), ClientMsgId([0; 16]), 10).await?.erased, 0);

    let expected =
        [erased(&before[0]), before[1].clone(), erased(&before[2]), before[3].clone(), erased(&before[4])];
    assert_eq!(store.entries(conv, Seq(0), 10, 1000).await?, expected, "all but the texts is as it was");
    assert_eq!(store.entries_before(conv, Seq(1), Seq(6), 10, 1000).await?, expected);
    assert_eq!(store.snapshots(&[conv]).await?, snapshot);
    // A message id stays used, and its place taken.
    let resolved = store.resolve(&[(conv, user(1), mid(2))], &[conv]).await?;
    assert_eq!((resolved.known, resolved.heads), (vec![expected[2].clone()], [(conv, Seq(5))].into()));
    assert_eq!(store.append(&[message(conv, 6, 1, 2, "mine, too")]).await?, Outcome::Conflict);
    assert_eq!(store.append(&[message(conv, 3, 1, 9, "another")]).await?, Outcome::Conflict);
    assert_eq!(store.append_after(Seq(4), &[message(conv, 0, 1, 9, "x")]).await?, Some(Seq(6)));
    Ok(())
}

async fn names(store: &dyn Store) -> Checked {
    let (conv, notices) = (log(), ConversationId::notices(user(2)));
    let removed = |name: &str| EntryBody::Removed { user: user(3), user_name: name.into() };
    let opened = |title: &str| EntryBody::Opened { opened: direct(2, 3), after: Seq(0), title: title.into() };
    let entries = [
        NewEntry { body: opened("silica"), ..message(notices, 1, 3, 80, "") },
        NewEntry { body: removed("silica"), ..message(conv, 7, 1, 80, "") },
    ];
    assert_eq!(store.append(&entries).await?, Outcome::Committed);
    store.rename_in(notices, Seq(1), &opened("it's \\ erased")).await?;
    store.rename_in(conv, Seq(7), &removed("erased")).await?;
    // Of another kind, and none at all.
    store.rename_in(conv, Seq(6), &removed("x")).await?;
    store.rename_in(conv, Seq(99), &removed("x")).await?;
    assert_eq!(store.entries(notices, Seq(0), 1, 99).await?[0].body, opened("it's \\ erased"));
    let bodies: Vec<_> =
        store.entries(conv, Seq(5), 10, 1000).await?.into_iter().map(|entry| entry.body).collect();
    assert_eq!(bodies, [EntryBody::Message { text: "x".into() }, removed("erased")]);
    Ok(())
}

async fn account(store: &dyn Store) -> Checked {
    let notices = ConversationId::notices(user(3));
    for token in [50, 51] {
        assert!(store.add_token(&[token; 32], user(3), "hash of silica", 1000, 8).await?.is_some());
    }
    let change = Change {
        entries: vec![NewEntry { body: EntryBody::PasswordChanged, ..message(notices, 1, 3, 90, "") }],
        effects: vec![Effect::EraseAccount {
            user: user(3),
            name: "erased-3".into(),
            name_key: "\u{1}key".into(),
            hash: "hash of nothing".into(),
        }],
    };
    assert_eq!(store.apply(&change).await?, Outcome::Committed);
    assert_eq!(store.apply(&change).await?, Outcome::Conflict, "the position is taken");
    assert_eq!(store.account(&Account::Name("silica".into())).await?, None);
    let record = store.account(&Account::Number(user(3))).await?.expect("its number stays");
    assert_eq!((record.name.as_str(), record.password_hash.as_str()), ("erased-3", "hash of nothing"));
    assert_eq!(store.account(&Account::Name("\u{1}key".into())).await?, Some(record));
    assert_eq!((store.token(&[50; 32]).await?, store.token(&[51; 32]).await?), (None, None));
    assert_eq!(store.add_token(&[52; 32], user(3), "hash of silica", 1000, 8).await?, None);
    assert!(store.token(&[9; 32]).await?.is_some(), "another user's stay");
    let own = store.entries(direct(3, 4), Seq(0), 1, 100).await?;
    assert_eq!(own[0].name, "erased-3", "also on what was said before");
    let taken = NewUser {
        mid: mid(99),
        name: "x".into(),
        name_key: "\u{1}key".into(),
        password_hash: "x".into(),
        at: 1,
    };
    assert_eq!(store.register(&taken).await?, RegisterOutcome::Conflict);
    Ok(())
}

async fn by_age(store: &dyn Store) -> Checked {
    let conv = log();
    let heads = store.heads(&[conv, direct(2, 3), direct(3, 4)]).await?;
    assert_eq!(store.expired().await?, None);
    let none = store.expire(None, i64::MIN, STEP).await?;
    assert_eq!((none.erased, none.reached, store.expired().await?), (0, None, None), "nothing is so old");
    // Messages until one is later than everything before; its time is what the rest is older than.
    let earlier = store.advanced(i64::MIN, 1000).await?.until;
    let (mut head, mut latest) = (Seq(7), earlier);
    while latest == earlier {
        head = head.next();
        let entry = NewEntry {
            mid: ClientMsgId(u128::from(head.0).to_be_bytes()),
            ..message(conv, head.0, 2, 0, "x")
        };
        assert_eq!(store.append(&[entry]).await?, Outcome::Committed);
        latest = store.advanced(i64::MIN, 1000).await?.until;
    }

    let (erased, mark) = expire_all(store, latest).await?;
    assert!(erased > 500, "{erased}");
    let expected = |seq| match seq {
        4 => "joined",
        7 => "removed",
        seq if seq == head.0 => "message",
        _ => "erased",
    };
    let kinds = async || {
        let entries = store.entries(conv, Seq(0), 100_000, 1 << 20).await?;
        Ok::<_, super::StoreError>(
            entries.into_iter().map(|entry| entry.body.kind().to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(kinds().await?, (1..=head.0).map(expected).collect::<Vec<_>>());
    let expired = store.expired().await?;
    assert!(expired >= mark && mark.is_some(), "{expired:?} {mark:?}");
    assert_eq!(store.expire(None, latest, 1).await?.erased, 0, "it is done");
    assert_eq!(store.expired().await?, expired, "it does not go back");

    let left = store.expire(expired, latest + 1, STEP).await?;
    assert_eq!((left.erased, left.reached), (1, None));
    assert_eq!(kinds().await?.last().map(String::as_str), Some("erased"));
    // Numbers and notices are as they were.
    let now = store.heads(&[conv, direct(2, 3), direct(3, 4)]).await?;
    assert_eq!(
        now,
        heads.into_iter().map(|(log, was)| (log, if log == conv { head } else { was })).collect()
    );
    let notice = store.entries(ConversationId::notices(user(2)), Seq(0), 1, 99).await?;
    assert_eq!(notice[0].body.kind(), "opened");
    Ok(())
}

/// All that was committed before a time, in small steps: how many messages there were, and where it ended.
async fn expire_all(store: &dyn Store, before: i64) -> Result<(u64, Option<Mark>), super::StoreError> {
    let (mut erased, mut after) = (0, None);
    loop {
        let step = store.expire(after, before, STEP).await?;
        assert!(step.erased <= STEP as u64, "{step:?}");
        assert!(step.reached.is_none_or(|reached| after.is_none_or(|after| reached > after)), "it goes on");
        erased += step.erased;
        if step.reached.is_none() {
            return Ok((erased, after));
        }
        after = step.reached;
    }
}
