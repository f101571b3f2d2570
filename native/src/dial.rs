//! Opens a connection to Redis: TCP, TLS, password and database.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use callback_guard_core::store::redis::{Server, StoreError};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::link::Open;

/// The least time that a connection may take to open: more than a call, for TLS takes a few round trips.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
/// Callbacks may be hours apart. Silent connections are dropped by firewalls on the way, or die unnoticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What a connection is opened with.
pub(crate) struct Dial {
    host: Box<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    login: RedisConnectionInfo,
    timeout: Duration,
}

/// Why a connection could not be opened: in the core's word for it, and in words for the log. Nothing of the
/// server's URL.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: StoreError,
    detail: String,
}

impl Failure {
    pub(crate) fn new(error: StoreError, detail: impl fmt::Display) -> Self {
        // Words of the server's own: they must not look like lines of the log.
        let detail = detail.to_string().escape_debug().take(200).collect();
        Self { error, detail }
    }

    fn io(error: io::Error) -> Self {
        Self::new(StoreError::Unreachable, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error.as_str(), self.detail)
    }
}

/// Runs the connection as long as it is polled, and ends with it.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Dial {
    /// For a server whose calls may take `call`.
    ///
    /// # Errors
    ///
    /// What is missing, with nothing of the server's URL.
    pub(crate) fn new(server: &Server, call: Duration) -> Result<Self, String> {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_db(server.database.into())
            // An access list that allows what the guard sends does not allow that.
            .set_skip_set_lib_name();
        if let Some(user) = &server.user {
            login = login.set_username(user);
        }
        if let Some(password) = &server.password {
            login = login.set_password(password);
        }
        Ok(Self {
            host: server.host.clone(),
            port: server.port,
            tls: match server.is_tls {
                true => Some(tls(&server.host)?),
                false => None,
            },
            login,
            timeout: call.max(LEAST_TIMEOUT),
        })
    }

    /// Opens one.
    pub(crate) async fn open(&self) -> Result<(MultiplexedConnection, Driver), Failure> {
        match timeout(self.timeout, self.try_open()).await {
            Ok(opened) => opened,
            Err(_) => {
                let detail = format!("not open after {} ms", self.timeout.as_millis());
                Err(Failure::new(StoreError::Unreachable, detail))
            }
        }
    }

    async fn try_open(&self) -> Result<(MultiplexedConnection, Driver), Failure> {
        let address = (&*self.host, self.port);
        let stream = TcpStream::connect(address).await.map_err(Failure::io)?;
        stream.set_nodelay(true).map_err(Failure::io)?;
        let keep_alive = TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keep_alive)
            .map_err(Failure::io)?;
        match &self.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.log_in(stream.map_err(Failure::io)?).await
            }
            None => self.log_in(stream).await,
        }
    }

    async fn log_in(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(MultiplexedConnection, Driver), Failure> {
        // A call has its time-out from its own task.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) =
            opened.map_err(|error| Failure::new(Open::error(&error), &error))?;
        Ok((connection, Box::pin(driver)))
    }
}

/// TLS as the system's authorities, or those of `SSL_CERT_FILE`, allow it.
fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| "the host is no name that a certificate can have".to_owned())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "rediss:// needs certificate authorities and there are none, expected the system's \
                    (package ca-certificates), or a PEM file that SSL_CERT_FILE names"
                .to_owned(),
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), name))
}
