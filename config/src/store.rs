//! The store as it is configured: the process's own, or one that many proxies share.

use crate::error::{ConfigError, Path, within};
use crate::outside::{Build, Environment};
use crate::raw::store::{RawStore, RawStoreKind};
use crate::variable::variable;
use callback_guard_core::store::local::{LEAST_CAPACITY, MOST_CAPACITY};
use callback_guard_core::store::redis::{
    Access, Front, LONGEST_TIMEOUT_MILLIS, OnError, Protocol, Remote, Replies,
};

/// Default capacity of the local store, in events.
const CAPACITY: u32 = 100_000;
/// Default prefix of the keys in Redis.
const KEY_PREFIX: &str = "callback-guard:";
/// The longest prefix of the keys, in bytes.
const MAX_KEY_PREFIX: usize = 64;
/// Default reply timeout, in milliseconds.
const TIMEOUT_MILLIS: u64 = 250;

/// The capacity of the local store, and the shared store, if there is one.
pub(super) fn compile(
    build: Build,
    path: &Path,
    raw: RawStore,
    environment: Environment<'_>,
) -> Result<(u32, Option<Remote>), ConfigError> {
    let capacity = raw.capacity.unwrap_or(CAPACITY);
    within(
        &path.field("capacity"),
        capacity.into(),
        LEAST_CAPACITY.into(),
        MOST_CAPACITY.into(),
    )?;
    if raw.kind == RawStoreKind::Memory {
        let given = [
            ("url_env", raw.url_env.is_some()),
            ("protocol", raw.protocol.is_some()),
            ("cluster", raw.cluster.is_some()),
            ("authority", raw.authority.is_some()),
            ("token_env", raw.token_env.is_some()),
            ("key_prefix", raw.key_prefix.is_some()),
            ("timeout_milliseconds", raw.timeout_milliseconds.is_some()),
            ("on_error", raw.on_error.is_some()),
        ];
        return match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((field, _)) => Err(ConfigError::new(
                &path.field(field),
                "cannot be combined with `kind` `memory`, expected `kind` `redis`",
            )),
            None => Ok((capacity, None)),
        };
    }
    remote(build, path, raw, environment).map(|remote| (capacity, Some(remote)))
}

fn remote(
    build: Build,
    path: &Path,
    raw: RawStore,
    environment: Environment<'_>,
) -> Result<Remote, ConfigError> {
    let access = match &raw.url_env {
        Some(name) => server(build, path, &raw, name, environment)?,
        None => Access::Front(front(path, &raw, environment)?),
    };
    let key_prefix = raw.key_prefix.unwrap_or_else(|| KEY_PREFIX.to_owned());
    if key_prefix.len() > MAX_KEY_PREFIX || !key_prefix.bytes().all(|byte| byte.is_ascii_graphic())
    {
        let problem = format!("expected at most {MAX_KEY_PREFIX} visible ASCII characters");
        return Err(ConfigError::new(&path.field("key_prefix"), problem));
    }
    let timeout_millis = within(
        &path.field("timeout_milliseconds"),
        raw.timeout_milliseconds.unwrap_or(TIMEOUT_MILLIS),
        1,
        LONGEST_TIMEOUT_MILLIS,
    )?;
    Ok(Remote {
        access,
        key_prefix: key_prefix.into(),
        timeout_millis,
        on_error: raw.on_error.unwrap_or(OnError::Memory),
    })
}

/// Redis by a connection of the filter's own.
#[cfg_attr(
    not(feature = "native"),
    expect(unused_variables, reason = "what is refused is not looked up")
)]
fn server(
    build: Build,
    path: &Path,
    raw: &RawStore,
    name: &str,
    environment: Environment<'_>,
) -> Result<Access, ConfigError> {
    let url_path = path.field("url_env");
    let of_fronts = [
        ("protocol", raw.protocol.is_some()),
        ("cluster", raw.cluster.is_some()),
        ("authority", raw.authority.is_some()),
        ("token_env", raw.token_env.is_some()),
    ];
    if let Some((field, _)) = of_fronts.into_iter().find(|(_, is_given)| *is_given) {
        return Err(ConfigError::new(
            &path.field(field),
            "cannot be combined with `url_env`, expected one of the two: an HTTP front, or a connection",
        ));
    }
    match build {
        Build::Module => Err(ConfigError::new(
            &url_path,
            "needs the native build, libcallback_guard.so: a WebAssembly filter has no connections of its \
             own. Expected an HTTP front of Redis on an Envoy cluster, such as `\"protocol\": \"webdis\", \
             \"cluster\": \"redis_http\"`",
        )),
        #[cfg(feature = "native")]
        Build::Native => {
            let url = variable(&url_path, name, environment)?;
            match callback_guard_core::store::redis::Server::parse(&url) {
                Ok(server) => Ok(Access::Server(server)),
                Err(problem) => Err(ConfigError::new(
                    &url_path,
                    format!("the value of `{name}` (not shown) {problem}"),
                )),
            }
        }
    }
}

/// An HTTP front of Redis.
fn front(path: &Path, raw: &RawStore, environment: Environment<'_>) -> Result<Front, ConfigError> {
    let Some(protocol) = raw.protocol else {
        let problem = "is missing, expected `webdis` or `upstash`";
        return Err(ConfigError::new(&path.field("protocol"), problem));
    };
    let Some(cluster) = raw.cluster.as_ref().filter(|cluster| !cluster.is_empty()) else {
        let problem = "is missing, expected the name of an Envoy cluster";
        return Err(ConfigError::new(&path.field("cluster"), problem));
    };
    let authority = raw.authority.as_ref().unwrap_or(cluster);
    let is_authority_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(is_authority_byte) {
        let problem = "expected a host name, with or without a port";
        return Err(ConfigError::new(&path.field("authority"), problem));
    }
    let authorization = match (&raw.token_env, protocol) {
        (Some(name), _) => Some(token(
            &path.field("token_env"),
            name,
            protocol,
            environment,
        )?),
        (None, Protocol::Webdis) => None,
        (None, Protocol::Upstash) => {
            let problem = "is missing, expected the name of an environment variable";
            return Err(ConfigError::new(&path.field("token_env"), problem));
        }
    };
    Ok(Front {
        protocol,
        cluster: cluster.as_str().into(),
        authority: authority.as_str().into(),
        authorization,
        replies: Replies::of(protocol),
    })
}

/// The `authorization` header out of the environment.
fn token(
    path: &Path,
    name: &str,
    protocol: Protocol,
    environment: Environment<'_>,
) -> Result<Box<str>, ConfigError> {
    let token = variable(path, name, environment)?;
    let is_visible = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let Some(token) = String::from_utf8(token).ok().filter(|_| is_visible) else {
        return Err(ConfigError::new(
            path,
            "the token is empty or holds a space or a character that is not ASCII",
        ));
    };
    if protocol == Protocol::Webdis && !token.contains(':') {
        return Err(ConfigError::new(
            path,
            "the token of `webdis` has no `:`, expected user:password",
        ));
    }
    Ok(Front::authorization(protocol, &token))
}
