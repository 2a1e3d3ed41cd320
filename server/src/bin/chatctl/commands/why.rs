//! `why`: what became of an entry.

use protocol::{ConversationId, Seq};
use serde_json::json;
use server::admin::view::{CursorsView, EntryView, EntryWanted};

use super::{complain, failed, of_node, print, print_json};
use crate::{
    nodes::{Answers, Nodes},
    show::{Table, time, user},
};

pub(super) fn show(nodes: &Nodes, json: bool, conv: ConversationId, seq: u64) -> anyhow::Result<bool> {
    let wanted = EntryWanted { conv, seq: Seq(seq) };
    let answers = nodes.first(|node| nodes.get::<EntryView>(node, "entry", &wanted));
    let Some((_, Ok(entry))) = answers.last() else {
        complain(&answers);
        return Ok(false);
    };
    let places = nodes.all(|node| nodes.get::<CursorsView>(node, "cursors", &wanted));
    let committed_by = committed_by(&places);
    if json {
        let readers = entry.readers.iter().map(|reader| {
            let mut value = serde_json::to_value(reader).unwrap_or_default();
            value["has_it"] = (reader.delivered >= entry.seq).into();
            value
        });
        let mut value = serde_json::to_value(entry)?;
        value["readers"] = readers.collect();
        value["committed_by"] = json!(committed_by);
        let known = places.iter().filter_map(|(node, place)| Some((node, place.as_ref().ok()?)));
        let sessions = known.flat_map(|(node, place)| place.sessions.iter().map(|view| of_node(node, view)));
        value["sessions"] = sessions.collect();
        value["failed"] = failed(&places).into();
        print_json(&value);
        return Ok(complain(&places));
    }
    print(&facts(entry, committed_by));
    let mut table = Table::new(&["READER", "DELIVERED", "HAS IT"]);
    for reader in &entry.readers {
        let has_it = if reader.delivered >= entry.seq { "yes" } else { "not confirmed" };
        table.line([user(&reader.name, reader.user), reader.delivered.to_string(), has_it.to_owned()]);
    }
    print(&format!("\n{}", table.text()));
    print(&format!("\n{}", sessions(entry, &places).text()));
    for (node, place) in &places {
        if matches!(place, Ok(place) if place.more) {
            eprintln!("chatctl: {node}: it has more sessions than these");
        }
    }
    Ok(complain(&places))
}

/// Which node says that it committed the entry.
fn committed_by(places: &Answers<CursorsView>) -> Option<&str> {
    let by = places.iter().find(|(_, place)| matches!(place, Ok(place) if place.committed_here));
    by.map(|(node, _)| node.as_str())
}

fn facts(entry: &EntryView, committed_by: Option<&str>) -> String {
    let EntryView { conv, seq, kind, mid, .. } = entry;
    let mut table = Table::new(&["entry", &format!("{conv}, {seq}: {kind}")]);
    let mut line = |name: &str, value: String| table.line([name.to_owned(), value]);
    line("from", user(&entry.name, entry.from));
    line("mid", mid.to_string());
    line("numbered", format!("{} UTC, by a node's clock", time(entry.at)));
    line("committed", format!("{} UTC, by the store's clock", time(entry.committed_at)));
    line("by", committed_by.unwrap_or("unknown: none of the nodes asked remembers it").to_owned());
    table.text()
}

/// The sessions of readers on the nodes.
fn sessions(entry: &EntryView, places: &Answers<CursorsView>) -> Table {
    let mut table = Table::new(&["NODE", "SESSION OF", "ID", "PUSHED", "CONFIRMED", "REACHED"]);
    for (node, place) in places {
        let Ok(place) = place else { continue };
        for session in &place.sessions {
            let name = entry.readers.iter().find(|reader| reader.user == session.user);
            // A member now who may not read the entry.
            let name = name.map_or("not a reader", |reader| &reader.name);
            let number = |at: Option<Seq>| at.map_or_else(|| "?".to_owned(), |at| at.to_string());
            let pushed = match session.pushed {
                Some(at) if at >= entry.seq => "yes",
                Some(_) => "not yet",
                None => "?",
            };
            table.line([
                node.clone(),
                user(name, session.user),
                session.id.to_string(),
                number(session.pushed),
                number(session.confirmed),
                pushed.to_owned(),
            ]);
        }
    }
    table
}
