//! Opens a connection to Redis: TCP, TLS, password and database, and Sentinels that say where it is.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callback_guard_core::store::redis::{Address, Login, Place, Server, StoreError};
use futures_util::future::{Either, select};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, Value,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The least time that a connection may take to open: more than a call, for TLS takes a few round trips.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
/// Callbacks may be hours apart. Silent connections are dropped by firewalls on the way, or die unnoticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What a connection is opened with.
pub(crate) struct Dial {
    place: Place,
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
    /// Who logs in to the Sentinels.
    sentinel_login: RedisConnectionInfo,
    /// The Sentinel that is asked first: the one that was right last.
    first: AtomicUsize,
    /// For one connection.
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

/// What it means that a call failed.
pub(crate) fn meaning(error: &RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::AuthenticationFailed => StoreError::Denied,
        ErrorKind::Parse => StoreError::Malformed,
        ErrorKind::Server(_) | ErrorKind::Extension => {
            StoreError::of_redis(error.code().unwrap_or_default())
        }
        _ => StoreError::Unreachable,
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
        let sentinel_login = match &server.place {
            Place::At(_) => &Login::default(),
            Place::Sentinels { login, .. } => login,
        };
        let tls = match server.is_tls {
            true => Some(tls()?),
            false => None,
        };
        let addresses = match &server.place {
            Place::At(address) => std::slice::from_ref(address),
            Place::Sentinels { addresses, .. } => addresses,
        };
        if tls.is_some() && !addresses.iter().all(|address| name(address).is_some()) {
            return Err("the host is no name that a certificate can have".to_owned());
        }
        Ok(Self {
            place: server.place.clone(),
            tls,
            login: login(&server.login).set_db(server.database.into()),
            sentinel_login: login(sentinel_login),
            first: AtomicUsize::new(0),
            timeout: call.max(LEAST_TIMEOUT),
        })
    }

    /// Opens one.
    pub(crate) async fn open(&self) -> Result<(MultiplexedConnection, Driver), Failure> {
        match &self.place {
            Place::At(address) => self.within(self.connect(address, &self.login)).await,
            Place::Sentinels {
                addresses, master, ..
            } => self.open_by(addresses, master).await,
        }
    }

    /// Asks the Sentinels in turn, until one of them names a server that takes writes.
    ///
    /// Source: redis.io, "Guidelines for Redis clients with support for Redis Sentinel".
    async fn open_by(
        &self,
        sentinels: &[Address],
        master: &str,
    ) -> Result<(MultiplexedConnection, Driver), Failure> {
        let first = self.first.load(Ordering::Relaxed);
        let all = sentinels.iter().enumerate().cycle();
        let mut last = Failure::new(StoreError::Unreachable, "there is no Sentinel");
        for (number, sentinel) in all.skip(first).take(sentinels.len()) {
            let found = match self.within(self.ask(sentinel, master)).await {
                Ok(address) => self.within(self.connect_master(&address)).await,
                Err(failure) => Err(failure),
            };
            match found {
                Ok(opened) => {
                    self.first.store(number, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn within<T>(
        &self,
        opening: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match timeout(self.timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => {
                let detail = format!("not open after {} ms", self.timeout.as_millis());
                Err(Failure::new(StoreError::Unreachable, detail))
            }
        }
    }

    /// Where a Sentinel says that the server is.
    async fn ask(&self, sentinel: &Address, master: &str) -> Result<Address, Failure> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let (mut connection, mut driver) = self.connect(sentinel, &self.sentinel_login).await?;
        let value = call(&mut connection, &mut driver, &command).await?;
        if let Value::Nil = value {
            let detail = "a Sentinel knows no server by the name in the URL";
            return Err(Failure::new(StoreError::Unreachable, detail));
        }
        let place = redis::from_redis_value::<(String, u16)>(value);
        let (host, port) = place.map_err(|_| {
            let detail = "a Sentinel did not answer with an address";
            Failure::new(StoreError::Malformed, detail)
        })?;
        Ok(Address {
            host: host.into(),
            port,
        })
    }

    /// Connects to the server that a Sentinel has named. It may be one that was, and nobody has told it yet.
    async fn connect_master(
        &self,
        address: &Address,
    ) -> Result<(MultiplexedConnection, Driver), Failure> {
        let (mut connection, mut driver) = self.connect(address, &self.login).await?;
        let role = call(&mut connection, &mut driver, &redis::cmd("ROLE")).await?;
        let is_master = match &role {
            Value::Array(parts) => {
                matches!(parts.first(), Some(Value::BulkString(name)) if name == b"master")
            }
            _ => false,
        };
        if !is_master {
            let detail = "the server that a Sentinel named is no master";
            return Err(Failure::new(StoreError::Unreachable, detail));
        }
        Ok((connection, driver))
    }

    async fn connect(
        &self,
        address: &Address,
        login: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, Driver), Failure> {
        let stream = TcpStream::connect((&*address.host, address.port))
            .await
            .map_err(Failure::io)?;
        stream.set_nodelay(true).map_err(Failure::io)?;
        let keep_alive = TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keep_alive)
            .map_err(Failure::io)?;
        let Some(connector) = &self.tls else {
            return log_in(stream, login).await;
        };
        let name = name(address).ok_or_else(|| {
            let detail = "a Sentinel named a host that no certificate can have";
            Failure::new(StoreError::Malformed, detail)
        })?;
        let stream = connector.connect(name, stream).await.map_err(Failure::io)?;
        log_in(stream, login).await
    }
}

/// Has a command run on a connection that nobody else drives yet.
async fn call(
    connection: &mut MultiplexedConnection,
    driver: &mut Driver,
    command: &Cmd,
) -> Result<Value, Failure> {
    let answer = std::pin::pin!(connection.send_packed_command(command));
    let answer = match select(answer, driver).await {
        Either::Left((answer, _)) => answer,
        // Closed, perhaps behind an answer.
        Either::Right((_, answer)) => answer.await,
    };
    match answer {
        Ok(Value::ServerError(error)) => {
            let kind = StoreError::of_redis(error.code());
            Err(Failure::new(kind, error.code()))
        }
        Ok(value) => Ok(value),
        Err(error) => Err(Failure::new(meaning(&error), &error)),
    }
}

fn login(login: &Login) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        // An access list that allows what the guard sends does not allow that.
        .set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password);
    }
    info
}

async fn log_in(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    login: &RedisConnectionInfo,
) -> Result<(MultiplexedConnection, Driver), Failure> {
    // A call has its time-out from its own task.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
    let (connection, driver) = opened.map_err(|error| Failure::new(meaning(&error), &error))?;
    Ok((connection, Box::pin(driver)))
}

/// What the certificate of a server is looked up by.
fn name(address: &Address) -> Option<ServerName<'static>> {
    ServerName::try_from(String::from(&*address.host)).ok()
}

/// TLS as the system's authorities, or those of `SSL_CERT_FILE`, allow it.
fn tls() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "TLS needs certificate authorities and there are none, expected the system's \
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
    Ok(TlsConnector::from(Arc::new(config)))
}
