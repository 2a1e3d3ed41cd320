//! The command line.

use std::{net::Ipv6Addr, path::PathBuf};

use clap::Parser;
use client::{TlsPeer, TlsPeerError};

/// A terminal client of the chat system.
///
/// On a terminal it shows a menu (login, register, quit), and after the login the lists of friends and
/// groups, what was missed, and a prompt; `help` lists the commands. Ctrl-C clears the line being typed; Ctrl-D or
/// `quit` leaves. Passwords are asked for and never taken from the command line.
///
/// With standard input not a terminal it reads the same dialogue from there: menu choices and commands, one a
/// line. It waits for the outcome of each before it reads the next one, and prints what arrives for as long as the input is
/// open. At its end, or at `quit`, it confirms what it has shown, logs out, and ends with 0, or with 1 if a
/// command failed. A lost connection is no failure: it reconnects and goes on by itself.
#[derive(Debug, Parser)]
#[command(name = "chatclient", version, after_long_help = AFTER)]
pub(crate) struct Args {
    /// Address of the server, or of the balancer before it
    #[arg(value_name = "IP")]
    host: String,

    /// Its port
    #[arg(value_name = "PORT")]
    port: u16,

    /// Speak TLS, with a server whose certificate is for IP, or --tls-name
    #[arg(long)]
    pub(crate) tls: bool,

    /// Trust the authorities whose certificates are in FILE, in PEM, instead of those that the system trusts
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// The name that the server's certificate has to be for, if not IP
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(crate) tls_name: Option<String>,

    /// Print one JSON object per event instead of the screens (see below)
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// The server's address, as `HOST:PORT`.
    pub(crate) fn addr(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Who has to be there, if TLS is to be spoken.
    pub(crate) fn tls_peer(&self) -> Result<Option<TlsPeer>, TlsPeerError> {
        let name = self.tls_name.as_deref().unwrap_or(&self.host);
        self.tls.then(|| TlsPeer::new(name, self.tls_ca.as_deref())).transpose()
    }
}

const AFTER: &str = r#"A dialogue from a pipe:
  printf '1\n2019\nsecret\nchat:2001:hello: you\nquit\n' | chatclient 127.0.0.1 8000

With --json each line of the output is an object with an "event":
  menu            the menu is shown; a choice is expected (1, 2 or 3)
  registered      user: the new account's number
  logged_in       user, name
  friends         friends: [{user, name, state, friend, blocked}]
  groups          groups: [{group, name, description, role, members}]
  caught_up       what was missed while away has been printed
  entry           a message or an event of a conversation, as SPEC.md, section 4.5, has it:
                  conv, seq, at, from, name, mid, kind, and the fields of the kind
  members         group, members: [{user, name, role, state}]
  history         conv, entries, more
  help            commands: [{usage, does}]
  outcome         command, ok; if ok: message, and the reply's fields (seq, group);
                  if not: code, definite, message
  presence        user, state
  disconnected    reason
  reconnected
  lost            conv, after
  session_ended   reason
  note            message

Exit codes:
  0  every command succeeded, or a person has left
  1  a command from a pipe failed, or the server could not be reached at the start
  2  wrong arguments"#;
