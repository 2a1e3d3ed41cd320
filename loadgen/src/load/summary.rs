//! Many runs of a set of benchmarks: medians and spreads, and which runs count.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use super::report::{ProcessReport, Report, STEAL_PERCENT_MAX};

/// What the runs of one benchmark say. Every figure is the median of the runs that count, with the least and the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Which.
    pub name: String,
    /// How many runs there were, and how many count: those with little steal, or the one with the least.
    pub runs: usize,
    /// See above.
    pub counted: usize,
    /// The most stolen time among those that count, in percent.
    pub steal_percent: f64,
    /// The most time that other processes used, likewise.
    pub others_percent: f64,
    /// Anomalies of all runs.
    pub anomalies: u64,
    /// Messages per second.
    pub rate: Figure,
    /// Deliveries per second.
    pub delivery_rate: Figure,
    /// Latencies until the acknowledgement, in microseconds: half and 99 % are below.
    pub ack_p50_us: Figure,
    /// See above.
    pub ack_p99_us: Figure,
    /// By process name, all of one name together: processor time per message,
    pub cpu_us_per_message: BTreeMap<String, Figure>,
    /// per delivery,
    pub cpu_us_per_delivery: BTreeMap<String, Figure>,
    /// and memory gained by each user that connected, in bytes.
    pub rss_bytes_per_user: BTreeMap<String, Figure>,
}

