//! Each invariant kept and broken. What breaks one does not break another that is independent of it: the
//! whole set is compared.

use std::time::Duration;

use protocol::{
    EntryBody, ErrorCode, Seq,
    message::{Friend, PresenceState},
};

use super::{Story, group, message, shows};
use crate::{
    canary,
    checker::{Invariant, unsettled},
    history::{Call, DeviceId, OperationId, Outcome, Reply, What},
};

#[test]
fn a_calm_day_is_valid() {
    Story::calm().finish().expect(&[]);
    Story::of([]).expect(&[]);
}

#[test]
fn a_busy_day_is_valid() {
    let mut story = Story::calm();
    // Carol goes, comes back, and is removed; she has seen her periods only.
    story.quit("carol", "g1");
    story.say("bob", "g1", "is she gone?");
    story.spread();
    story.join("carol", "g1");
    story.remove("alice", "carol", "g1");
    story.say("bob", "g1", "now she is");
    // Bob repeats what was answered, on another device, which starts with what no device of his was shown.
    let call = story.words("g1", "twice?");
    let once = story.ask("bob", call.clone());
    let seq = story.append("g1", "bob", call.mid().unwrap(), message(&call));
    story.unknown(once);
    let before: Vec<_> = story.shown.clone().into_iter().collect();
    story.login("bob/2", "bob");
    for ((device, conv), seq) in before {
        if device == story.device("bob") {
            story.shown.insert((story.device("bob/2"), conv), seq);
        }
    }
    let again = story.ask("bob/2", call);
    story.ok(again, Reply::Appended { seq });
    // A refusal, a page of history, and a device that ends.
    let call = story.words("g1", "let me in");
    let refused = story.ask("carol", call);
    story.refuse(refused, ErrorCode::NotMember);
    story.spread();
    let conv = "g1".parse().unwrap();
    let read = story.ask("alice", Call::History { conv, before: Some(Seq(4)), limit: Some(2) });
    let entries = vec![story.entry("g1", 2), story.entry("g1", 3)];
    story.ok(read, Reply::History { entries, more: true });
    story.end_device("bob");
    story.say("alice", "g1", "after bob's first device");
    story.spread_to("bob/2");
    story.spread_to("alice");
    story.finish().expect(&[]);
}

#[test]
fn total_order() {
    // Bob's device shows two messages the other way round.
    let mut story = Story::calm();
    story.say("alice", "g1", "first");
    story.say("alice", "g1", "second");
    let (mut first, mut second) = (story.entry("g1", 6), story.entry("g1", 7));
    (first.seq, second.seq) = (Seq(7), Seq(6));
    story.show("bob", second);
    story.show("bob", first);
    story.spread();
    story.finish().expect(&[Invariant::TotalOrder]);
}

#[test]
fn no_gaps() {
    // Bob's device shows 4 and then 6.
    let mut story = Story::calm();
    story.say("alice", "g1", "six");
    story.spread();
    let bob = story.device("bob");
    story.finish().without(|what| shows(what, bob, "g1", 5)).expect(&[Invariant::NoGaps]);

    // A position that no entry ever had: an unknown outcome whose number was used up.
    let mut story = Story::calm();
    let call = story.words("g1", "half");
    let operation = story.ask("alice", call.clone());
    story.append("g1", "alice", call.mid().unwrap(), message(&call));
    story.unknown(operation);
    story.say("alice", "g1", "whole");
    story.spread();
    story.finish();
    for event in &mut story.history.events {
        if let What::Final { entries, .. } = &mut event.what {
            entries.retain(|entry| Some(entry.mid) != call.mid());
        }
    }
    story
        .without(|what| matches!(what, What::Entry { entry, .. } if Some(entry.mid) == call.mid()))
        .expect(&[Invariant::NoGaps]);

    // A hole that nobody could see into is an open question.
    let mut story = Story::calm();
    story.finish();
    story
        .without(|what| {
            matches!(what, What::Final { .. })
                || matches!(what, What::Entry { entry, .. } if entry.seq == Seq(1))
        })
        .expect_unknown("nobody saw");
}

