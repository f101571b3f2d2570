//! `cargo bench-guard`: what the guard costs, beside plain Envoy, a filter that only holds the body,
//! and other ways to make the same check. Every round runs every row once, so that what happens to
//! the machine happens to all; medians are taken over the rounds.

mod envoy;
mod load;
mod measure;
mod pace;
mod peers;
mod plan;
mod port;
mod process;
mod report;
mod setups;
mod stores;
mod targets;
mod traffic;
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use measure::Bench;
use plan::{Choice, LARGE, SMALL, small};
use process::Process;
use report::{Hashing, Results, Row};
use setups::{AGAIN, FLOOR, GUARD, LUA, NATIVE, NATIVE_REDIS, Setup, WEBDIS, Workshop};
use traffic::Kind;

/// Requests a second of the latencies, unless a row cannot keep up with them.
const LATENCY_RATE: u64 = 2_000;
/// Length of one run at a fixed rate.
const LATENCY_SECONDS: u64 = 3;

/// Measures the guard in a real Envoy.
#[derive(Debug, Parser)]
#[command(
    name = "cargo bench-guard",
    after_help = "Needs: envoy (or ENVOY_BIN), wrk. For the rows of the same names: nginx with njs; node with npm, \
                  python3 with pip (what they need is installed under target/bench); redis-server, webdis. What \
                  is missing is said and left out."
)]
struct Options {
    /// One short round: does it all work?
    #[arg(long)]
    quick: bool,
    /// Rounds for the medians. Rows that no target needs run in every third, unless --traffic is given.
    #[arg(long, value_name = "N", default_value_t = 16)]
    rounds: usize,
    /// Length of one run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seconds: u64,
    /// Only rows whose name has one of these words, beside plain Envoy, and none with two workers.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    only: Vec<String>,
    /// Only requests of these kinds.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    traffic: Vec<Choice>,
    /// Requests a second of the latencies [default: 2000, or half of what the slowest row can do].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// One more build of the guard, to compare; may be given several times. The targets look for the
    /// module of 0.1 under the name v01.
    #[arg(long, value_name = "NAME=WASM", value_parser = build_to_compare)]
    also: Vec<(String, PathBuf)>,
    /// Events that the guard's store holds.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    capacity: u32,
    /// Instead: the same with 1,000 and with 1,000,000 events remembered.
    #[arg(long)]
    remembered: bool,
    /// Write docs/benchmarks/README.md and docs/benchmarks/cpu.svg.
    #[arg(long, conflicts_with = "quick")]
    write: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it measures itself.
#[derive(Clone, Copy, Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum Role {
    #[command(hide = true)]
    Upstream { port: u16 },
    #[command(hide = true)]
    Authorize { port: u16 },
}

