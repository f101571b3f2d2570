//! An application that breaks off at a given byte of a request or of its answer, or stops there, or
//! is killed.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callback_guard_harness::wait::DEADLINE;
use socket2::SockRef;

use super::trial::{Did, Ledger};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nreceived";

/// Where the application breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// When the connection is accepted.
    Connection,
    /// After so many bytes of the request.
    Request(usize),
    /// After so many bytes of the answer.
    Answer(usize),
}

/// How it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It closes the connection (FIN).
    Closes,
    /// It resets the connection (RST).
    Resets,
    /// It keeps the connection and does nothing any more.
    Hangs,
}

/// One break.
pub type Break = (At, Manner);

/// A break at each byte of the answer and at some of the request, in each manner. Hanging costs a
/// route's timeout, so that comes at every fifth byte.
pub fn breaks() -> Vec<Break> {
    let request = [1, 4, 40, 200, 400].map(At::Request);
    let answer = (0..=ANSWER.len()).map(At::Answer);
    let places: Vec<At> = [At::Connection]
        .into_iter()
        .chain(request)
        .chain(answer)
        .collect();
    let mut breaks = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        breaks.extend([(place, Manner::Closes), (place, Manner::Resets)]);
        if number % 5 == 0 {
            breaks.push((place, Manner::Hangs));
        }
    }
    breaks
}

/// The application, on a port of its own, with one request to a connection.
pub struct Application {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    ledger: Ledger,
    /// What happens to the first connections, one each; the others are served.
    breaks: Vec<Break>,
    connections: AtomicUsize,
    is_dead: AtomicBool,
    open: Mutex<HashMap<usize, TcpStream>>,
    delay: Duration,
}

impl Application {
    pub fn start(ledger: &Ledger, breaks: Vec<Break>, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut application = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(State {
                ledger: ledger.clone(),
                breaks,
                connections: AtomicUsize::new(0),
                is_dead: AtomicBool::new(false),
                open: Mutex::default(),
                delay,
            }),
            thread: None,
        };
        application.listen(listener);
        application
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.thread = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if state.is_dead.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = state.connections.fetch_add(1, Ordering::Relaxed);
                let own = stream.try_clone().unwrap();
                state.open.lock().unwrap().insert(number, own);
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    state.serve(&stream, number);
                    // It is closed with its last handle.
                    state.open.lock().unwrap().remove(&number);
                });
            }
        }));
    }

    /// Ends it as a crash does: nobody listens any more, and every connection is cut.
    pub fn kill(&mut self) {
        self.state.is_dead.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
        for (_, stream) in self.state.open.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Starts it anew, where it was.
    pub fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.state.is_dead.store(false, Ordering::SeqCst);
        self.listen(listener);
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.kill();
        }
    }
}

impl State {
    fn serve(&self, mut stream: &TcpStream, number: usize) {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let whole = (At::Answer(ANSWER.len()), Manner::Closes);
        let (at, manner) = self.breaks.get(number).copied().unwrap_or(whole);
        match at {
            At::Connection => {}
            At::Request(length) => drop(stream.read_exact(&mut vec![0; length])),
            At::Answer(length) => self.answer(stream, number, length, manner),
        }
        match manner {
            Manner::Closes => {}
            // It fails if the peer has closed the connection first.
            Manner::Resets => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            Manner::Hangs => while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {},
        }
    }

    /// Reads the whole request and writes `length` bytes of the answer.
    fn answer(&self, mut stream: &TcpStream, number: usize, length: usize, manner: Manner) {
        let Some(id) = read_request(stream) else {
            return;
        };
        thread::sleep(self.delay);
        let head = ANSWER.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let is_told = length >= head.unwrap() + 4;
        // Killed before the answer or after it, not in between.
        let open = self.open.lock().unwrap();
        let is_alive = open.contains_key(&number);
        self.ledger.note(
            &id,
            match (is_told && is_alive, manner) {
                (false, _) => Did::Failed,
                // What was written before a reset may be thrown away.
                (true, Manner::Resets) => Did::AcceptedUnseen,
                (true, Manner::Closes | Manner::Hangs) => Did::Accepted,
            },
        );
        let _ = stream.write_all(&ANSWER[..length]);
    }
}

/// Reads a request to the end of its body; returns the event's id.
fn read_request(mut stream: &TcpStream) -> Option<String> {
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => received.extend(&buffer[..length]),
            _ => return None,
        }
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let value = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(known, _)| *known == name).unwrap().1
        };
        if body.len() >= value("content-length").parse().unwrap() {
            return Some(value("x-callback-guard-id").to_owned());
        }
    }
}
