//! Latencies by an open loop: requests are due at a fixed rate, whatever the answers do, and each is
//! timed from when it was due. A generator that times from the sending leaves out how long requests had
//! to wait for those before them (coordinated omission).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use nix::sys::prctl;

use crate::upstream::{content_length, find_head_end};

/// Longer than this an answer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace<'r> {
    pub(crate) port: u16,
    /// Requests a second.
    pub(crate) rate: u64,
    /// How many requests can be under way at once. One that is due while all connections are taken
    /// waits, and the wait counts.
    pub(crate) connections: usize,
    /// The requests, in the order in which they are due.
    pub(crate) requests: &'r [Vec<u8>],
    /// How many of the first are not timed: the proxy opens its connections to the upstream for them.
    pub(crate) untimed: usize,
}

/// Latencies and answers of one run. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paced {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Requests that were answered and timed, by the second.
    pub(crate) per_second: f64,
    /// Answers with a status of 400 or above.
    pub(crate) refused: u32,
    /// Requests that were not answered.
    pub(crate) failed: u32,
}

/// What one connection saw.
struct Tally {
    waits: Histogram<u64>,
    refused: u32,
    failed: u32,
    last: Option<Instant>,
}

impl Tally {
    fn new() -> Result<Self> {
        let most = u64::try_from(2 * PATIENCE.as_nanos())?;
        let mut waits = Histogram::new_with_max(most, 3).map_err(|error| anyhow!("{error}"))?;
        waits.auto(true);
        Ok(Self {
            waits,
            refused: 0,
            failed: 0,
            last: None,
        })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.waits
            .add(&other.waits)
            .map_err(|error| anyhow!("{error}"))?;
        self.refused += other.refused;
        self.failed += other.failed;
        self.last = self.last.max(other.last);
        Ok(())
    }
}

/// Sends everything, and returns when all of it is answered.
pub(crate) fn run(pace: Pace<'_>) -> Result<Paced> {
    let connections: Result<Vec<_>> = (0..pace.connections)
        .map(|_| Connection::open(pace.port))
        .collect();
    // Time for the threads to start.
    let start = Instant::now() + Duration::from_millis(20);
    let next = AtomicUsize::new(0);
    let tallies: Result<Vec<Tally>> = thread::scope(|scope| {
        let threads: Vec<_> = connections?
            .into_iter()
            .map(|connection| scope.spawn(|| pace.send(connection, start, &next)))
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(tally) => tally,
            Err(_) => Err(anyhow!("a sending thread has panicked")),
        });
        joined.collect()
    });
    let mut all = Tally::new()?;
    for tally in tallies? {
        all.add(&tally)?;
    }
    let micros = |quantile| {
        let nanos = Duration::from_nanos(all.waits.value_at_quantile(quantile));
        nanos.as_secs_f64() * 1e6
    };
    let first = pace.due(start, pace.untimed);
    let took = all.last.map_or(Duration::ZERO, |last| last - first);
    let timed = Duration::from_secs(all.waits.len()).as_secs_f64();
    Ok(Paced {
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        per_second: timed / took.as_secs_f64().max(1e-9),
        refused: all.refused,
        failed: all.failed,
    })
}

impl Pace<'_> {
    /// When a request is due.
    fn due(self, start: Instant, number: usize) -> Instant {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        start + Duration::from_nanos(number.saturating_mul(1_000_000_000) / self.rate.max(1))
    }

    /// Sends over one connection: the next request that no other has taken, until there is none.
    fn send(self, connection: Connection, start: Instant, next: &AtomicUsize) -> Result<Tally> {
        // By default the kernel may wake a sleeper 50 µs late, to save power. If it keeps to that, all
        // rows are late alike.
        let _ = prctl::set_timerslack(1);
        let mut tally = Tally::new()?;
        let mut connection = Some(connection);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.requests.get(number) else {
                return Ok(tally);
            };
            let due = self.due(start, number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let open = match connection.take() {
                Some(open) => Ok(open),
                None => Connection::open(self.port),
            };
            let answered = open.and_then(|mut open| {
                let answer = open.exchange(request)?;
                if !answer.is_last {
                    connection = Some(open);
                }
                Ok(answer)
            });
            let now = Instant::now();
            match answered {
                Ok(answer) => {
                    tally.refused += u32::from(answer.status >= 400);
                    if number >= self.untimed {
                        tally.last = tally.last.max(Some(now));
                        let wait = u64::try_from((now - due).as_nanos())?;
                        tally
                            .waits
                            .record(wait.max(1))
                            .map_err(|error| anyhow!("{error}"))?;
                    }
                }
                Err(_) => tally.failed += 1,
            }
        }
    }
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
}

struct Answer {
    status: u16,
    /// Whether the server closes the connection after it.
    is_last: bool,
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            bytes: Vec::new(),
        })
    }

    /// Sends a request and reads the whole answer.
    fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        self.bytes.clear();
        let mut part = [0; 4096];
        loop {
            let count = self.stream.read(&mut part)?;
            ensure!(count > 0, "closed before the answer was whole");
            self.bytes
                .extend_from_slice(part.get(..count).unwrap_or_default());
            let Some((head, body)) =
                find_head_end(&self.bytes).and_then(|end| self.bytes.split_at_checked(end))
            else {
                continue;
            };
            if body.len() >= content_length(head) {
                return read_head(head);
            }
        }
    }
}

fn read_head(head: &[u8]) -> Result<Answer> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.with_context(|| format!("no status in {head:?}"))?,
        is_last: head.contains("\r\nconnection: close"),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers everything, the first request after `delay` only.
    fn slow_at_first(delay: Duration) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut delay = Some(delay);
            let mut request = [0; 512];
            while stream.read(&mut request).is_ok_and(|count| count > 0) {
                thread::sleep(delay.take().unwrap_or_default());
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        Ok(port)
    }

    /// While the first answer is awaited all others become due. Timed from the sending, every one of
    /// them but the first would look as quick as the server is.
    #[test]
    fn a_request_waits_from_when_it_was_due() -> Result<()> {
        let delay = Duration::from_millis(600);
        let requests = vec![b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(); 20];
        let paced = run(Pace {
            port: slow_at_first(delay)?,
            rate: 200, // the last is due after 95 ms
            connections: 1,
            requests: &requests,
            untimed: 1,
        })?;
        // A slow machine makes the waits longer, never shorter.
        assert!(paced.p50 > 400e3, "half have waited {} µs", paced.p50);
        assert_eq!((paced.refused, paced.failed), (0, 0));
        Ok(())
    }

    #[test]
    fn what_is_refused_or_not_answered_is_counted() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        // Answers 401 once on each connection, and closes it on the next request.
        let server = thread::spawn(move || -> Result<()> {
            for stream in listener.incoming().take(2) {
                let (mut stream, mut request) = (stream?, [0; 512]);
                let _ = stream.read(&mut request)?;
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")?;
                let _ = stream.read(&mut request)?;
            }
            Ok(())
        });
        let requests = vec![b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(); 4];
        let paced = run(Pace {
            port,
            rate: 1000,
            connections: 1,
            requests: &requests,
            untimed: 0,
        })?;
        assert_eq!((paced.refused, paced.failed), (2, 2));
        server
            .join()
            .map_err(|_| anyhow!("the server has panicked"))?
    }
}
