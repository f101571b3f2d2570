//! The HTTP client of `send`: HTTP/1.1, or HTTP/2 in plain text.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client as Inner;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// What is kept of a reply's body, in bytes.
const KEPT: usize = 64 << 10;

/// A client that keeps its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: Inner<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The guard's word for it, where it says one.
    pub(crate) verdict: Option<String>,
    /// The beginning of the body.
    pub(crate) body: String,
}

impl Client {
    /// A client that waits `timeout` for a reply, its body included.
    pub(crate) fn new(http2: bool, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        let inner = Inner::builder(TokioExecutor::new())
            .http2_only(http2)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { inner, timeout }
    }

    /// Posts `body`.
    ///
    /// # Errors
    ///
    /// No reply within the timeout.
    pub(crate) async fn post(
        &self,
        url: &Uri,
        headers: &[(String, String)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::post(url.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).context("the request")?;
        let exchange = async {
            let response = self.inner.request(request).await.map_err(reason)?;
            let (head, body) = response.into_parts();
            let verdict = head
                .headers
                .get("x-callback-guard")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let body = match Limited::new(body, KEPT).collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(error) => format!("[{error}]"),
            };
            Ok(Reply {
                status: head.status.as_u16(),
                verdict,
                body,
            })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("no reply within {} s", self.timeout.as_secs_f64())),
        }
    }
}

/// The innermost cause says what happened; the outer ones only where.
fn reason(error: hyper_util::client::legacy::Error) -> anyhow::Error {
    let connect = error.is_connect();
    let root = anyhow::Error::from(error).root_cause().to_string();
    if connect {
        anyhow!("cannot connect: {root}")
    } else {
        anyhow!("no reply: {root}")
    }
}
