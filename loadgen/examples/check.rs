//! Judges a recorded history: `cargo run -p loadgen --example check FILE`. Exits with 0 if it is valid.

use std::{env, fs::File, io::BufReader, process::ExitCode};

use loadgen::{History, Verdict, check};

fn main() -> std::io::Result<ExitCode> {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("check FILE");
        return Ok(ExitCode::from(2));
    };
    let history = History::read(BufReader::new(File::open(path)?))?;
    let verdict = check(&history);
    println!("{} events: {verdict}", history.events.len());
    Ok(if verdict == Verdict::Valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
