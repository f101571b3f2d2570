//! The application behind the inbox: one attempt is one POST.

use std::error::Error as _;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::callback;
use crate::delivery::{self, Outcome};
use crate::moment::Moment;
use crate::signing::SigningKey;
use crate::store::{Claimed, Payload};

/// Bytes of a reply that are read so that its connection can be used again; the rest ends it.
const MOST_READ: usize = 64 * 1024;

/// How long a connection is kept unused: less than the 5 s after which Node.js closes it.
const IDLE: Duration = Duration::from_secs(4);

/// The longest error text that is stored.
const LONGEST_ERROR: usize = 300;

/// The base that path and query of a callback are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(String);

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "expected http://HOST[:PORT][/PATH] or https://…, without user, query and fragment"
                .to_owned()
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        if !is_http || !has_host || uri.query().is_some() || text.contains('#') {
            return Err(wrong());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl std::fmt::Display for Base {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How an attempt went.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What follows from it.
    pub outcome: Outcome,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// Sends attempts, over connections that are kept.
#[derive(Clone, Debug)]
pub struct Application {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Base,
    timeout: Duration,
    key: Option<SigningKey>,
}

impl Application {
    /// A client for the application at `base`.
    ///
    /// # Errors
    ///
    /// There is no provider of cryptography for TLS.
    pub fn new(base: Base, timeout: Duration, key: Option<SigningKey>) -> Result<Self> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        http.enforce_http(false);
        // The system's authorities, so that an own one can be added; where there are none, as in a
        // container that holds nothing but this program, those of Mozilla.
        let builder = HttpsConnectorBuilder::new();
        let builder = match builder.with_provider_and_native_roots(provider()) {
            Ok(builder) => builder,
            Err(_) => HttpsConnectorBuilder::new()
                .with_provider_and_webpki_roots(provider())
                .context("TLS cannot be set up")?,
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            client,
            base,
            timeout,
            key,
        })
    }

    /// Makes one attempt.
    pub async fn attempt(&self, claimed: &Claimed, payload: Payload) -> Attempt {
        let request = match self.request(claimed, payload) {
            Ok(request) => request,
            Err(error) => return failed(format!("no request can be made of it: {error}")),
        };
        let answer = tokio::time::timeout(self.timeout, async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| words(&error))?;
            let (head, mut body) = response.into_parts();
            let mut read = 0;
            // The status is the answer; of the body only the end matters, for the connection.
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MOST_READ {
                    break;
                }
            }
            Ok(head)
        });
        match answer.await {
            Err(_) => failed(format!(
                "no answer within {}",
                humantime::format_duration(self.timeout)
            )),
            Ok(Err(error)) => failed(error),
            Ok(Ok(head)) => Attempt {
                outcome: Outcome::Answered {
                    status: head.status.as_u16(),
                    retry_after: head
                        .headers
                        .get(RETRY_AFTER)
                        .and_then(|value| value.to_str().ok())
                        .and_then(|value| delivery::retry_after(value, Moment::wall())),
                },
                error: None,
            },
        }
    }

    fn request(&self, claimed: &Claimed, payload: Payload) -> Result<Request<Full<Bytes>>> {
        // The target comes from a request line: it begins with `/`, or is `*` or absolute.
        let target: Uri = payload.target.parse()?;
        let target = target
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}{target}", self.base.0).parse()?;
        let headers = request.headers_mut();
        for (name, value) in callback::lines(&payload.headers) {
            headers.append(
                HeaderName::from_bytes(name)?,
                HeaderValue::from_bytes(value)?,
            );
        }
        let attempt = claimed.attempts.saturating_add(1);
        headers.insert("x-callback-guard-attempt", HeaderValue::from(attempt));
        if let Some(key) = &self.key {
            let seconds = Moment::wall().0 / 1000;
            let timestamp = seconds.to_string();
            let signature = key.sign(&claimed.key, &timestamp, &payload.body);
            headers.insert("webhook-id", HeaderValue::from_str(&claimed.key)?);
            headers.insert("webhook-timestamp", HeaderValue::from_str(&timestamp)?);
            headers.insert("webhook-signature", HeaderValue::from_str(&signature)?);
        }
        *request.body_mut() = Full::new(payload.body.into());
        Ok(request)
    }
}

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn failed(error: String) -> Attempt {
    let end = error
        .char_indices()
        .nth(LONGEST_ERROR)
        .map_or(error.len(), |(index, _)| index);
    Attempt {
        outcome: Outcome::Failed,
        error: Some(error.get(..end).unwrap_or_default().to_owned()),
    }
}

/// The last cause says what happened: `connection refused`, not `client error (Connect)`.
fn words(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = match inner.to_string() {
            inner if text.starts_with("client error") => inner,
            inner if text.contains(&inner) => text,
            inner => format!("{text}: {inner}"),
        };
        cause = inner.source();
    }
    text
}