#[test]
fn real_time_order() {
    // "late" is acknowledged before "early" is asked for, and stands after it.
    let mut story = Story::calm();
    let (early, late) = (story.words("g1", "early"), story.words("g1", "late"));
    let at_early = story.append("g1", "alice", early.mid().unwrap(), message(&early));
    let at_late = story.append("g1", "bob", late.mid().unwrap(), message(&late));
    let operation = story.ask("bob", late);
    story.ok(operation, Reply::Appended { seq: at_late });
    let operation = story.ask("alice", early.clone());
    story.ok(operation, Reply::Appended { seq: at_early });
    story.spread();
    story.finish().expect(&[Invariant::RealTimeOrder]);
    // The same if the second outcome was unknown.
    story.record(What::FaultBegan { name: "connection cut".into() });
    story.record(What::Healed);
    for event in &mut story.history.events {
        if matches!(&event.what, What::Returned { operation: of, .. } if *of == operation) {
            event.what = What::Returned { operation, outcome: Outcome::Unknown };
        }
    }
    story.expect(&[Invariant::RealTimeOrder]);
}

#[test]
fn no_acknowledged_loss() {
    // The last message was acknowledged, and is nowhere.
    let mut story = Story::calm();
    story.say("alice", "g1", "lost");
    story.logs.get_mut(&"g1".parse().unwrap()).unwrap().pop();
    story.finish().expect(&[Invariant::AcknowledgedLoss]);

    // Another one stands in its place.
    let mut story = Story::calm();
    story.say("alice", "g1", "overwritten");
    story.logs.get_mut(&"g1".parse().unwrap()).unwrap().pop();
    story.say("bob", "g1", "overwriting");
    story.spread();
    story.finish().expect(&[Invariant::AcknowledgedLoss]);

    // A page asked for after the acknowledgement does not have it yet; the log has it later.
    let mut story = Story::calm();
    story.say("alice", "g1", "stale?");
    let read = story.ask("bob", Call::History { conv: "g1".parse().unwrap(), before: None, limit: Some(2) });
    let entries = vec![story.entry("g1", 4), story.entry("g1", 5)];
    story.ok(read, Reply::History { entries, more: true });
    story.spread();
    story.finish().expect(&[Invariant::AcknowledgedLoss]);

    // Whether it is lost cannot be told when nobody looked.
    let mut story = Story::calm();
    story.say("alice", "g1", "lost?");
    story.expect_unknown("g1 was not read at the end by user 1");
}

#[test]
fn refusals_have_a_reason() {
    // Bob is a member, and nobody asks for anything else meanwhile.
    let mut story = Story::calm();
    let call = story.words("g1", "am I not?");
    let refused = story.ask("bob", call);
    story.refuse(refused, ErrorCode::NotMember);
    story.finish().expect(&[Invariant::Rights]);

    // Bob is removed while he asks, and is back before he is told.
    let mut story = Story::calm();
    let call = story.words("g1", "just then");
    let refused = story.ask("bob", call);
    story.remove("alice", "bob", "g1");
    story.join("bob", "g1");
    story.refuse(refused, ErrorCode::NotMember);
    story.spread();
    story.finish().expect(&[]);

    // He was back before he asked.
    let mut story = Story::calm();
    story.remove("alice", "bob", "g1");
    story.join("bob", "g1");
    let call = story.words("g1", "again?");
    let refused = story.ask("bob", call);
    story.refuse(refused, ErrorCode::NotMember);
    story.spread();
    story.finish().expect(&[Invariant::Rights]);

    // Friends who may talk, and one who is blocked.
    let mut story = Story::calm();
    let call = story.words("d1-2", "why?");
    let refused = story.ask("alice", call);
    story.refuse(refused, ErrorCode::NotFriends);
    story.finish().expect(&[Invariant::Rights]);
    let mut story = Story::calm();
    let (mid, user) = (story.mid(), story.user("alice"));
    story.act("bob", "d1-2", Call::Block { mid, user }, EntryBody::Blocked);
    let call = story.words("d1-2", "oh");
    let refused = story.ask("alice", call);
    story.refuse(refused, ErrorCode::Blocked);
    story.spread();
    story.finish().without(|what| matches!(what, What::FinalLists { .. })).expect(&[]);
}

