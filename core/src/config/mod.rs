//! The configuration: JSON text and environment in, a [`Policy`] or a [`ConfigError`] out.
//!
//! A pure function of its two arguments. That is a matter of safety: when a plugin refuses its
//! configuration on one worker only, after the main thread has accepted it, Envoy lets every
//! request of that worker pass around the plugin.

mod locate;
mod raw;
#[cfg(feature = "schema")]
mod schema;
mod signature;
mod store;

use core::fmt;
use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use raw::{RawConfig, RawSource};
#[cfg(feature = "schema")]
pub use schema::schema;

use crate::event::KeyBuilder;
use crate::inspector::{Inspector, LEAST_EVENTS, MOST_EVENTS, Place, Token};
use crate::json::{Pointer, Selector};
use crate::payload::{HostPattern, Requirement, UrlRule, is_host};
use crate::policy::{
    CapturedHeader, Dedupe, HeaderRole, InFlight, KeyPart, Mode, PathRule, Policy, Route, Source,
};
use crate::request::{JSON, is_json, is_media_type_part};
use crate::scheme::keys::SigningSecret;
use crate::scheme::{IdAt, Part, Proof, Scheme, TimestampPlace, Tolerance};
use raw::{
    Preset, RawDedupe, RawInspector, RawKeyPart, RawMatch, RawPayload, RawRequirement, RawSecret,
    RawSecretEncoding, RawSecretFormat,
};
use signature::Parameters;

/// Accepted age of a timestamp, in seconds, where the configuration gives none.
///
/// Kie documents none; 300 s is what the Standard Webhooks libraries use.
const TOLERANCE_SECONDS: u64 = 300;
/// Accepted lead of a timestamp, in seconds, where the configuration gives none.
const FUTURE_TOLERANCE_SECONDS: u64 = 60;
/// Largest body, in bytes, where the configuration gives none.
const MAX_BODY_BYTES: u64 = 1 << 20;
/// How long a delivered event is remembered, in seconds, where the configuration gives none.
const WINDOW_SECONDS: u64 = 86_400;
/// The longest window that may be configured, in seconds: a year.
const LONGEST_WINDOW_SECONDS: u64 = 31_536_000;
/// How long a claim lives, in seconds, where the configuration gives none: twice the 15 s after
/// which Kie gives up on an answer.
const LEASE_SECONDS: u64 = 30;
/// The longest wait, in seconds, where the configuration gives none: within Kie's 15 s.
const WAIT_SECONDS: u64 = 10;
/// The shortest token of the inspector, in bytes: nobody guesses 16 random ones.
const LEAST_TOKEN: usize = 16;
/// The longest token of the inspector, in bytes.
const MOST_TOKEN: usize = 256;
/// The most secrets that a source may have.
const MAX_SECRETS: usize = 8;

/// What is wrong with a configuration: where, what was seen, what is accepted. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
}

impl ConfigError {
    /// Out of line, as all that follows an error: there are many places that can fail, and each
    /// copy would be carried into every VM.
    #[cold]
    #[inline(never)]
    fn new<'p>(path: &Path, problem: impl Into<Cow<'p, str>>) -> Self {
        Self::of(path, problem.into())
    }

    #[cold]
    #[inline(never)]
    fn of(path: &Path, problem: Cow<'_, str>) -> Self {
        Self {
            path: path.0.clone(),
            problem: problem.into_owned(),
        }
    }

    /// The path of the bad field, as in `sources[0].secrets[1].env`; empty for the whole text.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

impl core::error::Error for ConfigError {}

/// The path of a field.
#[derive(Clone, Debug, Default)]
struct Path(String);

impl Path {
    #[inline(never)]
    fn field(&self, name: &str) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        Self(path)
    }

    #[inline(never)]
    fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

/// Looks up a variable of the environment that the proxy lets the filter see.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<Vec<u8>>;

/// Reads and validates a configuration.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn parse(text: &[u8], environment: Environment<'_>) -> Result<Policy, ConfigError> {
    let raw = read::<RawConfig>(text)?;
    Validator { environment }.policy(raw)
}

