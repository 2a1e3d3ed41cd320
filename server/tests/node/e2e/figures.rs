//! Figures of a run, taken from its history. They are printed and decide nothing.

use std::{collections::BTreeMap, fmt, time::Duration};

use loadgen::{
    History,
    history::{Call, DeviceId, Outcome, Reply, What},
};
use protocol::{ConversationId, Seq, UserId};
use sqlx::{Connection as _, MySqlConnection, Row as _};

/// Durations, to be summed up.
#[derive(Debug, Default)]
pub(super) struct Durations(pub(super) Vec<Duration>);

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else { return f.write_str("none") };
        let [p50, p99, most] = [last / 2, last * 99 / 100, last].map(|at| sorted[at].as_millis());
        write!(f, "{} with p50 {p50} ms, p99 {p99} ms, max {most} ms", sorted.len())
    }
}

/// Of each device that lost its connection after the fault began: the time from then until its session went on.
pub(super) fn resumptions(history: &History) -> BTreeMap<DeviceId, Duration> {
    let mut began = None;
    let (mut lost, mut resumed) = (BTreeMap::new(), BTreeMap::new());
    for event in &history.events {
        match event.what {
            What::FaultBegan { .. } => began = Some(event.at),
            What::Disconnected { device } => {
                lost.extend(began.map(|began| (device, began)));
            }
            What::Resumed { device } => {
                if let Some(began) = lost.get(&device) {
                    resumed.entry(device).or_insert(event.at - *began);
                }
            }
            _ => {}
        }
    }
    resumed
}

/// An absence: from the loss of a connection until another had a greeting, and until the session went on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    pub(super) greeted: Duration,
    pub(super) whole: Duration,
}

/// How long each session was away that lost its connection while something was done, and how long each send took that was asked for meanwhile, from
/// its invocation to its acknowledgement.
pub(super) fn waits(history: &History) -> (Vec<Absence>, Durations) {
    let mut under_way = false;
    let (mut lost, mut greeted, mut asked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut absences, mut sends) = (Vec::new(), Durations::default());
    for event in &history.events {
        match &event.what {
            What::FaultBegan { .. } => under_way = true,
            What::FaultEnded { .. } => under_way = false,
            What::Disconnected { device } if under_way => {
                // One that finds a node which ends as well is away all the time.
                lost.entry(*device).or_insert(event.at);
            }
            What::Connected { device } if lost.contains_key(device) => {
                greeted.insert(*device, event.at);
            }
            What::Resumed { device } => {
                if let Some(since) = lost.remove(device) {
                    let greeted = greeted.remove(device).unwrap_or(event.at);
                    absences.push(Absence { greeted: greeted - since, whole: event.at - since });
                }
            }
            // Its user went.
            What::Ended { device } | What::Crashed { device } => drop(lost.remove(device)),
            What::Invoked { operation, call: Call::Send { .. }, .. } if under_way => {
                asked.insert(*operation, event.at);
            }
            What::Returned { operation, outcome: Outcome::Ok { .. } } => {
                sends.0.extend(asked.remove(operation).map(|asked| event.at - asked));
            }
            _ => {}
        }
    }
    (absences, sends)
}

/// How long after its acknowledgement each message was shown on each device but the sender's that had a session all the time.
pub(super) fn deliveries(history: &History) -> Durations {
    let (mut since, mut calls) = (BTreeMap::new(), BTreeMap::new());
    let mut acknowledged: BTreeMap<(ConversationId, Seq), (DeviceId, Duration)> = BTreeMap::new();
    for event in &history.events {
        if let What::Invoked { operation, device, call } = &event.what {
            calls.insert(*operation, (*device, call));
        }
        let What::Returned { operation, outcome: Outcome::Ok { reply: Reply::Appended { seq } } } =
            &event.what
        else {
            continue;
        };
        if let Some((device, Call::Send { conv, .. })) = calls.get(operation) {
            acknowledged.entry((*conv, *seq)).or_insert((*device, event.at));
        }
    }
    let mut delays = Durations::default();
    for event in &history.events {
        match &event.what {
            What::CaughtUp { device } => drop(since.insert(*device, event.at)),
            What::Disconnected { device } => drop(since.remove(device)),
            What::Entry { device, entry } => {
                if let (Some(since), Some((sender, at))) =
                    (since.get(device), acknowledged.get(&(entry.conv, entry.seq)))
                    && sender != device
                    && since < at
                {
                    delays.0.push(event.at.saturating_sub(*at));
                }
            }
            _ => {}
        }
    }
    delays
}

/// Who sent each message that was acknowledged, in the order of the replies.
pub(super) fn senders(history: &History) -> Vec<UserId> {
    let (mut users, mut calls) = (BTreeMap::new(), BTreeMap::new());
    let mut senders = Vec::new();
    for event in &history.events {
        match &event.what {
            What::Started { device, user: Some(user) } => drop(users.insert(*device, *user)),
            What::Invoked { operation, device, call: Call::Send { .. } } => {
                calls.insert(*operation, users[device]);
            }
            What::Returned { operation, outcome: Outcome::Ok { .. } } => {
                senders.extend(calls.get(operation));
            }
            _ => {}
        }
    }
    senders
}

/// How long each change of a group's members took.
pub(super) fn joins(history: &History) -> Durations {
    let mut asked = BTreeMap::new();
    let mut took = Durations::default();
    for event in &history.events {
        match &event.what {
            What::Invoked { operation, call: Call::Join { .. }, .. } => {
                asked.insert(*operation, event.at);
            }
            What::Returned { operation, .. } => {
                took.0.extend(asked.remove(operation).map(|asked| event.at - asked));
            }
            _ => {}
        }
    }
    took
}

/// What a MySQL server has counted since its start.
pub(super) struct Counters(BTreeMap<String, i64>);

impl Counters {
    pub(super) async fn read(database: &str) -> Self {
        let mut connection = MySqlConnection::connect(database).await.unwrap();
        let rows = sqlx::raw_sql("show global status").fetch_all(&mut connection).await.unwrap();
        let number = |row: &sqlx::mysql::MySqlRow| Some((row.get(0), row.get::<String, _>(1).parse().ok()?));
        Self(rows.iter().filter_map(number).collect())
    }

    /// What was written while it went from `before` to this, in words.
    pub(super) fn since(&self, before: &Self) -> String {
        let grown = |name: &str| self.0[name] - before.0[name];
        let (inserts, rows) = (grown("Com_insert"), grown("Innodb_rows_inserted"));
        format!(
            "{rows} rows in {inserts} insert statements ({:.1} a statement), {} selects, {} statements in all ({:.2} an insert), \
             {} transactions of more than one",
            rows as f64 / inserts.max(1) as f64,
            grown("Com_select"),
            grown("Questions"),
            grown("Questions") as f64 / inserts.max(1) as f64,
            grown("Com_begin"),
        )
    }
}
