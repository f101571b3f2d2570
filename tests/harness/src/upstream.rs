//! The application behind Envoy: records what reaches it, and answers by a script.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::body::{BrokenOff, Gate, Piece, Pieces};
use crate::wait::DEADLINE;

/// The head of a request, recorded when it arrives, before any of the body.
#[derive(Clone, Debug)]
pub struct RecordedHead {
    /// Which request of this upstream it is, from 0.
    pub number: u64,
    /// Which connection it came over, from 0.
    pub connection: u64,
    /// When it arrived.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The host: `host` or `:authority`.
    pub host: String,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// Names in lower case, with their values.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl RecordedHead {
    /// All values of a header; bytes outside of UTF-8 are replaced.
    pub fn values(&self, name: &str) -> Vec<String> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }
}

/// How far the body of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// It came to its end.
    Complete,
    /// It broke off.
    CutShort,
    /// It is not at its end.
    Receiving,
}

/// The fate of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer went away first, or the upstream broke off by its script.
    Abandoned,
    /// The head of the response was handed over.
    Answered,
    /// The answer is still to come.
    Pending,
}

/// A request as far as it has come.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its head.
    pub head: Arc<RecordedHead>,
    /// The bytes of its body so far.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// How far the body has come.
    pub body_state: BodyState,
    /// The fate of the answer.
    pub outcome: Outcome,
}

/// What the upstream does with a request.
///
/// Unless told otherwise it reads the whole body first, then answers at once.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
    before_body: bool,
    delay: Duration,
    gate: Option<Gate>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Complete,
    CutShort,
    Reset,
}

