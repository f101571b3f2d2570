//! Redis itself, for hosts that have connections of their own: where it is, and what its replies mean.

use core::fmt;

use super::error::StoreError;
use super::reply::{MAX_REPLY_BYTES, RedisReply};

/// A Redis server, as its URL names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is, or who knows.
    pub place: Place,
    /// Whether connections are by TLS, those to Sentinels as well.
    pub is_tls: bool,
    /// Who logs in to Redis.
    pub login: Login,
    /// The number of the database.
    pub database: u32,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// There.
    At(Address),
    /// Where these Sentinels say.
    Sentinels {
        /// The Sentinels: at least one.
        addresses: Box<[Address]>,
        /// What they call the server, whichever it is at the time.
        master: Box<str>,
        /// Who logs in to them.
        login: Login,
    },
}

/// Where a connection goes to.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address; an IPv6 address without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
}

/// Who logs in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; `None` is the user `default`.
    pub user: Option<Box<str>>,
    /// The password; `None` does not log in.
    pub password: Option<Box<str>>,
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
    /// The reply, as both ways have it.
    ///
    /// Source: redis.io, "Redis serialization protocol specification".
    pub(super) fn read(self) -> Result<RedisReply, StoreError> {
        match self {
            Self::Error(code) => Err(StoreError::of_redis(code)),
            Self::Null => Ok(RedisReply::Null),
            Self::Number(0) => Ok(RedisReply::Flag(false)),
            Self::Number(1) => Ok(RedisReply::Flag(true)),
            Self::Text(text) if text.len() <= MAX_REPLY_BYTES => match core::str::from_utf8(text) {
                Ok(text) => Ok(RedisReply::Text(text.to_owned())),
                Err(_) => Err(StoreError::Malformed),
            },
            Self::Number(_) | Self::Other | Self::Text(_) => Err(StoreError::Malformed),
        }
    }
}

/// The port of Redis where the URL says none.
#[cfg(feature = "native")]
const PORT: u16 = 6379;
/// The port of a Sentinel where the URL says none.
#[cfg(feature = "native")]
const SENTINEL_PORT: u16 = 26379;

#[cfg(feature = "native")]
const SHAPE: &str = "is no URL of Redis, expected redis://user:password@host:6379/0, \
     redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0, or rediss:// and \
     rediss+sentinel:// for TLS; special characters in the password are percent-encoded";

#[cfg(feature = "native")]
impl Server {
    /// Reads `redis://user:password@host:6379/0`, or `rediss://…` for TLS. User, password, port and database
    /// may be left out. What is special in a URL is percent-encoded in them.
    ///
    /// With `redis+sentinel://…` and `rediss+sentinel://…` the hosts, separated by commas, are Sentinels, and the
    /// path begins with what they call the server. `sentinel_username` and `sentinel_password` behind a `?` log in
    /// to them.
    ///
    /// # Errors
    ///
    /// What is expected. The URL itself is in none of them.
    pub fn parse(url: &[u8]) -> Result<Self, &'static str> {
        let text = core::str::from_utf8(url).map_err(|_| SHAPE)?.trim();
        let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
        match &*scheme.to_ascii_lowercase() {
            "redis" => Self::parse_one(text, false),
            "rediss" => Self::parse_one(text, true),
            "redis+sentinel" => Self::parse_sentinels(rest, false),
            "rediss+sentinel" => Self::parse_sentinels(rest, true),
            _ => Err(SHAPE),
        }
    }

    fn parse_one(text: &str, is_tls: bool) -> Result<Self, &'static str> {
        let url = url::Url::parse(text).map_err(|_| SHAPE)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "has a `?` or `#`, of which nothing is understood; in a password \
                 they are written `%3F` and `%23`",
            );
        }
        let host = url.host_str().unwrap_or_default();
        Ok(Self {
            place: Place::At(Address {
                host: host_name(host).ok_or(SHAPE)?,
                port: url.port().unwrap_or(PORT),
            }),
            is_tls,
            login: login(url.username(), url.password().unwrap_or_default())?,
            database: database(url.path().trim_start_matches('/'))?,
        })
    }

    /// The part behind `://`: no URL that the crate `url` reads, as it has several hosts.
    ///
    /// Source: docs.prefect.io, "prefect_redis.connection", and RedisVL.
    fn parse_sentinels(rest: &str, is_tls: bool) -> Result<Self, &'static str> {
        if rest.contains('#') {
            return Err(
                "has a `#`, of which nothing is understood; in a password it is written `%23`",
            );
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (given, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = given.split_once(':').unwrap_or((given, ""));
        let (master, number) = path.split_once('/').unwrap_or((path, ""));
        let master = decoded(master).ok_or(SHAPE)?.ok_or(
            "has no name of a master, expected redis+sentinel://host1:26379,host2:26379/mymaster/0",
        )?;
        let addresses: Option<Box<[Address]>> = hosts.split(',').map(sentinel).collect();
        Ok(Self {
            place: Place::Sentinels {
                addresses: addresses.ok_or(SHAPE)?,
                master,
                login: sentinel_login(query)?,
            },
            is_tls,
            login: login(user, password)?,
            database: database(number)?,
        })
    }
}

