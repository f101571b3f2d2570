//! `cargo bench-guard`: what the guard costs, beside plain Envoy, a filter that only holds the body,
//! and other ways to make the same check. Every round runs every row once, so that what happens to
//! the machine happens to all; medians are taken over the rounds.

mod envoy;
mod load;
mod process;
mod report;
mod setups;
mod traffic;
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use load::Rate;
use process::Process;
use report::{Row, Sample};
use setups::{Setup, Workshop};
use traffic::{Kind, Sender, Traffic};

/// Connections of the load generator.
const CONNECTIONS: usize = 16;
/// Its connections at a fixed rate: more, as wrk2 sends a connection's next request only after the
/// answer to its last, and so adds a wait of its own where each is often due.
const LATENCY_CONNECTIONS: usize = 64;
/// wrk2 sets itself right for ten seconds before it counts.
const LATENCY_SECONDS: u64 = 16;

/// Measures the guard in a real Envoy.
#[derive(Debug, Parser)]
#[command(
    name = "cargo bench-guard",
    after_help = "Needs: envoy (or ENVOY_BIN), wrk. With wrk2, for latencies; nginx with njs, node, \
                  python3, for those rows. What is missing is said and left out."
)]
struct Options {
    /// One short round, no latencies: does it all work?
    #[arg(long)]
    quick: bool,
    /// Rounds for the medians.
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// Length of one run.
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u64,
    /// Only rows whose name has one of these words.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    only: Vec<String>,
    /// One more build of the guard, to compare; may be given several times.
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
    if options.quick {
        (options.rounds, options.seconds) = (1, 1);
    }
    let Built {
        guard,
        floor,
        dynamic_modules,
    } = build()?;
    let folder = std::env::current_dir()?.join("target/bench");
    fs::create_dir_all(&folder)?;
    let upstream_port = setups::free_port()?;
    let upstream = setups::start_own("upstream", upstream_port, &folder)?;
    let workshop = |workers| Workshop {
        folder: folder.clone(),
        dynamic_modules: dynamic_modules.clone(),
        upstream_port,
        workers,
        capacity: options.capacity,
    };

    if options.remembered {
        return remembered(
            &Workshop {
                capacity: 1_000_000,
                ..workshop(1)
            },
            &options,
            &guard,
            &upstream,
        );
    }
    let one = workshop(1);
    let setups = one_worker(&one, &options, &guard, &floor)?;
    let mut rows = measure(&one, &options, &setups, &upstream, plan)?;
    let mut latency_rate = 0;
    if !options.quick
        && let Some(slowest) = slowest(&rows)
    {
        latency_rate = half_of(slowest);
        latencies(&one, &options, &setups, &mut rows, latency_rate)?;
    }
    drop(setups);

    let two = workshop(2);
    let setups = vec![
        two.plain()?,
        two.floor(&floor, None)?,
        two.guard("guard", &guard)?,
        two.native()?,
    ];
    let two_rows = if options.only.is_empty() {
        measure(&two, &options, &setups, &upstream, |_| {
            vec![small(Kind::New)]
        })?
    } else {
        Vec::new()
    };
    drop(setups);

    let machine = machine();
    let mut text = format!("One worker. {machine}.\n\n{}", report::table(&rows));
    if latency_rate > 0 {
        text += &format!("\n{}", report::latencies(&rows, latency_rate));
    }
    text += &format!("\nTwo workers.\n\n{}", report::table(&two_rows));
    println!("{text}");
    if options.write {
        write(&options, &rows, &text, &machine)?;
    }
    Ok(())
}

fn write(options: &Options, rows: &[Row], text: &str, machine: &str) -> Result<()> {
    let folder = Path::new("docs/benchmarks");
    fs::create_dir_all(folder)?;
    let head = include_str!("../report.md")
        .replace("@ROUNDS@", &options.rounds.to_string())
        .replace("@SECONDS@", &options.seconds.to_string());
    fs::write(
        folder.join("README.md"),
        head.replace("@TABLES@", text.trim_end()),
    )?;
    fs::write(folder.join("cpu.svg"), report::chart(rows, machine))?;
    Ok(())
}

const SMALL: usize = 130;
/// The name of the row that shows the noise.
const AGAIN: &str = "guard again (A/A)";

fn small(kind: Kind) -> Traffic {
    Traffic {
        kind,
        sender: Sender::Suno,
        size: SMALL,
        is_last: false,
        path: None,
    }
}

