//! Delivery: SPEC.md, guarantees 2, 3, 5 and 6, and section 5.

use serde_json::{Value, json};

use crate::harness::{TestNode, Wire, mid};

fn seqs(lines: &[Value], conv: &str) -> Vec<u64> {
    lines
        .iter()
        .filter(|l| l["push"] == "entry" && l["conv"] == conv)
        .map(|l| l["seq"].as_u64().unwrap())
        .collect()
}

/// Entries of a conversation up to a seq, each once and in order.
async fn entries_through(wire: &mut Wire, conv: &str, last: u64) -> Vec<u64> {
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        let line = wire.find(&format!("{conv} {last}"), |l| l["push"] == "entry" && l["conv"] == conv).await;
        found.push(line["seq"].as_u64().unwrap());
    }
    found
}

#[tokio::test]
async fn offline_messages_come_once() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    // What is not confirmed comes again; what is confirmed does not.
    bob.find("befriended", |line| line["kind"] == "befriended").await;
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 1}})).await;
    bob.ok(json!({"op": "logout"})).await;
    alice.say("d1-2", "one").await;
    alice.say("d1-2", "two").await;
    let mut bob = node.connect().await;
    bob.login("bob").await;
    let lines = bob.so_far().await;
    assert_eq!(seqs(&lines, "d1-2"), [2, 3]);
    assert_eq!(
        lines.iter().find(|line| line["push"] == "open" && line["conv"] == "d1-2").unwrap()["after"],
        1
    );
    bob.ok(json!({"op": "ack", "cursors": {"d1-2": 3}})).await;
    bob.ok(json!({"op": "logout"})).await;
    let mut bob = node.connect().await;
    bob.login("bob").await;
    assert_eq!(seqs(&bob.so_far().await, "d1-2"), [0u64; 0]);
}

#[tokio::test]
async fn every_session_sees_everything() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    let mut second = node.connect().await;
    second.login("bob").await;
    alice.say("d1-2", "to both").await;
    bob.say("d1-2", "from the first").await;
    for wire in [&mut alice, &mut bob, &mut second] {
        assert_eq!(wire.message("d1-2").await, "to both");
        assert_eq!(wire.message("d1-2").await, "from the first");
    }
    // A conversation that opens later reaches both, and so does a group that one of them joins.
    let (_, mut carol) = node.user("carol").await;
    carol.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    carol.say("g1", "to the group").await;
    for wire in [&mut bob, &mut second] {
        assert_eq!(entries_through(wire, "g1", 3).await, [2, 3]);
    }
}

#[tokio::test]
async fn a_retry_has_no_further_effect() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    let send = json!({"op": "send", "mid": mid(), "conv": "g1", "text": "once"});
    let first = bob.ok(send.clone()).await;
    // On another connection, and twice in one write.
    let mut second = node.connect().await;
    second.login("bob").await;
    let (a, b) = (second.ask(send.clone()).await, second.ask(send.clone()).await);
    assert_eq!(second.reply(a).await["ok"], first);
    assert_eq!(second.reply(b).await["ok"], first);
    // Also after the right to send was lost.
    let remove = json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 2});
    let removed = alice.ok(remove.clone()).await;
    assert_eq!(bob.ok(send.clone()).await, first);
    assert_eq!(
        bob.error(json!({"op": "send", "mid": mid(), "conv": "g1", "text": "no"})).await,
        "not_member"
    );
    assert_eq!(alice.ok(remove).await, removed);
    let other = json!({"op": "send", "mid": send["mid"], "conv": "g1", "text": "other"});
    assert_eq!(bob.error(other).await, "id_reused");
    alice.so_far().await;
    let history = alice.ok(json!({"op": "history", "conv": "g1"})).await;
    let kinds: Vec<_> =
        history["entries"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "joined", "message", "removed"]);
}

