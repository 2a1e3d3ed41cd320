//! chatload: the command line, accounts through the store, and files for the results.

mod prepare;

use std::{ffi::OsString, fs, io::IsTerminal as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use loadgen::{
    hostile,
    load::{self, Accounts, Options, PrepareOptions},
};
use mimalloc::MiMalloc;
use protocol::clock::SystemEntropy;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// File descriptors kept for what is not a connection.
const FILES_RESERVED: u64 = 64;
/// More than any run has connections.
const FILES_WANTED: u64 = 500_000;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // The words that stand where a run has its scenario.
    let outcome = match words.get(1).and_then(|word| word.to_str()) {
        Some("compare") => compare(&words[2..]).map(|()| true),
        Some("summary") => summary(&words[2..]).map(|()| true),
        Some("field") => field(&words[2..]).map(|()| true),
        Some("prepare") => {
            let words = std::iter::once("chatload prepare".into()).chain(words.into_iter().skip(2));
            let options = PrepareOptions::parse_from(words);
            block_on(1, prepare::accounts(&options, 0)).map(|()| true)
        }
        Some("hostile") => {
            let words = std::iter::once("chatload hostile".into()).chain(words.into_iter().skip(2));
            let options = hostile::Options::parse_from(words);
            block_on(1, attack(&options)).map(|()| true)
        }
        _ => {
            let options = Options::parse_from(words);
            block_on(options.threads, run(&options))
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chatload: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn block_on<T>(threads: u32, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(threads as usize).enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}

/// Makes the load; whether all promises were kept.
async fn run(options: &Options) -> anyhow::Result<bool> {
    // Taken as far as the system allows; a connection too many fails with the system's own words.
    let allowed = rlimit::increase_nofile_limit(FILES_WANTED).context("the limit on open files")?;
    let connections = u64::from(load::users(options));
    if allowed < connections + FILES_RESERVED {
        eprintln!(
            "chatload: the system allows {allowed} open files, and {connections} connections are asked for"
        );
    }
    let accounts = accounts(options).await?;
    let progress = std::io::stderr().is_terminal();
    let report = load::run(options, &accounts, &SystemEntropy, progress).await?;
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(&report).context("the result as JSON")?)?;
    }
    if let Some(path) = &options.html {
        write(path, &load::html::page(&report))?;
    }
    println!("{report}");
    Ok(report.is_good())
}

async fn attack(options: &hostile::Options) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::from(options.connections) + FILES_RESERVED)
        .context("the limit on open files")?;
    let report = hostile::run(options, |news| eprintln!("chatload hostile: {news}")).await?;
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(&report).context("the result as JSON")?)?;
    }
    println!("{report}");
    Ok(())
}

async fn accounts(options: &Options) -> anyhow::Result<Accounts> {
    if let Some(prefix) = &options.prepared {
        return Ok(Accounts::Existing(prefix.clone()));
    }
    let (Some(accounts), Some(database)) = (options.prepare, &options.database) else {
        return Ok(Accounts::Register);
    };
    let mut unique = [0; 4];
    protocol::Entropy::fill(&SystemEntropy, &mut unique);
    let prefix = format!("load{:08x}", u32::from_le_bytes(unique));
    let prepare = PrepareOptions {
        accounts,
        prefix: prefix.clone(),
        database: database.clone(),
        password_cost: options.password_cost,
    };
    prepare::accounts(&prepare, load::users(options)).await?;
    Ok(Accounts::Existing(prefix))
}

fn compare(words: &[OsString]) -> anyhow::Result<()> {
    let [a, b] = words else { anyhow::bail!("chatload compare A.json B.json") };
    print!("{}", load::compare(&read(Path::new(a))?, &read(Path::new(b))?)?);
    Ok(())
}

/// Results named `DIR/BENCHMARK.N.json`: the summary goes to the file, and as a table to standard output.
fn summary(words: &[OsString]) -> anyhow::Result<()> {
    let [out, files @ ..] = words else { anyhow::bail!("chatload summary OUT.json RESULT.json...") };
    let mut by_name = Vec::<(String, Vec<load::Report>)>::new();
    for file in files {
        let path = Path::new(file);
        let report = serde_json::from_value(read(path)?);
        let report = report.with_context(|| format!("{} is not a result of chatload", path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default();
        match by_name.iter_mut().find(|(known, _)| known == name) {
            Some((_, reports)) => reports.push(report),
            None => by_name.push((name.to_owned(), vec![report])),
        }
    }
    let summaries: Vec<_> = by_name.iter().map(|(name, reports)| load::Summary::new(name, reports)).collect();
    write(Path::new(out), &serde_json::to_string_pretty(&summaries).context("the summary as JSON")?)?;
    print!("{}", load::table(&summaries));
    Ok(())
}

/// Values of a file, by their JSON pointers, for scripts: on one line.
fn field(words: &[OsString]) -> anyhow::Result<()> {
    let [file, pointers @ ..] = words else { anyhow::bail!("chatload field RESULT.json /POINTER...") };
    let value = read(Path::new(file))?;
    let mut found = Vec::new();
    for pointer in pointers {
        let pointer = pointer.to_str().context("a JSON pointer")?;
        let value = value.pointer(pointer).with_context(|| format!("there is no {pointer}"))?;
        found.push(value.to_string());
    }
    println!("{}", found.join(" "));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<serde_json::Value> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
