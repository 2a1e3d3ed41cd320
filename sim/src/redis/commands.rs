//! What each command does, in Redis's words.

use std::time::Duration;

use bytes::Bytes;

use super::{
    keys::WrongType,
    request::integer,
    server::{Call, DATABASES, STORED_BYTES_MAX, Transaction},
};

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    /// In lower case.
    name: &'static str,
    /// Arguments with the name: so many, or at least so many where it is negative.
    arity: i32,
    /// When it is executed.
    when: When,
    run: fn(&mut Call<'_>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Once the client has logged in; in a transaction, at its end.
    InTurn,
    /// Before it has logged in, too.
    Always,
    /// Logged in; in a transaction at once.
    AtOnce,
    /// Whenever it comes.
    AlwaysAtOnce,
}

const COMMANDS: &[Command] = &[
    command("auth", -2, When::Always, auth),
    command("client", -2, When::InTurn, client),
    command("del", -2, When::InTurn, del),
    command("discard", 1, When::AtOnce, discard),
    command("exec", 1, When::AtOnce, exec),
    command("exists", -2, When::InTurn, exists),
    command("expire", -3, When::InTurn, expire),
    command("flushall", -1, When::InTurn, flush),
    command("flushdb", -1, When::InTurn, flush),
    command("get", 2, When::InTurn, get),
    command("hello", -1, When::Always, hello),
    command("multi", 1, When::AtOnce, multi),
    command("pexpire", -3, When::InTurn, expire),
    command("ping", -1, When::InTurn, ping),
    command("pttl", 2, When::InTurn, pttl),
    command("publish", 3, When::InTurn, publish),
    command("quit", -1, When::AlwaysAtOnce, quit),
    command("sadd", -3, When::InTurn, sadd),
    command("select", 2, When::InTurn, select),
    command("set", -3, When::InTurn, set),
    command("sismember", 3, When::InTurn, sismember),
    command("smembers", 2, When::InTurn, smembers),
    command("srem", -3, When::InTurn, srem),
    command("subscribe", -2, When::InTurn, subscribe),
    command("unsubscribe", -1, When::InTurn, unsubscribe),
];

const NOT_A_NUMBER: &[u8] = b"ERR value is not an integer or out of range";
const SYNTAX: &[u8] = b"ERR syntax error";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
/// What clients are told of; they ask for it by name.
const VERSION: &[u8] = b"8.0.0";
/// Bytes of what an unknown command's refusal repeats, as in Redis.
const REPEATED_BYTES_MAX: usize = 128;
/// About now, in milliseconds of the clock that Redis adds an expiry to: what would overflow there is refused.
const CLOCK_MILLIS: i64 = 1 << 41;

const fn command(name: &'static str, arity: i32, when: When, run: fn(&mut Call<'_>)) -> Command {
    Command { name, arity, when, run }
}

/// Executes the call's command, queues or refuses it.
pub(super) fn dispatch(call: &mut Call<'_>) {
    let name = call.arguments[0].to_ascii_lowercase();
    let command = COMMANDS.iter().find(|command| command.name.as_bytes() == name);
    let Some(command) = command else {
        let error = unknown(&call.arguments);
        return refuse(call, &error);
    };
    if !fits(command.arity, call.arguments.len()) {
        let error = format!("ERR wrong number of arguments for '{}' command", command.name);
        return refuse(call, error.as_bytes());
    }
    if !call.client.logged_in && !matches!(command.when, When::Always | When::AlwaysAtOnce) {
        return refuse(call, b"NOAUTH Authentication required.");
    }
    let full = call.server.databases.iter().map(super::keys::Keys::bytes).sum::<usize>() > STORED_BYTES_MAX;
    if full && matches!(command.name, "set" | "sadd") {
        return refuse(call, b"OOM command not allowed when used memory > 'maxmemory'.");
    }
    let listening = !call.client.resp3 && !call.client.subscriptions.is_empty();
    if listening && !matches!(command.name, "subscribe" | "unsubscribe" | "ping" | "quit") {
        let error = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.name
        );
        return refuse(call, error.as_bytes());
    }
    match &mut call.client.transaction {
        Some(transaction) if matches!(command.when, When::InTurn | When::Always) => {
            transaction.push(command, std::mem::take(&mut call.arguments));
            call.replies.simple("QUEUED");
        }
        _ => (command.run)(call),
    }
}