fn build_to_compare(text: &str) -> Result<(String, PathBuf)> {
    let (name, file) = text.split_once('=').context("expected NAME=WASM")?;
    let file = fs::canonicalize(file).with_context(|| file.to_owned())?;
    Ok((format!("guard {name}"), file))
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-guard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut options = Options::parse();
    match options.role {
        Some(Role::Upstream { port }) => return upstream::serve(port),
        Some(Role::Authorize { port }) => return upstream::authorize(port),
        None => {}
    }
    let mut latency_seconds = LATENCY_SECONDS;
    if options.quick {
        (options.rounds, options.seconds, latency_seconds) = (1, 1, 1);
    }
    let Built {
        guard,
        floor,
        dynamic_modules,
    } = build()?;
    let started = Instant::now();
    let folder = std::env::current_dir()?.join("target/bench");
    fs::create_dir_all(&folder)?;
    let upstream_port = port::free_port()?;
    let upstream = setups::start_own("upstream", upstream_port, &folder)?;
    let one = Workshop {
        folder,
        dynamic_modules,
        upstream_port,
        workers: 1,
        capacity: options.capacity,
    };
    if options.remembered {
        return remembered(&one, &options, &guard, &upstream);
    }

    let mut setups = one_worker(&one, &options, &guard, &floor)?;
    if options.only.is_empty() {
        let two = Workshop {
            workers: 2,
            ..one.clone()
        };
        setups.extend([
            two.plain()?,
            two.floor(&floor, None)?,
            two.guard(GUARD, &guard)?,
            two.native()?,
        ]);
    }
    setups.retain(|setup| !plan::chosen(setup, &options.traffic).is_empty());
    let mut bench = Bench {
        workshop: &one,
        upstream: &upstream,
        seconds: options.seconds,
        notes: Vec::new(),
    };
    let memory = measure::memory(&setups);
    let mut hashing: Vec<Hashing> = LARGE
        .into_iter()
        .skip(1)
        .map(|size| Hashing {
            size,
            micros: Vec::new(),
        })
        .collect();
    let mut rows = bench.rounds(&setups, &options.traffic, options.rounds, &mut hashing)?;
    let rate = options
        .rate
        .or_else(|| slowest(&rows).map(|slowest| half_of(slowest).min(LATENCY_RATE)))
        .unwrap_or(LATENCY_RATE);
    let rounds = options.rounds.div_ceil(4);
    bench.latencies(&setups, &mut rows, rounds, rate, latency_seconds)?;
    let results = Results {
        rows,
        memory,
        hashing,
        rate,
        notes: bench.notes,
    };
    drop(setups);

    let machine = machine();
    let tables = report::tables(&results, &machine);
    let targets = targets::table(&results);
    let redis = targets::redis(&results);
    println!("{targets}\n{redis}\n{tables}");
    if options.write {
        write(&options, &results, &machine, [&targets, &redis, &tables])?;
    }
    eprintln!("it took {} s", started.elapsed().as_secs());
    Ok(())
}

fn write(
    options: &Options,
    results: &Results,
    machine: &str,
    [targets, redis, tables]: [&str; 3],
) -> Result<()> {
    let folder = Path::new("docs/benchmarks");
    fs::create_dir_all(folder)?;
    let text = include_str!("../report.md")
        .replace("@ROUNDS@", &options.rounds.to_string())
        .replace("@SECONDS@", &options.seconds.to_string())
        .replace("@RATE@", &results.rate.to_string())
        .replace("@TARGETS@", targets.trim_end())
        .replace("@REDIS@", redis.trim_end())
        .replace("@TABLES@", tables.trim_end());
    fs::write(folder.join("README.md"), text)?;
    fs::write(folder.join("cpu.svg"), report::chart(results, machine))?;
    Ok(())
}

fn one_worker(
    workshop: &Workshop,
    options: &Options,
    guard: &Path,
    floor: &Path,
) -> Result<Vec<Setup>> {
    type Start<'s> = (&'s str, Box<dyn Fn() -> Result<Setup> + 's>);
    let starts: Vec<Start<'_>> = vec![
        ("direct_response", Box::new(|| workshop.direct_response())),
        ("buffer filter", Box::new(|| workshop.buffer())),
        (FLOOR, Box::new(|| workshop.floor(floor, None))),
        (
            "floor, reading",
            Box::new(|| workshop.floor(floor, Some("reads"))),
        ),
        (
            "floor, hashing",
            Box::new(|| workshop.floor(floor, Some("hashes"))),
        ),
        (GUARD, Box::new(|| workshop.guard(GUARD, guard))),
        (AGAIN, Box::new(|| workshop.guard(AGAIN, guard))),
        (NATIVE, Box::new(|| workshop.native())),
        (WEBDIS, Box::new(|| workshop.webdis(guard))),
        (NATIVE_REDIS, Box::new(|| workshop.native_redis())),
        (LUA, Box::new(|| workshop.lua())),
        ("ext_authz", Box::new(|| workshop.external_authorization())),
        ("nginx", Box::new(|| workshop.nginx())),
        ("Node", Box::new(|| workshop.express())),
        ("Python", Box::new(|| workshop.fastapi())),
    ];
    let mut setups = vec![workshop.plain()?];
    for (name, start) in starts.into_iter().filter(|(name, _)| options.wants(name)) {
        match start() {
            Ok(setup) => setups.push(setup),
            Err(error) => eprintln!("left out: {name}: {error:#}"),
        }
    }
    for (name, file) in &options.also {
        setups.push(workshop.guard(name, file)?);
    }
    Ok(setups)
}

