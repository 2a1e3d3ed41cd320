//! Feeds alone, without a store or a relay.

use protocol::{ClientMsgId, Entry};

use super::*;
use crate::sizes::Sizes;

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn line(seq: u64, body: EntryBody) -> Line {
    Line::new(Entry {
        conv: "g1".parse().unwrap(),
        seq: Seq(seq),
        at: 0,
        from: user(1),
        name: "kirito".into(),
        mid: ClientMsgId([seq as u8; 16]),
        body,
    })
}

fn message(seq: u64) -> Line {
    line(seq, EntryBody::Message { text: format!("{seq}") })
}

struct World {
    feed: Feed,
    outbox: Arc<Outbox>,
    place: u32,
}

impl World {
    /// A feed with one reader, started at a head.
    fn new(head: u64) -> Self {
        let mut feed = Feed::new("g1".parse().unwrap(), Arc::default());
        let outbox = Outbox::new(user(1));
        let place = feed.attach(Arc::clone(&outbox));
        feed.start(Seq(head));
        Self { feed, outbox, place }
    }

    fn hint(&mut self, seqs: &[u64]) {
        let mut wakes = Wakes::default();
        self.feed.hint(seqs.iter().map(|seq| Arc::new(message(*seq))), &mut wakes);
        wakes.fire();
    }

    fn confirm(&mut self, lines: Vec<Line>) {
        let mut wakes = Wakes::default();
        self.feed.confirm(lines.into_iter().map(Arc::new), &mut wakes);
        wakes.fire();
    }

    /// What the reader sees above a cursor: seqs, or where else to look.
    fn look(&mut self, cursor: u64) -> Result<Vec<u64>, &'static str> {
        match self.feed.look(self.place, Seq(cursor)) {
            Found::Lines(lines) => Ok(lines.map(|line| line.seq.0).collect()),
            Found::InStore => Err("in store"),
            Found::Lost => Err("lost"),
        }
    }
}

#[test]
fn hints_in_any_order_are_delivered_in_order() {
    let mut world = World::new(5);
    world.hint(&[7]);
    assert_eq!(world.look(5), Ok(vec![]));
    assert_eq!(world.feed.gap(), Some(Seq(5)));
    assert_eq!(world.feed.gap(), None, "one reading at a time");
    world.hint(&[6, 6, 4]);
    assert_eq!(world.look(5), Ok(vec![6, 7]));
    assert_eq!(world.feed.filled(), None);
    assert_eq!(world.look(4), Err("in store"));
}

#[test]
fn a_reader_is_signalled_once_until_it_looks() {
    let mut world = World::new(0);
    world.hint(&[1]);
    world.hint(&[2]);
    assert_eq!(world.outbox.take().signals.len(), 1);
    world.hint(&[3]);
    assert_eq!(world.outbox.take().signals.len(), 0);
    assert_eq!(world.look(0), Ok(vec![1, 2, 3]));
    world.hint(&[4]);
    assert_eq!(world.outbox.take().signals.len(), 1);
}

#[test]
fn hints_prove_nothing() {
    // DESIGN, numbering: numbers come from commits and store reads; hints are never trusted for rights.
    let mut world = World::new(1);
    let mut rights = Rights::empty("g1".parse().unwrap());
    rights.apply("g1".parse().unwrap(), user(1), &EntryBody::Created { title: String::new() });
    world.feed.load(Snapshot { conv: "g1".parse().unwrap(), head: Seq(1), rights: rights.clone() });
    world.hint(&[2]);
    assert_eq!(world.feed.head(), Seq(2));
    assert_eq!(world.feed.rights(), Some((&rights, Seq(1))));
    let mut wakes = Wakes::default();
    world.feed.hint([Arc::new(line(3, EntryBody::Deleted))], &mut wakes);
    wakes.fire();
    assert_eq!(world.feed.head(), Seq(2), "what affects rights is read from the store");
    assert_eq!(world.feed.gap(), Some(Seq(2)));
    world.confirm(vec![message(2), line(3, EntryBody::Deleted)]);
    assert_eq!(world.feed.head(), Seq(3));
    rights.apply("g1".parse().unwrap(), user(1), &EntryBody::Deleted);
    assert_eq!(world.feed.rights(), Some((&rights, Seq(3))));
}

