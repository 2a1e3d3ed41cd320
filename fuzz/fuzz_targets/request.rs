#![no_main]

use chat_fuzz::Grammar;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    protocol::fuzz::request::check(data);
    server::fuzz::request::check(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    STORIES.mutate(data, size, max_size, seed)
});

const STORIES: Grammar = Grammar {
    lines: &[
        r#"@who{"id":@id,"op":"ping"}"#,
        r#"@who{"id":@id,"op":"register","mid":"@mid","name":"@name","password":"@name"}"#,
        r#"@who{"id":@id,"op":"login","account":"@account","password":"@name"}"#,
        r#"@who{"id":@id,"op":"resume","token":"@token","cursors":{@cursors},"more":@flag}"#,
        r#"@who{"id":@id,"op":"cursors","cursors":{@cursors},"more":@flag}"#,
        r#"@who{"id":@id,"op":"logout"}"#,
        r#"@who{"id":@id,"op":"passwd","mid":"@mid","old":"@name","new":"@name"}"#,
        r#"@who{"id":@id,"op":"ack","cursors":{@cursors}}"#,
        r#"@who{"op":"ack","cursors":{@cursors}}"#,
        r#"@who{"id":@id,"op":"@friendly","mid":"@mid","user":@user}"#,
        r#"@who{"id":@id,"op":"@friendly","mid":"@mid","user":@user}"#,
        r#"@who{"id":@id,"op":"@lists","after":@number}"#,
        r#"@who{"id":@id,"op":"create_group","mid":"@mid","name":"@name","description":"@name"}"#,
        r#"@who{"id":@id,"op":"@grouply","mid":"@mid","group":@group}"#,
        r#"@who{"id":@id,"op":"@grouply","mid":"@mid","group":@group}"#,
        r#"@who{"id":@id,"op":"remove_member","mid":"@mid","group":@group,"user":@user}"#,
        r#"@who{"id":@id,"op":"members","group":@group,"after":@number}"#,
        r#"@who{"id":@id,"op":"send","mid":"@mid","conv":"@conv","text":"@text"}"#,
        r#"@who{"id":@id,"op":"send","mid":"@mid","conv":"@conv","text":"@text"}"#,
        r#"@who{"id":@id,"op":"history","conv":"@conv","before":@number,"limit":@number}"#,
        r#"@who{"id":@id,"op":"@lists@friendly@grouply"}"#,
        "@letter!",
        "@letter.",
        "~@number",
        "@who@text",
    ],
    pools: &[
        ("who", &["A>", "A>", "A>", "A|", "B>", "B>", "B|", "C>", "C|", "D>"]),
        ("letter", &["A", "B", "C", "D"]),
        ("id", &["1", "2", "0", "18446744073709551615", "18446744073709551616", "-1", "null", "\"1\""]),
        (
            "mid",
            &[
                "00000000000000000000000000000001",
                "00000000000000000000000000000002",
                "00000000000000000000000000000003",
                "0000000000000000000000000000000A",
                "0",
            ],
        ),
        ("name", &["kirito", "kir", "silica", "klein", "Ｋirito", "2019", "", " x", "\\u202e", "e\\u0301"]),
        ("account", &["kirito", "1", "2", "KIR", "silica", "99", "klein", ""]),
        ("token", &["$token", "$token", "0000000000000000000000000000000000000000000000000000000000000000"]),
        ("flag", &["true", "false", "null"]),
        (
            "cursors",
            &[
                "",
                r#""d1-2":1"#,
                r#""g1":2,"d1-2":3"#,
                r#""u1":0"#,
                r#""g9":18446744073709551615"#,
                r#""d1-2":1,"g1":1,"u1":1,"g2":1"#,
                r#""x":1"#,
            ],
        ),
        ("friendly", &["befriend", "unfriend", "block", "unblock"]),
        ("grouply", &["join", "quit", "delete_group"]),
        ("lists", &["friends", "groups"]),
        ("user", &["1", "2", "3", "4", "0", "2147483647", "2147483648"]),
        ("group", &["1", "2", "3", "9007199254740991", "0"]),
        ("conv", &["d1-2", "d1-2", "d1-3", "d2-3", "g1", "g1", "g2", "u1", "d2-1", "g0"]),
        ("text", &["hello", "", "\\ud83d\\ude00", "\\u0000\\u001b[2J", "a\\nb", "[1,\"ping\"]", "{", "\r"]),
        ("number", &["0", "1", "2", "3", "31", "91", "18446744073709551615", "4294967296"]),
    ],
};
