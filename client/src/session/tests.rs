//! The machine, driven by scripts of inputs; what comes out is compared line by line.

use protocol::message::{CreateGroup, GroupTarget, History, Login, Page, Password, Register, Send};

use protocol::ClientMsgId;

use super::*;

/// What happens to the machine.
#[derive(Debug)]
enum In<'a> {
    Connected,
    Disconnected,
    /// The server says.
    Server(&'a str),
    /// The application asks, under a number.
    Ask(u32, Request),
    Shown(&'a str, u64),
    /// So many milliseconds pass.
    Pass(u64),
    Reading(bool),
    Finish,
}
use In::*;

/// The greeting, with limits small enough to be reached.
const HELLO: &str = r#"{"push":"hello","protocol":1,"server":"s","limits":{"anonymous_frame_bytes_max":300,"frame_bytes_max":400,"server_frame_bytes_max":4096,"text_bytes_max":100,"requests_in_flight_max":4,"cursors_per_request_max":2,"idle_timeout_ms":90000}}"#;
const LOGGED_IN: &str = r#"{"id":16,"ok":{"user":1,"name":"a","token":"0101010101010101010101010101010101010101010101010101010101010101","token_expires_at":9}}"#;
const TOKEN: &str = "0101010101010101010101010101010101010101010101010101010101010101";

/// Runs a script and compares what came out after each input.
#[track_caller]
fn check(config: Config, script: &[In<'_>], expected: &[&str]) {
    let mut session = Session::new(config, 1);
    let mut now = Duration::ZERO;
    let mut found = Vec::new();
    for input in script {
        match input {
            Connected => session.connected(now),
            Disconnected => session.disconnected(now, DisconnectReason::Lost("x".into())),
            Server(line) => session.line(now, line.as_bytes()),
            Ask(key, request) => session.ask(now, request.clone(), *key),
            Shown(conv, seq) => session.shown(now, conv.parse().unwrap(), Seq(*seq)),
            Pass(millis) => {
                let until = now + Duration::from_millis(*millis);
                while let Some(at) = session.deadline().filter(|at| *at <= until) {
                    now = now.max(at);
                    session.tick(now);
                    outputs(&mut session, now, &mut found);
                }
                now = until;
            }
            Reading(reading) => session.reading(now, *reading),
            Finish => session.finish(),
        }
        outputs(&mut session, now, &mut found);
    }
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, expected, "\n{}", found.join("\n"));
}

/// Collects what came out: lines, events, outcomes, and the wish to hang up.
fn outputs(session: &mut Session<u32>, now: Elapsed, found: &mut Vec<String>) {
    let bytes = session.outgoing().len();
    let lines = String::from_utf8(session.outgoing().to_vec()).unwrap();
    found.extend(lines.lines().map(|line| format!("> {line}")));
    session.written(now, bytes);
    while let Some(event) = session.next_event() {
        found.push(match event {
            Event::Entry(entry) => format!("entry {} {}", entry.conv, entry.seq),
            Event::Disconnected { .. } => "disconnected".into(),
            Event::Reconnecting { .. } => "reconnecting".into(),
            other => format!("{other:?}").to_lowercase(),
        });
    }
    while let Some((key, result)) = session.next_done() {
        found.push(match result {
            Ok(reply) => format!("done {key}: {reply:?}"),
            Err(error) => format!("failed {key}: {error:?}"),
        });
    }
    if let Some(reason) = session.hang_up() {
        found.push(format!("hang up: {reason}"));
        session.disconnected(now, reason);
        outputs(session, now, found);
    }
}

fn login() -> Request {
    Request::Login(Login { account: "a".into(), password: Password("p".into()) })
}

fn send(mid: u8, text: &str) -> Request {
    Request::Send(Send { mid: ClientMsgId([mid; 16]), conv: "g1".parse().unwrap(), text: text.into() })
}

fn entry(conv: &str, seq: u64) -> String {
    format!(
        r#"{{"push":"entry","conv":"{conv}","seq":{seq},"at":0,"from":2,"name":"b","mid":"{seq:032}","kind":"joined"}}"#
    )
}

fn open(conv: &str, after: u64) -> String {
    format!(r#"{{"push":"open","conv":"{conv}","after":{after}}}"#)
}

/// Up to a login that was answered.
fn logged_in<'a>(rest: Vec<In<'a>>) -> Vec<In<'a>> {
    let mut script = vec![Connected, Server(HELLO), Ask(0, login()), Server(LOGGED_IN)];
    script.extend(rest);
    script
}

