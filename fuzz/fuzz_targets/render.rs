#![no_main]

use chat_fuzz::Grammar;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

// A program has no library: its modules are taken as they stand.
#[allow(dead_code, reason = "no dialogue is held here")]
#[path = "../../client/src"]
mod chatclient {
    pub(crate) mod ui;
}

use chatclient::ui;

fuzz_target!(|data: &[u8]| ui::fuzz::check(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    STORIES.mutate(data, size, max_size, seed)
});

const STORIES: Grammar = Grammar {
    lines: &[
        r#"{"push":"hello","protocol":@version,"server":"@text","limits":{"anonymous_frame_bytes_max":@size,"frame_bytes_max":@size,"server_frame_bytes_max":@size,"text_bytes_max":@size,"requests_in_flight_max":@size,"cursors_per_request_max":@size,"idle_timeout_ms":@number}}"#,
        r#"{"push":"open","conv":"@conv","after":@number}"#,
        r#"{"push":"entry","conv":"@conv","seq":@number,"at":@number,"from":@user,"name":"@text","mid":"@mid","kind":"@kind","text":"@text","title":"@text","user":@user,"user_name":"@text","opened":"@conv","after":@number}"#,
        r#"{"push":"entry","conv":"@conv","seq":@number,"at":@number,"from":@user,"name":"@text","mid":"@mid","kind":"@kind","text":"@text","title":"@text","user":@user,"user_name":"@text","opened":"@conv","after":@number}"#,
        r#"{"push":"caught_up"}"#,
        r#"{"push":"presence","user":@user,"state":"@state"}"#,
        r#"{"push":"lost","conv":"@conv","after":@number}"#,
        r#"{"push":"closing","code":"@closing","reconnect_after_ms":@number}"#,
        r#"{"id":@id,"ok":{"user":@user,"name":"@text","token":"@token","token_expires_at":@number,"refused":{"@conv":"cursor_ahead"}}}"#,
        r#"{"id":@id,"ok":{"user":@user,"seq":@number,"group":@number}}"#,
        r#"{"id":@id,"ok":{"refused":{"@conv":"no_such_conversation"}}}"#,
        r#"{"id":@id,"ok":{"friends":[{"user":@user,"name":"@text","state":"@state","friend":true,"blocked":false}],"next":@number}}"#,
        r#"{"id":@id,"ok":{"groups":[{"group":@user,"name":"@text","description":"@text","role":"creator","members":@number}]}}"#,
        r#"{"id":@id,"ok":{"members":[{"user":@user,"name":"@text","role":"member","state":"@state"}]}}"#,
        r#"{"id":@id,"ok":{"entries":[{"conv":"@conv","seq":@number,"at":@number,"from":@user,"name":"@text","mid":"@mid","kind":"message","text":"@text"}],"more":true}}"#,
        r#"{"id":@id,"error":{"code":"@code","definite":true,"message":"@text","field":"@text","retry_after_ms":@number}}"#,
        r#"?{"id":1,"op":"login","account":"kirito","password":"x"}"#,
        r#"?{"id":1,"op":"resume","token":"@token","cursors":{"@conv":@number}}"#,
        r#"?{"id":1,"op":"register","mid":"@mid","name":"x","password":"x"}"#,
        r#"?{"id":1,"op":"send","mid":"@mid","conv":"@conv","text":"@text"}"#,
        r#"?{"id":1,"op":"create_group","mid":"@mid","name":"x","description":"x"}"#,
        r#"?{"id":1,"op":"@plain"}"#,
        r#"?{"id":1,"op":"members","group":7}"#,
        r#"?{"id":1,"op":"history","conv":"@conv"}"#,
        ">@command",
        "~@number",
        "!",
        "@text",
    ],
    pools: &[
        ("version", &["1", "1", "1", "2"]),
        ("size", &["4096", "131072", "0", "1", "18446744073709551615"]),
        ("number", &["0", "1", "2", "3", "5", "300", "18446744073709551615", "9223372036854775807"]),
        ("conv", &["d1-2", "d1-2", "g7", "g7", "u1", "d2-3", "g9007199254740991"]),
        ("user", &["1", "2", "3", "2147483647"]),
        ("mid", &["00000000000000000000000000000001", "00000000000000000000000000000002"]),
        ("token", &["0000000000000000000000000000000000000000000000000000000000000001"]),
        ("id", &["16", "17", "18", "19", "20", "0", "1", "2", "2", "null"]),
        ("kind", &[
            "message", "message", "befriended", "unfriended", "blocked", "unblocked", "created", "joined", "left", "removed",
            "deleted", "opened", "password_changed", "sticker",
        ]),
        ("state", &["online", "offline", "away"]),
        ("closing", &["logged_out", "going_away", "idle", "revoked", "too_many_errors", "new"]),
        ("code", &[
            "bad_token", "overloaded", "going_away", "unavailable", "internal", "bad_credentials", "not_member", "no_such_user",
            "limit_reached", "bad_name", "new",
        ]),
        ("plain", &["ping", "logout", "friends", "groups"]),
        ("command", &["chat:2:@", "history:group:7:5", "help", "quit", "kick:1:2", "creategroup:a:b", "dance", "chat:x"]),
        ("text", &["hello", "\\u001b[2J", "\\u202e", "\u{202e}", "\\u009b31m", "\\n", "\\u2028", "\\ud83d\\ude00", "\u{7f}", "你好", ""]),
    ],
};
