//! What each command asks, and how it shows the answers.

mod why;

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    Entropy as _,
    clock::SystemEntropy,
    message::{Password, PresenceState},
    text::PASSWORD_BYTES_MAX,
};
use serde::Serialize;
use serde_json::{Value, json};
use server::admin::view::{
    AccountView, NodeView, OrderWanted, SessionView, SessionsView, SessionsWanted, UsersView, UsersWanted,
};

use crate::{
    Args, Command,
    nodes::{Answers, Failure, Nodes},
    show::{Table, duration, second, user},
};

/// Sessions that a node is asked for at once.
const PAGE: usize = 500;
/// What a made-up password consists of: five bits each, and nothing that is easily taken for something else.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of it: 130 bits.
const GENERATED_CHARS: usize = 26;

/// Carries out a command; whether all went well.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let token_file = args.token_file.as_deref();
    let token_file =
        token_file.context("--token-file FILE, or CHAT_ADMIN_TOKEN_FILE, has to say where the token is")?;
    let nodes = Nodes::new(&args.nodes, token_file)?;
    let json = args.json;
    match &args.command {
        Command::Nodes => show_nodes(&nodes, json),
        Command::Sessions { user, limit } => show_sessions(&nodes, json, user.as_deref(), *limit),
        Command::Users { after, limit, prefix } => {
            let wanted = UsersWanted { prefix: prefix.clone(), after: after.clone(), limit: Some(*limit) };
            show_users(&nodes, json, wanted)
        }
        Command::Kick { user } => order(&nodes, json, "kick", user, "sessions ended", None),
        Command::Ban { user } => order(&nodes, json, "ban", user, "banned, and sessions ended", None),
        Command::Unban { user } => order(&nodes, json, "unban", user, "may log in again", None),
        Command::Passwd { user, generate } => {
            let (password, shown) = match generate {
                true => generate_password().map(|password| (password.clone(), Some(password)))?,
                false => (read_password()?, None),
            };
            order(&nodes, json, "passwd", user, "password set, and sessions ended", Some((password, shown)))
        }
        Command::Drain { node } => drain(&nodes, json, node),
        Command::Why { conversation, seq } => why::show(&nodes, json, *conversation, *seq),
    }
}

/// Prints to the standard output, to a reader who may have gone.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn print_json(value: &Value) {
    print(&format!("{value}\n"));
}

/// Names the nodes that have not done what they were asked; whether there are none.
fn complain<T>(answers: &Answers<T>) -> bool {
    for (node, answer) in answers {
        if let Err(failure) = answer {
            eprintln!("chatctl: {node}: {}", crate::show::plain(&failure.to_string()));
        }
    }
    answers.iter().all(|(_, answer)| answer.is_ok())
}

/// Likewise, for programs.
fn failed<T>(answers: &Answers<T>) -> Vec<Value> {
    let failures = answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().err()?)));
    failures.map(|(node, failure)| json!({"node": node, "error": failure.to_string()})).collect()
}

/// What a node said, with the node's name.
fn of_node(node: &str, view: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(view).unwrap_or_default();
    value["node"] = node.into();
    value
}

fn show_nodes(nodes: &Nodes, json: bool) -> anyhow::Result<bool> {
    let answers = nodes.all(|node| nodes.get::<NodeView>(node, "node", &()));
    if json {
        let known = answers.iter().filter_map(|(node, answer)| Some(of_node(node, answer.as_ref().ok()?)));
        print_json(&json!({"nodes": known.collect::<Vec<_>>(), "failed": failed(&answers)}));
    } else {
        let head =
            ["NODE", "CLIENTS AT", "VERSION", "STATE", "SESSIONS", "CONNECTIONS", "UPTIME", "INCARNATION"];
        let mut table = Table::new(&head);
        for (node, answer) in &answers {
            table.line(match answer {
                Ok(view) => node_line(node, view),
                Err(_) => vec![node.clone(), "-".into(), "-".into(), "no answer".into()],
            });
        }
        print(&table.text());
    }
    Ok(complain(&answers))
}

fn node_line(node: &str, view: &NodeView) -> Vec<String> {
    let mut state = match (view.ready, view.reasons.join(", ")) {
        (true, _) => "ready".to_owned(),
        (false, why) => format!("not ready: {why}"),
    };
    if !view.degraded.is_empty() {
        state.push_str(&format!("; degraded: {}", view.degraded.join(", ")));
    }
    vec![
        node.to_owned(),
        view.address.clone(),
        view.version.clone(),
        state,
        view.sessions.to_string(),
        format!("{} of {}", view.connections, view.connections_max),
        duration(view.uptime_seconds),
        view.incarnation.clone().unwrap_or_else(|| "-".into()),
    ]
}

fn show_sessions(nodes: &Nodes, json: bool, user: Option<&str>, limit: usize) -> anyhow::Result<bool> {
    let answers = nodes.all(|node| sessions_of(nodes, node, user, limit));
    let known = || {
        let known = answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().ok()?)));
        known.flat_map(|(node, (sessions, _))| sessions.iter().map(move |session| (node, session)))
    };
    let more: Vec<&String> =
        answers.iter().filter(|(_, answer)| matches!(answer, Ok((_, true)))).map(|(node, _)| node).collect();
    if json {
        let sessions: Vec<_> = known().map(|(node, session)| of_node(node, session)).collect();
        print_json(&json!({"sessions": sessions, "more": more, "failed": failed(&answers)}));
    } else {
        let head = ["NODE", "USER", "ID", "ADDRESS", "SINCE (UTC)", "CONVERSATIONS", "BEHIND", "UNWRITTEN"];
        let mut table = Table::new(&head);
        let number = |number: Option<u64>| number.map_or_else(|| "?".into(), |number| number.to_string());
        for (node, session) in known() {
            table.line([
                node.clone(),
                crate::show::user(&session.name, session.user),
                session.id.to_string(),
                session.address.to_string(),
                second(session.since),
                number(session.conversations),
                number(session.behind),
                session.unwritten.to_string(),
            ]);
        }
        print(&table.text());
        for node in more {
            eprintln!("chatctl: {node}: there are more; ask with a higher --limit");
        }
    }
    Ok(complain(&answers))
}

