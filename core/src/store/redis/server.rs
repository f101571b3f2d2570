//! Redis itself, for hosts that have connections of their own: where it is, and what its replies mean.

use core::fmt;

use super::{MAX_REPLY_BYTES, Said, StoreError};

/// A Redis server, as its URL names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address; an IPv6 address without brackets.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether the connection is by TLS.
    pub is_tls: bool,
    /// The ACL user; `None` is the user `default`.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<str>>,
    /// The number of the database.
    pub database: u32,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it was made of is a secret as a whole.
        f.debug_struct("Server")
            .field("is_tls", &self.is_tls)
            .finish_non_exhaustive()
    }
}

/// One value of Redis' protocol, as far as a script answers with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'r> {
    /// An error, by its code: the first word, such as `NOPERM`.
    Error(&'r str),
    /// Nil.
    Null,
    /// An integer.
    Number(i64),
    /// Of any other type.
    Other,
    /// A string.
    Text(&'r [u8]),
}

impl Reply<'_> {
    /// What Redis said.
    ///
    /// Source: redis.io, "Redis serialization protocol specification".
    pub(super) fn read(self) -> Result<Said, StoreError> {
        match self {
            Self::Error(code) => Err(StoreError::of_redis(code)),
            Self::Null => Ok(Said::Null),
            Self::Number(0) => Ok(Said::Flag(false)),
            Self::Number(1) => Ok(Said::Flag(true)),
            Self::Text(text) if text.len() <= MAX_REPLY_BYTES => match core::str::from_utf8(text) {
                Ok(text) => Ok(Said::Text(text.to_owned())),
                Err(_) => Err(StoreError::Malformed),
            },
            Self::Number(_) | Self::Other | Self::Text(_) => Err(StoreError::Malformed),
        }
    }
}

/// The port where the URL says none.
#[cfg(feature = "native")]
const PORT: u16 = 6379;

#[cfg(feature = "native")]
impl Server {
    /// Reads `redis://user:password@host:6379/0`, or `rediss://…` for TLS. User, password, port and database
    /// may be left out. What is special in a URL is percent-encoded in them.
    ///
    /// # Errors
    ///
    /// What is expected. The URL itself is in none of them.
    pub fn parse(url: &[u8]) -> Result<Self, &'static str> {
        const SHAPE: &str = "is no URL of Redis, expected redis://user:password@host:6379/0, or rediss:// for TLS; \
             special characters in the password are percent-encoded";
        let text = core::str::from_utf8(url).map_err(|_| SHAPE)?;
        let url = url::Url::parse(text).map_err(|_| SHAPE)?;
        let is_tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(SHAPE),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "has a `?` or `#`, of which nothing is understood; in a password \
                 they are written `%3F` and `%23`",
            );
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(SHAPE);
        }
        let user = decoded(url.username()).ok_or(SHAPE)?;
        let password = decoded(url.password().unwrap_or_default()).ok_or(SHAPE)?;
        if user.is_some() && password.is_none() {
            return Err("has a user and no password, expected redis://user:password@host:6379/0");
        }
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or("has a path that is not the number of a database, such as `/0`")?,
        };
        Ok(Self {
            host: host.into(),
            port: url.port().unwrap_or(PORT),
            is_tls,
            user,
            password,
            database,
        })
    }
}

/// A part of a URL, decoded; the inner `None` if it is empty.
#[cfg(feature = "native")]
fn decoded(part: &str) -> Option<Option<Box<str>>> {
    let text = percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .ok()?;
    Some((!text.is_empty()).then(|| text.into()))
}
