//! What comes out of a run: a value that is written as JSON, a table for people, and the comparison of two.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    arrivals::Anomalies,
    options::Options,
    outages::Outages,
    stats::{Bar, Counts, Percentiles, Slice, bars, percentiles},
    system::Machine,
};

/// A run's result. Times are microseconds where they do not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which kind of load.
    pub scenario: String,
    /// Messages (logins, reconnects, pages) acknowledged inside the window.
    pub messages: u64,
    /// Arrivals inside the window at devices other than the sender's. Of storms: sessions that have caught up.
    pub deliveries: u64,
    /// Messages per second of the window.
    pub rate: f64,
    /// Arrivals per second of the window.
    pub delivery_rate: f64,
    /// Messages per second that should have been sent; none in a closed loop.
    pub intended_rate: Option<f64>,
    /// Length of the window.
    pub seconds: f64,
    /// From the time at which a message should have been sent.
    pub latency_us: Latencies,
    /// Broken promises.
    pub anomalies: Anomalies,
    /// All of them.
    pub anomalies_total: u64,
    /// What did not work, and may.
    pub failed: Failures,
    /// Sessions that lost their connection unasked.
    #[serde(default)]
    pub outages: Outages,
    /// Whether everything on its way arrived after the window, in time.
    pub settled: bool,
    /// By process id: processor time in the window, divided by the messages.
    pub cpu_us_per_message: std::collections::BTreeMap<u32, Option<f64>>,
    /// The processes measured.
    pub processes: Vec<ProcessReport>,
    /// The load generator's own.
    pub generator: Option<ProcessReport>,
    /// Users that were connected, or took part in a storm.
    pub users: u32,
    /// Share of the window's processor time that the host gave to others. Above 2 %, no figure is worth much.
    pub steal_percent: f64,
    /// Share of it that other processes of this machine used, than the generator and those measured.
    pub others_percent: f64,
    /// Attempts of a search for the highest rate.
    pub trials: Vec<Trial>,
    /// The command line, as understood.
    pub settings: Value,
    /// Of this program.
    pub version: String,
    /// Where it ran.
    pub machine: Machine,
    /// The window in parts.
    pub slices: Vec<Slice>,
    /// Of the arrivals' latencies; of the acknowledgements' where nothing arrives.
    pub histogram: Vec<Bar>,
}

/// Latencies of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// Until the acknowledgement; of a storm, until there is a session.
    pub ack: Percentiles,
    /// Until each arrival; of a storm, until the session has caught up.
    pub delivery: Percentiles,
    /// Until the generator itself got round to sending: its share of the others.
    pub lateness: Percentiles,
}

/// Requests of the load that failed, and connections that ended unasked: during the whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// For certain: overload.
    pub refused: u64,
    /// May have been carried out.
    pub unknown: u64,
    /// Connections.
    pub disconnects: u64,
}

/// What a process used in the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct ProcessReport {
    pub pid: u32,
    pub name: String,
    pub cpu_us: u64,
    pub cpu_us_per_message: Option<f64>,
    pub cpu_us_per_delivery: Option<f64>,
    /// Before anybody connected.
    pub rss_before_bytes: u64,
    pub rss_start_bytes: u64,
    pub rss_end_bytes: u64,
    /// The most, since the process began.
    #[serde(default)]
    pub rss_max_bytes: u64,
}

