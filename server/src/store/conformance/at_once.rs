//! Sessions that are opened at the same time.

use futures_util::future::{join_all, try_join_all};
use protocol::{ConversationId, GroupId, message::Account};

use super::{Checked, Store, TokenHash, user};

/// More than one statement takes, and of so few users that each comes more than once.
const SESSIONS: u8 = 40;

/// Whoever asks at the same time as others has the answer that they would have had alone.
pub(super) async fn at_once(store: &dyn Store) -> Checked {
    let (mut convs, mut hashes) = (Vec::new(), Vec::new());
    for number in 1..=4 {
        let account = store.account(&Account::Number(user(number))).await?.expect("it was registered");
        hashes.push(account.password_hash);
        convs.extend(store.conversations(user(number), None, 100).await?);
        convs.push(ConversationId::notices(user(number)));
    }
    convs.push(ConversationId::group(GroupId::new(77).expect("in range")));

    let token = |n: u8| -> TokenHash { [100 + n; 32] };
    let of = |n: u8| 1 + u64::from(n) % 4;
    let is_verified = |n: u8| n % 5 != 4;
    let adding = (0..SESSIONS).map(|n| {
        let verified = if is_verified(n) { hashes[usize::from(n) % 4].as_str() } else { "an old hash" };
        async move { store.add_token(&token(n), user(of(n)), verified, 1000 + i64::from(n), 64).await }
    });
    for (n, added) in (0..SESSIONS).zip(join_all(adding).await) {
        let added = added?;
        assert_eq!(added, store.opening(&token(n), &[]).await?);
        assert_eq!(added.map(|opening| opening.token.user), is_verified(n).then(|| user(of(n))), "{n}");
    }

    let named = |n: u8| &convs[..convs.len() * usize::from(n) / usize::from(SESSIONS)];
    let openings = (0..SESSIONS).map(|n| async move { store.opening(&token(n), named(n)).await });
    for (n, opening) in (0..SESSIONS).zip(try_join_all(openings).await?) {
        assert_eq!(opening, store.opening(&token(n), named(n)).await?, "{n}");
    }
    let of_one_or_more = |n: u8| &convs[usize::from(n) % convs.len()..];
    let heads =
        (0..SESSIONS).map(|n| async move { store.heads_if_known(&token(n), of_one_or_more(n)).await });
    for (n, heads) in (0..SESSIONS).zip(try_join_all(heads).await?) {
        let alone = is_verified(n).then_some(store.heads(of_one_or_more(n)).await?);
        assert_eq!(heads, alone, "{n}");
    }

    // Of one user alike.
    let adding = (0..SESSIONS).map(|n| {
        let verified = hashes[0].as_str();
        async move { store.add_token(&token(100 + n), user(1), verified, 2000 + i64::from(n), 64).await }
    });
    assert!(try_join_all(adding).await?.iter().all(Option::is_some));
    let mut kept = 0;
    for n in (0..SESSIONS).chain(100..100 + SESSIONS) {
        let known = store.token(&token(n)).await?;
        assert!(n < 100 || known.is_some(), "{n} is new");
        kept += usize::from(known.is_some());
        store.remove_token(&token(n)).await?;
    }
    assert_eq!(kept, 32 + usize::from(SESSIONS), "nobody has more than may stay");
    Ok(())
}
