//! Small HTTP/1.1 servers, one thread a connection: the application behind the proxy, and the
//! authorization service.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result};
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::{SharedData, Swap, Unavailable};
use callback_guard_core::testkit::MapShared;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::worker::{Io, Outcome, Seed, StreamId, Verdict, Worker};

use crate::envoy::{self, Store};

const RECEIVED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{\"status\":\"received\"}";
const REFUSED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";

/// The application: takes everything.
pub(crate) fn serve(port: u16) -> Result<()> {
    each_connection(port, |stream| answer_all(stream, |_, _| RECEIVED))
}

/// The authorization service: the guard's own core, natively, with a store in memory. It cannot see
/// what the upstream answers, so it takes each event as delivered once it has let it through.
pub(crate) fn authorize(port: u16) -> Result<()> {
    let policy = Arc::new(callback_guard_config::testkit::policy(
        &envoy::guard(100_000, Store::Memory).to_string(),
    ));
    let (data, workers) = (Locked::default(), Arc::new(AtomicU64::new(1)));
    each_connection(port, move |stream| {
        let seed = Seed {
            owner: workers.fetch_add(1, Ordering::Relaxed) << 32,
            salt: [7; 16],
        };
        let mut worker = Worker::new(Arc::clone(&policy), seed);
        let mut data = data.clone();
        let mut effects = Vec::new();
        answer_all(stream, |head, body| {
            let is_allowed = allows(&mut worker, &mut data, head, body);
            // Nobody counts here.
            worker.take_effects(&mut effects);
            effects.clear();
            if is_allowed { RECEIVED } else { REFUSED }
        });
    })
}

/// Shared data of all connections.
#[derive(Clone, Default)]
struct Locked(Arc<Mutex<MapShared>>);

impl SharedData for Locked {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        let mut data = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        data.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        let mut data = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        data.set(key, value, version)
    }
}

fn allows(worker: &mut Worker, data: &mut Locked, head: &[u8], body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(head) else {
        return false;
    };
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let names: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let mut pairs: Vec<(&[u8], &[u8])> = vec![
        (b":method", first.next().unwrap_or_default().as_bytes()),
        (b":path", first.next().unwrap_or_default().as_bytes()),
    ];
    pairs.extend(
        names
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(0));
    let (io, stream) = (&mut Io::new(data, now), StreamId(1));
    let mut verdict = worker.request_head(io, stream, &RequestHead::new(&pairs), false);
    if verdict == Verdict::Hold {
        verdict = worker.request_body(io, stream, body.len(), true, &|_| Some(body.into()));
    }
    worker.stream_end(io, stream, || (Outcome::Accepted, 200));
    verdict == Verdict::Forward
}

fn each_connection(port: u16, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("listening")?;
    for stream in listener.incoming().flatten() {
        let serve = serve.clone();
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

/// Reads requests, which do not overlap, and writes what `answer` says to head and body.
fn answer_all(mut stream: TcpStream, mut answer: impl FnMut(&[u8], &[u8]) -> &'static [u8]) {
    // Only latency would suffer.
    let _ = stream.set_nodelay(true);
    let mut request = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let whole = find_head_end(&request).and_then(|end| {
            let (head, body) = request.split_at_checked(end)?;
            (body.len() >= content_length(head)).then_some((head, body))
        });
        if let Some((head, body)) = whole {
            if stream.write_all(answer(head, body)).is_err() {
                return;
            }
            request.clear();
        }
        match stream.read(&mut part) {
            Ok(count) if count > 0 => {
                request.extend_from_slice(part.get(..count).unwrap_or_default());
            }
            _ => return,
        }
    }
}

/// Where the body begins, if the head is whole.
pub(crate) fn find_head_end(bytes: &[u8]) -> Option<usize> {
    // Heads here are small; a body is not searched.
    let start = bytes.get(..bytes.len().min(4096))?;
    start
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// What a head says about the length of its body; 0 if it says nothing.
pub(crate) fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split_at_checked(15))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length:"))
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