#[tokio::test]
async fn every_mutation_can_be_retried() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), _bob) = node.friends().await;
    let (_, mut carol) = node.user("carol").await;
    let twice = async |wire: &mut Wire, request: Value| {
        let first = wire.ok(request.clone()).await;
        assert_eq!(wire.ok(request.clone()).await, first, "{request}");
        first
    };
    twice(&mut alice, json!({"op": "create_group", "mid": mid(), "name": "x", "description": "y"})).await;
    twice(&mut carol, json!({"op": "join", "mid": mid(), "group": 1})).await;
    twice(&mut carol, json!({"op": "quit", "mid": mid(), "group": 1})).await;
    let join = json!({"op": "join", "mid": mid(), "group": 1});
    let joined = twice(&mut carol, join.clone()).await;
    twice(&mut alice, json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 3})).await;
    // The retry of a join after a removal is not another join.
    assert_eq!(carol.ok(join).await, joined);
    assert_eq!(carol.ok(json!({"op": "groups"})).await["groups"], json!([]));
    for op in ["unfriend", "block", "unblock", "befriend"] {
        twice(&mut alice, json!({"op": op, "mid": mid(), "user": 2})).await;
    }
    let delete = json!({"op": "delete_group", "mid": mid(), "group": 1});
    twice(&mut alice, delete.clone()).await;
    // The same id for something else.
    let other = json!({"op": "join", "mid": delete["mid"], "group": 1});
    assert_eq!(alice.error(other).await, "id_reused");
}

#[tokio::test]
async fn members_see_their_periods_only() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    alice.say("g1", "before").await; // 2
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await; // 3
    alice.say("g1", "while").await; // 4
    bob.ok(json!({"op": "quit", "mid": mid(), "group": 1})).await; // 5
    alice.say("g1", "between").await; // 6
    bob.ok(json!({"op": "join", "mid": mid(), "group": 1})).await; // 7
    alice.say("g1", "again").await; // 8
    assert_eq!(entries_through(&mut bob, "g1", 8).await, [3, 4, 5, 7, 8]);
    alice.ok(json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 2})).await; // 9
    alice.say("g1", "after").await; // 10
    assert_eq!(entries_through(&mut bob, "g1", 9).await, [9]);
    assert_eq!(seqs(&bob.so_far().await, "g1"), [0u64; 0]);
    // History likewise, across pages.
    let mut read = Vec::new();
    let mut before = json!(null);
    loop {
        let mut request = json!({"op": "history", "conv": "g1", "limit": 2});
        if !before.is_null() {
            request["before"] = before;
        }
        let page = bob.ok(request).await;
        let page_seqs: Vec<_> =
            page["entries"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        before = page_seqs[0].into();
        read.splice(0..0, page_seqs);
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(read, [3, 4, 5, 7, 8, 9]);
    // And a new login, which confirmed nothing, gets the same again, and is told where each run starts.
    let mut bob = node.connect().await;
    bob.login("bob").await;
    let lines = bob.so_far().await;
    assert_eq!(seqs(&lines, "g1"), [3, 4, 5, 7, 8, 9]);
    let opens: Vec<_> = lines
        .iter()
        .filter(|l| l["push"] == "open" && l["conv"] == "g1")
        .map(|l| l["after"].as_u64().unwrap())
        .collect();
    assert_eq!(opens, [2, 6]);
}

#[tokio::test]
async fn what_ended_while_offline_is_delivered_to_its_end() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    for group in [1, 2] {
        alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
        bob.ok(json!({"op": "join", "mid": mid(), "group": group})).await;
    }
    bob.so_far().await;
    bob.ok(json!({"op": "ack", "cursors": {"g1": 2, "g2": 2, "d1-2": 1}})).await;
    drop(bob);
    for conv in ["g1", "g2"] {
        alice.say(conv, "for bob").await;
    }
    alice.ok(json!({"op": "remove_member", "mid": mid(), "group": 1, "user": 2})).await;
    alice.ok(json!({"op": "delete_group", "mid": mid(), "group": 2})).await;
    alice.say("g1", "not for bob").await;
    let mut bob = node.connect().await;
    bob.login("bob").await;
    let lines = bob.so_far().await;
    assert_eq!(seqs(&lines, "g1"), [3, 4]);
    assert_eq!(seqs(&lines, "g2"), [3, 4]);
    bob.ok(json!({"op": "ack", "cursors": {"g1": 4, "g2": 4}})).await;
    let mut bob = node.connect().await;
    bob.login("bob").await;
    assert!(bob.so_far().await.iter().all(|line| line["conv"] != "g1" && line["conv"] != "g2"));
}

