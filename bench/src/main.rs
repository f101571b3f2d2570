//! `cargo bench-guard`: what the guard costs, beside plain Envoy and other ways to the same check.

mod envoy;
mod load;
mod process;
mod traffic;
mod upstream;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use load::Rate;
use process::Process;
use traffic::{Kind, Sender, Traffic};

struct Setup {
    name: String,
    port: u16,
    processes: Vec<Process>,
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn wait_until_open(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(
            Instant::now() < deadline,
            "nothing listens on port {port} after 20 s"
        );
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn start_envoy(
    name: &str,
    folder: &Path,
    ports: envoy::Ports,
    filters: &[Value],
    workers: usize,
) -> Result<Setup> {
    let config = folder.join(format!("{name}.json"));
    std::fs::write(&config, envoy::bootstrap(ports, filters).to_string())?;
    let program = std::env::var_os("ENVOY_BIN").unwrap_or_else(|| "envoy".into());
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(&config)
        .args(["--concurrency", &workers.to_string()]);
    command.args([
        "--disable-hot-restart",
        "--component-log-level",
        "wasm:warning",
        "-l",
        "warning",
    ]);
    let process = Process::start("proxy", command, &folder.join(format!("{name}.log")))?;
    wait_until_open(ports.listener).with_context(|| format!("starting {name}"))?;
    Ok(Setup {
        name: name.to_owned(),
        port: ports.listener,
        processes: vec![process],
    })
}

/// Sends one request and returns the status of the answer.
fn probe(port: u16, request: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
    text.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("no status in {text:?}"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(String::as_str) == Some("upstream") {
        let port = args
            .get(1)
            .context("upstream: a port is missing")?
            .parse()?;
        return upstream::serve(port);
    }
    // NAME=WASM ...
    let rounds: usize = std::env::var("ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(5);
    let seconds: u64 = std::env::var("SECONDS_EACH")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2);
    let kinds: Vec<Kind> = match std::env::var("KINDS").ok().as_deref() {
        Some("all") => vec![
            Kind::New,
            Kind::Duplicate,
            Kind::Forged,
            Kind::Unsigned,
            Kind::Malformed,
        ],
        _ => vec![Kind::New],
    };
    let size: usize = std::env::var("SIZE")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(130);
    let sender = if std::env::var_os("BODY_SIGNED").is_some() {
        Sender::BodySigner
    } else {
        Sender::Suno
    };
    let folder = PathBuf::from("/tmp/bench/run");
    std::fs::create_dir_all(&folder)?;
    let upstream = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["upstream", &upstream.to_string()]);
    let up = Process::start("upstream", command, &folder.join("upstream.log"))?;
    wait_until_open(upstream)?;
    let ports = || -> Result<envoy::Ports> {
        Ok(envoy::Ports {
            listener: free_port()?,
            upstream,
            authorization: 9,
        })
    };
    let mut setups = vec![start_envoy("plain", &folder, ports()?, &[], 1)?];
    for arg in &args {
        let (name, path) = arg.split_once('=').context("NAME=WASM")?;
        let path = std::fs::canonicalize(path)?;
        let config = envoy::guard(100_000);
        setups.push(start_envoy(
            name,
            &folder,
            ports()?,
            &[envoy::wasm(name, &path, &config)],
            1,
        )?);
    }
    let mut figures: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let records = folder.join("records");
    for _ in 0..rounds {
        for setup in &setups {
            for &kind in &kinds {
                if setup.name == "plain" && kind != Kind::New {
                    continue;
                }
                let traffic = Traffic { kind, sender, size };
                let count = 30_000 * usize::try_from(seconds)? * 4000 / (4000 + size);
                traffic.write(&records, count)?;
                let status = probe(setup.port, &traffic.one())?;
                let refuses = kind.is_refused() && !["plain", "floor"].contains(&&*setup.name);
                if refuses != (status >= 400) {
                    bail!("{} {kind:?}: {status}", setup.name);
                }
                let before = setup
                    .processes
                    .iter()
                    .map(|p| p.usage().cpu_nanos)
                    .sum::<u64>();
                let seen = load::run(
                    Path::new("wrk"),
                    Rate::Saturation,
                    setup.port,
                    16,
                    seconds,
                    &records,
                )?;
                let after = setup
                    .processes
                    .iter()
                    .map(|p| p.usage().cpu_nanos)
                    .sum::<u64>();
                let micros = Duration::from_nanos(after - before).as_secs_f64() * 1e6
                    / f64::from(seen.requests);
                figures
                    .entry(format!("{} {kind:?}", setup.name))
                    .or_default()
                    .push((micros, seen.per_second()));
                if usize::try_from(seen.requests)? > count {
                    eprintln!("ran out {} {}", seen.requests, count);
                }
                if seen.failed > 0
                    || (refuses && seen.refused < seen.requests - 20)
                    || (!refuses && seen.refused > 0)
                {
                    eprintln!("{} {kind:?} {seen:?}", setup.name);
                }
            }
        }
    }
    let plain = median(
        &mut figures
            .get("plain New")
            .map(|v| v.iter().map(|x| x.0).collect::<Vec<_>>())
            .unwrap_or_default(),
    );
    for (name, values) in &figures {
        let mut cpu: Vec<f64> = values.iter().map(|v| v.0).collect();
        let mut rps: Vec<f64> = values.iter().map(|v| v.1).collect();
        let m = median(&mut cpu);
        println!(
            "{name:24} {m:7.2} us  (+{:.2})  [{:.1} {:.1}]  {:8.0} rps",
            m - plain,
            cpu.first().unwrap_or(&0.0),
            cpu.last().unwrap_or(&0.0),
            median(&mut rps)
        );
    }
    for s in &setups {
        println!(
            "{} rss {} KiB",
            s.name,
            s.processes
                .iter()
                .map(|p| p.usage().resident_kib)
                .sum::<u64>()
        );
    }
    drop(up);
    Ok(())
}