const LOGIN_LINE: &str = r#"> {"id":16,"op":"login","account":"a","password":"p"}"#;
const LOGIN_DONE: &str = r#"done 0: LoggedIn(LoggedIn { user: UserId(1), name: "a", token: Some(Token(..)), token_expires_at: Some(9), refused: {} })"#;
const SEND_LINE: &str =
    r#"> {"id":17,"op":"send","mid":"07070707070707070707070707070707","conv":"g1","text":"hi"}"#;
const SEND_DONE: &str = "done 1: Appended(Appended { seq: Seq(5) })";
const LOST: [&str; 2] = ["disconnected", "reconnecting"];

/// What comes out of [`logged_in`], and then `rest`.
fn and<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["connected", LOGIN_LINE, LOGIN_DONE];
    all.extend(rest);
    all
}

fn resume_line(cursors: &str) -> String {
    format!(r#"> {{"id":2,"op":"resume","token":"{TOKEN}","cursors":{cursors}}}"#)
}

const RESUMED: &str = r#"{"id":2,"ok":{"user":1,"name":"a"}}"#;

#[test]
fn an_unanswered_request_is_repeated_with_its_mid_after_resuming() {
    check(
        Config::default(),
        &logged_in(vec![
            Ask(1, send(7, "hi")),
            Disconnected,
            Connected,
            Server(HELLO),
            Server(RESUMED),
            Server(r#"{"id":17,"ok":{"seq":5}}"#),
        ]),
        &and(&[
            SEND_LINE,
            LOST[0],
            LOST[1],
            &resume_line("{}"),
            "connected",
            SEND_LINE,
            "resumed",
            SEND_DONE,
        ]),
    );
}

#[test]
fn a_login_without_an_answer_is_repeated_and_holds_the_others_back() {
    let friends = || Request::Friends(Page::default());
    check(
        Config::default(),
        &[
            Ask(0, login()),
            Ask(1, friends()),
            Connected,
            Server(HELLO),
            Disconnected,
            Connected,
            Server(HELLO),
            Server(LOGGED_IN),
            Server(r#"{"id":17,"ok":{"friends":[]}}"#),
        ],
        &[
            LOGIN_LINE_AFTER_HELLO[0],
            LOGIN_LINE_AFTER_HELLO[1],
            "disconnected",
            "reconnecting",
            LOGIN_LINE_AFTER_HELLO[0],
            LOGIN_LINE_AFTER_HELLO[1],
            r#"> {"id":17,"op":"friends","after":0}"#,
            LOGIN_DONE,
            "done 1: Friends(FriendsPage { friends: [], next: None })",
        ],
    );
}
/// Lines are listed before events.
const LOGIN_LINE_AFTER_HELLO: [&str; 2] = [LOGIN_LINE, "connected"];

#[test]
fn entries_are_surfaced_once_and_in_order() {
    check(
        Config::default(),
        &logged_in(vec![
            Server(&open("g1", 3)),
            Server(&entry("g1", 4)),
            Server(&entry("g1", 5)),
            // Repeated on the wire.
            Server(&entry("g1", 5)),
            Server(&entry("g1", 4)),
            Disconnected,
            Connected,
            Server(HELLO),
            Server(RESUMED),
            Server(&entry("g1", 6)),
            // The server starts over, as after a new login.
            Server(&open("g1", 2)),
            Server(&entry("g1", 3)),
            Server(&entry("g1", 4)),
            Server(&entry("g1", 5)),
            Server(&entry("g1", 6)),
            Server(&entry("g1", 7)),
            Server(r#"{"push":"caught_up"}"#),
        ]),
        &and(&[
            "entry g1 4",
            "entry g1 5",
            LOST[0],
            LOST[1],
            &resume_line(r#"{"g1":5}"#),
            "connected",
            "resumed",
            "entry g1 6",
            "entry g1 7",
            "caughtup",
        ]),
    );
}

#[test]
fn a_gap_ends_the_connection_and_resuming_heals_it() {
    let gap = "hang up: the server broke the protocol: an entry is not the next one of its conversation";
    check(
        Config::default(),
        &logged_in(vec![
            Server(&open("g1", 0)),
            Server(&entry("g1", 1)),
            Server(&entry("g1", 3)),
            Connected,
            Server(HELLO),
            Server(RESUMED),
            Server(&entry("g1", 2)),
            Server(&entry("g1", 3)),
            // A conversation that was never opened.
            Server(&entry("d1-2", 1)),
        ]),
        &and(&[
            "entry g1 1",
            gap,
            "disconnected",
            "reconnecting",
            &resume_line(r#"{"g1":1}"#),
            "connected",
            "resumed",
            "entry g1 2",
            "entry g1 3",
            gap,
            "disconnected",
            "reconnecting",
        ]),
    );
}

#[test]
fn cursors_are_sent_in_pages_and_refused_ones_start_anew() {
    let convs = ["g1", "g2", "g3", "g4", "g5"];
    let opens: Vec<String> = convs.iter().map(|conv| open(conv, 8)).collect();
    let entries: Vec<String> = convs.iter().map(|conv| entry(conv, 9)).collect();
    let mut script: Vec<In<'_>> = opens.iter().chain(&entries).map(|line| Server(line)).collect();
    let (open_5, entry_5) = (open("g5", 0), entry("g5", 1));
    let (open_4, entry_4, entry_4_next) = (open("g4", 8), entry("g4", 9), entry("g4", 10));
    script.extend([
        Disconnected,
        Connected,
        Server(HELLO),
        Server(RESUMED),
        Server(r#"{"id":2,"ok":{}}"#),
        Server(r#"{"id":2,"ok":{"refused":{"g4":"no_such_conversation","g5":"cursor_ahead"}}}"#),
        // Another log than the one that was read: its entries are new.
        Server(&open_5),
        Server(&entry_5),
        // The same log: they are not.
        Server(&open_4),
        Server(&entry_4),
        Server(&entry_4_next),
    ]);
    check(
        Config::default(),
        &logged_in(script),
        &and(&[
            "entry g1 9",
            "entry g2 9",
            "entry g3 9",
            "entry g4 9",
            "entry g5 9",
            LOST[0],
            LOST[1],
            &format!(
                r#"> {{"id":2,"op":"resume","token":"{TOKEN}","cursors":{{"g1":9,"g2":9}},"more":true}}"#
            ),
            "connected",
            r#"> {"id":2,"op":"cursors","cursors":{"g3":9,"g4":9},"more":true}"#,
            r#"> {"id":2,"op":"cursors","cursors":{"g5":9}}"#,
            "resumed",
            "entry g5 1",
            "entry g4 10",
        ]),
    );
}

#[test]
fn a_refused_token_ends_the_session_and_says_what_is_not_known() {
    let join =
        Request::Join(GroupTarget { mid: ClientMsgId([3; 16]), group: protocol::GroupId::new(1).unwrap() });
    check(
        Config::default(),
        &logged_in(vec![
            Ask(1, send(7, "hi")),
            Disconnected,
            Ask(2, join),
            Connected,
            Server(HELLO),
            Server(r#"{"id":2,"error":{"code":"bad_token","definite":true,"message":"m"}}"#),
        ]),
        &and(&[
            SEND_LINE,
            LOST[0],
            LOST[1],
            &resume_line("{}"),
            "connected",
            "sessionended { reason: badtoken }",
            "failed 1: Unknown",
            r#"failed 2: Refused(ErrorBody { code: BadToken, definite: true, field: None, retry_after_ms: None, message: "m" })"#,
        ]),
    );
}

#[test]
fn refusals_of_one_attempt_are_repeated_within_bounds() {
    let unavailable = r#"{"id":17,"error":{"code":"unavailable","definite":false,"message":"m"}}"#;
    let overloaded = r#"{"id":17,"error":{"code":"overloaded","definite":true,"message":"m"}}"#;
    let blocked = r#"{"id":17,"error":{"code":"blocked","definite":true,"message":"m"}}"#;
    let config = || Config { attempts_max: 2, ..Config::default() };
    let script =
        |first, second| logged_in(vec![Ask(1, send(7, "hi")), Server(first), Pass(200), Server(second)]);
    let refused = |code: &str| {
        format!(
            r#"failed 1: Refused(ErrorBody {{ code: {code}, definite: true, field: None, retry_after_ms: None, message: "m" }})"#
        )
    };
    let ok = r#"{"id":17,"ok":{"seq":5}}"#;
    check(config(), &script(unavailable, ok), &and(&[SEND_LINE, SEND_LINE, SEND_DONE]));
    check(config(), &script(unavailable, unavailable), &and(&[SEND_LINE, SEND_LINE, "failed 1: Unknown"]));
    // It says nothing of the first attempt.
    check(config(), &script(unavailable, overloaded), &and(&[SEND_LINE, SEND_LINE, "failed 1: Unknown"]));
    check(config(), &script(overloaded, overloaded), &and(&[SEND_LINE, SEND_LINE, &refused("Overloaded")]));
    // The first attempt may still be on its way, and find the block lifted when it arrives.
    check(config(), &script(unavailable, blocked), &and(&[SEND_LINE, SEND_LINE, "failed 1: Unknown"]));
    check(config(), &script(overloaded, blocked), &and(&[SEND_LINE, SEND_LINE, &refused("Blocked")]));
    // What is wrong with the message itself was wrong the first time.
    let bad_text = r#"{"id":17,"error":{"code":"bad_text","definite":true,"message":"m"}}"#;
    check(config(), &script(unavailable, bad_text), &and(&[SEND_LINE, SEND_LINE, &refused("BadText")]));
    let new_code = r#"{"id":17,"error":{"code":"mood","definite":true,"message":"m"}}"#;
    check(
        config(),
        &logged_in(vec![Ask(1, send(7, "hi")), Server(new_code)]),
        &and(&[SEND_LINE, &refused("Unknown")]),
    );
}

#[test]
fn what_was_shown_is_confirmed_together_and_before_a_logout() {
    check(
        Config::default(),
        &logged_in(vec![
            Server(&open("g1", 0)),
            Server(&entry("g1", 1)),
            Server(&entry("g1", 2)),
            Server(&open("d1-2", 0)),
            Server(&entry("d1-2", 1)),
            Shown("g1", 1),
            Pass(300),
            Shown("g1", 2),
            Shown("d1-2", 99),
            Pass(300),
            Server(&entry("g1", 3)),
            Shown("g1", 3),
            Ask(1, Request::Logout),
            Server(r#"{"id":1,"ok":{}}"#),
            Server(r#"{"id":17,"ok":{}}"#),
            Server(r#"{"push":"closing","code":"logged_out"}"#),
        ]),
        &and(&[
            "entry g1 1",
            "entry g1 2",
            "entry d1-2 1",
            r#"> {"op":"ack","cursors":{"g1":2,"d1-2":1}}"#,
            "entry g1 3",
            r#"> {"id":1,"op":"ack","cursors":{"g1":3}}"#,
            r#"> {"id":17,"op":"logout"}"#,
            "done 1: Done",
            "sessionended { reason: loggedout }",
        ]),
    );
}

#[test]
fn what_was_confirmed_on_a_lost_connection_is_confirmed_again() {
    check(
        Config { confirm_automatically: true, ..Config::default() },
        &logged_in(vec![
            Server(&open("g1", 0)),
            Server(&entry("g1", 1)),
            Pass(500),
            Disconnected,
            Connected,
            Server(HELLO),
            Server(RESUMED),
            Pass(500),
        ]),
        &and(&[
            "entry g1 1",
            r#"> {"op":"ack","cursors":{"g1":1}}"#,
            LOST[0],
            LOST[1],
            &resume_line(r#"{"g1":1}"#),
            "connected",
            "resumed",
            r#"> {"op":"ack","cursors":{"g1":1}}"#,
        ]),
    );
}

#[test]
fn a_logout_whose_answer_was_lost_has_happened() {
    check(
        Config::default(),
        &logged_in(vec![
            Ask(1, Request::Logout),
            Disconnected,
            Connected,
            Server(HELLO),
            Server(r#"{"id":2,"error":{"code":"bad_token","definite":true,"message":"m"}}"#),
        ]),
        &and(&[
            r#"> {"id":17,"op":"logout"}"#,
            LOST[0],
            LOST[1],
            &resume_line("{}"),
            "connected",
            "sessionended { reason: loggedout }",
            "done 1: Done",
        ]),
    );
}

#[test]
fn silence_on_an_outstanding_request_is_death_and_pings_keep_alive() {
    let ping = r#"> {"id":0,"op":"ping"}"#;
    let dead = "hang up: the server does not answer";
    check(
        Config::default(),
        &logged_in(vec![Pass(30_000), Server(r#"{"id":0,"ok":{}}"#), Pass(29_999), Pass(30_001)]),
        &and(&[ping, ping, dead, "disconnected", "reconnecting"]),
    );
    // A line of any kind is a sign of life.
    check(
        Config { silence_timeout: Some(Duration::from_secs(5)), ..Config::default() },
        &logged_in(vec![
            Ask(1, send(7, "hi")),
            Pass(4000),
            Server(r#"{"push":"sparkle"}"#),
            Pass(4000),
            // The silence is our own.
            Reading(false),
            Pass(10_000),
            Reading(true),
            Pass(4999),
            Pass(1),
        ]),
        &and(&[SEND_LINE, dead, "disconnected", "reconnecting"]),
    );
    // The greeting has its own time.
    check(Config::default(), &[Connected, Pass(5000)], &[dead, "disconnected"]);
}

#[test]
fn everything_is_bounded() {
    let config = Config { requests_max: 1, ..Config::default() };
    check(
        config,
        &logged_in(vec![Ask(1, send(7, "hi")), Ask(2, send(8, "ho")), Finish]),
        &and(&[SEND_LINE, "failed 2: TooManyRequests", "failed 1: Unknown"]),
    );
    check(
        Config { request_bytes_max: 10, ..Config::default() },
        &[Ask(1, send(7, "12345678901")), Ask(2, send(7, "1234567890")), Finish],
        &["failed 1: TooManyRequests", "failed 2: Closed"],
    );
    let too_long = |key| {
        let message = ErrorCode::FrameTooLong.message();
        format!(
            r#"failed {key}: Refused(ErrorBody {{ code: FrameTooLong, definite: true, field: None, retry_after_ms: None, message: "{message}" }})"#
        )
    };
    // A line that the server would skip without knowing whose it was is not sent.
    let register =
        Register { mid: ClientMsgId([1; 16]), name: "n".into(), password: Password("p".repeat(300)) };
    check(
        Config::default(),
        &[Connected, Server(HELLO), Ask(1, Request::Register(register))],
        &["connected", &too_long(1)],
    );
    check(
        Config::default(),
        &logged_in(vec![Ask(1, send(7, &"x".repeat(400))), Ask(2, Request::Ping)]),
        &and(&[&too_long(1), r#"> {"id":18,"op":"ping"}"#]),
    );
    // A request has an end.
    check(
        Config::default(),
        &[Ask(1, Request::Friends(Page::default())), Pass(60_000)],
        &["failed 1: Closed"],
    );
}

#[test]
fn closing_is_honoured() {
    check(
        Config::default(),
        &logged_in(vec![Server(r#"{"push":"closing","code":"going_away","reconnect_after_ms":700}"#)]),
        &and(&["hang up: closed by the server: it is shutting down", "disconnected", "reconnecting"]),
    );
    // Nobody needs a connection that was closed for want of a login.
    check(
        Config::default(),
        &[Connected, Server(HELLO), Server(r#"{"push":"closing","code":"login_timeout"}"#)],
        &["connected", "hang up: closed by the server: no login in time", "disconnected"],
    );
    check(
        Config::default(),
        &[Connected, Server(&HELLO.replace(r#""protocol":1"#, r#""protocol":2"#)), Ask(1, login())],
        &["sessionended { reason: protocolversion(2) }", "failed 1: Closed"],
    );
}

#[test]
fn the_wish_of_a_draining_server_delays_the_reconnect() {
    let mut session: Session<u32> = Session::new(Config::default(), 1);
    session.connected(Duration::ZERO);
    session.line(Duration::ZERO, HELLO.as_bytes());
    session.ask(Duration::ZERO, login(), 0);
    session.line(Duration::ZERO, br#"{"push":"closing","code":"going_away","reconnect_after_ms":700}"#);
    let reason = session.hang_up().unwrap();
    session.disconnected(Duration::ZERO, reason);
    let at = session.dial_at().unwrap();
    assert!(at >= Duration::from_millis(750) && at <= Duration::from_millis(800), "{at:?}");
}

/// Nodes that are replaced faster than a connection has to live for the pauses to start anew.
#[test]
fn being_sent_away_is_no_failure() {
    let mut session: Session<u32> = Session::new(Config::default(), 1);
    session.ask(Duration::ZERO, login(), 0);
    let mut now = Duration::ZERO;
    for time in 0..10 {
        session.connected(now);
        session.line(now, HELLO.as_bytes());
        session.line(now, br#"{"push":"closing","code":"going_away","reconnect_after_ms":200}"#);
        let reason = session.hang_up().unwrap();
        session.disconnected(now, reason);
        let at = session.dial_at().unwrap();
        assert!(at <= now + Duration::from_millis(300), "time {time}: {:?}", at - now);
        now = at;
    }
    // A node that says nothing has failed.
    for _ in 0..5 {
        session.connected(now);
        session.disconnected(now, DisconnectReason::Lost("reset".into()));
        now = session.dial_at().unwrap();
    }
    session.connected(now);
    session.disconnected(now, DisconnectReason::Lost("reset".into()));
    assert!(session.dial_at().unwrap() - now >= Duration::from_secs(2), "pauses grow");
}

#[test]
fn a_session_of_another_process_is_resumed() {
    let resume = Resume {
        token: Token([1; 32]),
        cursors: Cursors::from([("g1".parse().unwrap(), Seq(4))]),
        more: false,
    };
    let line = resume_line(r#"{"g1":4}"#);
    check(
        Config::default(),
        &[
            Connected,
            Server(HELLO),
            Ask(1, Request::Resume(resume)),
            // Cut off before the answer.
            Disconnected,
            Connected,
            Server(HELLO),
            Server(r#"{"id":2,"ok":{"user":1,"name":"a"}}"#),
            Server(&entry("g1", 5)),
        ],
        &[
            "connected",
            &line,
            "disconnected",
            "reconnecting",
            &line,
            "connected",
            "resumed",
            r#"done 1: LoggedIn(LoggedIn { user: UserId(1), name: "a", token: None, token_expires_at: None, refused: {} })"#,
            "entry g1 5",
        ],
    );
}

#[test]
fn hostile_servers_do_no_harm() {
    let bad = "hang up: the server broke the protocol: a line is neither a push nor a reply";
    check(
        Config::default(),
        &logged_in(vec![
            Server(r#"{"id":null,"error":{"code":"malformed","definite":true,"message":"m"}}"#),
            Server(r#"{"id":99,"ok":{}}"#),
            Server(r#"{"id":2,"ok":{}}"#),
            Server(HELLO),
            Server("garbage"),
        ]),
        &and(&[bad, "disconnected", "reconnecting"]),
    );
    let form = "hang up: the server broke the protocol: a reply has not the form of its request's";
    let history = Request::History(History { conv: "g1".parse().unwrap(), before: None, limit: None });
    let group = CreateGroup { mid: ClientMsgId([9; 16]), name: "n".into(), description: String::new() };
    check(
        Config::default(),
        &logged_in(vec![
            Ask(1, history),
            Server(r#"{"id":17,"ok":{"entries":"all","more":false}}"#),
            Ask(2, Request::CreateGroup(group)),
            Finish,
        ]),
        &and(&[
            r#"> {"id":17,"op":"history","conv":"g1"}"#,
            form,
            "disconnected",
            "reconnecting",
            "failed 1: Unknown",
            "failed 2: Closed",
        ]),
    );
}
