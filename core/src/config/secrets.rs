//! The secrets of a source: out of the environment, or out of the configuration itself.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::raw::{RawSecret, RawSecretEncoding, RawSecretFormat};
use super::variable::variable;
use super::{ConfigError, Environment, Path};
use crate::scheme::keys::SigningSecret;

/// The most secrets that a source may have.
const MAX_SECRETS: usize = 8;

pub(super) fn compile(
    environment: Environment<'_>,
    path: &Path,
    raw: &[RawSecret],
    usual: &RawSecretFormat,
) -> Result<Vec<SigningSecret>, ConfigError> {
    if raw.len() > MAX_SECRETS {
        let problem = format!("there are {}, expected at most {MAX_SECRETS}", raw.len());
        return Err(ConfigError::new(path, problem));
    }
    let mut secrets = Vec::with_capacity(raw.len());
    for (index, one) in raw.iter().enumerate() {
        secrets.extend(secret(environment, &path.index(index), one, usual)?);
    }
    if secrets.is_empty() {
        let problem = if raw.is_empty() {
            "there is none, expected at least one"
        } else {
            "none of them is set, expected at least one"
        };
        return Err(ConfigError::new(path, problem));
    }
    Ok(secrets)
}

fn secret(
    environment: Environment<'_>,
    path: &Path,
    raw: &RawSecret,
    usual: &RawSecretFormat,
) -> Result<Option<SigningSecret>, ConfigError> {
    let (path, text) = match (&raw.env, &raw.value) {
        (Some(name), None) => {
            let path = path.field("env");
            match environment(name) {
                Some(text) => (path, text),
                None if raw.optional => return Ok(None),
                None => {
                    let text = variable(&path, name, environment)?;
                    (path, text)
                }
            }
        }
        (None, Some(value)) => (path.field("value"), value.as_bytes().to_vec()),
        _ => {
            return Err(ConfigError::new(
                path,
                "expected `env` or `value`, one of the two",
            ));
        }
    };
    if text.is_empty() {
        return Err(ConfigError::new(&path, "the secret is empty"));
    }
    if text.ends_with(b"\n") || text.ends_with(b"\r") {
        return Err(ConfigError::new(&path, "the secret ends with a line break"));
    }
    // Who says how a secret is written says all of it.
    let (encoding, prefix) = match (raw.encoding, &raw.prefix) {
        (None, None) => (usual.encoding, usual.prefix.as_deref()),
        (encoding, prefix) => (encoding.unwrap_or_default(), prefix.as_deref()),
    };
    // The senders' own libraries take secrets with and without it.
    let prefix = prefix.unwrap_or_default().as_bytes();
    let text = text.strip_prefix(prefix).unwrap_or(&text);
    let key = match encoding {
        RawSecretEncoding::Utf8 => Some(text.to_vec()),
        RawSecretEncoding::Hex => hex::decode(text).ok(),
        RawSecretEncoding::Base64 => KEY_BASE64.decode(text).ok(),
    };
    let Some(key) = key else {
        return Err(ConfigError::new(
            &path,
            format!("the secret is not valid {}", encoding.name()),
        ));
    };
    match SigningSecret::new(&key) {
        Some(secret) => Ok(Some(secret)),
        None => Err(ConfigError::new(&path, "the secret is empty")),
    }
}

/// Keys are given with and without padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
