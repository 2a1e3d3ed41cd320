//! The command line.
//!
//! Standard output holds only what is the same every time; progress and timing go to standard error.

use std::{
    fs,
    io::{BufWriter, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use sim::{
    coverage::{CLIENT_FAULTS, outcomes},
    determinism, explain,
    generate::{Size, generate},
    report,
    run::{Keep, Run, Verdict, run},
    scenario::{Kind, Scenario},
    shrink::{Effort, shrink},
    swarm::{Hints, Swarm},
};
use strum::VariantArray as _;

/// Plays whole clusters of the chat system, deterministically, while things fail.
///
/// Exit codes: 0, every run was valid; 1, one was not; 2, wrong use; 3, it could not be done.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Plays one scenario and says what it came to.
    Run {
        #[command(flatten)]
        which: Which,
        /// Writes the scenario to a file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Writes every event of the trace to a file, a line each.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Writes what the users saw to a file.
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
    },
    /// Plays many seeds, one after the other.
    Swarm {
        /// How many.
        #[arg(long, default_value_t = 100)]
        runs: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        start_seed: u64,
        /// Threads; as many as there are processors, if not given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Begins no more runs after so many failures.
        #[arg(long, default_value_t = 5)]
        stop_after: u64,
        /// Where failing scenarios are written to.
        #[arg(long, value_name = "DIR", default_value = "target/sim-failures")]
        failures: PathBuf,
        /// One seed in so many compares a run in which every hint is dropped with one in which none is; 0: none.
        #[arg(long, default_value_t = 25)]
        hint_every: u64,
        /// Fails if a kind of fault never met some phase.
        #[arg(long)]
        require_coverage: bool,
        #[command(flatten)]
        size: SizeArgs,
    },
    /// Makes a failing scenario as small as it can be made.
    Shrink {
        /// The scenario.
        file: PathBuf,
        /// Where the smallest one is written to; beside it, if not given.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Seconds that it may take.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Seeds that are tried for each smaller scenario.
        #[arg(long, default_value_t = 3)]
        seeds: u64,
        /// Threads; as many as there are processors, if not given.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Plays a scenario and tells what happened.
    Explain {
        /// The scenario.
        file: PathBuf,
    },
    /// Plays a scenario and draws what happened: a page of its own, for a browser.
    Report {
        /// The scenario.
        file: PathBuf,
        /// The page.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Plays scenarios again, files or all that are in a directory.
    Replay {
        /// Files and directories.
        #[arg(default_value = "sim/regressions")]
        paths: Vec<PathBuf>,
    },
    /// Plays seeds twice here and once in another process, and compares the traces.
    Determinism {
        /// How many.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        start_seed: u64,
    },
    /// Prints the trace hashes of seeds.
    Hashes {
        /// How many.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        start_seed: u64,
    },
}

/// A seed or a file.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The scenario of a seed.
    #[arg(long)]
    seed: Option<u64>,
    /// A scenario from a file.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SizeArgs {
    /// Nodes.
    #[arg(long, default_value_t = Size::default().nodes)]
    nodes: usize,
    /// Users.
    #[arg(long, default_value_t = Size::default().users)]
    users: usize,
    /// Operations.
    #[arg(long, default_value_t = Size::default().operations)]
    operations: usize,
    /// Faults: at least.
    #[arg(long, default_value_t = Size::default().faults_min)]
    faults_min: usize,
    /// Faults: at most.
    #[arg(long, default_value_t = Size::default().faults_max)]
    faults_max: usize,
}

impl SizeArgs {
    fn size(&self) -> anyhow::Result<Size> {
        if self.faults_min > self.faults_max {
            bail!("--faults-min {} is more than --faults-max {}", self.faults_min, self.faults_max);
        }
        let Self { nodes, users, operations, faults_min, faults_max } = *self;
        Ok(Size { nodes, users, operations, faults_min, faults_max })
    }
}

/// What is said of a shrunk scenario: how it becomes a test.
const REGRESSION_TEST: &str = r#"
// Kept as sim/regressions/NAME.json, it is played by every run of the tests. To have a test of its own, in sim/tests/simulation.rs:
#[test]
fn name_what_must_not_happen_again() {
    let scenario = Scenario::parse(include_str!("../regressions/NAME.json")).unwrap();
    let verdict = run(&scenario, Keep::Hash).verdict;
    assert!(verdict.is_valid(), "{verdict}");
}
"#;

pub(crate) fn main() -> ExitCode {
    // Without the flag, tokio draws the order of a `select!` from the operating system, and no run could be repeated.
    if cfg!(not(tokio_unstable)) {
        eprintln!(
            "chatsim was built without --cfg tokio_unstable and is not deterministic; start it as: cargo sim"
        );
        return ExitCode::from(2);
    }
    match carry_out(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chatsim: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn carry_out(task: Task) -> anyhow::Result<bool> {
    match task {
        Task::Run { which, save, trace, history } => one(&which, save, trace, history),
        Task::Swarm { runs, start_seed, jobs, stop_after, failures, hint_every, require_coverage, size } => {
            let size = size.size()?;
            let swarm = Swarm { start_seed, runs, jobs: processors(jobs), stop_after, size, hint_every };
            play(&swarm, &failures, require_coverage)
        }
        Task::Shrink { file, output, seconds, seeds, jobs } => {
            let time = Duration::from_secs(seconds);
            make_small(&file, output, Effort { time, seeds, jobs: processors(jobs) })
        }
        Task::Explain { file } => {
            let scenario = read(&file)?;
            let run = run(&scenario, Keep::Events);
            print!("{}", explain::explain(&scenario, &run));
            Ok(run.verdict.is_valid())
        }
        Task::Report { file, output } => {
            let scenario = read(&file)?;
            let run = run(&scenario, Keep::Events);
            let page = fs::File::create(&output).with_context(|| output.display().to_string())?;
            report::write(&scenario, &run, BufWriter::new(page))
                .with_context(|| output.display().to_string())?;
            print!("{}", describe(&scenario, &run)?);
            Ok(run.verdict.is_valid())
        }
        Task::Replay { paths } => replay(&paths),
        Task::Determinism { seeds, start_seed } => compare(seeds, start_seed),
        Task::Hashes { seeds, start_seed } => {
            for seed in start_seed..start_seed.saturating_add(seeds) {
                println!("{seed} {}", hex(&run(&generate(seed, &Size::default()), Keep::Hash).trace.hash));
            }
            Ok(true)
        }
    }
}

fn processors(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

fn one(
    which: &Which,
    save: Option<PathBuf>,
    trace: Option<PathBuf>,
    history: Option<PathBuf>,
) -> anyhow::Result<bool> {
    let scenario = match which {
        Which { scenario: Some(path), .. } => read(path)?,
        Which { seed, .. } => generate(seed.unwrap_or_default(), &Size::default()),
    };
    if let Some(path) = save {
        write(&path, scenario.to_string().as_bytes())?;
    }
    let run = run(&scenario, if trace.is_some() { Keep::Events } else { Keep::Hash });
    if let Some(path) = trace {
        let text: String = run.trace.events.iter().map(|event| format!("{event}\n")).collect();
        write(&path, text.as_bytes())?;
    }
    if let Some(path) = history {
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        run.history.write(file).with_context(|| path.display().to_string())?;
    }
    print!("{}", describe(&scenario, &run)?);
    Ok(run.verdict.is_valid())
}

/// What a run was and what it came to; the verdict comes last.
fn describe(scenario: &Scenario, run: &Run) -> anyhow::Result<String> {
    let (ok, failed, unknown) = outcomes(&run.history);
    let mut text = format!("seed      {}\n", scenario.seed);
    text += &format!("topology  {}\n", serde_json::to_string(&scenario.topology)?);
    text += &format!("knobs     {}\n", serde_json::to_string(&scenario.knobs)?);
    text += &format!("script    {} operations\n", scenario.operations.len());
    for fault in &scenario.faults {
        text += &format!("fault     {:>6} ms, for {} ms: {fault}\n", fault.at_ms, fault.for_ms);
    }
    text += &format!("requests  {ok} carried out, {failed} refused, {unknown} unknown\n");
    text += &format!(
        "trace     {} events in {:.3} s, sha256 {}\n",
        run.trace.count,
        run.simulated.as_secs_f64(),
        hex(&run.trace.hash)
    );
    if let Verdict::Invalid(anomalies) = &run.verdict {
        for anomaly in anomalies {
            text += &format!("anomaly   {anomaly}\n");
        }
        let kinds: Vec<String> = run.verdict.kinds().into_iter().collect();
        text += &format!("verdict   invalid: {}\n", kinds.join(", "));
    } else {
        text += &format!("verdict   {}\n", run.verdict.to_string().replace('\n', "; "));
    }
    Ok(text)
}

fn play(swarm: &Swarm, failures: &Path, require_coverage: bool) -> anyhow::Result<bool> {
    let started = started();
    let terminal = std::io::stderr().is_terminal();
    let outcome = swarm.play(|runs, failed| {
        if terminal && (runs.is_multiple_of(20) || runs == swarm.runs) {
            let rate = runs as f64 * 60.0 / elapsed(started).as_secs_f64();
            let filled = (runs * 30 / swarm.runs.max(1)) as usize;
            let bar: String = (0..30).map(|at| if at < filled { '#' } else { '.' }).collect();
            eprint!("\r[{bar}] {runs}/{} runs, {failed} failed, {rate:.0} runs/min ", swarm.runs);
            let _ = std::io::stderr().flush();
        }
    });
    if terminal {
        eprintln!();
    }
    let took = elapsed(started);
    for (seed, failure) in &outcome.failures {
        fs::create_dir_all(failures).with_context(|| failures.display().to_string())?;
        let path = failures.join(format!("seed-{seed}.json"));
        write(&path, failure.scenario.to_string().as_bytes())?;
        println!("seed {seed}: {}", failure.verdict);
        println!("  {}", path.display());
    }
    print!("{}", outcome.coverage.table());
    let Hints { pairs, compared, open } = outcome.hints;
    println!(
        "\nwith and without hints: {pairs} pairs of runs, {compared} conversations compared, {open} left open"
    );
    let minutes = took.as_secs_f64() / 60.0;
    eprintln!(
        "{} runs in {:.1} s with {} threads: {:.0} runs a minute, {:.0} simulated seconds a second, {:.0} events a run",
        outcome.runs,
        took.as_secs_f64(),
        swarm.jobs,
        outcome.runs as f64 / minutes,
        outcome.simulated.as_secs_f64() / took.as_secs_f64(),
        outcome.events as f64 / outcome.runs.max(1) as f64,
    );
    let kinds = Kind::VARIANTS.iter().map(|kind| kind.into()).chain(CLIENT_FAULTS);
    let empty = outcome.coverage.empty_cells(kinds);
    if require_coverage && !empty.is_empty() {
        println!("never met: {empty:?}");
    }
    println!("{} runs, {} failed", outcome.runs, outcome.failures.len());
    Ok(outcome.failures.is_empty() && (!require_coverage || empty.is_empty()))
}

fn make_small(file: &Path, output: Option<PathBuf>, effort: Effort) -> anyhow::Result<bool> {
    let scenario = read(file)?;
    let kinds = run(&scenario, Keep::Hash).verdict.kinds();
    if kinds.is_empty() {
        bail!("{}: the run is valid, there is nothing to shrink", file.display());
    }
    let started = started();
    let terminal = std::io::stderr().is_terminal();
    let fails = |scenario: &Scenario| !run(scenario, Keep::Hash).verdict.kinds().is_disjoint(&kinds);
    let shrunk = shrink(&scenario, fails, effort, |smaller| {
        if terminal {
            let (operations, faults) = (smaller.operations.len(), smaller.faults.len());
            eprint!("\r{operations} operations, {faults} faults ");
        }
    });
    if terminal {
        eprintln!();
    }
    let output = output.unwrap_or_else(|| file.with_extension("small.json"));
    write(&output, shrunk.scenario.to_string().as_bytes())?;
    eprintln!("{} runs in {:.1} s", shrunk.runs, elapsed(started).as_secs_f64());
    let (operations, faults) = (shrunk.scenario.operations.len(), shrunk.scenario.faults.len());
    print!("{}", shrunk.scenario);
    println!("{REGRESSION_TEST}");
    let end = if shrunk.minimal { "nothing can be removed" } else { "the time was over" };
    println!("{operations} operations, {faults} faults; {end}; {}", output.display());
    Ok(true)
}

fn replay(paths: &[PathBuf]) -> anyhow::Result<bool> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
            for entry in entries {
                let file = entry?.path();
                if file.extension().is_some_and(|extension| extension == "json") {
                    files.push(file);
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    let mut all_valid = true;
    for file in &files {
        let verdict = run(&read(file)?, Keep::Hash).verdict;
        all_valid &= verdict.is_valid();
        println!("{}: {verdict}", file.display());
    }
    println!("{} scenarios, {}", files.len(), if all_valid { "all valid" } else { "not all valid" });
    Ok(all_valid)
}

fn compare(seeds: u64, start_seed: u64) -> anyhow::Result<bool> {
    let own = std::env::current_exe().context("this program's file")?;
    let number = |number: u64| number.to_string();
    let child = Command::new(&own)
        .args(["hashes", "--seeds", &number(seeds), "--start-seed", &number(start_seed)])
        .stdout(Stdio::piped())
        .spawn()
        .context("another process")?;
    let mut same = true;
    let mut here = Vec::new();
    for seed in start_seed..start_seed.saturating_add(seeds) {
        let scenario = generate(seed, &Size::default());
        let keep = |events| if events { Keep::Events } else { Keep::Hash };
        match determinism::check(2, |events| run(&scenario, keep(events)).trace) {
            Ok(hash) => here.push(format!("{seed} {}", hex(&hash))),
            Err(difference) => {
                println!("seed {seed} differs in one process, {difference}");
                same = false;
                here.push(format!("{seed} ?"));
            }
        }
    }
    let there = child.wait_with_output().context("the other process")?;
    let there = String::from_utf8(there.stdout).context("the other process's hashes")?;
    for (here, there) in here.iter().zip(there.lines()) {
        if here != there && !here.ends_with('?') {
            let seed: u64 = there.split(' ').next().unwrap_or_default().parse().context("a seed")?;
            println!("seed {seed} differs between processes, {}", elsewhere(&own, seed)?);
            same = false;
        }
    }
    if there.lines().count() != here.len() {
        bail!("the other process did not play all seeds");
    }
    println!(
        "{seeds} seeds, three times each, in two processes: {}",
        if same { "the same" } else { "different" }
    );
    Ok(same)
}

/// Where a seed's trace here differs from its trace in another process.
fn elsewhere(own: &Path, seed: u64) -> anyhow::Result<String> {
    let file = std::env::temp_dir().join(format!("chatsim-{}-{seed}.trace", std::process::id()));
    let status = Command::new(own)
        .args(["run", "--seed", &seed.to_string(), "--trace"])
        .arg(&file)
        .stdout(Stdio::null())
        .status()
        .context("another process")?;
    let there = fs::read_to_string(&file).with_context(|| format!("its trace; it ended with {status}"))?;
    let _ = fs::remove_file(&file);
    let trace = run(&generate(seed, &Size::default()), Keep::Events).trace;
    let here: String = trace.events.iter().map(|event| format!("{event}\n")).collect();
    Ok(determinism::compare_texts(&here, &there)
        .map_or_else(|| "but not again".to_owned(), |difference| difference.to_string()))
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Scenario::parse(&text).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is told to people, and decides nothing")]
fn started() -> SystemTime {
    SystemTime::now()
}

fn elapsed(since: SystemTime) -> Duration {
    since.elapsed().unwrap_or_default()
}