#[test]
fn what_was_acknowledged_is_not_refused() {
    let repeated = |code| {
        let mut story = Story::calm();
        let call = story.words("g1", "once");
        let seq = story.act("bob", "g1", call.clone(), message(&call));
        assert_eq!(seq, Seq(6));
        story.remove("alice", "bob", "g1");
        let again = story.ask("bob", call);
        story.refuse(again, code);
        story.spread();
        story
    };
    repeated(ErrorCode::NotMember).finish().expect(&[Invariant::IdempotentRetry]);
    repeated(ErrorCode::IdReused).finish().expect(&[Invariant::IdempotentRetry]);
    // It speaks of the moment.
    repeated(ErrorCode::Overloaded).finish().expect(&[]);
}

#[test]
fn no_phantom() {
    // Nobody said it.
    let mut story = Story::calm();
    let mid = story.mid();
    let text = canary::text("g1".parse().unwrap(), "invented");
    story.append("g1", "bob", mid, EntryBody::Message { text });
    story.spread();
    story.finish().expect(&[Invariant::Phantom]);

    // It was refused.
    let mut story = Story::calm();
    let call = story.words("g1", "refused");
    let operation = story.ask("bob", call.clone());
    story.refuse(operation, ErrorCode::Overloaded);
    story.append("g1", "bob", call.mid().unwrap(), message(&call));
    story.spread();
    story.finish().expect(&[Invariant::Phantom]);

    // Its words were changed.
    let mut story = Story::calm();
    let call = story.words("g1", "I owe you 1");
    let operation = story.ask("bob", call.clone());
    let other = story.words("g1", "I owe you 1000");
    let seq = story.append("g1", "bob", call.mid().unwrap(), message(&other));
    story.ok(operation, Reply::Appended { seq });
    story.spread();
    story.finish().expect(&[Invariant::Phantom]);

    // Somebody else said it.
    let mut story = Story::calm();
    let call = story.words("g1", "by alice, they say");
    let operation = story.ask("bob", call.clone());
    story.append("g1", "alice", call.mid().unwrap(), message(&call));
    story.unknown(operation);
    story.spread();
    story.finish().expect(&[Invariant::Phantom]);
}

#[test]
fn exactly_once() {
    // A device shows an entry again.
    let mut story = Story::calm();
    let entry = story.entry("g1", 5);
    story.show("bob", entry);
    story.finish().expect(&[Invariant::ExactlyOnce]);

    // One request has two entries.
    let mut story = Story::calm();
    let call = story.words("g1", "echo");
    let operation = story.ask("bob", call.clone());
    story.append("g1", "bob", call.mid().unwrap(), message(&call));
    let seq = story.append("g1", "bob", call.mid().unwrap(), message(&call));
    story.ok(operation, Reply::Appended { seq });
    story.spread();
    story.finish().expect(&[Invariant::ExactlyOnce]);
}

#[test]
fn idempotent_retry() {
    // The repetition is answered with another seq, where another's entry stands: what that answer says is
    // lost as well.
    let mut story = Story::calm();
    let call = story.words("g1", "again");
    let body = message(&call);
    let seq = story.act("bob", "g1", call.clone(), body);
    let again = story.ask("bob", call);
    story.ok(again, Reply::Appended { seq: seq.previous() });
    story.spread();
    story.finish().expect(&[Invariant::IdempotentRetry, Invariant::AcknowledgedLoss]);

    // A group created twice.
    let mut story = Story::calm();
    let (mid, name) = (story.mid(), String::from("club"));
    for conv in ["g2", "g3"] {
        let operation = story.ask("alice", Call::CreateGroup { mid, name: name.clone() });
        let seq = story.append(conv, "alice", mid, EntryBody::Created { title: name.clone() });
        story.may_read(conv, "alice", seq);
        story.ok(operation, Reply::GroupCreated { group: group(conv), seq });
    }
    story.spread();
    story.finish().expect(&[Invariant::IdempotentRetry]);
}

