//! `chatclient`: the chat system's terminal client.

use std::process::ExitCode;

mod ui;

fn main() -> ExitCode {
    ui::main()
}