/// What is refused spoils the transaction that it was for; if it is the end of it, it is no more.
fn refuse(call: &mut Call<'_>, error: &[u8]) {
    if call.arguments[0].eq_ignore_ascii_case(b"exec") {
        call.client.transaction = None;
        let reason = error.strip_prefix(b"ERR ").unwrap_or(error);
        return call.replies.error(&[b"EXECABORT Transaction discarded because of: ", reason].concat());
    }
    if let Some(transaction) = &mut call.client.transaction {
        transaction.spoilt = true;
    }
    call.replies.error(error);
}

fn fits(arity: i32, arguments: usize) -> bool {
    let needed = arity.unsigned_abs() as usize;
    if arity < 0 { arguments >= needed } else { arguments == needed }
}

fn unknown(arguments: &[Bytes]) -> Vec<u8> {
    let up_to = |bytes: &Bytes, most: usize| bytes.slice(..bytes.len().min(most));
    let mut repeated = Vec::new();
    for argument in &arguments[1..] {
        if repeated.len() >= REPEATED_BYTES_MAX {
            break;
        }
        let shown = up_to(argument, REPEATED_BYTES_MAX - repeated.len());
        repeated.extend_from_slice(b"'");
        repeated.extend_from_slice(&shown);
        repeated.extend_from_slice(b"' ");
    }
    let name = up_to(&arguments[0], REPEATED_BYTES_MAX);
    [b"ERR unknown command '", &*name, b"', with args beginning with: ", &*repeated].concat()
}

fn wrong_type(call: &mut Call<'_>, WrongType: WrongType) {
    call.replies.error(b"WRONGTYPE Operation against a key holding the wrong kind of value");
}

// The connection.

fn ping(call: &mut Call<'_>) {
    let listening = !call.client.resp3 && !call.client.subscriptions.is_empty();
    match (call.arguments.as_slice(), listening) {
        ([_], false) => call.replies.simple("PONG"),
        ([_, text], false) => call.replies.bulk(text),
        ([_] | [_, _], true) => {
            call.replies.array(2);
            call.replies.bulk(b"pong");
            call.replies.bulk(call.arguments.get(1).map_or(b"", |text| text));
        }
        _ => call.replies.error(b"ERR wrong number of arguments for 'ping' command"),
    }
}

fn quit(call: &mut Call<'_>) {
    call.replies.ok();
    call.client.leaving = true;
}

fn select(call: &mut Call<'_>) {
    let Some(number) = integer(&call.arguments[1]) else { return call.replies.error(NOT_A_NUMBER) };
    match usize::try_from(number) {
        Ok(number) if number < DATABASES => {
            call.client.database = number;
            call.replies.ok();
        }
        _ => call.replies.error(b"ERR DB index is out of range"),
    }
}

/// Whether the password fits; the one user is called `default`, and without a password every one fits.
fn log_in(call: &mut Call<'_>, user: &[u8], password: &[u8]) -> bool {
    let fits =
        user == b"default" && call.server.password.as_ref().is_none_or(|expected| expected == password);
    if fits {
        call.client.logged_in = true;
    }
    fits
}

fn auth(call: &mut Call<'_>) {
    let (user, password) = match call.arguments.as_slice() {
        [_, password] if call.server.password.is_some() => (Bytes::from_static(b"default"), password.clone()),
        [_, _] => {
            return call.replies.error(
                b"ERR AUTH <password> called without any password configured for the default user. \
                  Are you sure your configuration is correct?",
            );
        }
        [_, user, password] => (user.clone(), password.clone()),
        _ => return call.replies.error(SYNTAX),
    };
    if log_in(call, &user, &password) { call.replies.ok() } else { call.replies.error(WRONG_PASSWORD) }
}