/// A revocation is told to every reader at once, however far behind it is, and only on the store's word.
#[test]
fn a_revocation_is_told_at_once() {
    let mut world = World::new(3);
    let mut wakes = Wakes::default();
    world.feed.hint([Arc::new(line(4, EntryBody::PasswordChanged))], &mut wakes);
    wakes.fire();
    assert!(!world.outbox.take().revoked, "a hint proves nothing");
    assert_eq!(world.feed.gap(), Some(Seq(3)));
    world.confirm(vec![message(4)]);
    assert!(!world.outbox.take().revoked);
    world.confirm(vec![line(5, EntryBody::PasswordChanged), message(6)]);
    assert!(world.outbox.take().revoked);
    world.confirm(vec![line(8, EntryBody::PasswordChanged)]);
    assert!(!world.outbox.take().revoked, "not before what precedes it");
    world.confirm(vec![message(7)]);
    let letters = world.outbox.take();
    assert!(letters.revoked && letters.signals.is_empty(), "also to a reader that has not looked");
    world.confirm(vec![message(9)]);
    assert!(!world.outbox.take().revoked, "once");
    world.confirm(vec![line(10, EntryBody::SessionsEnded)]);
    assert!(world.outbox.take().revoked, "by an operator as well");
}

#[test]
fn a_commit_before_the_first_head_starts_the_feed() {
    let mut feed = World::new(0);
    feed.feed.forget();
    feed.hint(&[9]);
    assert_eq!(feed.feed.head(), Seq(0));
    feed.confirm(vec![message(6)]);
    feed.feed.start(Seq(5));
    assert_eq!(feed.look(5), Ok(vec![6]));
    assert_eq!(feed.feed.gap(), Some(Seq(6)), "the hint that came too early was not forgotten");
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new(0);
    for seq in 1..=1000 {
        world.hint(&[seq]);
    }
    assert_eq!(world.feed.sizes().0, Sizes::default().ring_entries_max);
    world.hint(&(1002..2000).collect::<Vec<_>>());
    assert!(world.feed.sizes().1 <= Sizes::default().held_entries_max);
    world.feed.rest();
    assert!(!world.feed.rest(), "it has a reader");
    assert_eq!(world.feed.shared.bytes(), 0);
    assert_eq!(world.look(1), Err("in store"));
    assert_eq!(world.look(1000), Ok(vec![]));
}

#[test]
fn no_entry_grows_old_in_memory() {
    let mut world = World::new(0);
    world.hint(&[1, 2, 9]);
    world.feed.age();
    world.hint(&[3, 10]);
    assert_eq!(world.look(0), Ok(vec![1, 2, 3]), "not yet");
    world.feed.age();
    assert_eq!(world.look(1), Err("in store"));
    assert_eq!(world.look(2), Ok(vec![3]));
    assert_eq!(world.feed.sizes(), (1, 1), "the tenth is still held, the ninth is not");
    world.hint(&[4]);
    world.feed.age();
    assert_eq!(world.look(2), Err("in store"));
    assert_eq!((world.look(3), world.look(4)), (Ok(vec![4]), Ok(vec![])));
    assert_eq!(world.feed.gap(), Some(Seq(4)), "what was held is still known to be there");
}

#[test]
fn what_the_store_misses_is_said() {
    let mut world = World::new(3);
    world.feed.rumour(Seq(5));
    assert_eq!(world.feed.gap(), Some(Seq(3)));
    let mut wakes = Wakes::default();
    world.feed.lose(Seq(3), &mut wakes);
    wakes.fire();
    assert_eq!(world.look(3), Err("lost"));
}

#[test]
fn who_was_shown_what_is_gone_is_told_and_others_start_anew() {
    let mut world = World::new(0);
    world.hint(&[1, 2, 3]);
    world.feed.doubt();
    assert_eq!((world.look(1), world.feed.head()), (Err("in store"), Seq(3)));
    world.outbox.take();
    let mut wakes = Wakes::default();
    world.feed.cut(Seq(2), &mut wakes);
    wakes.fire();
    assert_eq!(world.outbox.take().signals.len(), 1);
    assert_eq!(world.look(3), Err("lost"));
    assert_eq!(world.look(1), Err("lost"), "it may not know what it has read");
    world.confirm(vec![message(3), message(4)]);
    assert_eq!(world.look(3), Err("lost"), "another entry has that number now");
    world.place = world.feed.attach(Outbox::new(UserId::new(2).unwrap()));
    assert_eq!(world.look(2), Ok(vec![3, 4]));
}

#[test]
fn without_readers_nothing_known_is_kept() {
    let mut world = World::new(3);
    world.feed.detach(world.place);
    world.feed.rumour(Seq(9));
    assert_eq!(world.feed.gap(), None, "nobody wants it");
    world.place = world.feed.attach(Arc::clone(&world.outbox));
    assert_eq!(world.feed.head(), Seq(0));
    world.feed.start(Seq(9));
    assert_eq!(world.look(9), Ok(vec![]));
}