/// Whether a request costs more, and how much memory it takes, when many events are remembered.
fn remembered(
    workshop: &Workshop,
    options: &Options,
    guard: &Path,
    upstream: &Process,
) -> Result<()> {
    let of = |capacity| Workshop {
        capacity,
        ..workshop.clone()
    };
    let setups = [
        of(1_000).guard(GUARD, guard)?,
        of(1_000_000).guard("guard, many", guard)?,
    ];
    let [_, many] = &setups;
    let resident = || -> u64 { many.usage().iter().map(|usage| usage.resident_kib).sum() };
    let mut bench = Bench {
        workshop,
        upstream,
        seconds: 10,
        notes: Vec::new(),
    };
    let new = small(Kind::New);
    // Warm, so that what is counted after this is the store.
    bench.saturate(many, new, 0)?;
    let before = resident();
    let mut sent = 0.0;
    while sent < 1e6 {
        sent += bench.saturate(many, new, 0)?.per_second * 10.0;
    }
    println!(
        "{sent:.0} events sent; RSS {} KiB, before {before} KiB",
        resident()
    );
    bench.seconds = options.seconds;
    let results = Results {
        rows: bench.rounds(&setups, &[Choice::New], options.rounds, &mut [])?,
        memory: Vec::new(),
        hashing: Vec::new(),
        rate: 0,
        notes: bench.notes,
    };
    println!("{}", report::table(&results, 1));
    if let [few, many] = results.rows.as_slice() {
        let added = many.added_to(few);
        println!(
            "many to few: {:+.1} µs ({:.1} to {:.1})",
            added.middle, added.low, added.high
        );
    }
    println!("RSS {} KiB", resident());
    Ok(())
}

/// What the slowest of all can do with small new events, in requests a second: half of it leaves
/// every row below its saturation.
fn slowest(rows: &[Row]) -> Option<f64> {
    rows.iter()
        .filter(|row| row.traffic == "new" && row.size == SMALL && row.workers == 1)
        .map(|row| row.per_second().middle)
        .min_by(f64::total_cmp)
}

/// Half of a rate, to the hundred.
fn half_of(rate: f64) -> u64 {
    let whole: u64 = format!("{:.0}", rate / 200.0).parse().unwrap_or(1);
    whole.max(1) * 100
}

/// What is measured.
struct Built {
    guard: PathBuf,
    floor: PathBuf,
    /// The folder of the native build.
    dynamic_modules: PathBuf,
}

/// Builds the guard, as a module and natively, and the floor.
fn build() -> Result<Built> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let native = std::env::current_dir()?.join("target/native");
    let status = Command::new(&cargo)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--manifest-path", "native/Cargo.toml", "--target-dir"])
        .arg(&native)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the native build does not build");
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            "wasm32-wasip1",
            "--lib",
        ])
        .args([
            "--package",
            "callback-guard",
            "--package",
            "callback-guard-floor",
        ])
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the filters do not build");
    let folder = std::env::current_dir()?.join("target/wasm32-wasip1/release");
    Ok(Built {
        guard: folder.join("callback_guard.wasm"),
        floor: folder.join("callback_guard_floor.wasm"),
        dynamic_modules: native.join("release"),
    })
}

/// The machine in a few words.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("?", |(_, value)| value.trim())
    };
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = kernel.trim().split('-').next().unwrap_or_default();
    format!("{cores} cores of {}, Linux {release}", of("model name"))
}