impl Answer {
    /// An empty response with this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            before_body: false,
            delay: Duration::ZERO,
            gate: None,
            ending: Ending::Complete,
        }
    }

    /// No response: the connection (HTTP/1.1) or stream (HTTP/2) ends once the body was read.
    pub fn reset() -> Self {
        Self {
            ending: Ending::Reset,
            ..Self::status(500)
        }
    }

    /// Response headers, some of the body, then the end of the connection or stream.
    pub fn cut_short(status: u16) -> Self {
        Self {
            ending: Ending::CutShort,
            body: Bytes::from_static(b"the first half"),
            ..Self::status(status)
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Answers this much later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Answers when the gate is open; never, if nobody opens it.
    #[must_use]
    pub fn when(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Answers on the head alone, without reading the body.
    #[must_use]
    pub fn before_body(mut self) -> Self {
        self.before_body = true;
        self
    }
}

type Script = dyn Fn(&RecordedHead) -> Answer + Send + Sync;

/// An HTTP/1.1 and HTTP/2 server on a free port of the loopback, on a thread of its own.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    records: Mutex<Vec<Recorded>>,
    changed: Condvar,
    script: Mutex<Arc<Script>>,
    requests: AtomicU64,
    connections: AtomicU64,
    closing: AtomicBool,
}

impl Upstream {
    /// Starts one that answers 200.
    ///
    /// # Errors
    ///
    /// If the system has no port or no thread to give.
    pub fn start() -> Result<Self> {
        let state = Arc::new(State {
            records: Mutex::new(Vec::new()),
            changed: Condvar::new(),
            script: Mutex::new(Arc::new(|_| Answer::status(200).body("received\n"))),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("no port for the upstream")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("upstream".into())
            .spawn(move || {
                runtime.spawn(accept(listener, shared));
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers every request from here on as `script` says, on seeing its head.
    pub fn answer_with(&self, script: impl Fn(&RecordedHead) -> Answer + Send + Sync + 'static) {
        *lock(&self.state.script) = Arc::new(script);
    }

    /// Answers every request from here on alike.
    pub fn answer(&self, answer: Answer) {
        self.answer_with(move |_| answer.clone());
    }

    /// Answers the next requests with these, one each, and all after them with the last.
    pub fn answer_in_turn(&self, answers: impl IntoIterator<Item = Answer>) {
        let answers: Vec<_> = answers.into_iter().collect();
        let turn = AtomicU64::new(0);
        self.answer_with(move |_| {
            let turn = usize::try_from(turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let answer = answers.get(turn).or(answers.last()).cloned();
            answer.unwrap_or_else(|| Answer::status(200))
        });
    }

    /// From here on, closes each new connection as soon as it is accepted, or serves it again.
    pub fn close_connections(&self, close: bool) {
        self.state.closing.store(close, Ordering::Relaxed);
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Heads recorded since the start or the last [`Upstream::clear`].
    pub fn heads(&self) -> usize {
        lock(&self.state.records).len()
    }

    /// The records since the start or the last [`Upstream::clear`], in the order of their heads.
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.state.records).clone()
    }

    /// Forgets all records, and what is still to come of their requests.
    pub fn clear(&self) {
        lock(&self.state.records).clear();
    }

    /// Waits until as many requests as `count` are there with all of their bodies.
    ///
    /// A request is recorded as soon as its head is there: who waits for the head alone, and then breaks
    /// it off or looks at its body, sees the half of it now and then.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_until`].
    pub fn wait_for_requests(&self, count: usize) -> Result<Vec<Recorded>> {
        let is_whole = |record: &Recorded| record.body_state == BodyState::Complete;
        self.wait_until(&format!("{count} whole requests"), |records| {
            records.len() == count && records.iter().all(is_whole)
        })
    }

    /// Waits until the records are as `expected` says, and returns them.
    ///
    /// # Errors
    ///
    /// If they are not so within [`DEADLINE`]; the message names `what` and shows the heads.
    pub fn wait_until(
        &self,
        what: &str,
        mut expected: impl FnMut(&[Recorded]) -> bool,
    ) -> Result<Vec<Recorded>> {
        let records = lock(&self.state.records);
        let waited = self
            .state
            .changed
            .wait_timeout_while(records, DEADLINE, |records| !expected(records));
        let (records, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let seen: Vec<_> = records
                .iter()
                .map(|record| {
                    let head = &record.head;
                    let (body, outcome) = (record.body_state, record.outcome);
                    format!("{} {} ({body:?}, {outcome:?})", head.method, head.path)
                })
                .collect();
            bail!("the upstream waited in vain for {what}; it saw {seen:?}");
        }
        Ok(records.clone())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// An address on the loopback where nothing listens.
///
/// # Errors
///
/// If the system has no port to give.
pub fn unused_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        // An error here is the peer's: it was gone before it was accepted.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let connection = state.connections.fetch_add(1, Ordering::Relaxed);
        if !state.closing.load(Ordering::Relaxed) {
            tokio::spawn(serve(stream, connection, Arc::clone(&state)));
        }
    }
}

async fn serve(stream: TcpStream, connection: u64, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, connection, Arc::clone(&state)));
    // It ends with an error when the peer breaks off, or the answer does: both on purpose.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    connection: u64,
    state: Arc<State>,
) -> Result<hyper::Response<Pieces>, BrokenOff> {
    let (parts, mut body) = request.into_parts();
    let head = Arc::new(RecordedHead {
        number: state.requests.fetch_add(1, Ordering::Relaxed),
        connection,
        at: Instant::now(),
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        host: match (parts.uri.authority(), parts.headers.get("host")) {
            (Some(authority), _) => authority.to_string(),
            (None, host) => host.map(text).unwrap_or_default(),
        },
        http2: parts.version == hyper::Version::HTTP_2,
        headers: pairs(&parts.headers),
    });
    let recording = Recording::start(Arc::clone(&head), Arc::clone(&state));

    let script = Arc::clone(&*lock(&state.script));
    let answer = script(&head);
    if !answer.before_body {
        recording.receive(&mut body).await?;
    }
    tokio::time::sleep(answer.delay).await;
    if let Some(gate) = &answer.gate {
        gate.wait().await;
    }

    let mut response = hyper::Response::new(Pieces::new(
        &match answer.ending {
            Ending::Complete => vec![Piece::Data(answer.body.clone())],
            // The pause sends the headers on their way.
            Ending::CutShort => vec![
                Piece::Data(answer.body.clone()),
                Piece::Pause(Duration::from_millis(5)),
                Piece::Abort,
            ],
            Ending::Reset => return Err(BrokenOff),
        },
        None,
        answer.ending == Ending::Complete,
    ));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).map_err(|_| BrokenOff)?;
    for (name, value) in &answer.headers {
        let name: HeaderName = name.parse().map_err(|_| BrokenOff)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| BrokenOff)?;
        response.headers_mut().append(name, value);
    }
    recording.update(|record| record.outcome = Outcome::Answered);
    Ok(response)
}

/// Keeps the record of one request up to date, to its end.
struct Recording {
    number: u64,
    state: Arc<State>,
}

impl Recording {
    fn start(head: Arc<RecordedHead>, state: Arc<State>) -> Self {
        let number = head.number;
        lock(&state.records).push(Recorded {
            head,
            body: Vec::new(),
            trailers: Vec::new(),
            body_state: BodyState::Receiving,
            outcome: Outcome::Pending,
        });
        state.changed.notify_all();
        Self { number, state }
    }

    fn update(&self, update: impl FnOnce(&mut Recorded)) {
        let mut records = lock(&self.state.records);
        // Not there any more if the records were cleared meanwhile.
        let found = records.binary_search_by_key(&self.number, |record| record.head.number);
        if let Some(record) = found.ok().and_then(|index| records.get_mut(index)) {
            update(record);
        }
        drop(records);
        self.state.changed.notify_all();
    }

    async fn receive(&self, body: &mut Incoming) -> Result<(), BrokenOff> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BrokenOff)?;
            self.update(|record| {
                if let Some(data) = frame.data_ref() {
                    record.body.extend_from_slice(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    record.trailers = pairs(trailers);
                }
            });
        }
        self.update(|record| record.body_state = BodyState::Complete);
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.update(|record| {
            if record.body_state == BodyState::Receiving {
                record.body_state = BodyState::CutShort;
            }
            if record.outcome == Outcome::Pending {
                record.outcome = Outcome::Abandoned;
            }
        });
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    headers.iter().map(pair).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