fn hello(call: &mut Call<'_>) {
    let arguments = std::mem::take(&mut call.arguments);
    let mut resp3 = None;
    if let Some(version) = arguments.get(1) {
        resp3 = match integer(version) {
            None => {
                return call.replies.error(b"ERR Protocol version is not an integer or out of range");
            }
            Some(2) => Some(false),
            Some(3) => Some(true),
            Some(_) => return call.replies.error(b"NOPROTO unsupported protocol version"),
        };
    }
    let (mut name, mut user) = (None, None);
    let mut options = arguments.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match (option.to_ascii_lowercase().as_slice(), rest) {
            (b"auth", [who, password, rest @ ..]) => {
                user = Some((who, password));
                rest
            }
            (b"setname", [called, rest @ ..]) => {
                if !is_plain(called) {
                    return call.replies.error(NAME_NOT_PLAIN);
                }
                name = Some(called);
                rest
            }
            _ => {
                let error = [b"ERR Syntax error in HELLO option '", &**option, b"'"].concat();
                return call.replies.error(&error);
            }
        };
    }
    if let Some((who, password)) = user
        && !log_in(call, who, password)
    {
        return call.replies.error(WRONG_PASSWORD);
    }
    if !call.client.logged_in {
        return call.replies.error(
            b"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> \
              option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        call.client.name = name.clone();
    }
    if let Some(resp3) = resp3 {
        call.client.resp3 = resp3;
        call.replies.resp3 = resp3;
    }
    let id = i64::try_from(call.id).unwrap_or(i64::MAX);
    let proto = if call.client.resp3 { 3 } else { 2 };
    let replies = &mut call.replies;
    replies.map(7);
    for (key, value) in [(&b"server"[..], &b"redis"[..]), (b"version", VERSION)] {
        replies.bulk(key);
        replies.bulk(value);
    }
    for (key, value) in [(b"proto".as_slice(), proto), (b"id", id)] {
        replies.bulk(key);
        replies.integer(value);
    }
    for (key, value) in [(&b"mode"[..], &b"standalone"[..]), (b"role", b"master")] {
        replies.bulk(key);
        replies.bulk(value);
    }
    replies.bulk(b"modules");
    replies.array(0);
}

const NAME_NOT_PLAIN: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";

fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn client(call: &mut Call<'_>) {
    let arguments = std::mem::take(&mut call.arguments);
    let subcommand = arguments[1].to_ascii_lowercase();
    let arity = match subcommand.as_slice() {
        b"id" | b"getname" => 2,
        b"setname" => 3,
        b"setinfo" => 4,
        _ => {
            let shown = &arguments[1][..arguments[1].len().min(REPEATED_BYTES_MAX)];
            let error = [b"ERR unknown subcommand '", shown, b"'. Try CLIENT HELP."].concat();
            return call.replies.error(&error);
        }
    };
    if arguments.len() != arity {
        let error =
            [b"ERR wrong number of arguments for 'client|", subcommand.as_slice(), b"' command"].concat();
        return call.replies.error(&error);
    }
    match subcommand.as_slice() {
        b"id" => call.replies.integer(i64::try_from(call.id).unwrap_or(i64::MAX)),
        b"getname" if call.client.name.is_empty() => call.replies.null(),
        b"getname" => call.replies.bulk(&call.client.name),
        b"setname" if is_plain(&arguments[2]) => {
            call.client.name = arguments[2].clone();
            call.replies.ok();
        }
        b"setname" => call.replies.error(NAME_NOT_PLAIN),
        _ => {
            let option = arguments[2].to_ascii_lowercase();
            if !matches!(option.as_slice(), b"lib-name" | b"lib-ver") {
                call.replies.error(&[b"ERR Unrecognized option '", &*arguments[2], b"'"].concat());
            } else if is_plain(&arguments[3]) {
                // Nobody can ask for it here.
                call.replies.ok();
            } else {
                let error = b" cannot contain spaces, newlines or special characters.";
                call.replies.error(&[b"ERR ", &*arguments[2], error].concat());
            }
        }
    }
}

// Transactions.

fn multi(call: &mut Call<'_>) {
    if call.client.transaction.is_some() {
        return call.replies.error(b"ERR MULTI calls can not be nested");
    }
    call.client.transaction = Some(Transaction::default());
    call.replies.ok();
}

fn discard(call: &mut Call<'_>) {
    match call.client.transaction.take() {
        None => call.replies.error(b"ERR DISCARD without MULTI"),
        Some(_) => call.replies.ok(),
    }
}

fn exec(call: &mut Call<'_>) {
    match call.client.transaction.take() {
        None => call.replies.error(b"ERR EXEC without MULTI"),
        Some(transaction) if transaction.spoilt => {
            call.replies.error(b"EXECABORT Transaction discarded because of previous errors.");
        }
        Some(transaction) => {
            call.replies.array(transaction.queue.len());
            for (command, arguments) in transaction.queue {
                call.arguments = arguments;
                (command.run)(call);
            }
        }
    }
}

