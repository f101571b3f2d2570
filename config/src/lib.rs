//! The configuration: JSON text and environment in, a [`Policy`] or a [`ConfigError`] out.
//!
//! A crate of its own, as it runs once where the core runs for each request: in the filter it is
//! compiled for size, the core for speed.
//!
//! A pure function of its two arguments. That matters: when a plugin refuses its
//! configuration on one worker only, after the main thread has accepted it, Envoy lets every
//! request of that worker pass around the plugin.

#![forbid(unsafe_code)]

mod challenge;
mod config_source;
mod dedupe;
mod error;
mod fields;
mod inspector;
mod locate;
mod message;
mod outside;
mod parameters;
mod presets;
mod raw;
mod reading;
#[cfg(feature = "schema")]
mod schema;
mod secrets;
mod signature;
mod source;
mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tree;
mod variable;
mod warnings;

use std::sync::Arc;

pub use callback_guard_core::policy::Warning;
pub use error::ConfigError;
#[cfg(feature = "native")]
pub use outside::Delivered;
pub use outside::{Build, Environment};
pub use presets::PRESETS;
pub use raw::RawConfig;
pub use raw::source::RawSource;
#[cfg(feature = "schema")]
pub use schema::schema;

use callback_guard_core::policy::{Policy, Source};
use callback_guard_core::scheme::keys::no_verifier;
use error::{Path, within};
use outside::Outside;
use raw::RawLog;
use raw::inspector::RawInspector;
use reading::read;
use warnings::Warnings;

/// The most refusals that a worker may log in a second.
const MOST_REFUSALS_PER_SECOND: u64 = 1000;

/// Reads and validates a configuration of the WebAssembly module.
///
/// # Errors
///
/// The first thing that is wrong: where, what was seen and what is accepted, and never a secret.
///
/// ```
/// let text = br#"{ "sources": [{
///     "name": "suno", "preset": "suno", "match": { "path": "/callbacks/suno" },
///     "secrets": [{ "env": "SUNO_WEBHOOK_KEY" }] }] }"#;
/// let environment = |name: &str| {
///     (name == "SUNO_WEBHOOK_KEY").then(|| b"0123456789abcdef0123456789abcdef".to_vec())
/// };
/// let policy = callback_guard_config::parse(text, &environment)?;
/// assert_eq!(policy.sources.len(), 1);
///
/// let error = callback_guard_config::parse(text, &|_| None).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "sources[0].secrets[0].env: environment variable `SUNO_WEBHOOK_KEY` is not set"
/// );
/// # Ok::<(), callback_guard_config::ConfigError>(())
/// ```
pub fn parse(text: &[u8], environment: Environment<'_>) -> Result<Policy, ConfigError> {
    parse_for(Build::Module, text, environment)
}

/// Reads and validates a configuration of this build. Nothing has been delivered of the secrets that it
/// subscribes to.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn parse_for(
    build: Build,
    text: &[u8],
    environment: Environment<'_>,
) -> Result<Policy, ConfigError> {
    let outside = Outside {
        build,
        environment,
        #[cfg(feature = "native")]
        delivered: &|_| None,
    };
    policy(outside, read::<RawConfig>(text)?)
}

/// Reads and validates a configuration of the native build, with the secrets that Envoy has delivered. One that is
/// refused is named by the path of the error.
///
/// # Errors
///
/// The first thing that is wrong.
#[cfg(feature = "native")]
pub fn parse_delivered(
    text: &[u8],
    environment: Environment<'_>,
    delivered: Delivered<'_>,
) -> Result<Policy, ConfigError> {
    let outside = Outside {
        build: Build::Native,
        environment,
        delivered,
    };
    policy(outside, read::<RawConfig>(text)?)
}

/// How many bytes of bodies a worker holds, where the configuration says nothing.
const MAX_HELD_BYTES: u64 = 32 << 20;
/// The least that may be configured.
const LEAST_HELD_BYTES: u64 = 1 << 20;
/// The most that may be configured.
const MOST_HELD_BYTES: u64 = 1 << 30;