#[tokio::test]
async fn a_blocked_user_cannot_reach_the_other() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut bob)) = node.friends().await;
    bob.ok(json!({"op": "block", "mid": mid(), "user": 1})).await;
    assert_eq!(
        alice.error(json!({"op": "send", "mid": mid(), "conv": "d1-2", "text": "x"})).await,
        "blocked"
    );
    bob.say("d1-2", "the other direction stays").await;
    bob.ok(json!({"op": "unfriend", "mid": mid(), "user": 1})).await;
    assert_eq!(alice.error(json!({"op": "befriend", "mid": mid(), "user": 2})).await, "blocked");
    let friends = bob.ok(json!({"op": "friends"})).await;
    assert_eq!(
        friends["friends"],
        json!([{"user": 1, "name": "alice", "state": "unknown", "friend": false, "blocked": true}])
    );
    bob.ok(json!({"op": "unblock", "mid": mid(), "user": 1})).await;
    alice.ok(json!({"op": "befriend", "mid": mid(), "user": 2})).await;
    // A stranger can be blocked too.
    let (_, mut carol) = node.user("carol").await;
    bob.ok(json!({"op": "block", "mid": mid(), "user": 3})).await;
    assert_eq!(carol.error(json!({"op": "befriend", "mid": mid(), "user": 2})).await, "blocked");
}

#[tokio::test]
async fn presence_is_told_to_friends() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, bob)) = node.friends().await;
    alice.find("bob online", |l| l["push"] == "presence" && l["user"] == 2 && l["state"] == "online").await;
    let mut second = node.connect().await;
    second.login("bob").await;
    drop(bob);
    second.so_far().await;
    assert_eq!(
        alice.ok(json!({"op": "friends"})).await["friends"][0]["state"],
        "online",
        "one session is left"
    );
    drop(second);
    alice.find("bob offline", |l| l["push"] == "presence" && l["user"] == 2 && l["state"] == "offline").await;
    let mut bob = node.connect().await;
    bob.login("bob").await;
    alice
        .find("bob online again", |l| l["push"] == "presence" && l["user"] == 2 && l["state"] == "online")
        .await;
    // Not to those who are no longer friends.
    alice.ok(json!({"op": "unfriend", "mid": mid(), "user": 2})).await;
    alice.find("unfriended", |l| l["kind"] == "unfriended").await;
    alice.so_far().await;
    bob.ok(json!({"op": "logout"})).await;
    assert!(alice.so_far().await.iter().all(|line| line["push"] != "presence"));
}