/// Reads JSON text into `T`; errors carry the path.
fn read<'t, T: serde::Deserialize<'t>>(text: &'t [u8]) -> Result<T, ConfigError> {
    serde_json::from_slice(text).map_err(|error| {
        let place = locate::Place {
            line: error.line(),
            column: error.column(),
        };
        let path = Path(locate::path_at(text, place));
        let text = error.to_string();
        // What the path says better.
        let text = text
            .rsplit_once(" at line ")
            .map_or(&*text, |(text, _)| text);
        let text = without_values(&path, text);
        match error.classify() {
            serde_json::error::Category::Data => ConfigError::new(&path, text),
            _ => ConfigError::new(
                &path,
                format!("{text} at line {}, column {}", place.line, place.column),
            ),
        }
    })
}

/// Serde's own text quotes what it found. What stands where a secret belongs may be one.
fn without_values(path: &Path, text: &str) -> String {
    for kind in ["invalid type", "invalid value", "invalid length"] {
        if text.starts_with(kind)
            && let Some((_, expected)) = text.rsplit_once(", expected ")
        {
            return format!("{kind}, expected {expected}");
        }
    }
    if path.0.contains("secrets") && text.starts_with("unknown variant") {
        let expected = text
            .rsplit_once(", expected ")
            .map_or("another", |(_, expected)| expected);
        return format!("unknown variant, expected {expected}");
    }
    text.to_owned()
}

struct Validator<'e> {
    environment: Environment<'e>,
}

