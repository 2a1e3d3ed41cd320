//! A run as a story for the person who debugs it: what was broken, which events prove it, and what else happened there and then.

pub(crate) mod names;
mod story;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use loadgen::{
    Anomaly, Invariant,
    history::{Outcome, What},
};

use self::{
    names::{Names, call_name, plain},
    story::Story,
};
use crate::{
    run::{Run, Verdict},
    scenario::Scenario,
};

/// Anomalies that are told at length. More of them say the same again.
const ANOMALIES_MAX: usize = 12;
/// Of a run that did not come to its end, so many requests without an answer are told.
const OPEN_MAX: usize = 40;

/// Tells what happened in a run: the verdict first, then the events that prove it, and what happened around them. Always the same text
/// for the same run. Without a kept trace, hosts and the network are silent.
pub fn explain(scenario: &Scenario, run: &Run) -> String {
    let names = Names::new(scenario, &run.history);
    let mut out = String::new();
    head(&mut out, scenario, run);
    let anomalies = match &run.verdict {
        Verdict::Invalid(anomalies) => anomalies.as_slice(),
        _ => &[],
    };
    tell_anomalies(&mut out, &names, anomalies);
    if !run.verdict.is_valid() {
        open_operations(&mut out, run, &names);
    }
    let story = Story::new(run, &names, anomalies);
    faults(&mut out, scenario, run);
    if !run.verdict.is_valid() {
        story.tell(&mut out);
    }
    summary(&mut out, run, &names);
    story.summary(&mut out);
    out
}

/// A title with a line under it.
fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{text}\n{}", "-".repeat(text.chars().count()));
}

/// A time, always as wide.
fn clock(at: Duration) -> String {
    format!("{:>10.6}", at.as_secs_f64())
}

fn head(out: &mut String, scenario: &Scenario, run: &Run) {
    let _ = match &run.verdict {
        Verdict::Valid => writeln!(out, "Valid: every promise was kept."),
        Verdict::Invalid(anomalies) => {
            let mut counts: BTreeMap<Invariant, usize> = BTreeMap::new();
            for anomaly in anomalies {
                *counts.entry(anomaly.invariant).or_default() += 1;
            }
            let counts: Vec<String> = counts
                .iter()
                .map(|(invariant, count)| match count {
                    1 => format!("{invariant:?}"),
                    count => format!("{invariant:?} ({count} times)"),
                })
                .collect();
            writeln!(out, "Invalid: {}.", counts.join(", "))
        }
        Verdict::Crashed(why) => writeln!(out, "Crashed: {}", plain(why, usize::MAX).replace("\\n", "\n  ")),
        Verdict::Stuck(where_) => writeln!(out, "Stuck: it did not come to its end, {where_}."),
        Verdict::Unknown(questions) => {
            let _ = writeln!(out, "Unknown: these questions are open.");
            questions.iter().try_for_each(|question| writeln!(out, "  - {}", plain(question, usize::MAX)))
        }
    };
    let topology = &scenario.topology;
    let yes = |there: bool, what: &str| format!("{} {what}", if there { "a" } else { "no" });
    let hash: String = run.trace.hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(
        out,
        "Seed {}: {} nodes, {}, {}; {} users with {} each on {} hosts; {} operations, {} faults.\n\
         {:.3} s of simulated time, {} events in the trace {hash}, {} in the history.",
        scenario.seed,
        topology.nodes,
        yes(topology.redis, "Redis"),
        yes(topology.balancer, "balancer"),
        topology.users,
        if topology.sessions == 1 {
            "a session".to_owned()
        } else {
            format!("{} sessions", topology.sessions)
        },
        topology.client_hosts,
        scenario.operations.len(),
        scenario.faults.len(),
        run.simulated.as_secs_f64(),
        run.trace.count,
        run.history.events.len(),
    );
}

fn tell_anomalies(out: &mut String, names: &Names<'_>, anomalies: &[Anomaly]) {
    for (at, anomaly) in anomalies.iter().enumerate().take(ANOMALIES_MAX) {
        let invariant = anomaly.invariant;
        title(out, &format!("{}. {invariant:?}", at + 1));
        let _ = writeln!(out, "Promised: {}", promise(invariant));
        let _ = writeln!(out, "Found:    {}", plain(&anomaly.detail, 400));
        let _ = writeln!(out, "Proved by:");
        for event in &anomaly.events {
            match names.event(*event) {
                Some(proof) => {
                    let _ = writeln!(out, "  {}  [{event}] {}", clock(proof.at), names.words(*event));
                }
                None => {
                    let _ = writeln!(out, "  [{event}] which the history does not have");
                }
            }
        }
    }
    let rest = anomalies.get(ANOMALIES_MAX..).unwrap_or_default();
    if !rest.is_empty() {
        title(out, &format!("{} more", rest.len()));
        for anomaly in rest {
            let _ = writeln!(out, "  {:?}: {}", anomaly.invariant, plain(&anomaly.detail, 200));
        }
    }
}

