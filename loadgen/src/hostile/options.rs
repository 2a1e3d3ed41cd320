//! The command line of an attack.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::load::{duration, loopback_network};

/// Attacks a node on this machine, in many ways at once, to see what its other users notice.
///
/// Only loopback addresses are attacked, from loopback addresses. Every attacker is one connection at a time; who is shut out comes back after
/// a second. All kinds take part in equal numbers. Those that need a session log in first, with the accounts that "chatload prepare" has made,
/// and wait for the others; then all begin.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "chatload hostile", version, max_term_width = 100)]
pub struct Options {
    /// The node: a loopback address.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6000", value_parser = loopback)]
    pub target: SocketAddr,
    /// The addresses that attackers come from: of the loopback network, taken in turn.
    #[arg(long, value_name = "NET", default_value = "127.0.1.0/24", value_parser = loopback_network)]
    pub from: String,
    /// Attackers.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// How long they attack, at most ten minutes.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = attack_time)]
    pub duration: Duration,
    /// What they do, if not everything.
    #[arg(long, value_name = "KIND", num_args = 1.., value_delimiter = ',')]
    pub kinds: Vec<Kind>,
    /// Accounts for those that log in: PREFIX.0, PREFIX.1 and so on.
    #[arg(long, value_name = "PREFIX", default_value = "hostile")]
    pub prepared: String,
    /// How many of them there are.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub accounts: u32,
    /// Accounts whose passwords are guessed, likewise.
    #[arg(long, value_name = "PREFIX", default_value = "load")]
    pub victims: String,
    /// How many of them there are.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub victims_count: u32,
    /// After the logins, wait until this file exists; and end when it is gone, if that is before the time is over.
    #[arg(long, value_name = "FILE")]
    pub go: Option<PathBuf>,
    /// Use no more than this share of one processor, in percent: whenever it was more since the beginning, the attack stands still.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub cpu_percent: Option<u32>,
    /// Where the result goes, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What chance depends on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What an attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Sends half a line.
    HalfALine,
    /// Sends a byte a second of a line that never ends.
    ByteByByte,
    /// In a session: asks for pages of history and reads nothing.
    NeverReading,
    /// In a session: asks for pages of history and reads a few bytes a second.
    SlowReading,
    /// In a session: sends a long line but for its end.
    LongHalfALine,
    /// In a session: pings as fast as it is answered.
    PingFlood,
    /// Lines that are none of the protocol's.
    Malformed,
    /// Lines beyond the limit.
    LongLines,
    /// JSON that is deep, repeated, huge in its numbers, or escaped.
    OddJson,
    /// Guesses passwords of accounts that exist.
    GuessKnown,
    /// Guesses passwords of accounts that do not.
    GuessRandom,
    /// Guesses tokens.
    GuessTokens,
    /// Registers accounts.
    Register,
    /// Connects and goes, at once, again and again; half of them with a reset.
    Churn,
}

impl Kind {
    /// The name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn needs_session(self) -> bool {
        matches!(self, Self::NeverReading | Self::SlowReading | Self::LongHalfALine | Self::PingFlood)
    }
}

impl Options {
    /// Who does what, by the attacker's number.
    pub(super) fn kind(&self, number: u32) -> Kind {
        let kinds = if self.kinds.is_empty() { Kind::value_variants() } else { &self.kinds };
        kinds[number as usize % kinds.len()]
    }
}

/// Nobody else's machine.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "an address and a port".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only loopback addresses are attacked".into()) }
}

fn attack_time(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| {
        if time <= Duration::from_secs(600) { Ok(time) } else { Err("at most ten minutes".into()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_elses_machine_is_attacked() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
        let parse = |words: &[&str]| Options::try_parse_from([&["chatload hostile"], words].concat());
        assert!(parse(&["--target", "127.0.0.1:6000", "--from", "127.0.3.0/24"]).is_ok());
        assert!(parse(&["--target", "[::1]:6000"]).is_ok());
        for words in [
            ["--target", "192.0.2.1:6000"],
            ["--target", "0.0.0.0:6000"],
            ["--target", "localhost:6000"],
            ["--target", "[::ffff:192.0.2.1]:6000"],
            ["--from", "192.0.2.0/24"],
            ["--from", "0.0.0.0/0"],
            ["--from", "127.0.0.0/7"],
            ["--duration", "11m"],
            ["--connections", "20001"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
    }
}
