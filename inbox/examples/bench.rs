//! Measures an inbox: `cargo run --release -p callback-guard-inbox --example bench -- --backlog 100000`.
//!
//! For each store: accepts per second with 64 connections and 1 KiB bodies, and how long one takes;
//! deliveries per second while a backlog drains; memory with the backlog. Beside it, in the same
//! run, what the disk does by itself (one write of 4 KiB and an fsync, again and again) and the
//! plain pattern on Redis: `SET key NX` and `RPUSH` under `appendfsync always`, without HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for developers"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use callback_guard_harness::fleet::Redis;
use callback_guard_harness::{Inbox, InboxSetup, Postgres, inbox};
use clap::Parser;

/// Measures an inbox on each store
#[derive(Debug, Parser)]
struct Args {
    /// Seconds of accepts for each store
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events of the backlog that is drained
    #[arg(long, default_value_t = 100_000)]
    backlog: u64,
    /// The inbox to measure, instead of one that is built
    #[arg(long)]
    program: Option<std::path::PathBuf>,
    /// Attempts at once while it drains
    #[arg(long, default_value_t = 64)]
    concurrency: u16,
    /// How many message ids the events share; 0: each has its own
    #[arg(long, default_value_t = 0)]
    ids: u64,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres,redis")]
    of: Vec<Of>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    Sqlite,
    Postgres,
    Redis,
}

const CONNECTIONS: u64 = 64;

fn main() {
    let args = Args::parse();
    let program = match &args.program {
        Some(program) => program.clone(),
        None => inbox::program(true, &|_| {}).unwrap(),
    };
    println!(
        "{:<34} {:>10} {:>10} {:>10}",
        "", "per second", "p50 ms", "p99 ms"
    );
    let folder = tempfile::tempdir_in(callback_guard_harness::places::target()).unwrap();
    fsyncs(folder.path(), args.seconds);
    let app = App::start();
    if args.of.contains(&Of::Sqlite) {
        let setup = InboxSetup::new(&program, &app.url()).unwrap();
        measure("SQLite", &setup, &app, &args, folder.path());
        fsyncs(folder.path(), args.seconds);
    }
    if args.of.contains(&Of::Postgres) {
        let database = Postgres::start().unwrap();
        let setup = InboxSetup::new(&program, &app.url())
            .unwrap()
            .store(&database.url());
        measure("PostgreSQL", &setup, &app, &args, folder.path());
        drop(database);
        fsyncs(folder.path(), args.seconds);
    }
    if args.of.contains(&Of::Redis) {
        let redis = Redis::start().unwrap();
        let begun = Instant::now();
        let (count, times) = load(args.seconds, u64::MAX, |number| redis_call(&redis, number));
        let name = "Redis, always: SET NX and RPUSH";
        row(name, count, begun.elapsed(), times);
    }
}

/// One row of the table.
fn row(name: &str, count: u64, took: Duration, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| {
        let index = times.len().saturating_sub(1) * part / 100;
        times.get(index).map_or("-".to_owned(), |time| {
            format!("{:.2}", time.as_secs_f64() * 1000.0)
        })
    };
    let rate = f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64();
    println!("{name:<34} {rate:>10.0} {:>10} {:>10}", at(50), at(99));
}

/// What the disk does by itself.
fn fsyncs(folder: &Path, seconds: u64) {
    let mut file = File::create(folder.join("fsync")).unwrap();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(seconds.min(5)) {
        let one = Instant::now();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        times.push(one.elapsed());
    }
    let count = u64::try_from(times.len()).unwrap();
    row(
        "the disk: 4 KiB and fdatasync",
        count,
        begun.elapsed(),
        times,
    );
}

/// Calls `one` from as many threads as there are connections, for so long or so often.
fn load<C: Call>(
    seconds: u64,
    most: u64,
    connect: impl Fn(u64) -> C + Sync,
) -> (u64, Vec<Duration>) {
    let next = AtomicU64::new(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let all: Vec<Vec<Duration>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (next, connect) = (&next, &connect);
                scope.spawn(move || {
                    let mut call = connect(number);
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        let event = next.fetch_add(1, Ordering::Relaxed);
                        if event >= most {
                            break;
                        }
                        let one = Instant::now();
                        call.call(event);
                        times.push(one.elapsed());
                    }
                    times
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let times: Vec<Duration> = all.into_iter().flatten().collect();
    (u64::try_from(times.len()).unwrap(), times)
}

trait Call {
    fn call(&mut self, event: u64);
}

struct Http {
    stream: BufReader<TcpStream>,
    run: u64,
    ids: u64,
}

impl Http {
    fn connect(address: SocketAddr, run: u64, ids: u64) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            run,
            ids,
        }
    }
}

