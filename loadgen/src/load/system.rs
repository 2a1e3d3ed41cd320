//! What the machine and the processes under test do meanwhile: processor time, memory, stolen time. From `/proc`.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

/// One reading of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time of all its threads.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) rss: u64,
    /// The most that it has been.
    pub(super) rss_max: u64,
}

/// The clock ticks of a second in `/proc`: the same on every Linux that runs on what we build for.
const TICKS_PER_SECOND: u64 = 100;

/// The name of a process, if there is such a process.
pub(super) fn name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// What a process has used so far, if there is such a process.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let folder = format!("/proc/{pid}");
    let stat = fs::read_to_string(Path::new(&folder).join("stat")).ok()?;
    let status = fs::read_to_string(Path::new(&folder).join("status")).ok()?;
    let memory = |field| memory(&status, field).unwrap_or(0);
    Some(Usage { cpu: cpu(&stat)?, rss: memory("VmRSS:"), rss_max: memory("VmHWM:") })
}

/// This process.
pub(super) fn own_pid() -> u32 {
    std::process::id()
}

/// The processors' time so far, in ticks: of all kinds, that in which some process ran, and that which the host gave to others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    all: u64,
    busy: u64,
    stolen: u64,
}

impl Ticks {
    /// A reading; zero where there is none.
    pub(super) fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; guest time is part of the user's.
        let numbers: Vec<u64> =
            line.split_ascii_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        let (all, at) = (numbers.iter().sum(), |place: usize| numbers.get(place).copied().unwrap_or(0));
        let (unused, stolen) = (at(3) + at(4), at(7));
        Some(Self { all, busy: all - unused - stolen, stolen })
    }

    /// The share of the time since `earlier` that was stolen, in percent.
    pub(super) fn steal_percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let stolen = self.stolen.saturating_sub(earlier.stolen);
        if all == 0 { 0.0 } else { 100.0 * stolen as f64 / all as f64 }
    }
}

impl Ticks {
    /// The share of the time since `earlier` in which others than those who used `cpu` ran on this machine, in percent.
    pub(super) fn others_percent_since(self, earlier: Self, cpu: Duration) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let known = cpu.as_secs_f64() * TICKS_PER_SECOND as f64;
        let others = self.busy.saturating_sub(earlier.busy) as f64 - known;
        if all == 0 { 0.0 } else { (100.0 * others / all as f64).max(0.0) }
    }
}

/// The machine, for the record of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub processors: u32,
    /// Their kind.
    pub model: String,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            processors: u32::try_from(processors).unwrap_or(u32::MAX),
            model: model.map_or_else(String::new, |(_, model)| model.to_owned()),
            kernel: kernel.trim_end().to_owned(),
        }
    }
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name stands in brackets and may hold anything; what follows the last one is numbers.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 7 8 20 0 4 0 100 1000 200";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("nonsense"), None);
        assert_eq!(memory("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n", "VmRSS:"), Some(1234 * 1024));
        let ticks = |text| Ticks::parse(text).unwrap();
        let before = ticks("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1 2 3");
        let after = ticks("cpu  150 0 150 750 0 0 0 150 90 0\n");
        assert!((after.steal_percent_since(before) - 25.0).abs() < 1e-9);
        assert!(before.steal_percent_since(before).abs() < 1e-9);
        // Of 100 ticks in use, 60 were the run's own.
        let others = after.others_percent_since(before, Duration::from_millis(600));
        assert!((others - 20.0).abs() < 1e-9, "{others}");
    }

    #[test]
    fn this_process_is_found() {
        let usage = usage(own_pid()).unwrap();
        assert!(usage.rss > 100_000);
        assert!(name(own_pid()).is_some());
        assert_eq!(super::usage(u32::MAX), None);
        assert!(Machine::this().processors > 0);
    }
}
