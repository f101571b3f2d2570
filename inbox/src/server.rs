//! Takes callbacks: stores each durably, then answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::backlog::Backlog;
use crate::callback::{Callback, MAX_BODY_BYTES};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::refusal::Refusal;
use crate::store::{Accepted, NewEvent, Store, Writer};
use crate::token::BearerToken;

/// The header with the outcome of a request.
const ANSWER: HeaderName = HeaderName::from_static("x-callback-guard-inbox");

/// The most bytes of bodies that are received at once.
const MOST_HELD: u64 = 256 * 1024 * 1024;

/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What requests share.
#[derive(Debug)]
pub struct Intake {
    /// What Envoy must send.
    pub token: Option<BearerToken>,
    /// Headers that are not stored.
    pub drop_headers: Vec<HeaderName>,
    /// What waits, and how much may.
    pub backlog: Arc<Backlog>,
    /// For what is known already.
    pub store: Store,
    /// For what is new.
    pub writer: Writer,
    /// Woken by each new event.
    pub wake: Arc<Notify>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// True once the inbox is being stopped.
    pub stop: watch::Receiver<bool>,
    /// Bytes of bodies that are held now.
    pub held: AtomicU64,
}

impl Intake {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.take(request).await {
            Ok(accepted) => {
                let (word, body) = match accepted {
                    Accepted::New => ("accepted", r#"{"status":"accepted"}"#),
                    Accepted::Known => ("known", r#"{"status":"known"}"#),
                };
                let mut response = Response::new(Full::from(body));
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(ANSWER, HeaderValue::from_static(word));
                response
            }
            Err(refusal) => {
                self.metrics.refused(refusal);
                refuse(refusal)
            }
        }
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Accepted, Refusal> {
        let (head, body) = request.into_parts();
        if let Some(token) = &self.token
            && !token.is_in(&head.headers)
        {
            return Err(Refusal::Unauthorized);
        }
        if *self.stop.borrow() {
            return Err(Refusal::Stopping);
        }
        if head.method != Method::POST {
            return Err(Refusal::MethodNotAllowed);
        }
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let callback = Callback::parse(target, &head.headers, &self.drop_headers)?;
        let read = tokio::time::timeout(BODY_TIMEOUT, self.read(body)).await;
        let held = read.map_err(|_| Refusal::BodyUnfinished)??;
        let event = NewEvent {
            key: callback.key,
            source: callback.source,
            id: callback.id,
            target: callback.target,
            headers: callback.headers,
            body: held.bytes.clone(),
            received_at: Moment::wall(),
        };
        let (source, bytes) = (event.source.clone(), event.bytes());
        let unavailable = |error: anyhow::Error| {
            tracing::error!(%error, "an event was not stored");
            Refusal::StoreUnavailable
        };
        let Some(place) = self.backlog.reserve(bytes) else {
            // What is stored already needs no room.
            return match self.store.knows(&event.key).await.map_err(unavailable)? {
                true => {
                    self.metrics.known(&source);
                    Ok(Accepted::Known)
                }
                false => Err(Refusal::Full),
            };
        };
        let began = Instant::now();
        let accepted = self.writer.accept(event).await.map_err(unavailable)?;
        self.metrics
            .store_seconds
            .observe(began.elapsed().as_secs_f64());
        match accepted {
            Accepted::New => {
                place.keep();
                self.metrics.accepted(&source);
                self.wake.notify_one();
            }
            Accepted::Known => self.metrics.known(&source),
        }
        Ok(accepted)
    }

    async fn read(&self, mut body: Incoming) -> Result<Held<'_>, Refusal> {
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > MAX_BODY_BYTES {
            return Err(Refusal::BodyTooLarge);
        }
        let mut held = Held {
            intake: self,
            count: 0,
            bytes: Bytes::new(),
        };
        held.grow(declared)?;
        let mut bytes = BytesMut::with_capacity(declared);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::BodyUnfinished)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let length = bytes.len() + data.len();
            if length > MAX_BODY_BYTES {
                return Err(Refusal::BodyTooLarge);
            }
            held.grow(length)?;
            bytes.extend_from_slice(data);
        }
        held.bytes = bytes.freeze();
        Ok(held)
    }
}

/// A body, counted among those that are held as long as it lives.
struct Held<'a> {
    intake: &'a Intake,
    count: u64,
    bytes: Bytes,
}

impl Held<'_> {
    fn grow(&mut self, length: usize) -> Result<(), Refusal> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let more = length.saturating_sub(self.count);
        self.count += more;
        let held = self.intake.held.fetch_add(more, Ordering::Relaxed);
        if held.saturating_add(more) > MOST_HELD {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.intake.held.fetch_sub(self.count, Ordering::Relaxed);
    }
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let status = refusal.status();
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": refusal.code(),
    });
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(ANSWER, HeaderValue::from_static(refusal.code()));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// Serves until the inbox is stopped; then answers what has begun, for `grace` at most.
pub async fn serve(listener: TcpListener, intake: Arc<Intake>, grace: Duration) {
    let graceful = GracefulShutdown::new();
    let mut stop = intake.stop.clone();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, most likely: the next may find one free.
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let _ = stream.set_nodelay(true);
        let intake = Arc::clone(&intake);
        let service = service_fn(move |request| {
            let intake = Arc::clone(&intake);
            async move { Ok::<_, Infallible>(intake.answer(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away is no fault.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
}