/// What an invariant promises to a user.
pub(crate) fn promise(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::TotalOrder => {
            "whoever is shown a position of a conversation is shown the same entry there."
        }
        Invariant::NoGaps => "a device skips no entry that its user may read.",
        Invariant::RealTimeOrder => {
            "what was acknowledged before something else was asked for stands before it."
        }
        Invariant::AcknowledgedLoss => "what was acknowledged stands in the log from then on.",
        Invariant::Phantom => "every entry was asked for by the user it names, and was not refused.",
        Invariant::ExactlyOnce => "a device shows an entry once, and in order.",
        Invariant::IdempotentRetry => "a repeated request is answered like the first one.",
        Invariant::Membership => "a user is shown only what was said while they were a member.",
        Invariant::Rights => "an entry is written only by who may write it.",
        Invariant::Leak => "words of a conversation reach nobody but those who may read it.",
        Invariant::Completeness => {
            "after the faults, every device is shown in time all that its user may read."
        }
        Invariant::Presence => "after the faults, who is online is told truly and in time.",
        Invariant::Liveness => "after the faults, every request gets its final answer in time.",
        Invariant::BoundedMemory => "a node holds no more than it may.",
        Invariant::RelayIsAHint => "what everything ends with does not depend on hints.",
        Invariant::Lists => "the lists of groups and friends agree with the logs.",
    }
}

/// Requests that never came back.
fn open_operations(out: &mut String, run: &Run, names: &Names<'_>) {
    let open: Vec<usize> = run
        .history
        .events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match event.what {
            What::Invoked { operation, .. } => names.operation(operation).returned.is_none().then_some(at),
            _ => None,
        })
        .collect();
    if open.is_empty() {
        return;
    }
    title(out, "Never answered");
    for at in open.iter().take(OPEN_MAX) {
        if let Some(event) = names.event(*at) {
            let _ = writeln!(out, "  {}  [{at}] {}", clock(event.at), names.words(*at));
        }
    }
    if open.len() > OPEN_MAX {
        let _ = writeln!(out, "  and {} more", open.len() - OPEN_MAX);
    }
}

/// As they came and went; of a run without a history, as they were planned.
fn faults(out: &mut String, scenario: &Scenario, run: &Run) {
    title(out, "Faults");
    let mut any = false;
    for event in &run.history.events {
        let (word, name) = match &event.what {
            What::FaultBegan { name } => ("begins", name.as_str()),
            What::FaultEnded { name } => ("is over", name.as_str()),
            What::Healed => ("healed", "no fault from here on"),
            _ => continue,
        };
        any = true;
        let _ = writeln!(out, "  {}  {word:<8} {}", clock(event.at), plain(name, usize::MAX));
    }
    if !any {
        for fault in &scenario.faults {
            let (at, length) = (Duration::from_millis(fault.at_ms), Duration::from_millis(fault.for_ms));
            let _ = writeln!(out, "  {}  planned  {fault}, for {:.3} s", clock(at), length.as_secs_f64());
        }
    }
    if !any && scenario.faults.is_empty() {
        let _ = writeln!(out, "  none");
    }
}

/// Requests by what became of them, and what was shown.
fn summary(out: &mut String, run: &Run, names: &Names<'_>) {
    title(out, "In numbers");
    let mut calls: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &run.history.events {
        let kind = match &event.what {
            What::Invoked { operation, call, .. } => {
                let column = match names.outcome(*operation) {
                    Some(Outcome::Ok { .. }) => 0,
                    Some(Outcome::Failed { .. }) => 1,
                    Some(Outcome::Unknown) => 2,
                    None => 3,
                };
                calls.entry(call_name(call)).or_default()[column] += 1;
                continue;
            }
            What::Entry { .. } => "entries shown",
            What::Presence { .. } => "presence told",
            What::Started { .. } => "devices started",
            What::Disconnected { .. } => "connections lost",
            What::Resumed { .. } => "sessions resumed",
            What::FaultBegan { .. } => "faults",
            _ => continue,
        };
        *seen.entry(kind).or_default() += 1;
    }
    let _ =
        writeln!(out, "  {:<16}{:>8}{:>10}{:>10}{:>12}", "request", "ok", "refused", "unknown", "unanswered");
    for (name, [ok, refused, unknown, open]) in calls {
        let _ = writeln!(out, "  {name:<16}{ok:>8}{refused:>10}{unknown:>10}{open:>12}");
    }
    let seen: Vec<String> = seen.into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    if !seen.is_empty() {
        let _ = writeln!(out, "  {}", seen.join(", "));
    }
}
