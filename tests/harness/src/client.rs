//! An HTTP client that decides which bytes leave when: one piece or split, HTTP/1.1 or HTTP/2,
//! thousands at once, or bytes written by hand.
//!
//! The functions block. What they call is there too: [`Connection`] is asynchronous, and
//! [`block_on`] runs its futures.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::body::Pieces;
pub use crate::body::{Gate, Piece};
use crate::wait::DEADLINE;

/// Between two pieces of a split body: enough for the peer to see the first one alone.
const BETWEEN_PIECES: Duration = Duration::from_millis(3);

/// Runs all clients of the process. An error in making it is reported by each of them.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("client")
        .enable_all()
        .build()
});

/// The protocol a request is sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    Http2,
}

impl Protocol {
    /// Both, for tests that run with each.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];
}

/// A body, and how it travels.
#[derive(Clone, Debug)]
pub struct Body {
    pieces: Vec<Piece>,
    /// With `content-length`; otherwise chunked in HTTP/1.1, and undeclared in HTTP/2.
    declared: bool,
    trailers: Vec<(String, Vec<u8>)>,
}

impl Body {
    /// No body at all: HTTP/2 ends the stream with the headers.
    pub fn empty() -> Self {
        Self::pieces(Vec::new())
    }

    /// All at once, together with the headers, with its length declared.
    pub fn one_piece(bytes: impl Into<Bytes>) -> Self {
        Self::pieces(vec![Piece::Data(bytes.into())])
    }

    /// The headers alone, then each piece alone, with the length of all declared.
    pub fn split<T: Into<Bytes>>(pieces: impl IntoIterator<Item = T>) -> Self {
        Self::pieces(spaced(pieces))
    }

    /// As [`Body::split`], in two halves.
    pub fn halves(bytes: impl Into<Bytes>) -> Self {
        let mut first: Bytes = bytes.into();
        let second = first.split_off(first.len() / 2);
        Self::split([first, second])
    }

    /// As [`Body::split`], with no length declared; no piece makes an empty chunked body.
    pub fn chunked<T: Into<Bytes>>(pieces: impl IntoIterator<Item = T>) -> Self {
        Self {
            declared: false,
            ..Self::pieces(spaced(pieces))
        }
    }

    /// Exactly these pieces, with the length of all declared; of an abort, more than comes.
    pub fn pieces(pieces: Vec<Piece>) -> Self {
        Self {
            pieces,
            declared: true,
            trailers: Vec::new(),
        }
    }

    /// Adds a trailer. No length is declared then: HTTP/1.1 has trailers only when chunked.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self.declared = false;
        self
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::one_piece(bytes)
    }
}

fn spaced<T: Into<Bytes>>(pieces: impl IntoIterator<Item = T>) -> Vec<Piece> {
    let pause = Piece::Pause(BETWEEN_PIECES);
    let pair = |piece: T| [pause.clone(), Piece::Data(piece.into())];
    pieces.into_iter().flat_map(pair).collect()
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `host` header, or `:authority`.
    pub host: String,
    /// Names and values in order; a name may come again.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Body,
    /// The protocol. [`send_all`] goes by its [`Load`] instead.
    pub protocol: Protocol,
    /// When to give up on the response.
    pub deadline: Duration,
}

impl Request {
    /// A request with no header but `host`, and no body.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            host: "callbacks.test".to_owned(),
            headers: Vec::new(),
            body: Body::empty(),
            protocol: Protocol::default(),
            deadline: DEADLINE,
        }
    }

    /// A `GET`.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A `POST`.
    pub fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Adds a header, whether or not there is one of that name.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and `content-type: application/json`.
    #[must_use]
    pub fn json(self, body: impl Into<Body>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    /// Sets the protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets the host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Sets when to give up; the connection is closed then.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn to_hyper(&self, protocol: Protocol) -> Result<hyper::Request<Pieces>> {
        let mut request = hyper::Request::builder().method(self.method.as_str());
        request = match protocol {
            Protocol::Http1 => request.uri(&self.path).header("host", &self.host),
            Protocol::Http2 => request.uri(format!("http://{}{}", self.host, self.path)),
        };
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.as_slice());
        }
        let mut trailers = HeaderMap::new();
        for (name, value) in &self.body.trailers {
            let name: HeaderName = name.parse()?;
            if protocol == Protocol::Http1 {
                request = request.header("trailer", name.as_str()); // Else hyper leaves it out.
            }
            trailers.append(name, HeaderValue::from_bytes(value)?);
        }
        let trailers = (!trailers.is_empty()).then_some(trailers);
        let body = Pieces::new(&self.body.pieces, trailers, self.body.declared);
        request
            .body(body)
            .context("this request cannot be sent by an HTTP library")
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// From the first byte sent to the last received.
    pub took: Duration,
}