// Channels.

fn subscribe(call: &mut Call<'_>) {
    for channel in std::mem::take(&mut call.arguments).iter().skip(1) {
        call.subscribe(channel);
        confirm(call, b"subscribe", Some(channel));
    }
}

fn unsubscribe(call: &mut Call<'_>) {
    let mut channels: Vec<_> = std::mem::take(&mut call.arguments).split_off(1);
    if channels.is_empty() {
        channels.extend(call.client.subscriptions.iter().cloned());
    }
    for channel in &channels {
        call.unsubscribe(channel);
        confirm(call, b"unsubscribe", Some(channel));
    }
    if channels.is_empty() {
        confirm(call, b"unsubscribe", None);
    }
}

fn confirm(call: &mut Call<'_>, what: &[u8], channel: Option<&Bytes>) {
    let left = call.client.subscriptions.len();
    let replies = &mut call.replies;
    replies.push(3);
    replies.bulk(what);
    match channel {
        Some(channel) => replies.bulk(channel),
        None => replies.null(),
    }
    replies.count(left);
}

fn publish(call: &mut Call<'_>) {
    let (channel, message) = (call.arguments[1].clone(), call.arguments[2].clone());
    let heard = call.publish(&channel, &message);
    call.replies.count(heard);
}

// Keys.

/// What SET is asked for beyond the key and the text.
#[derive(Default)]
struct SetOptions {
    /// Only if the key is there, or is not.
    there: Option<bool>,
    replies_with_old: bool,
    keeps_expiry: bool,
    /// A number, and the milliseconds of its unit.
    expires: Option<(Bytes, i64)>,
}

impl SetOptions {
    fn parse(mut options: &[Bytes]) -> Option<Self> {
        let mut parsed = Self::default();
        while let [option, rest @ ..] = options {
            options = match (option.to_ascii_lowercase().as_slice(), rest) {
                (b"nx", rest) if parsed.there != Some(true) => {
                    parsed.there = Some(false);
                    rest
                }
                (b"xx", rest) if parsed.there != Some(false) => {
                    parsed.there = Some(true);
                    rest
                }
                (b"get", rest) => {
                    parsed.replies_with_old = true;
                    rest
                }
                (b"keepttl", rest) if parsed.expires.is_none() => {
                    parsed.keeps_expiry = true;
                    rest
                }
                (unit @ (b"px" | b"ex"), [number, rest @ ..]) if !parsed.keeps_expiry => {
                    let millis = if unit == b"px" { 1 } else { 1000 };
                    if parsed.expires.as_ref().is_some_and(|(_, other)| *other != millis) {
                        return None;
                    }
                    parsed.expires = Some((number.clone(), millis));
                    rest
                }
                _ => return None,
            };
        }
        Some(parsed)
    }
}

/// So many units from now, as milliseconds, unless the clock cannot hold it.
fn millis(number: i64, unit: i64) -> Option<i64> {
    number.checked_mul(unit).filter(|millis| *millis <= i64::MAX - CLOCK_MILLIS)
}

fn set(call: &mut Call<'_>) {
    let Some(options) = SetOptions::parse(&call.arguments[3..]) else { return call.replies.error(SYNTAX) };
    let (key, text, now) = (call.arguments[1].clone(), call.arguments[2].clone(), call.now);
    let mut expires = None;
    if let Some((number, unit)) = &options.expires {
        let Some(number) = integer(number) else { return call.replies.error(NOT_A_NUMBER) };
        let Some(millis) =
            millis(number, *unit).and_then(|millis| u64::try_from(millis).ok()).filter(|millis| *millis > 0)
        else {
            return call.replies.error(b"ERR invalid expire time in 'set' command");
        };
        expires = now.checked_add(Duration::from_millis(millis));
    }
    let mut old = None;
    if options.replies_with_old {
        match call.keys().text(&key, now) {
            Ok(text) => old = text,
            Err(error) => return wrong_type(call, error),
        }
    }
    let before = call.keys().expires(&key, now);
    let agreed = options.there.is_none_or(|there| there == before.is_some());
    if agreed {
        if options.keeps_expiry {
            expires = before.flatten();
        }
        call.keys().set_text(&key, &text, expires);
    }
    match (options.replies_with_old, old) {
        (true, Some(old)) => call.replies.bulk(&old),
        (true, None) => call.replies.null(),
        (false, _) if agreed => call.replies.ok(),
        (false, _) => call.replies.null(),
    }
}