#[test]
fn membership() {
    // Carol was removed, and is shown what follows.
    let mut story = Story::calm();
    story.remove("alice", "carol", "g1");
    story.say("alice", "g1", "between us");
    story.spread();
    let entry = story.entry("g1", 7);
    story.show("carol", entry.clone());
    story.finish().expect(&[Invariant::Membership]);

    // Or reads it in a page.
    let mut story = Story::calm();
    story.remove("alice", "carol", "g1");
    story.say("alice", "g1", "between us");
    story.spread();
    let read = story.ask("carol", Call::History { conv: entry.conv, before: None, limit: Some(1) });
    story.ok(read, Reply::History { entries: vec![entry], more: true });
    story.finish().expect(&[Invariant::Membership]);
}

#[test]
fn rights() {
    // Carol was removed, and what she sent stands after it.
    let mut story = Story::calm();
    story.remove("alice", "carol", "g1");
    let call = story.words("g1", "I am still here");
    let operation = story.ask("carol", call.clone());
    let seq = story.append("g1", "carol", call.mid().unwrap(), message(&call));
    story.ok(operation, Reply::Appended { seq });
    story.spread();
    story.finish().expect(&[Invariant::Rights]);

    // Friends twice over.
    let mut story = Story::calm();
    let (mid, user) = (story.mid(), story.user("alice"));
    story.act("bob", "d1-2", Call::Befriend { mid, user }, EntryBody::Befriended);
    story.spread();
    story.finish().expect(&[Invariant::Rights]);
}

#[test]
fn no_leak() {
    // Words of the group in a direct conversation.
    let mut story = Story::calm();
    let conv = "d1-2".parse().unwrap();
    let call = Call::Send { mid: story.mid(), conv, text: canary::text("g1".parse().unwrap(), "psst") };
    let body = message(&call);
    story.act("alice", "d1-2", call, body);
    story.spread();
    story.finish().expect(&[Invariant::Leak]);

    // Bytes that reached somebody who never was there.
    let mut story = Story::calm();
    let carol = story.device("carol");
    story.record(What::Canary { device: carol, conv });
    story.finish().expect(&[Invariant::Leak]);
    let mut story = Story::calm();
    let bob = story.device("bob");
    story.record(What::Canary { device: bob, conv });
    story.finish().expect(&[]);
}

#[test]
fn delivered_completely() {
    // Bob's device misses the end, a minute and a half after the last fault.
    let mut story = Story::calm();
    story.record(What::FaultBegan { name: "node killed".into() });
    story.say("alice", "g1", "bob?");
    story.spread_to("alice");
    story.spread_to("carol");
    story.record(What::Healed);
    story.wait(90);
    story.finish().expect(&[Invariant::Completeness]);
    assert!(unsettled(&story.history)[0].contains("g1/6"));
    // Too early to tell.
    story.history.bounds.delivery = Duration::from_secs(100);
    story.expect_unknown("device 1 of user 2 was not shown g1/6");
    // It was told of it, or is gone.
    let bob = story.device("bob");
    let conv = "g1".parse().unwrap();
    story.history.bounds.delivery = Duration::from_secs(60);
    story.record(What::Lost { device: bob, conv, after: Seq(5) });
    story.expect(&[]);
    story.without(|what| matches!(what, What::Lost { .. }));
    story.record(What::Ended { device: bob });
    story.expect(&[]);

    // It comes, but late.
    let mut story = Story::calm();
    story.say("alice", "g1", "bob?");
    story.spread_to("alice");
    story.wait(90);
    story.spread();
    story.finish().expect(&[Invariant::Completeness]);

    // A new device begins after what no other device of its user was shown.
    let mut story = Story::calm();
    story.end_device("bob");
    story.say("alice", "g1", "offline, six");
    story.say("alice", "g1", "offline, seven");
    story.spread_to("alice");
    story.spread_to("carol");
    story.login("bob/2", "bob");
    let entry = story.entry("g1", 7);
    story.show("bob/2", entry);
    story.wait(90);
    story.finish().expect(&[Invariant::Completeness]);

    // While faults are at work nothing is due.
    let mut story = Story::calm();
    story.record(What::FaultBegan { name: "node killed".into() });
    story.say("alice", "g1", "bob?");
    story.wait(90);
    story.finish().expect_unknown("a fault was still at work");
}

