//! The HTTP client of `send`: HTTP/1.1 or HTTP/2, in plain text or under TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Inner;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// What is kept of a reply's body, in bytes.
const KEPT: usize = 64 << 10;

/// A client that keeps its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: Inner<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// Whose certificates a client accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'t> {
    /// Those of the authorities in this PEM file.
    File(&'t Path),
    /// Those of this machine's authorities.
    Machine,
    /// Nobody's: for URLs that begin with `http`.
    Nobody,
}

impl Trust<'_> {
    fn config(self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = match self {
            Self::File(file) => config.with_root_certificates(read_authorities(file)?),
            Self::Machine => config.with_native_roots().context(
                "no certificate authorities on this machine: install ca-certificates, or name a \
                 PEM file with --ca",
            )?,
            Self::Nobody => config.with_root_certificates(RootCertStore::empty()),
        };
        Ok(config.with_no_client_auth())
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The guard's word for it, where it says one.
    pub(crate) verdict: Option<String>,
    /// Names and values, but those that are no text.
    pub(crate) headers: Vec<(String, String)>,
    /// The beginning of the body.
    pub(crate) body: String,
}

impl Client {
    /// A client that waits `timeout` for a reply, its body included.
    ///
    /// # Errors
    ///
    /// The certificate authorities cannot be read.
    pub(crate) fn new(http2: bool, timeout: Duration, trust: Trust<'_>) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(trust.config()?)
            .https_or_http();
        let https = if http2 {
            https.enable_http2().wrap_connector(connector)
        } else {
            https.enable_http1().wrap_connector(connector)
        };
        let inner = Inner::builder(TokioExecutor::new())
            .http2_only(http2)
            .pool_timer(TokioTimer::new())
            .build(https);
        Ok(Self { inner, timeout })
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
        self.send(Method::POST, url, headers, body).await
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// No reply within the timeout.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &[(String, String)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method).uri(url.clone());
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
            let headers = head.headers.iter().filter_map(|(name, value)| {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            });
            Ok(Reply {
                status: head.status.as_u16(),
                verdict,
                headers: headers.collect(),
                body,
            })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("no reply within {} s", self.timeout.as_secs_f64())),
        }
    }
}

fn read_authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("{}: cannot be read", file.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("{}: is not PEM", file.display()))?;
        roots
            .add(certificate)
            .with_context(|| format!("{}: holds no certificate authority", file.display()))?;
    }
    ensure!(
        !roots.is_empty(),
        "{}: holds no certificate; expected PEM blocks `-----BEGIN CERTIFICATE-----`",
        file.display()
    );
    Ok(roots)
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