fn get(call: &mut Call<'_>) {
    let (key, now) = (call.arguments[1].clone(), call.now);
    match call.keys().text(&key, now) {
        Ok(Some(text)) => call.replies.bulk(&text),
        Ok(None) => call.replies.null(),
        Err(error) => wrong_type(call, error),
    }
}

fn del(call: &mut Call<'_>) {
    let (keys, now) = (std::mem::take(&mut call.arguments), call.now);
    let deleted = keys.iter().skip(1).filter(|key| call.keys().delete(key, now)).count();
    call.replies.count(deleted);
}

fn exists(call: &mut Call<'_>) {
    let (keys, now) = (std::mem::take(&mut call.arguments), call.now);
    let there = keys.iter().skip(1).filter(|key| call.keys().exists(key, now)).count();
    call.replies.count(there);
}

/// EXPIRE and PEXPIRE.
fn expire(call: &mut Call<'_>) {
    let name = call.arguments[0].to_ascii_lowercase();
    if let Some(option) = call.arguments.get(3) {
        let error = [b"ERR Unsupported option ", &**option].concat();
        return call.replies.error(&error);
    }
    let Some(number) = integer(&call.arguments[2]) else { return call.replies.error(NOT_A_NUMBER) };
    let Some(millis) = millis(number, if name == b"expire" { 1000 } else { 1 }) else {
        let error = [b"ERR invalid expire time in '", name.as_slice(), b"' command"].concat();
        return call.replies.error(&error);
    };
    let after = u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    let (key, now) = (call.arguments[1].clone(), call.now);
    let there = call.keys().expire(&key, after, now);
    call.replies.integer(there.into());
}

fn pttl(call: &mut Call<'_>) {
    let (key, now) = (call.arguments[1].clone(), call.now);
    let left = match call.keys().expires(&key, now) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires)) => {
            let left = expires.duration_since(now).as_nanos().div_ceil(1_000_000);
            i64::try_from(left).unwrap_or(i64::MAX)
        }
    };
    call.replies.integer(left);
}

fn sadd(call: &mut Call<'_>) {
    let (arguments, now) = (std::mem::take(&mut call.arguments), call.now);
    match call.keys().add(&arguments[1], &arguments[2..], now) {
        Ok(added) => call.replies.count(added),
        Err(error) => wrong_type(call, error),
    }
}

fn srem(call: &mut Call<'_>) {
    let (arguments, now) = (std::mem::take(&mut call.arguments), call.now);
    match call.keys().take(&arguments[1], &arguments[2..], now) {
        Ok(taken) => call.replies.count(taken),
        Err(error) => wrong_type(call, error),
    }
}

/// In order of their bytes; Redis has an order of its own.
fn smembers(call: &mut Call<'_>) {
    let (key, now) = (call.arguments[1].clone(), call.now);
    match call.server.databases[call.client.database].members(&key, now) {
        Ok(members) => {
            call.replies.set(members.map_or(0, |members| members.len()));
            for member in members.into_iter().flatten() {
                call.replies.bulk(member);
            }
        }
        Err(error) => wrong_type(call, error),
    }
}

fn sismember(call: &mut Call<'_>) {
    let (key, member, now) = (call.arguments[1].clone(), call.arguments[2].clone(), call.now);
    match call
        .keys()
        .members(&key, now)
        .map(|members| members.is_some_and(|members| members.contains(&member)))
    {
        Ok(is) => call.replies.integer(is.into()),
        Err(error) => wrong_type(call, error),
    }
}

fn flush(call: &mut Call<'_>) {
    let (all, how) = (call.arguments[0].eq_ignore_ascii_case(b"flushall"), &call.arguments[1..]);
    match how {
        [] => {}
        [how] if how.eq_ignore_ascii_case(b"sync") || how.eq_ignore_ascii_case(b"async") => {}
        _ => return call.replies.error(SYNTAX),
    }
    if all {
        call.server.empty();
    } else {
        *call.keys() = super::keys::Keys::default();
    }
    call.replies.ok();
}