impl Validator<'_> {
    fn policy(&self, raw: RawConfig) -> Result<Policy, ConfigError> {
        let root = Path::default();
        let (capacity, remote) = store::compile(&root.field("store"), raw.store, self.environment)?;
        let path = root.field("sources");
        let is_shown = |inspector: &RawInspector| inspector.path.is_some();
        if raw.sources.is_empty() && !raw.inspector.as_ref().is_some_and(is_shown) {
            return Err(ConfigError::new(
                &path,
                "there is none, expected at least one",
            ));
        }
        let mut sources: Vec<Source> = Vec::with_capacity(raw.sources.len());
        for (index, raw_source) in raw.sources.into_iter().enumerate() {
            let path = path.index(index);
            let source = self.source(&path, raw_source, raw.mode)?;
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
            sources.push(source);
        }
        let inspector = match &raw.inspector {
            Some(inspector) => {
                Some(self.inspector(&root.field("inspector"), inspector, &sources)?)
            }
            None => None,
        };
        for (index, source) in sources.iter_mut().enumerate() {
            if let Some(urls) = &mut source.urls {
                urls.pointer = format!("/sources/{index}/payload/allowed_url_hosts").into();
            }
        }
        Ok(Policy {
            unmatched: raw.unmatched,
            expose_reason: raw.expose_reason,
            hold_headers: raw.hold_headers,
            capacity,
            remote,
            inspector,
            sources,
        })
    }

    #[cold]
    #[inline(never)]
    fn inspector(
        &self,
        path: &Path,
        raw: &RawInspector,
        sources: &[Source],
    ) -> Result<Inspector, ConfigError> {
        let events = within(
            &path.field("events"),
            raw.events,
            LEAST_EVENTS.into(),
            MOST_EVENTS.into(),
        )?;
        let place = match (&raw.path, &raw.token_env) {
            (None, None) => None,
            (Some(text), Some(variable)) => {
                Some(self.inspector_place(path, text, variable, sources)?)
            }
            (Some(_), None) => {
                let problem = "is missing, expected the name of the environment variable that \
                               holds the token";
                return Err(ConfigError::new(&path.field("token_env"), problem));
            }
            (None, Some(_)) => {
                let problem = "stands without `path`, expected both or none";
                return Err(ConfigError::new(&path.field("token_env"), problem));
            }
        };
        Ok(Inspector {
            events: u32::try_from(events).unwrap_or(MOST_EVENTS),
            place,
            records: !sources.is_empty(),
        })
    }

    #[cold]
    #[inline(never)]
    fn inspector_place(
        &self,
        path: &Path,
        text: &str,
        variable: &str,
        sources: &[Source],
    ) -> Result<Place, ConfigError> {
        let token_path = path.field("token_env");
        let path = path.field("path");
        if !is_path(text) || text.ends_with('/') {
            let problem = "expected a path that begins with `/` and does not end with it, without \
                           query, fragment and space";
            return Err(ConfigError::new(&path, problem));
        }
        let Some(token) = (self.environment)(variable) else {
            let problem = format!("environment variable `{variable}` is not set");
            return Err(ConfigError::new(&token_path, problem));
        };
        let is_token = |byte: &u8| byte.is_ascii_graphic();
        let length = token.len();
        if !(LEAST_TOKEN..=MOST_TOKEN).contains(&length) || !token.iter().all(is_token) {
            let problem = format!(
                "the token has {length} bytes, expected {LEAST_TOKEN} to {MOST_TOKEN} visible \
                 ASCII characters, no space"
            );
            return Err(ConfigError::new(&token_path, problem));
        }
        let Some(token) = Token::new(&token) else {
            return Err(ConfigError::new(&token_path, "the token is empty"));
        };
        let place = Place::new(text, token);
        for taken in place.paths() {
            let collides = |source: &Source| source.route.path.matches(taken.as_bytes());
            if let Some(index) = sources.iter().position(collides) {
                let problem = format!("`{taken}` is a path of sources[{index}] too");
                return Err(ConfigError::new(&path, problem));
            }
        }
        Ok(place)
    }

    fn source(&self, path: &Path, raw: RawSource, mode: Mode) -> Result<Source, ConfigError> {
        let name_path = path.field("name");
        let is_name_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if !(1..=32).contains(&raw.name.len()) || !raw.name.bytes().all(is_name_byte) {
            let problem = "expected 1 to 32 characters of a-z, 0-9, `_` and `-`";
            return Err(ConfigError::new(&name_path, problem));
        }
        let route = route(&path.field("match"), raw.route)?;
        let preset = preset(path, raw.preset.as_deref())?;
        let mut fields = Fields::default();
        let mut parameters = Parameters::new(path.field("parameters"), &raw.parameters);
        let scheme = match (&preset, &raw.signature, &raw.token) {
            (None, Some(signature), None) => {
                let path = path.field("signature");
                signature::compile(&path, signature, &mut parameters, &mut fields)?
            }
            (None, None, Some(token)) => {
                let path = path.field("token");
                signature::compile_token(&path, token, None, &route.path, &mut fields)?
            }
            (Some(preset), None, token) => {
                let preset_path = path.field("preset");
                match (&preset.signature, &preset.token, token) {
                    (Some(signature), _, None) => {
                        signature::compile(&preset_path, signature, &mut parameters, &mut fields)?
                    }
                    (None, Some(usual), token) => signature::compile_token(
                        &token.as_ref().map_or(preset_path, |_| path.field("token")),
                        token.as_ref().unwrap_or(usual),
                        usual.id.as_ref(),
                        &route.path,
                        &mut fields,
                    )?,
                    _ => {
                        let problem =
                            "stands beside a preset that is signed, expected one of the two";
                        return Err(ConfigError::new(&path.field("token"), problem));
                    }
                }
            }
            (None, None, None) => {
                let problem = "expected `preset`, `signature` or `token`";
                return Err(ConfigError::new(path, problem));
            }
            (_, Some(_), _) => {
                let problem = "stands beside `preset` or `token`, expected one of the three";
                return Err(ConfigError::new(&path.field("signature"), problem));
            }
        };
        parameters.check_all_used()?;
        let preset = preset.unwrap_or_default();
        let tolerance = Tolerance {
            past: seconds(
                path,
                "tolerance_seconds",
                raw.tolerance_seconds.or(preset.tolerance_seconds),
                TOLERANCE_SECONDS,
            )?,
            future: seconds(
                path,
                "future_tolerance_seconds",
                raw.future_tolerance_seconds
                    .or(preset.future_tolerance_seconds),
                FUTURE_TOLERANCE_SECONDS,
            )?,
        };
        let max_body_bytes = raw.max_body_bytes.unwrap_or(MAX_BODY_BYTES);
        let max_path = path.field("max_body_bytes");
        within(&max_path, max_body_bytes, 1, 16 << 20)?;
        let dedupe = dedupe(
            &path.field("dedupe"),
            &raw.name,
            raw.dedupe,
            &preset,
            tolerance,
            &mut fields,
        )?;
        let acknowledge_as = raw.acknowledge_as.or(preset.acknowledge_as);
        if let Some(status) = acknowledge_as {
            within(&path.field("acknowledge_as"), u64::from(status), 200, 299)?;
        }
        let payload_path = path.field("payload");
        let RawPayload {
            allowed_url_hosts,
            required,
        } = raw.payload;
        let required = required.as_ref().unwrap_or(&preset.required);
        let required = requirements(&payload_path.field("required"), required, &mut fields)?;
        let media_types = media_types(path, raw.content_types.as_ref(), &preset)?;
        let urls = match allowed_url_hosts {
            Some(hosts) => Some(url_rule(&payload_path.field("allowed_url_hosts"), &hosts)?),
            None => None,
        };
        if !media_types.iter().all(|kind| is_json(kind.as_bytes())) {
            check_without_json(path, &scheme, &dedupe, &required, urls.is_some())?;
        }
        Ok(Source {
            mode: raw.mode.unwrap_or(mode),
            route,
            scheme,
            secrets: self.secrets(&path.field("secrets"), &raw.secrets, &preset.secret)?,
            tolerance,
            max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
            media_types,
            headers: fields.headers,
            selector: Selector::new(&fields.pointers, urls.is_some()),
            pointers: fields.pointers,
            required,
            urls,
            dedupe,
            acknowledge_as,
            name: raw.name.into(),
        })
    }

    fn secrets(
        &self,
        path: &Path,
        raw: &[RawSecret],
        usual: &RawSecretFormat,
    ) -> Result<Vec<SigningSecret>, ConfigError> {
        if raw.len() > MAX_SECRETS {
            let problem = format!("there are {}, expected at most {MAX_SECRETS}", raw.len());
            return Err(ConfigError::new(path, problem));
        }
        let mut secrets = Vec::with_capacity(raw.len());
        for (index, secret) in raw.iter().enumerate() {
            secrets.extend(self.secret(&path.index(index), secret, usual)?);
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
        &self,
        path: &Path,
        raw: &RawSecret,
        usual: &RawSecretFormat,
    ) -> Result<Option<SigningSecret>, ConfigError> {
        let (path, text) = match (&raw.env, &raw.value) {
            (Some(name), None) => {
                let path = path.field("env");
                match (self.environment)(name) {
                    Some(text) => (path, text),
                    None if raw.optional => return Ok(None),
                    None => {
                        let problem = format!("environment variable `{name}` is not set");
                        return Err(ConfigError::new(&path, problem));
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
}

/// Keys are given with and without padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The pointers and headers that a source needs, each once, by slot.
#[derive(Default)]
struct Fields {
    pointers: Vec<Pointer>,
    headers: Vec<CapturedHeader>,
}

impl Fields {
    fn pointer(&mut self, path: &Path, text: &str) -> Result<usize, ConfigError> {
        let pointer =
            Pointer::parse(text).map_err(|error| ConfigError::new(path, error.to_string()))?;
        if let Some(slot) = self.pointers.iter().position(|known| *known == pointer) {
            return Ok(slot);
        }
        self.pointers.push(pointer);
        Ok(self.pointers.len() - 1)
    }

    fn header(&mut self, path: &Path, name: &str, role: HeaderRole) -> Result<usize, ConfigError> {
        let name = header_name(path, name)?;
        let known = self
            .headers
            .iter_mut()
            .enumerate()
            .find(|(_, header)| header.name == name);
        if let Some((index, header)) = known {
            // What more than the dedupe key needs must not be missing.
            if header.role == HeaderRole::Key {
                header.role = role;
            }
            return Ok(index);
        }
        self.headers.push(CapturedHeader { name, role });
        Ok(self.headers.len() - 1)
    }
}

/// A header's name, in lower case.
///
/// Source: RFC 9110, 5.6.2 (token).
fn header_name(path: &Path, name: &str) -> Result<Box<str>, ConfigError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(ConfigError::new(path, "expected the name of a header"));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn preset(path: &Path, name: Option<&str>) -> Result<Option<Preset>, ConfigError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let presets = presets()?;
    let mut names = Vec::new();
    for preset in presets {
        if preset.names.iter().any(|known| known == name) {
            return Ok(Some(preset));
        }
        names.extend(preset.names);
    }
    let known = format!("`{}`", names.join("`, `"));
    Err(ConfigError::new(
        &path.field("preset"),
        format!("`{name}` is unknown, expected {known}"),
    ))
}

/// The table of presets, as JSON: for programs that list them or fill in their parameters.
pub const PRESETS: &[u8] = include_bytes!("presets.json");

/// The table of presets.
fn presets() -> Result<Vec<Preset>, ConfigError> {
    read(PRESETS)
}

#[inline(never)]
fn within(path: &Path, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::new(
        path,
        format!("{value} is out of range, expected {least} to {most}"),
    ))
}

#[inline(never)]
fn seconds(path: &Path, name: &str, given: Option<u64>, default: u64) -> Result<u64, ConfigError> {
    within(&path.field(name), given.unwrap_or(default), 1, 86_400)
}

fn is_path(text: &str) -> bool {
    let is_path_byte = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    text.starts_with('/') && text.bytes().all(is_path_byte)
}

fn route(path: &Path, raw: RawMatch) -> Result<Route, ConfigError> {
    let (field, text, is_exact) = match (raw.path, raw.path_prefix) {
        (Some(text), None) => ("path", text, true),
        (None, Some(text)) => ("path_prefix", text, false),
        _ => {
            let problem = "expected `path` or `path_prefix`, one of the two";
            return Err(ConfigError::new(path, problem));
        }
    };
    if !is_path(&text) {
        let problem = "expected a path that begins with `/`, without query, fragment and space";
        return Err(ConfigError::new(&path.field(field), problem));
    }
    let text = text.into_boxed_str();
    let host = match raw.host {
        Some(host) if is_host(&host) => Some(host.to_ascii_lowercase().into()),
        Some(_) => {
            let problem = "expected a host name without scheme, port and path";
            return Err(ConfigError::new(&path.field("host"), problem));
        }
        None => None,
    };
    Ok(Route {
        host,
        path: if is_exact {
            PathRule::Exact(text)
        } else {
            PathRule::Prefix(text)
        },
    })
}

fn requirements(
    path: &Path,
    raw: &[RawRequirement],
    fields: &mut Fields,
) -> Result<Vec<Requirement>, ConfigError> {
    let mut required = Vec::with_capacity(raw.len());
    for (index, requirement) in raw.iter().enumerate() {
        required.push(Requirement {
            slot: fields.pointer(&path.index(index).field("pointer"), &requirement.pointer)?,
            pointer: requirement.pointer.as_str().into(),
            kind: requirement.kind,
            optional: requirement.optional,
        });
    }
    Ok(required)
}

fn url_rule(path: &Path, hosts: &[String]) -> Result<UrlRule, ConfigError> {
    let mut patterns = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let pattern = HostPattern::parse(host)
            .map_err(|expected| ConfigError::new(&path.index(index), expected))?;
        patterns.push(pattern);
    }
    Ok(UrlRule {
        hosts: patterns,
        pointer: "".into(),
    })
}

/// The media types that a source accepts, in lower case.
fn media_types(
    path: &Path,
    given: Option<&Vec<String>>,
    preset: &Preset,
) -> Result<Vec<Box<str>>, ConfigError> {
    let path = path.field("content_types");
    let types = match given {
        Some(types) if types.is_empty() => {
            let problem = "is empty, expected at least one media type";
            return Err(ConfigError::new(&path, problem));
        }
        Some(types) => types,
        None if preset.content_types.is_empty() => return Ok(vec![JSON.into()]),
        None => &preset.content_types,
    };
    let mut accepted = Vec::with_capacity(types.len());
    for (index, text) in types.iter().enumerate() {
        let is_part = |part: &str| is_media_type_part(part.as_bytes());
        match text.split_once('/') {
            Some((kind, subtype)) if is_part(kind) && is_part(subtype) => {
                accepted.push(text.to_ascii_lowercase().into());
            }
            _ => {
                let problem =
                    "expected a media type such as `application/json`, without parameters";
                return Err(ConfigError::new(&path.index(index), problem));
            }
        }
    }
    Ok(accepted)
}

/// Refuses rules that read JSON where bodies may come that are none: they would be passed by.
fn check_without_json(
    path: &Path,
    scheme: &Scheme,
    dedupe: &Dedupe,
    required: &[Requirement],
    checks_urls: bool,
) -> Result<(), ConfigError> {
    let in_message = match &scheme.proof {
        Proof::Signature(rule) => rule
            .message
            .iter()
            .any(|piece| matches!(piece.part, Part::Pointer(_))),
        Proof::Token(_) => false,
    };
    let id = matches!(
        scheme.id,
        IdAt::Pointers {
            or_body_digest: false,
            ..
        }
    );
    let timestamp = scheme
        .timestamp()
        .is_some_and(|at| matches!(at.place, TimestampPlace::Pointer(_)));
    let key = dedupe
        .key
        .iter()
        .any(|part| matches!(part, KeyPart::Pointer(_)));
    for (reads, what) in [
        (in_message, "`message`"),
        (id, "`id`"),
        (timestamp, "`timestamp`"),
        (key, "`dedupe.key`"),
        (!required.is_empty(), "`payload.required`"),
        (checks_urls, "`payload.allowed_url_hosts`"),
    ] {
        if reads {
            return Err(ConfigError::new(
                &path.field("content_types"),
                format!("holds a type that is not JSON, in which {what} finds nothing"),
            ));
        }
    }
    Ok(())
}

fn dedupe(
    path: &Path,
    source: &str,
    raw: RawDedupe,
    preset: &Preset,
    tolerance: Tolerance,
    fields: &mut Fields,
) -> Result<Dedupe, ConfigError> {
    let window_seconds = raw.window_seconds.unwrap_or(WINDOW_SECONDS);
    let window_path = path.field("window_seconds");
    within(&window_path, window_seconds, 1, LONGEST_WINDOW_SECONDS)?;
    let fresh = tolerance.past.saturating_add(tolerance.future);
    if window_seconds <= fresh {
        let problem = format!(
            "{window_seconds} is too short, expected more than tolerance_seconds and \
             future_tolerance_seconds together ({fresh}), or a replay outlives its record"
        );
        return Err(ConfigError::new(&window_path, problem));
    }
    let lease_seconds = raw.lease_seconds.unwrap_or(LEASE_SECONDS);
    within(&path.field("lease_seconds"), lease_seconds, 1, 600)?;
    let wait_seconds = raw.wait_seconds.unwrap_or(WAIT_SECONDS);
    within(&path.field("wait_seconds"), wait_seconds, 1, 60)?;
    let key = match &raw.key {
        Some(parts) => key_parts(&path.field("key"), parts, fields)?,
        None => {
            let mut key = vec![KeyPart::Id];
            key.extend(key_parts(&path.field("key"), &preset.key, fields)?);
            key
        }
    };
    if key.is_empty() {
        return Err(ConfigError::new(
            &path.field("key"),
            "is empty, expected at least one part",
        ));
    }
    Ok(Dedupe {
        key_of_source: KeyBuilder::new(source),
        key,
        window_seconds,
        lease_seconds,
        in_flight: match raw.in_flight {
            raw::RawInFlight::Reject => InFlight::Reject,
            raw::RawInFlight::Wait => InFlight::Wait {
                seconds: wait_seconds,
            },
        },
        on_unknown: raw.on_unknown,
        on_body_change: raw.on_body_change,
    })
}

fn key_parts(
    path: &Path,
    raw: &[RawKeyPart],
    fields: &mut Fields,
) -> Result<Vec<KeyPart>, ConfigError> {
    let mut parts = Vec::with_capacity(raw.len());
    for (index, part) in raw.iter().enumerate() {
        let path = path.index(index);
        parts.push(match (&part.pointer, &part.header) {
            (Some(pointer), None) => {
                KeyPart::Pointer(fields.pointer(&path.field("pointer"), pointer)?)
            }
            (None, Some(header)) => {
                KeyPart::Header(fields.header(&path.field("header"), header, HeaderRole::Key)?)
            }
            _ => {
                let problem = "expected `pointer` or `header`, one of the two";
                return Err(ConfigError::new(&path, problem));
            }
        });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_presets_can_be_read() {
        assert!(!super::presets().unwrap().is_empty());
    }
}