/// One of several hosts, with a port or without.
#[cfg(feature = "native")]
fn sentinel(text: &str) -> Option<Address> {
    let (host, port) = match text.rsplit_once(':') {
        // Inside of an IPv6 address.
        Some((_, port)) if port.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains([':', '[', ']']) && !is_bracketed {
        return None;
    }
    let port = match port {
        Some(port) => digits(port)?,
        None => SENTINEL_PORT,
    };
    Some(Address {
        host: host_name(host)?,
        port,
    })
}

/// Name or address of a host, without brackets.
#[cfg(feature = "native")]
fn host_name(host: &str) -> Option<Box<str>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host_byte)).then(|| host.into())
}

#[cfg(feature = "native")]
fn login(user: &str, password: &str) -> Result<Login, &'static str> {
    let user = decoded(user).ok_or(SHAPE)?;
    let password = decoded(password).ok_or(SHAPE)?;
    if user.is_some() && password.is_none() {
        return Err("has a user and no password, expected redis://user:password@host:6379/0");
    }
    Ok(Login { user, password })
}

/// Who logs in to the Sentinels, out of the part behind `?`.
#[cfg(feature = "native")]
fn sentinel_login(query: &str) -> Result<Login, &'static str> {
    const EXPECTED: &str = "has a part behind `?` that is not understood, expected \
         ?sentinel_username=…&sentinel_password=…, each once; special characters in them are percent-encoded, \
         and so is `+`; in a password before the hosts `?` is written `%3F`";
    let mut login = Login::default();
    for part in query.split('&').filter(|_| !query.is_empty()) {
        let (name, value) = part.split_once('=').ok_or(EXPECTED)?;
        let place = match name {
            "sentinel_username" => &mut login.user,
            "sentinel_password" => &mut login.password,
            _ => return Err(EXPECTED),
        };
        // Some read a `+` as a space.
        let value = decoded(value).flatten().filter(|_| !value.contains('+'));
        if value.is_none() || place.is_some() {
            return Err(EXPECTED);
        }
        *place = value;
    }
    if login.user.is_some() && login.password.is_none() {
        return Err(EXPECTED);
    }
    Ok(login)
}

#[cfg(feature = "native")]
fn database(number: &str) -> Result<u32, &'static str> {
    if number.is_empty() {
        return Ok(0);
    }
    digits(number).ok_or("has a path that does not end with the number of a database, such as `/0`")
}

/// A number of digits alone.
#[cfg(feature = "native")]
fn digits<N: core::str::FromStr>(number: &str) -> Option<N> {
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_number)
}

/// A part of a URL, decoded; the inner `None` if it is empty.
#[cfg(feature = "native")]
fn decoded(part: &str) -> Option<Option<Box<str>>> {
    let text = percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .ok()?;
    Some((!text.is_empty()).then(|| text.into()))
}