/// The sessions of a node, and whether there are more.
fn sessions_of(
    nodes: &Nodes,
    node: &str,
    user: Option<&str>,
    limit: usize,
) -> Result<(Vec<SessionView>, bool), Failure> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = Some((limit - all.len()).min(PAGE));
        let wanted = SessionsWanted { user: user.map(str::to_owned), after, limit: page };
        let SessionsView { sessions, next } = nodes.get(node, "sessions", &wanted)?;
        all.extend(sessions);
        match next {
            // Users come in order, so this ends.
            Some(next) if next > after && all.len() < limit => after = next,
            next => return Ok((all, next.is_some())),
        }
    }
}

fn show_users(nodes: &Nodes, json: bool, mut wanted: UsersWanted) -> anyhow::Result<bool> {
    let limit = wanted.limit.unwrap_or(usize::MAX);
    let mut users = Vec::new();
    loop {
        wanted.limit = Some((limit - users.len()).min(PAGE));
        let answers = nodes.first(|node| nodes.get::<UsersView>(node, "users", &wanted));
        complain(&answers);
        let Some((_, Ok(page))) = answers.into_iter().next_back() else { return Ok(false) };
        let came = page.users.len();
        users.extend(page.users);
        wanted.after = page.next;
        if wanted.after.is_none() || came == 0 || users.len() >= limit {
            break;
        }
    }
    if json {
        print_json(&json!({"users": users, "next": wanted.after}));
        return Ok(true);
    }
    let mut table = Table::new(&["NUMBER", "NAME", "CREATED (UTC)", "BANNED", "ONLINE"]);
    for row in users {
        let state = match row.state {
            PresenceState::Online => "yes",
            PresenceState::Offline => "no",
            _ => "unknown",
        };
        let banned = if row.banned { "yes" } else { "no" };
        table.line([row.user.to_string(), row.name, second(row.created_at), banned.into(), state.into()]);
    }
    print(&table.text());
    if let Some(next) = wanted.after {
        eprintln!("chatctl: there are more: --after '{}'", crate::show::plain(&next));
    }
    Ok(true)
}

/// Has something done to an account; `password` is the one to set, and what of it is to be printed.
fn order(
    nodes: &Nodes,
    json: bool,
    act: &str,
    account: &str,
    done: &str,
    password: Option<(String, Option<String>)>,
) -> anyhow::Result<bool> {
    let (password, shown) = password.unzip();
    let wanted = OrderWanted { user: account.to_owned(), password: password.map(Password) };
    let answers = nodes.first(|node| nodes.post::<AccountView>(node, act, &wanted));
    complain(&answers);
    let Some((_, Ok(account))) = answers.into_iter().next_back() else { return Ok(false) };
    let shown = shown.flatten();
    if json {
        let mut value = serde_json::to_value(&account)?;
        if let Some(password) = shown {
            value["password"] = password.into();
        }
        print_json(&value);
        return Ok(true);
    }
    let who = user(&account.name, account.user);
    let line = match account.seq {
        Some(seq) => format!("{who}: {done} (u{}, entry {seq})", account.user),
        None => format!("{who}: nothing to do, it is {}banned", if account.banned { "" } else { "not " }),
    };
    match shown {
        // The password alone on the standard output, for whoever passes it on.
        Some(password) => {
            eprintln!("{line}");
            print(&format!("{password}\n"));
        }
        None => print(&format!("{line}\n")),
    }
    Ok(true)
}

fn drain(nodes: &Nodes, json: bool, node: &str) -> anyhow::Result<bool> {
    let answers = vec![(node.to_owned(), nodes.post::<Value>(node, "drain", &json!({})))];
    let told = complain(&answers);
    match (told, json) {
        (true, true) => print_json(&json!({"node": node, "draining": true})),
        (true, false) => print(&format!("{node}: drains\n")),
        (false, _) => {}
    }
    Ok(told)
}

/// The first line of the standard input; from a terminal, without showing it.
fn read_password() -> anyhow::Result<String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        let password = rpassword::prompt_password("new password: ").context("reading the password")?;
        ensure!(rpassword::prompt_password("once more: ")? == password, "these are two different passwords");
        return Ok(password);
    }
    let mut line = Vec::new();
    // One byte beyond the longest and the line's end: whether it is too long is seen.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    input.lock().take(most).read_until(b'\n', &mut line).context("reading the password")?;
    let line = String::from_utf8(line).context("the password is not UTF-8")?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        bail!("the first line of the standard input has to be the password: 1 to {PASSWORD_BYTES_MAX} bytes");
    }
    Ok(password.to_owned())
}

fn generate_password() -> anyhow::Result<String> {
    let mut bytes = [0; GENERATED_CHARS];
    SystemEntropy.fill(&mut bytes);
    let chars = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(chars.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_passwords_can_be_typed() {
        let made: Vec<String> = (0..2).map(|_| generate_password().unwrap()).collect();
        assert_ne!(made[0], made[1]);
        assert!(made.iter().all(|made| made.len() == 26 && made.bytes().all(|b| ALPHABET.contains(&b))));
    }
}
