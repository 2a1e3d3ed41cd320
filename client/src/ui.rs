//! The terminal program: a dialogue between a person, or a script, and a [`client::Client`].
//!
//! - `args`: the command line, and its `--help`
//! - `app`: the menu, the login, the commands, and what happens unasked
//! - `command`: what a person can type
//! - `input`: lines from a terminal or a pipe, read on a thread of their own
//! - `tell`: everything that can be told; `text` and `json` are its two forms, `output` writes them
//! - `screen`: the fixed screens; `say`: sentences for errors and entries
//! - `roster`: the cached lists of friends and groups
//! - `away`: what a login brings, held until it can be shown; `stop`: signals
//! - `sanitize`: the one place that makes the text of others safe to show

mod app;
mod args;
mod away;
mod command;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod input;
mod json;
mod output;
mod roster;
mod sanitize;
mod say;
mod screen;
mod stop;
mod tell;
mod text;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chatclient: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let interactive = std::io::stdin().is_terminal();
    let code = runtime.block_on(app::run(&args, interactive));
    // A thread may still wait for input; it must not hold up the end.
    runtime.shutdown_background();
    code
}