impl Call for Http {
    fn call(&mut self, event: u64) {
        let body = [b'x'; 1024];
        let id = event.checked_rem(self.ids).unwrap_or(event);
        let head = format!(
            "POST /callbacks/suno HTTP/1.1\r\nhost: inbox\r\ncontent-type: application/json\r\n\
             x-callback-guard-source: suno\r\nx-callback-guard-id: task-{id}\r\n\
             x-callback-guard-key: {:032x}{event:032x}\r\ncontent-length: 1024\r\n\r\n",
            self.run
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(&body);
        self.stream.get_mut().write_all(&request).unwrap();
        let status = response(&mut self.stream);
        assert_eq!(status, 200);
    }
}

/// Reads one response and returns its status.
fn response(stream: &mut BufReader<TcpStream>) -> u16 {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    status
}

/// The parts in which a backlog is filled and drained.
const PARTS: u64 = 10;

fn measure(name: &str, setup: &InboxSetup, app: &App, args: &Args, folder: &Path) {
    // Accepts alone: nothing is delivered meanwhile.
    let setup = setup
        .clone()
        .arguments(["--concurrency", &args.concurrency.to_string()])
        .arguments(["--max-backlog", "10000000", "--max-backlog-bytes", "100GiB"]);
    let mut inbox = setup.start().unwrap();
    assert!(setup.tool("pause", &[]).unwrap().status.success());
    let address = inbox.address();
    let mut run = 0;
    let mut accept = |seconds, most| {
        run += 1;
        load(seconds, most, |_| Http::connect(address, run, args.ids))
    };
    let begun = Instant::now();
    let (mut backlog, times) = accept(args.seconds, u64::MAX);
    let title = format!("{name}: accepts");
    row(&title, backlog, begun.elapsed(), times);
    // The backlog, part by part.
    let part = args.backlog.div_ceil(PARTS);
    let mut rates = Vec::new();
    while backlog < args.backlog {
        let (begun, more) = (Instant::now(), part.min(args.backlog - backlog));
        accept(3600, more);
        rates.push(per_second(more, begun.elapsed()));
        backlog += more;
    }
    println!("  accepts a second while it fills: {rates:?}");
    fsyncs(folder, args.seconds);
    let begun = Instant::now();
    let (more, times) = accept(args.seconds, u64::MAX);
    let title = format!("{name}: accepts with {backlog}");
    row(&title, more, begun.elapsed(), times);
    backlog += more;
    let with_backlog = memory(&inbox);
    inbox.kill();
    let begun = Instant::now();
    inbox.restart().unwrap();
    let restarted = begun.elapsed();
    let begun = Instant::now();
    let stats = setup.json("stats", &[]).unwrap();
    let counted = begun.elapsed();
    assert_eq!(stats.get("waiting").unwrap(), backlog);
    drain(name, &inbox, &setup, app, backlog);
    println!(
        "  {} MiB resident with them; start with them {} ms, `stats` {} ms",
        with_backlog / 1024,
        restarted.as_millis(),
        counted.as_millis()
    );
}

/// Delivers what waits.
fn drain(name: &str, inbox: &Inbox, setup: &InboxSetup, app: &App, backlog: u64) {
    let before = app.count();
    let begun = Instant::now();
    assert!(setup.tool("resume", &[]).unwrap().status.success());
    let mut first = None;
    let (mut most, mut rates) = (0, Vec::new());
    let (mut part_begun, mut part_count) = (begun, 0);
    loop {
        thread::sleep(Duration::from_millis(20));
        let count = app.count() - before;
        if first.is_none() && count > 0 {
            first = Some(begun.elapsed());
        }
        most = most.max(memory(inbox));
        if count >= part_count + backlog.div_ceil(PARTS) || count >= backlog {
            rates.push(per_second(count - part_count, part_begun.elapsed()));
            (part_begun, part_count) = (Instant::now(), count);
        }
        if count >= backlog {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(3600));
    }
    let took = begun.elapsed();
    row(&format!("{name}: deliveries"), backlog, took, Vec::new());
    println!("  deliveries a second while it drains: {rates:?}");
    println!(
        "  {backlog} events drained in {:.1} s, {} MiB resident at most; first delivery after {} ms",
        took.as_secs_f64(),
        most / 1024,
        first.unwrap_or_default().as_millis(),
    );
}

fn per_second(count: u64, took: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1000 / took.as_millis().max(1)).unwrap()
}

/// Resident memory, in KiB.
fn memory(inbox: &Inbox) -> u64 {
    let path = format!("/proc/{}/status", inbox.process_id().unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap()
}

/// An application that says 200 to everything, as fast as it can.
struct App {
    address: SocketAddr,
    count: std::sync::Arc<AtomicU64>,
}

impl App {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self {
            address: listener.local_addr().unwrap(),
            count: std::sync::Arc::default(),
        };
        let count = std::sync::Arc::clone(&app.count);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, count) = (stream.unwrap(), std::sync::Arc::clone(&count));
                thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut stream = BufReader::new(stream);
                    while request(&mut stream).is_some() {
                        count.fetch_add(1, Ordering::Relaxed);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.get_mut().write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        app
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Reads one request to its end.
fn request(stream: &mut BufReader<TcpStream>) -> Option<()> {
    let mut line = String::new();
    let mut length = 0;
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()
}

struct RedisCall(BufReader<TcpStream>);

fn redis_call(redis: &Redis, _: u64) -> RedisCall {
    let stream = TcpStream::connect(redis.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut call = RedisCall(BufReader::new(stream));
    call.0.get_mut().write_all(b"AUTH harness -\r\n").unwrap();
    call.line();
    call
}

impl RedisCall {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.starts_with('-'), "{line}");
        line
    }
}

impl Call for RedisCall {
    fn call(&mut self, event: u64) {
        let key = format!("{event:064x}");
        let mut text =
            format!("*4\r\n$3\r\nSET\r\n$64\r\n{key}\r\n$1\r\n1\r\n$2\r\nNX\r\n").into_bytes();
        text.extend_from_slice(b"*3\r\n$5\r\nRPUSH\r\n$5\r\nqueue\r\n$1024\r\n");
        text.extend_from_slice(&[b'x'; 1024]);
        text.extend_from_slice(b"\r\n");
        self.0.get_mut().write_all(&text).unwrap();
        self.line();
        self.line();
    }
}