#[test]
fn presence_converges() {
    let told = |story: &mut Story, state| {
        let friend =
            Friend { user: story.user("bob"), name: "bob".into(), state, friend: true, blocked: false };
        let read = story.ask("alice", Call::Friends);
        story.ok(read, Reply::Friends { friends: vec![friend] });
    };
    // Bob has been gone for two minutes, and alice is told that he is there.
    let mut story = Story::calm();
    story.end_device("bob");
    story.wait(120);
    told(&mut story, PresenceState::Online);
    story.finish().expect(&[Invariant::Presence]);
    // Told so at once he may be, if the truth follows.
    let mut story = Story::calm();
    story.end_device("bob");
    told(&mut story, PresenceState::Online);
    story.finish().expect_unknown("device 0 was told that user 2 is Online");
    story.wait(120);
    told(&mut story, PresenceState::Offline);
    story.expect(&[]);
    assert!(unsettled(&story.history).is_empty());
    told(&mut story, PresenceState::Unknown);
    story.expect(&[Invariant::Presence]);
    story.history.bounds.presence_is_shared = false;
    story.expect(&[]);

    // He has two devices; one is left. Then the connection of that one is away, and comes back.
    let mut story = Story::calm();
    story.login("bob/2", "bob");
    story.end_device("bob");
    story.spread();
    story.wait(120);
    told(&mut story, PresenceState::Online);
    let device = story.device("bob/2");
    story.finish().expect(&[]);
    story.record(What::Disconnected { device });
    told(&mut story, PresenceState::Online);
    story.expect_unknown("device 0 was told that user 2 is Online");
    story.record(What::Resumed { device });
    story.expect_unknown("device 0 was told that user 2 is Online");
    told(&mut story, PresenceState::Online);
    story.expect(&[]);
}

#[test]
fn liveness() {
    // Asked when all is well again, and never answered.
    let mut story = Story::calm();
    story.record(What::FaultBegan { name: "store away".into() });
    let operation = story.ask("alice", Call::Groups);
    story.record(What::Returned { operation, outcome: Outcome::Unknown });
    story.record(What::FaultEnded { name: "store away".into() });
    story.wait(75);
    let asked = story.ask("alice", Call::Groups);
    story.wait(90);
    story.finish().expect(&[Invariant::Liveness]);
    story.ok(asked, Reply::Groups { groups: vec![] });
    story.expect(&[Invariant::Liveness]);
    story.history.bounds.operation = Duration::from_secs(100);
    story.expect(&[]);
    // Nobody may have to live with an unknown outcome where nothing went wrong.
    let mut story = Story::calm();
    let call = story.words("g1", "?");
    let operation = story.ask("alice", call);
    story.record(What::Returned { operation, outcome: Outcome::Unknown });
    story.finish().expect(&[Invariant::Liveness]);
}

#[test]
fn lists_agree_with_logs() {
    let mut story = Story::calm();
    story.finish();
    let (alice, carol) = (story.user("alice"), story.user("carol"));
    for event in &mut story.history.events {
        match &mut event.what {
            What::FinalLists { user, friends, .. } if *user == alice => friends.clear(),
            What::FinalLists { user, groups, .. } if *user == carol => groups.clear(),
            _ => {}
        }
    }
    story.expect(&[Invariant::Lists]);
}

