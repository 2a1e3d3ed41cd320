//! The command line of a load run.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use super::sources::{addresses, network};

/// Loads a chat server as many users do, and checks every message that arrives.
///
/// Open loop by default: messages are due at times that depend on nothing but --rate, and latencies count from those times,
/// so that a server that stalls cannot hide it. With --window it is a closed loop: the next message follows the last.
/// The exit code is 0 only if every promise was kept and something was acknowledged.
///
/// "chatload compare A.json B.json" prints two results and their ratios, "chatload summary OUT.json RESULT.json..." the medians
/// of many; "chatload prepare --help" tells how to make accounts by the thousand, "chatload hostile --help" how to attack a node meanwhile.
#[derive(Debug, Clone, Parser, Serialize, Deserialize)]
#[command(name = "chatload", version, max_term_width = 100)]
pub struct Options {
    /// What the users do.
    pub scenario: Scenario,

    /// A node, or what stands before the nodes. Several: users take them in turn, so that the two of a pair are at
    /// different nodes.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000")]
    pub target: Vec<String>,
    /// Speak TLS with the targets, whose certificates have to be for their HOSTs.
    #[arg(long)]
    pub tls: bool,
    /// Trust the authorities whose certificates are in FILE, in PEM, instead of those that the system trusts.
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub tls_ca: Option<PathBuf>,
    /// Length of the measured window.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Load before the window, at its rate.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub warm_up: Duration,
    /// Before that, the rate grows from zero for so long.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub ramp: Duration,

    /// Open loop: messages (or logins, reconnects, pages) per second, of all users together. The default is 1000;
    /// storms are closed loops unless it is given.
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// How the times of the open loop lie.
    #[arg(long, value_name = "HOW", default_value = "poisson", help_heading = "Load")]
    pub spacing: SpacingOption,
    /// Closed loop: so many messages of each sender are on their way; of a storm, so many users at once (by default 8 who
    /// log in, and all who reconnect).
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub window: Option<u32>,
    /// Closed loop: when a message's way has ended.
    #[arg(long, value_name = "WHEN", default_value = "delivered", help_heading = "Load")]
    pub until: Until,
    /// Searches for the highest rate that keeps --p99; each attempt lasts for --duration.
    #[arg(long, conflicts_with = "window", help_heading = "Load")]
    pub find_max: bool,
    /// What 99 % of the acknowledgements and arrivals must keep.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration, help_heading = "Load")]
    pub p99: Duration,
    /// Bytes of a message's text; a few more if what the checker needs has no room in them.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Load")]
    pub body: u32,

    /// direct, mixed, history: pairs of friends, of whom one sends (or reads).
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Scenarios")]
    pub pairs: u32,
    /// group, mixed: groups.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Scenarios")]
    pub groups: u32,
    /// group, mixed: members of each group.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=10_000), help_heading = "Scenarios")]
    pub members: u32,
    /// group, mixed: senders among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Scenarios")]
    pub senders: u32,
    /// login-storm, reconnect-storm, idle, trickle: users.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=200_000), help_heading = "Scenarios")]
    pub connections: u32,
    /// Except in storms: users beside those of the scenario, who are connected and do nothing.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=200_000), help_heading = "Scenarios")]
    #[serde(default)]
    pub bystanders: u32,
    /// login-storm, reconnect-storm, idle, trickle, and bystanders: friends of each user (an even number), each with a conversation.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000), help_heading = "Scenarios")]
    pub conversations: u32,
    /// history: messages in each conversation.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "Scenarios")]
    pub entries: u32,
    /// history, mixed: entries asked for at once.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Scenarios")]
    pub page: u32,

    /// Whether every message is checked when it arrives.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Checks")]
    pub verify: bool,
    /// Whether users confirm what they were shown, as people's clients do.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Checks")]
    pub confirm: bool,
    /// After the window, wait so long for what is still on its way; then it is lost.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Checks")]
    pub settle: Duration,

    /// Where the result goes, as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub json: Option<PathBuf>,
    /// Where the result goes, as a page for people.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub html: Option<PathBuf>,
    /// Processes on this machine whose processor time and memory are measured: servers, databases, balancers.
    #[arg(long, value_name = "PID", num_args = 1.., value_delimiter = ',', help_heading = "Results")]
    pub processes: Vec<u32>,
    /// A remark that the result repeats: how the servers were set up, say.
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Results")]
    pub note: String,