fn policy(outside: Outside<'_>, raw: RawConfig) -> Result<Policy, ConfigError> {
    let Outside {
        build, environment, ..
    } = outside;
    let root = Path::default();
    let (capacity, remote) = store::compile(build, &root.field("store"), raw.store, environment)?;
    let max_held_bytes = raw.max_held_bytes.unwrap_or(MAX_HELD_BYTES);
    let held_path = root.field("max_held_bytes");
    within(
        &held_path,
        max_held_bytes,
        LEAST_HELD_BYTES,
        MOST_HELD_BYTES,
    )?;
    let path = root.field("sources");
    let is_shown = |inspector: &RawInspector| inspector.path.is_some();
    if raw.sources.is_empty() && !raw.inspector.as_ref().is_some_and(is_shown) {
        return Err(ConfigError::new(
            &path,
            "there is none, expected at least one",
        ));
    }
    #[cfg(feature = "native")]
    let subscriptions = secrets::subscriptions(&path, &raw.sources);
    let mut warnings = Warnings::default();
    let mut sources: Vec<Source> = Vec::with_capacity(raw.sources.len());
    for (index, raw_source) in raw.sources.into_iter().enumerate() {
        let path = path.index(index);
        let source = source::compile(outside, &path, raw_source, raw.mode, &mut warnings)?;
        for (other, earlier) in sources.iter().enumerate() {
            if earlier.name == source.name {
                let problem = format!("`{}` is the name of sources[{other}] too", source.name);
                return Err(ConfigError::new(&path.field("name"), problem));
            }
            if earlier.route == source.route {
                let problem = format!("equals the match of sources[{other}]");
                return Err(ConfigError::new(&path.field("match"), problem));
            }
        }
        if u64::try_from(source.max_body_bytes).is_ok_and(|most| most > max_held_bytes) {
            let problem = format!(
                "{} is more than `max_held_bytes` ({max_held_bytes}): such a body could never be held",
                source.max_body_bytes
            );
            return Err(ConfigError::new(&path.field("max_body_bytes"), problem));
        }
        sources.push(source);
    }
    if let Some(oracle) = challenge::oracle::between(&sources) {
        let problem = format!(
            "has a challenge (the {}. of its list) that would sign what sources[{}] accepts as a \
             callback, as both have the same secret; expected a secret for each",
            oracle.rule.saturating_add(1),
            oracle.accepts
        );
        return Err(ConfigError::new(&path.index(oracle.source), problem));
    }
    let inspector = match &raw.inspector {
        Some(inspector) => Some(inspector::compile(
            &root.field("inspector"),
            inspector,
            &sources,
            environment,
        )?),
        None => None,
    };
    for (index, source) in sources.iter_mut().enumerate() {
        source.index = index;
        if let Some(urls) = &mut source.urls {
            urls.pointer = format!("/sources/{index}/payload/allowed_url_hosts").into();
        }
    }
    warnings::unmatched(
        &root.field("unmatched"),
        raw.unmatched,
        &sources,
        &mut warnings,
    );
    let RawLog {
        refusals_per_second,
    } = raw.log;
    let refusals_path = root.field("log").field("refusals_per_second");
    within(
        &refusals_path,
        refusals_per_second.into(),
        0,
        MOST_REFUSALS_PER_SECOND,
    )?;
    Ok(Policy {
        unmatched: raw.unmatched,
        expose_reason: raw.expose_reason,
        hold_headers: raw.hold_headers,
        capacity,
        max_held_bytes: usize::try_from(max_held_bytes).unwrap_or(usize::MAX),
        remote: remote.map(Arc::new),
        inspector,
        host_verify: no_verifier,
        refusals_per_second,
        sources: sources.into_iter().map(Arc::new).collect(),
        #[cfg(feature = "native")]
        subscriptions,
        warnings: warnings.list,
    })
}