impl Response {
    /// The first value of a header; bytes outside of UTF-8 are replaced.
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The body as text; bytes outside of UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// If it is none; the message quotes it.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

/// Runs a future on the clients' runtime. Not to be called from within a future.
///
/// # Errors
///
/// If there is no runtime, because the system refuses threads.
pub fn block_on<F: Future>(future: F) -> Result<F::Output> {
    Ok(runtime()?.block_on(future))
}

fn runtime() -> Result<&'static Runtime> {
    RUNTIME
        .as_ref()
        .map_err(|error| anyhow!("no runtime for clients: {error}"))
}

/// A connection that stays open between requests.
pub struct Connection {
    sender: Sender,
    driver: Arc<Driver>,
}

enum Sender {
    Http1(http1::SendRequest<Pieces>),
    Http2(http2::SendRequest<Pieces>),
}

/// The task that moves the bytes; the connection is closed with it.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If the peer does not accept.
    pub async fn open(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        let (sender, driver) = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http1(sender), driver)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, stream).await?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http2(sender), driver)
            }
        };
        let driver = Arc::new(Driver(driver));
        Ok(Self { sender, driver })
    }

    /// Another user of the same connection; `None` in HTTP/1.1.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                driver: Arc::clone(&self.driver),
            }),
        }
    }

    /// Whether another request can be sent.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and reads the response to its end.
    ///
    /// # Errors
    ///
    /// If there is no complete response before the request's deadline.
    pub async fn send(&mut self, request: &Request) -> Result<Response> {
        let answer = tokio::time::timeout(request.deadline, self.exchange(request));
        answer
            .await
            .map_err(|_| anyhow!("no response within {:?}", request.deadline))?
            .with_context(|| format!("{} {}", request.method, request.path))
    }

    async fn exchange(&mut self, request: &Request) -> Result<Response> {
        let start = Instant::now();
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender
                    .send_request(request.to_hyper(Protocol::Http1)?)
                    .await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender
                    .send_request(request.to_hyper(Protocol::Http2)?)
                    .await?
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the response is cut short")?;
        Ok(Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
            took: start.elapsed(),
        })
    }
}

/// Sends one request over a connection of its own.
///
/// # Errors
///
/// If there is no complete response before the request's deadline.
pub fn send(address: SocketAddr, request: &Request) -> Result<Response> {
    begin(address, request.clone())?.finish()
}

/// Sends one request over a connection of its own, and does not wait.
///
/// # Errors
///
/// If the system refuses threads.
pub fn begin(address: SocketAddr, request: Request) -> Result<InFlight> {
    let task = runtime()?.spawn(async move {
        Connection::open(address, request.protocol)
            .await?
            .send(&request)
            .await
    });
    Ok(InFlight(Some(task)))
}

/// A request on its way. Dropping it closes the connection.
#[derive(Debug)]
#[must_use]
pub struct InFlight(Option<JoinHandle<Result<Response>>>);

impl InFlight {
    /// Waits for the response.
    ///
    /// # Errors
    ///
    /// If there is no complete one before the request's deadline.
    pub fn finish(mut self) -> Result<Response> {
        let task = self.0.take().context("finished already")?;
        block_on(task)?.context("the client failed")?
    }