/// A median, and the spread around it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Figure {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Figure {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        // Of an even number, the lower one: a run's own figure.
        Self {
            median: at(values.len().saturating_sub(1) / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

impl Summary {
    /// Of at least one run.
    pub fn new(name: &str, reports: &[Report]) -> Self {
        let mut counted: Vec<&Report> =
            reports.iter().filter(|report| report.steal_percent <= STEAL_PERCENT_MAX).collect();
        if counted.is_empty() {
            counted.extend(reports.iter().min_by(|a, b| a.steal_percent.total_cmp(&b.steal_percent)));
        }
        let figure = |of: &dyn Fn(&Report) -> f64| Figure::of(counted.iter().map(|report| of(report)));
        let by_name = |of: &dyn Fn(&Report, &ProcessReport) -> Option<f64>| {
            let mut all = BTreeMap::<String, Vec<f64>>::new();
            for report in &counted {
                let mut sums = BTreeMap::<&str, f64>::new();
                for process in report.processes.iter().chain(&report.generator) {
                    if let Some(value) = of(report, process) {
                        *sums.entry(&process.name).or_default() += value;
                    }
                }
                sums.into_iter().for_each(|(name, sum)| all.entry(name.into()).or_default().push(sum));
            }
            all.into_iter().map(|(name, values)| (name, Figure::of(values.into_iter()))).collect()
        };
        Self {
            name: name.into(),
            runs: reports.len(),
            counted: counted.len(),
            steal_percent: counted.iter().map(|report| report.steal_percent).fold(0.0, f64::max),
            others_percent: counted.iter().map(|report| report.others_percent).fold(0.0, f64::max),
            anomalies: reports.iter().map(|report| report.anomalies_total).sum(),
            rate: figure(&|report| report.rate),
            delivery_rate: figure(&|report| report.delivery_rate),
            ack_p50_us: figure(&|report| report.latency_us.ack.p50 as f64),
            ack_p99_us: figure(&|report| report.latency_us.ack.p99 as f64),
            cpu_us_per_message: by_name(&|_, process| process.cpu_us_per_message),
            cpu_us_per_delivery: by_name(&|_, process| process.cpu_us_per_delivery),
            rss_bytes_per_user: by_name(&|report, process| {
                let gained = process.rss_end_bytes.saturating_sub(process.rss_before_bytes);
                (process.rss_before_bytes > 0 && report.users > 0)
                    .then(|| gained as f64 / f64::from(report.users))
            }),
        }
    }
}

/// A table in Markdown.
pub fn table(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "| Benchmark | messages/s | deliveries/s | p50 / p99, ms | CPU us/message | CPU us/delivery | bytes/user | runs | steal, others, % |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for summary in summaries {
        let spread =
            |figure: &Figure| format!("{:.0} ({:.0}-{:.0})", figure.median, figure.least, figure.most);
        let each = |figures: &BTreeMap<String, Figure>, digits: usize| {
            let each = figures.iter().map(|(name, figure)| format!("{name} {:.digits$}", figure.median));
            each.collect::<Vec<_>>().join(", ")
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} / {:.2} | {} | {} | {} | {} of {} | {:.1}{}, {:.0} |",
            summary.name,
            spread(&summary.rate),
            spread(&summary.delivery_rate),
            summary.ack_p50_us.median / 1000.0,
            summary.ack_p99_us.median / 1000.0,
            each(&summary.cpu_us_per_message, 1),
            each(&summary.cpu_us_per_delivery, 2),
            each(&summary.rss_bytes_per_user, 0),
            summary.counted,
            summary.runs,
            summary.steal_percent,
            if summary.steal_percent > STEAL_PERCENT_MAX { " (too much)" } else { "" },
            summary.others_percent,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(rate: f64, cpu: f64, steal: f64) -> Report {
        let latency = json!({"p50": 1000, "p90": 0, "p99": 5000, "p999": 0, "max": 0});
        let process = |name: &str, cpu: f64| {
            json!({"pid": 1, "name": name, "cpu_us": 0, "cpu_us_per_message": cpu, "cpu_us_per_delivery": null,
                   "rss_before_bytes": 1000, "rss_start_bytes": 0, "rss_end_bytes": 41_000})
        };
        serde_json::from_value(json!({
            "scenario": "direct", "messages": 10, "deliveries": 10, "rate": rate, "delivery_rate": rate,
            "intended_rate": null, "seconds": 1.0, "latency_us": {"ack": latency, "delivery": latency, "lateness": latency},
            "anomalies": {"lost": 1, "duplicated": 0, "reordered": 0, "altered": 0, "phantom": 0, "misdelivered": 0,
                          "diverged": 0, "gaps": 0},
            "anomalies_total": 1, "failed": {"refused": 0, "unknown": 0, "disconnects": 0}, "settled": true,
            "cpu_us_per_message": {}, "processes": [process("chatserver", cpu), process("chatserver", cpu)],
            "generator": process("chatload", 5.0), "users": 10, "steal_percent": steal, "others_percent": 0.0, "trials": [], "settings": {},
            "version": "", "machine": {"processors": 2, "model": "", "kernel": ""}, "slices": [], "histogram": [],
        }))
        .unwrap()
    }

    #[test]
    fn medians_of_quiet_runs() {
        let reports = [(100.0, 20.0, 0.5), (300.0, 30.0, 0.0), (200.0, 10.0, 1.9), (9.0, 900.0, 50.0)];
        let reports = reports.map(|(rate, cpu, steal)| report(rate, cpu, steal));
        let summary = Summary::new("a", &reports);
        assert_eq!((summary.runs, summary.counted, summary.anomalies), (4, 3, 4));
        assert_eq!(summary.rate, Figure { median: 200.0, least: 100.0, most: 300.0 });
        assert_eq!(summary.cpu_us_per_message["chatserver"].median, 40.0, "both nodes");
        assert_eq!(summary.rss_bytes_per_user["chatload"].median, 4000.0);
        let text = table(&[summary]);
        assert!(text.contains("| a | 200 (100-300) |") && text.contains("| 3 of 4 | 1.9, 0 |"), "{text}");
        let noisy = Summary::new("b", &[report(1.0, 1.0, 9.0), report(2.0, 1.0, 5.0)]);
        assert_eq!((noisy.counted, noisy.rate.median), (1, 2.0), "the least of them, marked");
        assert!(table(&[noisy]).contains("5.0 (too much)"));
    }
}