/// What is sent to a setup.
fn plan(setup: &Setup) -> Vec<Traffic> {
    let new = small(Kind::New);
    let signed = Traffic {
        sender: Sender::BodySigner,
        ..new
    };
    let one_each = |kind| Traffic {
        is_last: true,
        ..small(kind)
    };
    let sizes = [4 << 10, 64 << 10, 1 << 20];
    let sized = |traffic: Traffic| sizes.map(|size| Traffic { size, ..traffic }).to_vec();
    match setup.name.as_str() {
        AGAIN => vec![
            new,
            small(Kind::Duplicate),
            small(Kind::Forged),
            small(Kind::Unsigned),
        ],
        // Builds that are compared, too.
        name if name.starts_with("guard") => [
            vec![
                new,
                small(Kind::Duplicate),
                small(Kind::Forged),
                small(Kind::Unsigned),
                one_each(Kind::Unsigned),
                small(Kind::Malformed),
            ],
            sized(new),
            vec![signed],
            sized(signed),
        ]
        .concat(),
        "plain" => [vec![new, one_each(Kind::New)], sized(new)].concat(),
        "Envoy direct_response" => vec![small(Kind::Unsigned), one_each(Kind::Unsigned)],
        "floor" | "floor, hashing" => [vec![new], sized(new)].concat(),
        "Node + Express" | "Python + FastAPI" => {
            vec![
                Traffic {
                    path: Some("/plain"),
                    ..new
                },
                new,
            ]
        }
        _ => vec![new],
    }
}

fn label(traffic: Traffic) -> String {
    let mut label = match (traffic.kind, traffic.path) {
        (_, Some(_)) => "no check",
        (Kind::New, None) => "new",
        (Kind::Duplicate, None) => "duplicate",
        (Kind::Forged, None) => "forged",
        (Kind::Unsigned, None) => "unsigned",
        (Kind::Malformed, None) => "malformed",
    }
    .to_owned();
    if traffic.sender == Sender::BodySigner {
        label += ", body signed";
    }
    if traffic.is_last {
        label += ", a connection each";
    }
    label
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
        ("floor", Box::new(|| workshop.floor(floor, None))),
        (
            "floor, reading",
            Box::new(|| workshop.floor(floor, Some("reads"))),
        ),
        (
            "floor, hashing",
            Box::new(|| workshop.floor(floor, Some("hashes"))),
        ),
        ("guard", Box::new(|| workshop.guard("guard", guard))),
        // The same once more: what differs between the two is noise.
        (
            "guard again (A/A)",
            Box::new(|| workshop.guard(AGAIN, guard)),
        ),
        ("guard, native", Box::new(|| workshop.native())),
        ("Envoy Lua filter", Box::new(|| workshop.lua())),
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

/// Runs every row once in every round.
fn measure(
    workshop: &Workshop,
    options: &Options,
    setups: &[Setup],
    upstream: &Process,
    plan: impl Fn(&Setup) -> Vec<Traffic>,
) -> Result<Vec<Row>> {
    let mut jobs: Vec<(&Setup, Traffic, Row)> = Vec::new();
    for setup in setups {
        for traffic in plan(setup) {
            let row = Row {
                setup: setup.name.clone(),
                traffic: label(traffic),
                size: traffic.size,
                samples: Vec::new(),
                latency: Vec::new(),
                resident_kib: 0,
            };
            jobs.push((setup, traffic, row));
        }
    }
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (setup, traffic, row) in &mut jobs {
            row.samples.push(sample(
                workshop,
                setup,
                *traffic,
                options.seconds,
                upstream,
            )?);
            row.resident_kib = setup
                .processes
                .iter()
                .map(|process| process.usage().resident_kib)
                .sum();
        }
    }
    Ok(jobs.into_iter().map(|(_, _, row)| row).collect())
}

fn sample(
    workshop: &Workshop,
    setup: &Setup,
    traffic: Traffic,
    seconds: u64,
    upstream: &Process,
) -> Result<Sample> {
    let records = workshop.folder.join("requests");
    let count = prepare(setup, traffic, seconds, 40_000, &records)?;
    let usage = || -> Vec<u64> {
        let own = setup
            .processes
            .iter()
            .map(|process| process.usage().cpu_nanos);
        own.chain([upstream.usage().cpu_nanos]).collect()
    };
    let before = usage();
    let seen = load::run(
        Path::new("wrk"),
        Rate::Saturation,
        setup.port,
        CONNECTIONS,
        seconds,
        &records,
    )?;
    let after = usage();
    check(setup, traffic, &seen, count)?;
    let used: Vec<f64> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| {
            let used = Duration::from_nanos(after.saturating_sub(*before));
            used.as_secs_f64() * 1e6 / f64::from(seen.requests.max(1))
        })
        .collect();
    let (proxy, service, upstream) = match used.as_slice() {
        [proxy, upstream] => (*proxy, 0.0, *upstream),
        [proxy, service, upstream] => (*proxy, *service, *upstream),
        _ => bail!("{}: expected one or two processes", setup.name),
    };
    Ok(Sample {
        per_second: seen.per_second(),
        proxy,
        service,
        upstream,
    })
}