    /// Whether the response, or an error, is there.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Closes the connection, as a client does that goes away.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// How many requests are under way at once, and over what.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The protocol of every connection.
    pub protocol: Protocol,
    /// Connections, kept open from request to request.
    pub connections: usize,
    /// Requests at once over one connection; HTTP/1.1 always has 1.
    pub streams: usize,
}

impl Load {
    /// HTTP/1.1 over this many connections.
    pub fn http1(connections: usize) -> Self {
        Self {
            protocol: Protocol::Http1,
            connections,
            streams: 1,
        }
    }

    /// HTTP/2 over this many connections, each with that many streams.
    pub fn http2(connections: usize, streams: usize) -> Self {
        Self {
            protocol: Protocol::Http2,
            connections,
            streams,
        }
    }
}

/// Sends all requests and returns the result of each, in the same order.
///
/// # Errors
///
/// If the system refuses threads. A request that fails does so in its own result.
pub fn send_all(
    address: SocketAddr,
    requests: Vec<Request>,
    load: Load,
) -> Result<Vec<Result<Response>>> {
    let count = requests.len();
    let work = Arc::new(Work {
        requests,
        next: AtomicUsize::new(0),
        results: Mutex::new(Vec::with_capacity(count)),
    });
    let mut users = Vec::new();
    for _ in 0..load.connections.max(1) {
        let first = Client::new(address, load.protocol);
        let streams = match load.protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => load.streams.max(1),
        };
        for _ in 0..streams {
            let work = Arc::clone(&work);
            let client = first.share();
            users.push(runtime()?.spawn(async move { work.run(client).await }));
        }
    }
    for user in users {
        block_on(user)?.context("a client failed")?;
    }
    let mut results = work.results.lock().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.drain(..).map(|(_, result)| result).collect())
}

struct Work {
    requests: Vec<Request>,
    next: AtomicUsize,
    results: Mutex<Vec<(usize, Result<Response>)>>,
}

impl Work {
    /// Takes one request after another.
    async fn run(&self, mut client: Client) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.requests.get(index) else {
                return;
            };
            let result = client.send(request).await;
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((index, result));
        }
    }
}

/// Keeps a connection from request to request, and connects when there is none.
pub struct Client {
    address: SocketAddr,
    protocol: Protocol,
    own: Option<Connection>,
    /// Of HTTP/2: the connection of all who share it.
    shared: Arc<tokio::sync::Mutex<Option<Connection>>>,
}

impl Client {
    /// One that is not connected yet.
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            address,
            protocol,
            own: None,
            shared: Arc::default(),
        }
    }

    /// Another one: over the same connection in HTTP/2, over one of its own in HTTP/1.1.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            address: self.address,
            protocol: self.protocol,
            own: None,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Sends a request, by this client's protocol, and reads the response to its end.
    ///
    /// # Errors
    ///
    /// If there is no connection, or no complete response before the request's deadline.
    pub async fn send(&mut self, request: &Request) -> Result<Response> {
        let is_open = self.own.as_ref().is_some_and(Connection::is_open);
        if !is_open {
            self.own = Some(self.connect().await?);
        }
        let connection = self.own.as_mut().context("no connection")?;
        let mut result = connection.send(request).await;
        // The peer closed the connection meanwhile, and the request has not been sent.
        if result.as_ref().is_err_and(was_not_sent) {
            self.own = Some(self.connect().await?);
            let connection = self.own.as_mut().context("no connection")?;
            result = connection.send(request).await;
        }
        let closes = |response: &Response| {
            let connection = response.header("connection");
            connection.is_some_and(|value| value == "close")
        };
        if self.protocol == Protocol::Http1 && !result.as_ref().is_ok_and(|r| !closes(r)) {
            self.own = None;
        }
        result
    }

    /// A connection of one's own in HTTP/1.1, the shared one in HTTP/2, renewed when it is closed.
    async fn connect(&self) -> Result<Connection> {
        if self.protocol == Protocol::Http1 {
            return Connection::open(self.address, self.protocol).await;
        }
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| connection.is_open()) {
            return connection.share().context("not an HTTP/2 connection");
        }
        let connection = Connection::open(self.address, self.protocol).await?;
        let own = connection.share().context("not an HTTP/2 connection")?;
        *shared = Some(connection);
        Ok(own)
    }
}