#[test]
fn nonsense_is_named() {
    let mut story = Story::of(["alice"]);
    story.unknown(OperationId(99));
    story.record(What::Resumed { device: DeviceId(99) });
    story.expect_unknown("an outcome of nothing that was asked");
    story.expect_unknown("device 99 was never started");
}

#[test]
fn bounded_memory_is_kept_up_to_the_bound() {
    let mut story = Story::calm();
    let held = |amount| What::Memory {
        node: "node 2".into(),
        gauge: "entries held ahead of a gap".into(),
        amount,
        bound: 64,
    };
    story.record(held(0));
    story.record(held(64));
    story.finish().expect(&[]);
    story.record(held(65));
    story.expect(&[Invariant::BoundedMemory]);
}

#[test]
fn a_crashed_device_is_owed_no_answer() {
    let story = |gone: fn(DeviceId) -> What| {
        let mut story = Story::calm();
        let call = story.words("g1", "into the void");
        let asked = story.ask("bob", call);
        let device = story.device("bob");
        story.record(gone(device));
        story.record(What::Returned { operation: asked, outcome: Outcome::Unknown });
        story.finish();
        story
    };
    story(|device| What::Crashed { device }).expect(&[]);
    story(|device| What::Ended { device }).expect(&[Invariant::Liveness]);
    // What it was answered counts.
    let mut story = Story::calm();
    let call = story.words("g1", "answered");
    let mid = call.mid().unwrap();
    story.act("bob", "g1", call.clone(), message(&call));
    let device = story.device("bob");
    story.record(What::Crashed { device });
    story.spread_to("alice");
    story.spread_to("carol");
    story.finish().expect(&[]);
    story.without(|what| match what {
        What::Entry { entry, .. } => entry.mid == mid,
        _ => false,
    });
    for event in &mut story.history.events {
        if let What::Final { entries, .. } = &mut event.what {
            entries.retain(|entry| entry.mid != mid);
        }
    }
    story.expect(&[Invariant::AcknowledgedLoss]);
}

mod hints {
    use super::*;
    use crate::checker::{Verdict, compare};

    fn ended(mut story: Story) -> crate::History {
        story.finish().expect(&[]);
        story.history
    }

    #[track_caller]
    fn broken(with: Story, without: Story) -> String {
        match compare(&ended(with), &ended(without)).verdict {
            Verdict::Invalid(anomalies) => {
                assert!(anomalies.iter().all(|anomaly| anomaly.invariant == Invariant::RelayIsAHint));
                assert!(anomalies.iter().all(|anomaly| !anomaly.events.is_empty()));
                anomalies.iter().map(|anomaly| format!("{}\n", anomaly.detail)).collect()
            }
            verdict => panic!("{verdict}"),
        }
    }

    #[track_caller]
    fn open(with: Story, without: Story, expected: &str) {
        match compare(&ended(with), &ended(without)).verdict {
            Verdict::Unknown(reasons) => {
                assert!(reasons.iter().any(|reason| reason.contains(expected)), "{reasons:?}");
            }
            verdict => panic!("{verdict}"),
        }
    }

    /// Two sends to one conversation, both on their way before either is answered.
    fn overlapping(first: usize) -> Story {
        let mut story = Story::calm();
        let calls = [("alice", story.words("g1", "one")), ("bob", story.words("g1", "two"))];
        let asked = calls.clone().map(|(who, call)| story.ask(who, call));
        for at in [first, 1 - first] {
            let (who, call) = &calls[at];
            let seq = story.append("g1", who, call.mid().unwrap(), message(call));
            story.ok(asked[at], Reply::Appended { seq });
        }
        story.spread();
        story
    }