/// Whether a request costs more, and how much memory it takes, when many events are remembered.
fn remembered(
    workshop: &Workshop,
    options: &Options,
    guard: &Path,
    upstream: &Process,
) -> Result<()> {
    let few = Workshop {
        capacity: 1_000,
        folder: workshop.folder.clone(),
        dynamic_modules: workshop.dynamic_modules.clone(),
        ..*workshop
    };
    let setups = [
        few.guard("guard", guard)?,
        workshop.guard("guard, many", guard)?,
    ];
    let [_, many] = &setups;
    let records = workshop.folder.join("requests");
    let resident = || {
        many.processes
            .iter()
            .map(|process| process.usage().resident_kib)
            .sum::<u64>()
    };
    // Warm, so that what is counted after this is the store.
    sample(workshop, many, small(Kind::New), options.seconds, upstream)?;
    let before = resident();
    let mut sent = 0_u64;
    while sent < 1_000_000 {
        prepare(many, small(Kind::New), 10, 40_000, &records)?;
        let seen = load::run(
            Path::new("wrk"),
            Rate::Saturation,
            many.port,
            CONNECTIONS,
            10,
            &records,
        )?;
        sent += u64::from(seen.requests);
    }
    println!(
        "{sent} events sent; RSS {} KiB, before {before} KiB",
        resident()
    );
    let rows = measure(workshop, options, &setups, upstream, |_| {
        vec![small(Kind::New)]
    })?;
    println!("{}", report::table(&rows));
    if let [few, many] = rows.as_slice() {
        let added = many.added_to(few);
        println!(
            "many to few: {:+.1} µs ({:.1} to {:.1})",
            added.middle, added.low, added.high
        );
    }
    println!("RSS {} KiB", resident());
    Ok(())
}

/// Writes the requests for a run, and makes sure that one of them is answered as it should be.
fn prepare(
    setup: &Setup,
    traffic: Traffic,
    seconds: u64,
    rate: usize,
    records: &Path,
) -> Result<usize> {
    // More than any proxy can take: large bodies take longer.
    let rate = (rate * 16384 / (16384 + traffic.size)).max(3000);
    let count = rate * usize::try_from(seconds)?;
    traffic.write(records, count)?;
    let status = setup.probe(&traffic.one())?;
    ensure!(
        is_refusal(setup, traffic) == (status >= 400),
        "{}, {}: answered with {status}",
        setup.name,
        label(traffic),
    );
    Ok(count)
}

fn is_refusal(setup: &Setup, traffic: Traffic) -> bool {
    setup.refuses && traffic.kind.is_refused()
}

fn check(setup: &Setup, traffic: Traffic, seen: &load::Seen, count: usize) -> Result<()> {
    let name = format!(
        "{}, {}, {}",
        setup.name,
        label(traffic),
        report::bytes(traffic.size)
    );
    ensure!(seen.requests > 0, "{name}: no request was answered");
    if usize::try_from(seen.requests)? > count && traffic.kind != Kind::Duplicate {
        eprintln!("{name}: the requests ran out and began again");
    }
    let wrong = if is_refusal(setup, traffic) {
        seen.requests.saturating_sub(seen.refused)
    } else {
        seen.refused
    };
    if wrong > 0 || seen.failed > 0 {
        eprintln!("{name}: {wrong} wrong answers, {} failures", seen.failed);
    }
    Ok(())
}

/// Latencies of new events at a fixed rate, without coordinated omission: counted from the time at
/// which a request was due.
fn latencies(
    workshop: &Workshop,
    options: &Options,
    setups: &[Setup],
    rows: &mut [Row],
    rate: u64,
) -> Result<()> {
    let program = std::env::var_os("WRK2_BIN").unwrap_or_else(|| "wrk2".into());
    if Command::new(&program).arg("--version").output().is_err() {
        eprintln!("left out: latencies: wrk2 is not there");
        return Ok(());
    }
    let records = workshop.folder.join("requests");
    for round in 1..=options.rounds.div_ceil(3) {
        eprintln!("latencies, round {round} of {}", options.rounds.div_ceil(3));
        for setup in setups {
            let row = rows
                .iter_mut()
                .find(|row| row.setup == setup.name && row.traffic == "new" && row.size == SMALL);
            let Some(row) = row else { continue };
            let rate_size = usize::try_from(rate)?.saturating_mul(5) / 4;
            let count = prepare(
                setup,
                small(Kind::New),
                LATENCY_SECONDS,
                rate_size,
                &records,
            )?;
            let seen = load::run(
                Path::new(&program),
                Rate::Fixed(rate),
                setup.port,
                LATENCY_CONNECTIONS,
                LATENCY_SECONDS,
                &records,
            )?;
            check(setup, small(Kind::New), &seen, count)?;
            row.latency.push(seen);
        }
    }
    Ok(())
}

/// What the slowest of all can do with small new events, in requests a second: half of it leaves
/// every row below its saturation.
fn slowest(rows: &[Row]) -> Option<f64> {
    rows.iter()
        .filter(|row| row.traffic == "new" && row.size == SMALL)
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
