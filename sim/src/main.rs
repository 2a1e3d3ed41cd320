//! `chatsim`: runs, shrinks and explains simulations.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