    #[test]
    fn two_runs_alike_are_equal() {
        let same = compare(&ended(Story::calm()), &ended(Story::calm()));
        assert_eq!(same.verdict, Verdict::Valid);
        assert!(same.compared > 0 && same.open == 0, "{same:?}");
        // Message ids, times and the numbers of groups are of one run only.
        let mut other = Story::of(["alice", "bob", "carol"]);
        other.wait(7);
        other.mids = 100;
        other.befriend("alice", "bob");
        other.say("alice", "d1-2", "hello");
        other.say("bob", "d1-2", "hello yourself");
        other.create("alice", "g9");
        other.join("bob", "g9");
        other.join("carol", "g9");
        other.say("carol", "g9", "all here?");
        other.say("alice", "g9", "yes");
        other.spread();
        assert_eq!(compare(&ended(Story::calm()), &ended(other)).verdict, Verdict::Valid);
    }

    #[test]
    fn sends_that_overlap_may_stand_in_any_order() {
        assert_eq!(compare(&ended(overlapping(0)), &ended(overlapping(1))).verdict, Verdict::Valid);
    }

    #[test]
    fn a_refusal_without_hints_shows() {
        let (mut with, mut without) = (Story::calm(), Story::calm());
        with.say("bob", "g1", "late");
        with.spread();
        let call = without.words("g1", "late");
        let asked = without.ask("bob", call);
        without.refuse(asked, ErrorCode::Overloaded);
        let detail = broken(with, without);
        assert!(detail.contains("was carried out with hints, was refused"), "{detail}");
        assert!(detail.contains("user 1 reads"), "{detail}");
    }

    #[test]
    fn another_order_shows_where_nothing_overlapped() {
        // Both runs ask for the same one after the other, and the log of the second has them the wrong way
        // round: that is against the order of time, too, so it is compared without asking for that.
        let story = |first: &str, second: &str| {
            let mut story = Story::calm();
            story.say("alice", "g1", first);
            story.say("alice", "g1", second);
            story.spread();
            story
        };
        let with = ended(story("one", "two"));
        let mut without = ended(story("one", "two"));
        let swap = |body: &mut EntryBody| {
            if let EntryBody::Message { text } = body {
                *text = match text.split_once("> ") {
                    Some((token, "one")) => format!("{token}> two"),
                    Some((token, "two")) => format!("{token}> one"),
                    _ => return,
                };
            }
        };
        for event in &mut without.events {
            if let What::Final { entries, .. } = &mut event.what {
                entries.iter_mut().for_each(|entry| swap(&mut entry.body));
            }
        }
        assert!(matches!(compare(&with, &without).verdict, Verdict::Invalid(_)));
    }

    #[test]
    fn a_reader_who_lacks_an_entry_shows() {
        let with = ended(Story::calm());
        let mut without = ended(Story::calm());
        let last = without.events.iter_mut().find_map(|event| match &mut event.what {
            What::Final { user, entries, .. } if user.number() == 3 => Some(entries),
            _ => None,
        });
        last.unwrap().pop();
        match compare(&with, &without).verdict {
            Verdict::Invalid(anomalies) => assert!(anomalies[0].detail.contains("user 3 reads")),
            verdict => panic!("{verdict}"),
        }
    }

    #[test]
    fn what_time_decides_is_left_open() {
        // A removal and a send at once.
        let race = |removed_first: bool| {
            let mut story = Story::calm();
            let call = story.words("g1", "still here");
            let asked = story.ask("bob", call.clone());
            if removed_first {
                story.remove("alice", "bob", "g1");
                story.refuse(asked, ErrorCode::NotMember);
            } else {
                let seq = story.append("g1", "bob", call.mid().unwrap(), message(&call));
                story.remove("alice", "bob", "g1");
                story.ok(asked, Reply::Appended { seq });
            }
            story.spread();
            story
        };
        open(race(true), race(false), "a change of rights overlapped");
        // An outcome that nobody knows.
        let mut unsure = Story::calm();
        let call = unsure.words("g1", "maybe");
        let asked = unsure.ask("bob", call);
        unsure.unknown(asked);
        unsure.wait(1000);
        open(Story::calm(), unsure, "an outcome is unknown");
        // One run asked for more.
        let mut more = Story::calm();
        more.say("bob", "g1", "more");
        more.spread();
        open(Story::calm(), more, "did not ask for the same");
    }
}