/// An attempt of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Messages per second that should have been sent.
    pub rate: f64,
    /// That were acknowledged.
    pub achieved: f64,
    /// The worse of the two latencies.
    pub p99_us: u64,
    /// Whether the limit was kept.
    pub kept: bool,
    /// As in the report.
    pub steal_percent: f64,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "one caller, which has nothing but the parts")]
    pub(super) fn new(
        options: &Options,
        counts: &Counts,
        seconds: f64,
        intended_rate: Option<f64>,
        (anomalies, failed, settled): (Anomalies, Failures, bool),
        (processes, generator, users): (Vec<ProcessReport>, Option<ProcessReport>, u32),
        (steal_percent, others_percent, machine): (f64, f64, Machine),
        trials: Vec<Trial>,
    ) -> Self {
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let delivery = &counts.delivery;
        Self {
            scenario: options.scenario.name().into(),
            messages: counts.messages,
            deliveries: counts.deliveries,
            rate: per_second(counts.messages),
            delivery_rate: per_second(counts.deliveries),
            intended_rate,
            seconds,
            latency_us: Latencies {
                ack: percentiles(&counts.ack),
                delivery: percentiles(delivery),
                lateness: percentiles(&counts.lateness),
            },
            anomalies_total: anomalies.total(),
            anomalies,
            failed,
            outages: Outages::default(),
            settled,
            cpu_us_per_message: processes.iter().map(|p| (p.pid, p.cpu_us_per_message)).collect(),
            processes,
            generator,
            users,
            steal_percent,
            others_percent,
            trials,
            // A struct of plain values always has a JSON form.
            settings: serde_json::to_value(options).unwrap_or(Value::Null),
            version: env!("CARGO_PKG_VERSION").into(),
            machine,
            slices: counts.slices(),
            histogram: bars(if delivery.is_empty() { &counts.ack } else { delivery }),
        }
    }

    /// Whether every promise was kept, there was something to keep it on, and a search has found something.
    pub fn is_good(&self) -> bool {
        let found = self.trials.is_empty() || self.trials.iter().any(|trial| trial.kept);
        let something = self.messages > 0 || self.scenario == "idle";
        self.anomalies_total == 0 && self.settled && found && something
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} messages in {:.1} s, {:.0}/s",
            self.scenario, self.messages, self.seconds, self.rate
        )?;
        if let Some(intended) = self.intended_rate {
            write!(f, " of {intended:.0}/s intended")?;
        }
        writeln!(f, "; {} deliveries, {:.0}/s; {} users", self.deliveries, self.delivery_rate, self.users)?;
        let head = ["latency, ms", "p50", "p90", "p99", "p99.9", "max"];
        writeln!(
            f,
            "{:<20}{:>10}{:>10}{:>10}{:>10}{:>10}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        )?;
        let latencies = &self.latency_us;
        for (name, p) in [
            ("acknowledged", latencies.ack),
            ("delivered", latencies.delivery),
            ("sent late", latencies.lateness),
        ] {
            let [p50, p90, p99, p999, max] =
                [p.p50, p.p90, p.p99, p.p999, p.max].map(|us| format!("{:.2}", us as f64 / 1000.0));
            writeln!(f, "{name:<20}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}")?;
        }
        if !self.processes.is_empty() || self.generator.is_some() {
            let head = ["process", "CPU us/msg", "us/deliv.", "CPU %", "RSS MiB"];
            writeln!(f, "{:<20}{:>12}{:>12}{:>10}{:>10}", head[0], head[1], head[2], head[3], head[4])?;
        }
        for process in self.processes.iter().chain(&self.generator) {
            let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.1}"));
            let (message, delivery) =
                (number(process.cpu_us_per_message), number(process.cpu_us_per_delivery));
            let name = format!("{} {}", process.name, process.pid);
            let share = process.cpu_us as f64 / self.seconds.max(0.001) / 10_000.0;
            let rss = process.rss_end_bytes as f64 / (1024.0 * 1024.0);
            writeln!(f, "{name:<20}{message:>12}{delivery:>12}{share:>10.0}{rss:>10.1}")?;
        }
        for trial in &self.trials {
            let kept = if trial.kept { "kept" } else { "not kept" };
            let p99 = trial.p99_us as f64 / 1000.0;
            writeln!(
                f,
                "attempt {:>10.0}/s: {:.0}/s achieved, p99 {p99:.1} ms, {kept}",
                trial.rate, trial.achieved
            )?;
        }
        let Failures { refused, unknown, disconnects } = self.failed;
        writeln!(f, "failed: {refused} refused, {unknown} of unknown outcome, {disconnects} disconnects")?;
        let Outages { lost, resumed, us, span_us } = self.outages;
        if lost > 0 {
            let [p50, max, span] = [us.p50, us.max, span_us].map(|us| us as f64 / 1_000_000.0);
            writeln!(
                f,
                "connections lost: {lost}, {resumed} resumed after p50 {p50:.2} s, max {max:.2} s; all within {span:.2} s"
            )?;
        }
        if !self.settled {
            writeln!(f, "NOT SETTLED: something was still on its way when the time for it was over")?;
        }
        let found: Vec<String> = self
            .anomalies
            .counts()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let found = if found.is_empty() { "none".into() } else { found.join(", ").to_uppercase() };
        let (steal, others) = (self.steal_percent, self.others_percent);
        write!(f, "anomalies: {found}; steal {steal:.1} %, other processes {others:.0} %")
    }
}

