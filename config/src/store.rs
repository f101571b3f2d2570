//! The store as it is configured: the process's own, or one that many proxies share.

use super::raw::{RawStore, RawStoreKind};
use super::variable::variable;
use super::{ConfigError, Environment, Path, within};
use callback_guard_core::store::local::{LEAST_CAPACITY, MOST_CAPACITY};
use callback_guard_core::store::redis::{
    LONGEST_TIMEOUT_MILLIS, OnError, Protocol, Remote, Replies,
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
    remote(path, raw, environment).map(|remote| (capacity, Some(remote)))
}

fn remote(path: &Path, raw: RawStore, environment: Environment<'_>) -> Result<Remote, ConfigError> {
    let Some(protocol) = raw.protocol else {
        let problem = "is missing, expected `webdis` or `upstash`";
        return Err(ConfigError::new(&path.field("protocol"), problem));
    };
    let Some(cluster) = raw.cluster.filter(|cluster| !cluster.is_empty()) else {
        let problem = "is missing, expected the name of an Envoy cluster";
        return Err(ConfigError::new(&path.field("cluster"), problem));
    };
    let authority = raw.authority.unwrap_or_else(|| cluster.clone());
    let is_authority_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(is_authority_byte) {
        let problem = "expected a host name, with or without a port";
        return Err(ConfigError::new(&path.field("authority"), problem));
    }
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
    Ok(Remote {
        protocol,
        cluster: cluster.into(),
        authority: authority.into(),
        authorization,
        key_prefix: key_prefix.into(),
        timeout_millis,
        on_error: raw.on_error.unwrap_or(OnError::Memory),
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
    Ok(Remote::authorization(protocol, &token))
}