    /// Make so many accounts through the store first; needs --database. Hashing a password for each would take longer
    /// than the run. An embedded database that a node has open cannot be used: see "chatload prepare".
    #[arg(
        long,
        value_name = "N",
        requires = "database",
        conflicts_with = "prepared",
        help_heading = "Accounts"
    )]
    pub prepare: Option<u32>,
    /// The nodes' database, as the nodes' own option.
    #[arg(
        long,
        value_name = "URL",
        env = "CHAT_DATABASE",
        hide_env_values = true,
        help_heading = "Accounts"
    )]
    #[serde(skip)]
    pub database: Option<String>,
    /// The cost of the prepared accounts' one password hash (argon2id): KiB of memory, and passes.
    #[arg(long, value_name = "KIB,PASSES", default_value = "8,1", value_parser = cost, help_heading = "Accounts")]
    pub password_cost: (u32, u32),
    /// Use the accounts that "chatload prepare" made under this prefix.
    #[arg(long, value_name = "PREFIX", help_heading = "Accounts")]
    pub prepared: Option<String>,

    /// Source addresses, taken in turn: more than about 28,000 connections to one target need several.
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',', help_heading = "Generator")]
    pub bind: Vec<IpAddr>,
    /// Source addresses likewise, out of a network: its first 4,096.
    #[arg(long, value_name = "NET", conflicts_with = "bind", value_parser = network, help_heading = "Generator")]
    pub from: Option<String>,
    /// Threads of the generator.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Generator")]
    pub threads: u32,
    /// Users who are set up at once: who register, log in, befriend and join before the load.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Generator")]
    pub set_up_at_once: u32,
    /// What chance depends on.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Generator")]
    pub seed: u64,
}

/// Makes accounts through the store, all with one password's hash.
#[derive(Debug, Parser)]
#[command(name = "chatload prepare", version, max_term_width = 100)]
pub struct PrepareOptions {
    /// How many.
    pub accounts: u32,
    /// What their names begin with; a run uses them with --prepared PREFIX.
    #[arg(long, value_name = "PREFIX", default_value = "load")]
    pub prefix: String,
    /// The nodes' database. An embedded one must not be open in a node.
    #[arg(long, value_name = "URL", env = "CHAT_DATABASE", hide_env_values = true)]
    pub database: String,
    /// The cost of the password's hash (argon2id): KiB of memory, and passes.
    #[arg(long, value_name = "KIB,PASSES", default_value = "8,1", value_parser = cost)]
    pub password_cost: (u32, u32),
}

impl Options {
    /// Source addresses, taken in turn; none: the system chooses.
    pub(super) fn sources(&self) -> Vec<IpAddr> {
        // What is no network was refused.
        self.from.as_deref().and_then(|net| addresses(net).ok()).unwrap_or_else(|| self.bind.clone())
    }

    /// The rate of the open loop, or how many are on their way in the closed one.
    pub(super) fn pace(&self) -> (f64, Option<u32>) {
        let window = match (self.scenario, self.window, self.rate) {
            (Scenario::LoginStorm, None, None) => Some(LOGINS_AT_ONCE),
            (Scenario::ReconnectStorm, None, None) => Some(self.connections),
            (_, window, _) => window,
        };
        (self.rate.unwrap_or(DEFAULT_RATE), window)
    }
}

/// Messages per second where nothing is said.
const DEFAULT_RATE: f64 = 1000.0;
/// Enough to keep a password hasher of a few threads busy.
const LOGINS_AT_ONCE: u32 = 8;

/// What the users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One of each pair of friends sends to the other.
    Direct,
    /// Some members of each group send to all.
    Group,
    /// 70 % direct messages, 25 % group messages, 5 % pages of history.
    Mixed,
    /// Users log in with their passwords, are told what is new, and leave.
    LoginStorm,
    /// Connections break, are made anew, and their sessions go on.
    ReconnectStorm,
    /// Users are connected, and do nothing.
    Idle,
    /// As idle; and now and then one of them sends to a friend.
    Trickle,
    /// Users read pages of a long log.
    History,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Mixed => "mixed",
            Self::LoginStorm => "login-storm",
            Self::ReconnectStorm => "reconnect-storm",
            Self::Idle => "idle",
            Self::Trickle => "trickle",
            Self::History => "history",
        }
    }

    pub(super) fn is_storm(self) -> bool {
        matches!(self, Self::LoginStorm | Self::ReconnectStorm)
    }
}

/// How the times of the open loop lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpacingOption {
    /// At equal intervals.
    Even,
    /// As independent users would: exponentially distributed intervals.
    Poisson,
}

/// When a message's way has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// When every device of its conversation was shown it, and it was acknowledged.
    Delivered,
    /// When it was acknowledged.
    Acknowledged,
}

/// A number and `ms`, `s`, `m` or `h`; without one of them, seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a number and ms, s, m or h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a number and ms, s, m or h".to_owned())?;
    // Longer than a day is a mistake, and sums of such times must not overflow.
    let most = Duration::from_secs(24 * 3600);
    Duration::try_from_secs_f64(number * factor)
        .ok()
        .filter(|time| *time <= most)
        .ok_or_else(|| "at most a day".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if (0.01..=10_000_000.0).contains(&rate) { Ok(rate) } else { Err("from 0.01 to 10,000,000".into()) }
}

fn cost(text: &str) -> Result<(u32, u32), String> {
    let parsed =
        text.split_once(',').and_then(|(kib, passes)| Some((kib.parse().ok()?, passes.parse().ok()?)));
    parsed.ok_or_else(|| "KiB of memory, a comma, and passes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
        PrepareOptions::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        let check = |text, ms| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("10s", 10_000);
        check("1.5", 1_500);
        check("50ms", 50);
        check("2m", 120_000);
        check("1h", 3_600_000);
        for text in ["", "s", "1x", "-1s", "25h", "1e3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(cost("19456,2"), Ok((19_456, 2)));
        assert!(cost("1").is_err());
    }
}
