//! Lines that are bad on any connection, or before a login.

use serde_json::{Value, json};

use super::{BadLine, bad};

/// Lines that are bad on any connection.
pub(super) fn bad_anywhere() -> Vec<BadLine> {
    let nested =
        |depth| format!("{{\"id\":1,\"op\":\"ping\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    vec![
        bad("white space", "   \t ", "malformed"),
        bad("no JSON", "hello", "malformed"),
        bad("half an object", "{\"id\":1,\"op\":\"ping\"", "malformed"),
        bad("two objects", "{\"id\":1,\"op\":\"ping\"}{\"id\":2,\"op\":\"ping\"}", "malformed"),
        bad("an array", "[1,2]", "malformed"),
        bad("a number", "1", "malformed"),
        bad("null", "null", "malformed"),
        bad("a byte order mark", "\u{feff}{\"id\":1,\"op\":\"ping\"}", "malformed"),
        bad("NUL bytes", "\0\0\0\0", "malformed"),
        bad("bytes that are no text", b"\xff\xfe\xfd", "malformed"),
        bad("UTF-16", b"{\0\"\0i\0d\0\"\0:\x001\0}\0", "malformed"),
        bad("text cut within a character", b"{\"id\":1,\"op\":\"\xe4\xbd\"}", "malformed"),
        bad("half a surrogate pair", r#"{"id":1,"op":"\ud800"}"#, "malformed"),
        bad("single quotes", "{'id':1,'op':'ping'}", "malformed"),
        bad("a trailing comma", r#"{"id":1,"op":"ping",}"#, "malformed"),
        bad("HTTP", "GET / HTTP/1.1\r", "malformed"),
        bad("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed"),
        bad("an SSH banner", "SSH-2.0-OpenSSH_9.6\r", "malformed"),
        bad("a PROXY header that nobody expects", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r", "malformed"),
        bad("a terminal's escape sequence", "\x1b[2J\x1b]0;x\x07", "malformed"),
        bad("no op", r#"{"id":1}"#, "malformed"),
        bad("an op that is a number", r#"{"id":1,"op":7}"#, "malformed"),
        bad("two ops", r#"{"id":1,"op":"ping","op":"logout"}"#, "malformed"),
        bad("no id", r#"{"op":"ping"}"#, "bad_request id"),
        bad("an id that is null", r#"{"id":null,"op":"ping"}"#, "bad_request id"),
        bad("an id that is text", r#"{"id":"1","op":"ping"}"#, "malformed"),
        bad("a negative id", r#"{"id":-1,"op":"ping"}"#, "malformed"),
        bad("a fractional id", r#"{"id":1.5,"op":"ping"}"#, "malformed"),
        bad("an id beyond 64 bits", r#"{"id":18446744073709551616,"op":"ping"}"#, "malformed"),
        bad("the largest id", r#"{"id":18446744073709551615,"op":"ping"}"#, "ok"),
        bad("an unknown op", r#"{"id":1,"op":"sudo"}"#, "unknown_op"),
        bad("an op in capitals", r#"{"id":1,"op":"PING"}"#, "unknown_op"),
        bad("an op spelt with escapes", r#"{"id":1,"op":"\u0070ing"}"#, "ok"),
        bad("nesting where nobody looks", nested(1900), "ok"),
        bad("nesting in place of an op", format!("{{\"id\":1,\"op\":{}", "[".repeat(1900)), "malformed"),
        bad("fields of the future", r#"{"id":1,"op":"ping","from":"tomorrow","x":{"y":[null]}}"#, "ok"),
    ]
}

/// Lines that are bad before a login.
pub(super) fn bad_before_login() -> Vec<BadLine> {
    let m = "000000000000000000000000000000aa";
    let register = |name: &str, password: &str| {
        json!({"id": 1, "op": "register", "mid": m, "name": name, "password": password}).to_string()
    };
    let login = |account: Value, password: Value| {
        json!({"id": 1, "op": "login", "account": account, "password": password}).to_string()
    };
    let resume = |token: Value, cursors: Value| {
        json!({"id": 1, "op": "resume", "token": token, "cursors": cursors}).to_string()
    };
    let token = "00".repeat(32);
    vec![
        bad(
            "a register without a mid",
            r#"{"id":1,"op":"register","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a register without a name",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","password":"x"}}"#),
            "bad_request name",
        ),
        bad(
            "a register without a password",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","name":"x"}}"#),
            "bad_request password",
        ),
        bad(
            "a mid that is short",
            r#"{"id":1,"op":"register","mid":"aa","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a mid that is long",
            format!(r#"{{"id":1,"op":"register","mid":"{m}00","name":"x","password":"x"}}"#),
            "bad_request mid",
        ),
        bad(
            "a mid with a letter too many",
            r#"{"id":1,"op":"register","mid":"g0000000000000000000000000000000","name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad(
            "a mid that is a number",
            r#"{"id":1,"op":"register","mid":7,"name":"x","password":"x"}"#,
            "bad_request mid",
        ),
        bad("a name that is empty", register("", "x"), "bad_name name"),
        bad("a name of 33 characters", register(&"x".repeat(33), "x"), "bad_name name"),
        bad("a name that is all digits", register("42", "x"), "bad_name name"),
        bad("a name with a line break", register("a\nb", "x"), "bad_name name"),
        bad("a name with an escape sequence", register("a\u{1b}[31mb", "x"), "bad_name name"),
        bad("a name with a NUL", register("a\0b", "x"), "bad_name name"),
        bad("a name that turns the line round", register("a\u{202e}b", "x"), "bad_name name"),
        bad("a name with a space of no width", register("ali\u{200b}ce", "x"), "bad_name name"),
        bad("a name with an unusual space", register("a\u{2003}b", "x"), "bad_name name"),
        bad("a name with a space at its end", register("alice ", "x"), "bad_name name"),
        bad("another's name, in full width", register("\u{ff41}lice", "x"), "name_taken"),
        bad("another's name, in capitals", register("ALICE", "x"), "name_taken"),
        bad("a password that is empty", register("x", ""), "bad_password password"),
        bad("a password of 1,025 bytes", register("x", &"x".repeat(1025)), "bad_password password"),
        bad(
            "a password that is a list",
            format!(r#"{{"id":1,"op":"register","mid":"{m}","name":"x","password":["x"]}}"#),
            "bad_request password",
        ),
        bad("a login without an account", r#"{"id":1,"op":"login","password":"x"}"#, "bad_request account"),
        bad("an account that is a number", login(1.into(), "x".into()), "bad_request account"),
        bad(
            "an account beyond 64 bits",
            login("99999999999999999999999".into(), "x".into()),
            "bad_credentials",
        ),
        bad("account 0", login("0".into(), "x".into()), "bad_credentials"),
        bad("an account that is empty", login("".into(), "x".into()), "bad_credentials"),
        bad("an account of 3,000 characters", login("a".repeat(3000).into(), "x".into()), "bad_credentials"),
        bad("SQL for an account", login("alice' or 1=1 -- ".into(), "x".into()), "bad_credentials"),
        bad("a wrong password", login("alice".into(), "x".into()), "bad_credentials"),
        bad("no password", login("alice".into(), Value::Null), "bad_request password"),
        bad("a password of 3,000 bytes", login("alice".into(), "x".repeat(3000).into()), "bad_credentials"),
        bad("a token that was never given", resume(token.clone().into(), json!({})), "bad_token"),
        bad("a token that is short", resume("00".into(), json!({})), "bad_request token"),
        bad("a token that is no hexadecimal", resume("zz".repeat(32).into(), json!({})), "bad_request token"),
        bad("cursors that are a list", resume(token.clone().into(), json!([])), "bad_request cursors"),
        bad(
            "a cursor of a place that cannot be",
            resume(token.clone().into(), json!({"x1": 1})),
            "bad_request cursors",
        ),
        bad("a cursor below zero", resume(token.clone().into(), json!({"g1": -1})), "bad_request cursors"),
        bad(
            "more cursors than there was a resume for",
            r#"{"id":1,"op":"cursors","cursors":{}}"#,
            "bad_request op",
        ),
        bad(
            "a send before the login",
            format!(r#"{{"id":1,"op":"send","mid":"{m}","conv":"d1-2","text":"x"}}"#),
            "not_logged_in",
        ),
        bad("an ack before the login", r#"{"id":1,"op":"ack","cursors":{}}"#, "not_logged_in"),
        bad("a line of 4,097 bytes", vec![b'x'; 4097], "frame_too_long"),
        bad("a line of 100,000 bytes", vec![b'x'; 100_000], "frame_too_long"),
    ]
}