/// Whether no byte of the request has left, so that it can be sent over another connection.
fn was_not_sent(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let cause = cause.downcast_ref::<hyper::Error>();
        cause.is_some_and(hyper::Error::is_canceled)
    })
}

/// Writes `bytes` as they are and reads one HTTP/1.1 response; `None` if the peer closes instead.
///
/// # Errors
///
/// If the peer does not accept, or answers with something that is no HTTP/1.1.
pub fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Result<Option<Response>> {
    let mut connection = RawConnection::open(address)?;
    connection.write(bytes)?;
    connection.read_response()
}

/// A TCP connection for hand-written HTTP/1.1. Dropping it closes it.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    received: Vec<u8>,
    written: Instant,
}

impl RawConnection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If the peer does not accept.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
            written: Instant::now(),
        })
    }

    /// Writes `bytes` as they are. That the peer has closed meanwhile shows when reading.
    ///
    /// # Errors
    ///
    /// If the peer does not read.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.written = Instant::now();
        match self.stream.write_all(bytes.as_ref()) {
            Err(error) if !is_closed(error.kind()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Says that nothing more will be written, and stays open for reading.
    ///
    /// # Errors
    ///
    /// If the connection is gone.
    pub fn finish_writing(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Reads the next response, passing over interim ones; `None` if the peer closes instead.
    ///
    /// # Errors
    ///
    /// If nothing comes in time, or something that is no HTTP/1.1, or half a response.
    pub fn read_response(&mut self) -> Result<Option<Response>> {
        loop {
            let (status, headers, length) = loop {
                if let Some(head) = parse_head(&self.received)? {
                    break head;
                }
                if !self.read()? {
                    ensure!(self.received.is_empty(), "half a response head");
                    return Ok(None);
                }
            };
            self.received.drain(..length);
            if (100..200).contains(&status) {
                continue;
            }
            let body = self.read_body(status, &headers)?;
            return Ok(Some(Response {
                status,
                headers,
                body: body.into(),
                took: self.written.elapsed(),
            }));
        }
    }

    fn read_body(&mut self, status: u16, headers: &HeaderMap) -> Result<Vec<u8>> {
        if status == 204 || status == 304 {
            return Ok(Vec::new());
        }
        if headers.contains_key("transfer-encoding") {
            return self.read_chunks();
        }
        if let Some(length) = headers.get("content-length") {
            return self.take(length.to_str()?.parse()?);
        }
        while self.read()? {}
        Ok(std::mem::take(&mut self.received))
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let (start, length) = loop {
                match httparse::parse_chunk_size(&self.received) {
                    Ok(httparse::Status::Complete(chunk)) => break chunk,
                    Ok(httparse::Status::Partial) => {
                        ensure!(self.read()?, "the response is cut short");
                    }
                    Err(_) => bail!("malformed chunk in a response"),
                }
            };
            self.received.drain(..start);
            let length = usize::try_from(length)?;
            let chunk = self.take(length + 2)?; // With the line end behind it.
            if length == 0 {
                return Ok(body);
            }
            body.extend(chunk.into_iter().take(length));
        }
    }

    /// Reads the next bytes, whatever they mean.
    ///
    /// # Errors
    ///
    /// If the peer closes before, or nothing comes in time.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.received.len() < length {
            ensure!(self.read()?, "the response is cut short");
        }
        Ok(self.received.drain(..length).collect())
    }

    /// Reads some bytes; false at the end.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(length) => {
                self.received.extend(buffer.iter().take(length));
                Ok(length > 0)
            }
            Err(error) if is_closed(error.kind()) => Ok(false),
            Err(error) => Err(error).context("no response"),
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Status, headers and length of a complete head.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, HeaderMap, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else {
        return Ok(None);
    };
    let mut map = HeaderMap::new();
    for header in response.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        map.append(name, HeaderValue::from_bytes(header.value)?);
    }
    Ok(Some((response.code.context("no status")?, map, length)))
}
