//! chatctl: the operators' tool. It asks the admin listeners of nodes, which know it by a token.
//!
//! What is in the store, or goes through a log, is asked of the first node that answers; what a node holds, of all.

mod commands;
mod nodes;
mod show;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use protocol::ConversationId;

/// The operators' tool of the clustered chat system.
///
/// It asks the listeners that nodes open with --admin and --admin-token-file. OPERATING.md shows every command with what it prints.
///
/// The exit code is 0 if all was done and every node that had to be asked has answered, 1 if not, 2 if the command cannot be understood.
#[derive(Debug, Parser)]
#[command(name = "chatctl", version, max_term_width = 100)]
struct Args {
    /// Admin listeners, separated by commas: of all nodes, where all are meant.
    #[arg(
        long,
        global = true,
        env = "CHAT_ADMIN_NODES",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:6100",
        value_parser = node
    )]
    nodes: Vec<String>,
    /// The file that holds the operators' token.
    #[arg(long, global = true, env = "CHAT_ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the nodes: whether they are ready, and how much they have to do.
    Nodes,
    /// Show the sessions on the nodes.
    Sessions {
        /// Only those of this user, by name or number.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// At most so many of each node, and the rest of the last user's.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// List accounts: by number, or by name those that begin with a prefix.
    Users {
        /// Those after this one, by name or number.
        #[arg(long, value_name = "USER")]
        after: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Those whose names begin so, in whatever case.
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
    },
    /// End all sessions of a user, on all nodes; their tokens are void. The user can log in again.
    Kick {
        /// By name or number.
        user: String,
    },
    /// Likewise, and the user cannot log in until the ban is lifted.
    Ban {
        /// By name or number.
        user: String,
    },
    /// Lift a ban.
    Unban {
        /// By name or number.
        user: String,
    },
    /// Set a user's password, which is the first line of the standard input, and end all sessions of the user.
    Passwd {
        /// By name or number.
        user: String,
        /// Make a password up, and print it.
        #[arg(long)]
        generate: bool,
    },
    /// Tell a node to end in order, as SIGTERM does.
    Drain {
        /// Its admin listener.
        #[arg(value_name = "HOST:PORT", value_parser = node)]
        node: String,
    },
    /// Show what became of an entry: when it was committed, and how far it got with each reader.
    Why {
        /// Such as d1-2, g7 or u1.
        conversation: ConversationId,
        /// The entry's seq.
        seq: u64,
    },
}

/// A host and a port: nothing that would change what is asked there.
fn node(text: &str) -> Result<String, String> {
    let expected = || "expected HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    port.parse::<u16>().map_err(|_| expected())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(plain) { Err(expected()) } else { Ok(text.to_owned()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match commands::run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chatctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn nodes_are_hosts_with_ports() {
        for good in ["127.0.0.1:6100", "[::1]:6100", "node-1.chat:1"] {
            assert_eq!(node(good), Ok(good.to_owned()));
        }
        for bad in
            ["", "6100", "host", ":6100", "host:", "host:70000", "a@b:1", "a/b:1", "a b:1", "http://a:1"]
        {
            assert!(node(bad).is_err(), "{bad}");
        }
    }
}