/// A client that does not read holds nothing up and misses nothing.
#[tokio::test]
async fn a_slow_reader_delays_nobody() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, mut slow)) = node.friends().await;
    let (_, mut quick) = node.user("carol").await;
    alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    for wire in [&mut slow, &mut quick] {
        wire.ok(json!({"op": "join", "mid": mid(), "group": 1})).await;
    }
    // Far more than sockets and rings hold: 2,000 messages of 8 KiB.
    let last = 3 + 2000;
    for burst in 0..40 {
        let mut asked = Vec::new();
        for n in 0..50 {
            let text = format!("{:04}{}", burst * 50 + n, "x".repeat(8192));
            asked.push(alice.ask(json!({"op": "send", "mid": mid(), "conv": "g1", "text": text})).await);
        }
        for id in asked {
            alice.reply(id).await;
        }
        // The others keep up: nobody waits for the slow one.
        entries_through(&mut quick, "g1", 3 + (burst + 1) * 50).await;
        alice.aside.clear();
    }
    // Meanwhile the node holds what section 8 says, for the slow one as well.
    let gauges = node.running.node().gauges();
    assert!(gauges.iter().all(|gauge| gauge.amount <= gauge.bound), "{gauges:?}");
    let amount = |name| gauges.iter().find(|gauge| gauge.name == name).unwrap().amount;
    assert_eq!(amount("recent entries of a conversation"), 256);
    assert_eq!(amount("sessions"), 3);
    let outbox = amount("bytes in an outbox");
    // A page of the store: its text, and what is around it.
    assert!((8192..=(256 << 10) + 256 * 512).contains(&outbox), "{outbox}");
    assert_eq!(entries_through(&mut slow, "g1", last).await, (2..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_resumed_session_gets_exactly_the_rest() {
    let node = TestNode::in_memory().await;
    let ((_, mut alice), (_, bob)) = node.friends().await;
    drop(bob);
    let mut bob = node.connect().await;
    let token = bob.login("bob").await["token"].clone();
    for n in 0..5 {
        alice.say("d1-2", &format!("{n}")).await;
    }
    entries_through(&mut bob, "d1-2", 6).await;
    drop(bob);
    alice.say("d1-2", "while away").await;
    let mut bob = node.connect().await;
    let resume = json!({"op": "resume", "token": token, "cursors": {"d1-2": 4, "u2": 1, "d1-3": 1, "u1": 1}});
    let reply = bob.ok(resume).await;
    assert_eq!(reply["refused"], json!({"d1-3": "no_such_conversation", "u1": "no_such_conversation"}));
    bob.find("caught_up", |line| line["push"] == "caught_up").await;
    let lines = bob.so_far().await;
    assert_eq!(seqs(&lines, "d1-2"), [5, 6, 7]);
    assert!(lines.iter().all(|line| line["push"] != "open"), "the client named where it stands: {lines:?}");
    // A token survives its connection, and ends with the logout.
    bob.ok(json!({"op": "logout"})).await;
    let mut bob = node.connect().await;
    assert_eq!(bob.error(json!({"op": "resume", "token": token, "cursors": {}})).await, "bad_token");
}

#[tokio::test]
async fn cursors_come_in_pages() {
    let node = TestNode::in_memory().await;
    let (_, mut alice) = node.user("alice").await;
    let token = {
        let mut wire = node.connect().await;
        wire.login("alice").await["token"].clone()
    };
    for _ in 0..30 {
        alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    }
    for group in 1..=30 {
        alice.say(&format!("g{group}"), "x").await;
    }
    let mut wire = node.connect().await;
    let page = |groups: std::ops::RangeInclusive<u64>| {
        groups.map(|g| (format!("g{g}"), json!(1))).collect::<serde_json::Map<_, _>>()
    };
    wire.ok(json!({"op": "resume", "token": token, "cursors": page(1..=10), "more": true})).await;
    wire.ok(json!({"op": "cursors", "cursors": page(11..=20), "more": true})).await;
    assert_eq!(wire.error(json!({"op": "groups"})).await, "not_logged_in", "not before the last page");
    wire.ok(json!({"op": "cursors", "cursors": page(21..=30)})).await;
    wire.find("caught_up", |line| line["push"] == "caught_up").await;
    let lines = wire.so_far().await;
    for group in 1..=30 {
        assert_eq!(seqs(&lines, &format!("g{group}")), [2]);
    }
    let many = (0..1001).map(|n| (format!("g{}", n + 1), json!(1))).collect::<serde_json::Map<_, _>>();
    assert_eq!(wire.error(json!({"op": "ack", "cursors": many})).await, "bad_request");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let node = TestNode::in_memory().await;
    let (_, mut alice) = node.user("alice").await;
    for _ in 0..205 {
        alice.ok(json!({"op": "create_group", "mid": mid(), "name": "x", "description": ""})).await;
    }
    let first = alice.ok(json!({"op": "groups"})).await;
    assert_eq!((first["groups"].as_array().unwrap().len(), &first["next"]), (200, &json!(200)));
    let second = alice.ok(json!({"op": "groups", "after": first["next"]})).await;
    assert_eq!((second["groups"].as_array().unwrap().len(), second.get("next")), (5, None));
}