/// Two results side by side, with the second as a multiple of the first: every number that both have.
///
/// # Errors
/// One of them is not a JSON object with a `scenario`.
pub fn compare(a: &Value, b: &Value) -> anyhow::Result<String> {
    let scenario = |value: &Value| value.get("scenario").and_then(Value::as_str).map(str::to_owned);
    let (Some(first), Some(second)) = (scenario(a), scenario(b)) else {
        anyhow::bail!("not results of chatload");
    };
    let mut text = format!("{:<46}{:>14}{:>14}{:>9}\n", "", "A", "B", "B/A");
    let mut row = |name: &str, a: Option<f64>, b: Option<f64>| {
        let (Some(a), Some(b)) = (a, b) else { return };
        let ratio = if a == 0.0 { "-".into() } else { format!("{:.2}", b / a) };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<46}{:>14}{:>14}{ratio:>9}", plain(a), plain(b));
    };
    let at = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_f64);
    for (name, path) in [
        ("messages/s", "/rate"),
        ("deliveries/s", "/delivery_rate"),
        ("acknowledged p50, us", "/latency_us/ack/p50"),
        ("acknowledged p99, us", "/latency_us/ack/p99"),
        ("acknowledged max, us", "/latency_us/ack/max"),
        ("delivered p50, us", "/latency_us/delivery/p50"),
        ("delivered p99, us", "/latency_us/delivery/p99"),
        ("delivered max, us", "/latency_us/delivery/max"),
        ("anomalies", "/anomalies_total"),
        ("steal, %", "/steal_percent"),
    ] {
        row(name, at(a, path), at(b, path));
    }
    // Processes have other numbers in another run: those of one name are taken together.
    let (of_a, of_b) = (by_name(a), by_name(b));
    for (name, [message, delivery, rss]) in &of_a {
        let Some([message_b, delivery_b, rss_b]) = of_b.get(name) else { continue };
        row(&format!("{name}: CPU us/message"), Some(*message), Some(*message_b));
        row(&format!("{name}: CPU us/delivery"), Some(*delivery), Some(*delivery_b));
        row(&format!("{name}: RSS MiB"), Some(*rss), Some(*rss_b));
    }
    if first != second {
        let _ = writeln!(text, "A is {first}, B is {second}: the ratios say little");
    }
    let spoilt = |value| at(value, "/steal_percent").is_some_and(|steal| steal > STEAL_PERCENT_MAX);
    if spoilt(a) || spoilt(b) {
        let _ = writeln!(text, "more than {STEAL_PERCENT_MAX} % was stolen: the ratios say little");
    }
    Ok(text)
}

/// Above it, even processor time per message is wrong.
pub(super) const STEAL_PERCENT_MAX: f64 = 2.0;

/// Sums over the processes of each name.
fn by_name(report: &Value) -> std::collections::BTreeMap<String, [f64; 3]> {
    let mut all = std::collections::BTreeMap::<String, [f64; 3]>::new();
    let processes = report.get("processes").and_then(Value::as_array).into_iter().flatten();
    for process in processes.chain(report.get("generator")) {
        let Some(name) = process.get("name").and_then(Value::as_str) else { continue };
        let number = |field: &str| process.get(field).and_then(Value::as_f64).unwrap_or(0.0);
        let values = [
            number("cpu_us_per_message"),
            number("cpu_us_per_delivery"),
            number("rss_end_bytes") / (1024.0 * 1024.0),
        ];
        let sums = all.entry(name.to_owned()).or_default();
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    all
}

fn plain(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios() {
        let report = |rate: f64, cpu: f64, pid: u32, steal: f64| {
            json!({
                "scenario": "direct", "rate": rate, "latency_us": {"ack": {"p50": 1000}}, "steal_percent": steal,
                "processes": [{"pid": pid, "name": "chatserver", "cpu_us_per_message": cpu, "rss_end_bytes": 1 << 20},
                              {"pid": pid + 1, "name": "chatserver", "cpu_us_per_message": cpu}],
            })
        };
        let text = compare(&report(100.0, 20.0, 7, 0.0), &report(150.0, 10.0, 9, 0.5)).unwrap();
        let ratio = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
            line.split_ascii_whitespace().next_back().unwrap().to_owned()
        };
        assert_eq!(ratio("messages/s"), "1.50");
        assert_eq!(ratio("acknowledged p50"), "1.00");
        assert_eq!(ratio("chatserver: CPU us/message"), "0.50");
        assert!(!text.contains("delivered"), "what neither has is left out");
        assert!(!text.contains("little"));
        let text = compare(&report(1.0, 1.0, 1, 0.0), &report(1.0, 1.0, 1, 3.0)).unwrap();
        assert!(text.contains("stolen"));
        assert!(compare(&json!({}), &json!([])).is_err());
    }
}
