//! Lines that are bad in a session.

use serde_json::{Value, json};

use super::{BadLine, bad};

/// Lines that are bad in a session.
pub(super) fn bad_in_a_session() -> Vec<BadLine> {
    let m = "000000000000000000000000000000bb";
    let send = |conv: Value, text: Value| {
        json!({"id": 1, "op": "send", "mid": m, "conv": conv, "text": text}).to_string()
    };
    let to = |op: &str, user: Value| json!({"id": 1, "op": op, "mid": m, "user": user}).to_string();
    let group = |op: &str, group: Value| json!({"id": 1, "op": op, "mid": m, "group": group}).to_string();
    let create = |name: Value, description: Value| {
        json!({"id": 1, "op": "create_group", "mid": m, "name": name, "description": description}).to_string()
    };
    let history = |fields: Value| {
        let mut request = json!({"id": 1, "op": "history", "conv": "d1-2"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request.to_string()
    };
    let many: Value =
        (1..=1001).map(|n| (format!("g{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    let passwd =
        |old: &str, new: &str| json!({"id": 1, "op": "passwd", "mid": m, "old": old, "new": new}).to_string();
    vec![
        bad("a send without a mid", r#"{"id":1,"op":"send","conv":"d1-2","text":"x"}"#, "bad_request mid"),
        bad("a send to nowhere", send(Value::Null, "x".into()), "bad_request conv"),
        bad("a send to a number", send(1.into(), "x".into()), "bad_request conv"),
        bad("a send to what is no conversation", send("e1".into(), "x".into()), "bad_request conv"),
        bad("a send to oneself", send("d3-3".into(), "x".into()), "bad_request conv"),
        bad("a send to a pair in the wrong order", send("d3-1".into(), "x".into()), "bad_request conv"),
        bad("a send to a number with a zero before it", send("g01".into(), "x".into()), "bad_request conv"),
        bad("a send to group 0", send("g0".into(), "x".into()), "bad_request conv"),
        bad(
            "a send to a group beyond 64 bits",
            send("g99999999999999999999".into(), "x".into()),
            "bad_request conv",
        ),
        bad("a send to a group that never was", send("g77".into(), "x".into()), "no_such_group"),
        bad("a send to others", send("d1-2".into(), "x".into()), "no_such_conversation"),
        bad("a send to a stranger", send("d1-3".into(), "x".into()), "not_friends"),
        bad("a send to another's notices", send("u1".into(), "x".into()), "no_such_conversation"),
        bad("a send to one's own notices", send("u3".into(), "x".into()), "no_such_conversation"),
        bad("a send without a text", send("d1-3".into(), Value::Null), "bad_request text"),
        bad("a send of nothing", send("d1-3".into(), "".into()), "bad_text text"),
        bad("a send of 65,537 bytes", send("d1-3".into(), "x".repeat(65_537).into()), "bad_text text"),
        bad("a text that is an object", send("d1-3".into(), json!({"a": 1})), "bad_request text"),
        bad("befriending nobody", to("befriend", Value::Null), "bad_request user"),
        bad("befriending number 0", to("befriend", 0.into()), "bad_request user"),
        bad("befriending a number below zero", to("befriend", (-1).into()), "bad_request user"),
        bad("befriending a fraction", to("befriend", 1.5.into()), "bad_request user"),
        bad("befriending a number beyond all", to("befriend", u64::MAX.into()), "bad_request user"),
        bad("befriending a name", to("befriend", "alice".into()), "bad_request user"),
        bad("befriending who never was", to("befriend", 4_000_000.into()), "no_such_user"),
        bad("befriending oneself", to("befriend", 3.into()), "self_target"),
        bad("unfriending a stranger", to("unfriend", 1.into()), "not_friends"),
        bad("blocking oneself", to("block", 3.into()), "self_target"),
        bad("blocking who never was", to("block", 4_000_000.into()), "no_such_user"),
        bad("unblocking a stranger", to("unblock", 1.into()), "not_blocked"),
        bad("a group without a name", create(Value::Null, "".into()), "bad_request name"),
        bad("a group with an empty name", create("".into(), "".into()), "bad_name name"),
        bad(
            "a group with a name of 65 characters",
            create("x".repeat(65).into(), "".into()),
            "bad_name name",
        ),
        bad("a group whose name turns round", create("a\u{202e}b".into(), "".into()), "bad_name name"),
        bad("a group without a description", create("x".into(), Value::Null), "bad_request description"),
        bad(
            "a group described in 257 characters",
            create("x".into(), "x".repeat(257).into()),
            "bad_text description",
        ),
        bad("joining no group", group("join", Value::Null), "bad_request group"),
        bad("joining group 0", group("join", 0.into()), "bad_request group"),
        bad("joining a group that never was", group("join", 77.into()), "no_such_group"),
        bad("quitting a group that never was", group("quit", 77.into()), "no_such_group"),
        bad("deleting a group that never was", group("delete_group", 77.into()), "no_such_group"),
        bad("members of a group that never was", r#"{"id":1,"op":"members","group":77}"#, "no_such_group"),
        bad("members after a word", r#"{"id":1,"op":"members","group":77,"after":"x"}"#, "bad_request after"),
        bad(
            "removing nobody",
            format!(r#"{{"id":1,"op":"remove_member","mid":"{m}","group":77}}"#),
            "bad_request user",
        ),
        bad(
            "friends after a number below zero",
            r#"{"id":1,"op":"friends","after":-1}"#,
            "bad_request after",
        ),
        bad("friends after the last number", r#"{"id":1,"op":"friends","after":18446744073709551615}"#, "ok"),
        bad("groups after the last number", r#"{"id":1,"op":"groups","after":18446744073709551615}"#, "ok"),
        bad("a history of others", history(json!({})), "no_such_conversation"),
        bad("a history of nothing", history(json!({"conv": "u3", "limit": 0})), "bad_request limit"),
        bad("a history of 101 entries", history(json!({"conv": "u3", "limit": 101})), "bad_request limit"),
        bad(
            "a history with a limit beyond 32 bits",
            history(json!({"conv": "u3", "limit": 1_u64 << 40})),
            "bad_request limit",
        ),
        bad("a history before a word", history(json!({"conv": "u3", "before": "x"})), "bad_request before"),
        bad("a history before the first entry", history(json!({"conv": "u3", "before": 0})), "ok"),
        bad(
            "an ack of too many",
            json!({"id": 1, "op": "ack", "cursors": many}).to_string(),
            "bad_request cursors",
        ),
        bad("an ack far ahead", r#"{"id":1,"op":"ack","cursors":{"u3":9007199254740991}}"#, "ok"),
        bad(
            "an ack beyond 64 bits",
            r#"{"id":1,"op":"ack","cursors":{"u3":18446744073709551616}}"#,
            "bad_request cursors",
        ),
        bad("an ack of others' logs", r#"{"id":1,"op":"ack","cursors":{"d1-2":1,"u1":1,"g77":1}}"#, "ok"),
        bad(
            "another login",
            r#"{"id":1,"op":"login","account":"alice","password":"alice"}"#,
            "already_logged_in",
        ),
        bad(
            "a resume",
            format!(r#"{{"id":1,"op":"resume","token":"{}"}}"#, "00".repeat(32)),
            "already_logged_in",
        ),
        bad("another password, with the old one wrong", passwd("wrong", "x"), "bad_credentials old"),
        bad("another password that is empty", passwd("mallory", ""), "bad_password new"),
        bad("a line of 131,073 bytes", vec![b'x'; 131_073], "frame_too_long"),
        bad("a line of 10 MB", vec![b'x'; 10_000_000], "frame_too_long"),
    ]
}
