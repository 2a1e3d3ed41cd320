//! The form for programs: one JSON object a line.

use serde_json::{Map, Value, json};

use super::{command::USAGES, tell::Tell};

/// The objects that tell it, each as one line.
pub(crate) fn lines(tell: &Tell<'_>) -> Vec<String> {
    objects(tell).iter().map(Value::to_string).collect()
}

fn objects(tell: &Tell<'_>) -> Vec<Value> {
    let one = match tell {
        Tell::Menu => json!({"event": "menu"}),
        Tell::Registered(user) => json!({"event": "registered", "user": user}),
        Tell::Lists(roster) => {
            return vec![
                json!({"event": "logged_in", "user": roster.user, "name": roster.name}),
                json!({"event": "friends", "friends": roster.friends}),
                json!({"event": "groups", "groups": roster.groups}),
            ];
        }
        Tell::Help => {
            let usage = |usage: &super::command::Usage| json!({"usage": usage.form, "does": usage.does});
            json!({"event": "help", "commands": USAGES.iter().map(usage).collect::<Vec<_>>()})
        }
        Tell::Away => return Vec::new(),
        Tell::CaughtUp => json!({"event": "caught_up"}),
        Tell::Entry(entry, _) => with_event("entry", json!(entry)),
        Tell::Members { group, members, .. } => {
            json!({"event": "members", "group": group, "members": members})
        }
        Tell::History { conv, entries, more, .. } => {
            json!({"event": "history", "conv": conv, "entries": entries, "more": more})
        }
        Tell::Done { command, message, details } => {
            let mut object = Map::new();
            object.insert("event".into(), json!("outcome"));
            object.insert("command".into(), json!(command));
            object.insert("ok".into(), json!(true));
            object.insert("message".into(), json!(message));
            object.extend(details.clone());
            Value::Object(object)
        }
        Tell::Failed(failure) => json!({
            "event": "outcome", "command": failure.command, "ok": false, "code": failure.code,
            "definite": failure.definite, "message": failure.message,
        }),
        Tell::Presence { user, state, .. } => json!({"event": "presence", "user": user, "state": state}),
        Tell::Disconnected(reason) => json!({"event": "disconnected", "reason": reason.to_string()}),
        Tell::Reconnected => json!({"event": "reconnected"}),
        Tell::Lost { conv, after, .. } => json!({"event": "lost", "conv": conv, "after": after}),
        Tell::SessionEnded(reason) => json!({"event": "session_ended", "reason": reason}),
        Tell::Note(note) => json!({"event": "note", "message": note}),
    };
    vec![one]
}

fn with_event(event: &str, value: Value) -> Value {
    let mut object = Map::new();
    object.insert("event".into(), event.into());
    if let Value::Object(fields) = value {
        object.extend(fields);
    }
    Value::Object(object)
}
