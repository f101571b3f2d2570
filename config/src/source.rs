//! A source as it is configured.

use crate::error::{ConfigError, Path, within};
use crate::fields::Fields;
use crate::outside::Outside;
use crate::parameters::Parameters;
use crate::presets::presets;
use crate::raw::payload::{RawPayload, RawRequirement};
use crate::raw::preset::Preset;
use crate::raw::secrets::{RawPublicFormat, RawSecretFormat};
use crate::raw::source::{RawMatch, RawSource};
use crate::secrets::Given;
use crate::signature;
use crate::warnings::{self, Warnings};
use crate::{challenge, dedupe};
use callback_guard_core::json::{Root, Selector};
use callback_guard_core::policy::{
    Dedupe, HostPattern, KeyPart, Mode, PathRule, Requirement, Route, Source, UrlRule, is_host,
};
use callback_guard_core::request::{JSON, is_json, is_media_type_part};
use callback_guard_core::scheme::{IdAt, Part, Proof, Scheme, TimestampPlace, Tolerance};

/// Accepted age of a timestamp, in seconds, where the configuration gives none.
///
/// Kie documents none; 300 s is what the Standard Webhooks libraries use.
const TOLERANCE_SECONDS: u64 = 300;
/// Accepted lead of a timestamp, in seconds, where the configuration gives none.
const FUTURE_TOLERANCE_SECONDS: u64 = 60;
/// Largest body, in bytes, where the configuration gives none.
const MAX_BODY_BYTES: u64 = 1 << 20;

pub(super) fn compile(
    outside: Outside<'_>,
    path: &Path,
    raw: RawSource,
    mode: Mode,
    warnings: &mut Warnings,
) -> Result<Source, ConfigError> {
    check_name(path, &raw.name)?;
    let route = route(&path.field("match"), &raw.route)?;
    let preset = preset(path, raw.preset.as_deref())?;
    let root = raw
        .payload
        .root
        .or(preset.as_ref().and_then(|preset| preset.root))
        .map_or(Root::Object, Root::from);
    let mut fields = Fields {
        root,
        ..Fields::default()
    };
    let mut parameters = Parameters::new(path.field("parameters"), &raw.parameters);
    let (secret_format, public_format) = match &preset {
        Some(preset) => (&preset.secret, &preset.public_key),
        None => (&RawSecretFormat::default(), &RawPublicFormat::default()),
    };
    let given = Given::new(outside, path.clone(), &raw, secret_format, public_format);
    let scheme = scheme(
        path,
        &raw,
        preset.as_ref(),
        &given,
        &route.path,
        &mut parameters,
        &mut fields,
    )?;
    if scheme.timestamp().is_none() {
        check_no_tolerance(path, &raw)?;
    }
    given.warn(warnings)?;
    let signing_keys = given.signing_keys(match &scheme.proof {
        Proof::Signature(rule) => Some(rule.algorithm),
        Proof::Token(_) => None,
    })?;
    let preset = preset.unwrap_or_default();
    let media_types = media_types(path, raw.content_types.as_ref(), &preset)?;
    let (challenge_path, rules) = match &raw.challenge {
        Some(rules) => (path.field("challenge"), rules),
        None => (path.field("preset").field("challenge"), &preset.challenge),
    };
    let context = challenge::Context {
        scheme: &scheme,
        only_containers: challenge::oracle::only_containers(&media_types, root),
    };
    let challenges = challenge::compile(
        &challenge_path,
        rules,
        &context,
        &mut parameters,
        &mut fields,
        warnings,
    )?;
    parameters.check_all_used()?;
    let tolerance = tolerance(path, &raw, &preset)?;
    let max_body_bytes = raw
        .max_body_bytes
        .or(preset.max_body_bytes)
        .unwrap_or(MAX_BODY_BYTES);
    let max_path = path.field("max_body_bytes");
    within(&max_path, max_body_bytes, 1, 16 << 20)?;
    let dedupe = dedupe::compile(
        &path.field("dedupe"),
        &raw.name,
        raw.dedupe,
        &preset,
        &route,
        tolerance,
        &mut fields,
    )?;
    let key_path = path.field("dedupe").field("key");
    warnings::key(&key_path, &dedupe, &scheme.id, warnings);
    let acknowledge_as = raw.acknowledge_as.or(preset.acknowledge_as);
    if let Some(status) = acknowledge_as {
        within(&path.field("acknowledge_as"), u64::from(status), 200, 299)?;
    }
    let payload_path = path.field("payload");
    let RawPayload {
        allowed_url_hosts,
        required,
        root: _,
    } = raw.payload;
    let required = required.as_ref().unwrap_or(&preset.required);
    let required = requirements(&payload_path.field("required"), required, &mut fields)?;
    let urls = match allowed_url_hosts {
        Some(hosts) => Some(url_rule(&payload_path.field("allowed_url_hosts"), &hosts)?),
        None => None,
    };
    if !media_types.iter().all(|kind| is_json(kind.as_bytes())) {
        check_without_json(path, &scheme, &dedupe, &required, urls.is_some())?;
    }
    let mut selector = Selector::new(&fields.pointers, urls.is_some()).with_root(root);
    let signs_body = match &scheme.proof {
        Proof::Signature(rule) => rule.signs_body(),
        Proof::Token(_) => false,
    };
    if !signs_body {
        selector = selector.refusing_other_case();
    }
    Ok(Source {
        index: 0, // numbered once all are there
        mode: raw.mode.unwrap_or(mode),
        route,
        scheme,
        signing_keys,
        tolerance,
        max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
        media_types,
        challenges,
        headers: fields.headers,
        selector,
        pointers: fields.pointers,
        required,
        alone: fields.alone,
        urls,
        dedupe,
        acknowledge_as,
        name: raw.name.into(),
        preset: raw.preset.map(Into::into),
    })
}

fn check_name(path: &Path, name: &str) -> Result<(), ConfigError> {
    let is_name_byte =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if !(1..=32).contains(&name.len()) || !name.bytes().all(is_name_byte) {
        let problem = "expected 1 to 32 characters of a-z, 0-9, `_` and `-`";
        return Err(ConfigError::new(&path.field("name"), problem));
    }
    Ok(())
}

/// What the sender signs and where, as the source itself or its preset says.
fn scheme(
    path: &Path,
    raw: &RawSource,
    preset: Option<&Preset>,
    given: &Given<'_>,
    route: &PathRule,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
) -> Result<Scheme, ConfigError> {
    match (preset, &raw.signature, &raw.token) {
        (None, Some(signature), None) => {
            let path = path.field("signature");
            signature::compile(&path, signature, given, route, parameters, fields)
        }
        (None, None, Some(token)) => {
            let path = path.field("token");
            signature::compile_token(&path, token, None, given, route, fields)
        }
        (Some(preset), None, token) => {
            let preset_path = path.field("preset");
            match (&preset.signature, &preset.token, token) {
                (Some(signature), _, None) => {
                    signature::compile(&preset_path, signature, given, route, parameters, fields)
                }
                (None, Some(usual), token) => signature::compile_token(
                    &token.as_ref().map_or(preset_path, |_| path.field("token")),
                    token.as_ref().unwrap_or(usual),
                    usual.id.as_ref(),
                    given,
                    route,
                    fields,
                ),
                _ => {
                    let problem =
                        "cannot be combined with a signed preset, expected one of the two";
                    Err(ConfigError::new(&path.field("token"), problem))
                }
            }
        }
        (None, None, None) => {
            let problem = "expected `preset`, `signature` or `token`";
            Err(ConfigError::new(path, problem))
        }
        (_, Some(_), _) => {
            let problem = "cannot be combined with `preset` or `token`, expected one of the three";
            Err(ConfigError::new(&path.field("signature"), problem))
        }
    }
}

/// Refuses a tolerance where no time is signed: its author believes that it protects.
fn check_no_tolerance(path: &Path, raw: &RawSource) -> Result<(), ConfigError> {
    for (given, name) in [
        (raw.tolerance_seconds, "tolerance_seconds"),
        (raw.future_tolerance_seconds, "future_tolerance_seconds"),
    ] {
        if given.is_some() {
            return Err(ConfigError::new(
                &path.field(name),
                "does nothing, as the sender signs no time, expected none",
            ));
        }
    }
    Ok(())
}

fn tolerance(path: &Path, raw: &RawSource, preset: &Preset) -> Result<Tolerance, ConfigError> {
    Ok(Tolerance {
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
    })
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
    // Those that begin alike; else some that are known to most.
    let start = name.get(..2).unwrap_or(name);
    names.retain(|known| known.starts_with(start));
    names.truncate(8);
    if names.is_empty() {
        names = ["suno", "stripe", "github", "standard-webhooks"]
            .map(str::to_owned)
            .to_vec();
    }
    let known = format!("one of docs/presets.md, such as `{}`", names.join("`, `"));
    Err(ConfigError::new(
        &path.field("preset"),
        format!("`{name}` is unknown, expected {known}"),
    ))
}

#[inline(never)]
fn seconds(path: &Path, name: &str, given: Option<u64>, default: u64) -> Result<u64, ConfigError> {
    within(&path.field(name), given.unwrap_or(default), 1, 86_400)
}

pub(super) fn is_path(text: &str) -> bool {
    let is_path_byte = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    text.starts_with('/') && text.bytes().all(is_path_byte)
}

/// What is in a path that Envoy has normalized away before the guard sees a request: a source with
/// such a path would never match.
///
/// Source: RFC 3986, 6.2.2; Envoy's `normalize_path` and `merge_slashes`, as `envoy.yaml` has them.
fn not_normalized(text: &str) -> Option<String> {
    let problem = |seen: &str, instead: &str| {
        Some(format!(
            "holds {seen}, which no normalized path has, expected {instead}"
        ))
    };
    if text.contains('\\') {
        return problem("a `\\`", "`/`");
    }
    if text.contains("//") {
        return problem("an empty segment", "one `/` between segments");
    }
    for segment in text.split('/') {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        if matches!(&*plain, "." | "..") {
            let seen = format!("the segment `{segment}`");
            return problem(&seen, "the path without `.` and `..`");
        }
    }
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at.saturating_add(1)..at.saturating_add(3));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte
            && (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        {
            let (digits, character) = (digits.unwrap_or_default(), char::from(byte));
            let seen = format!("`%{digits}`, an escape of `{character}`");
            return problem(&seen, &format!("`{character}`"));
        }
    }
    None
}

fn route(path: &Path, raw: &RawMatch) -> Result<Route, ConfigError> {
    let (field, text, is_exact) = match (&raw.path, &raw.path_prefix) {
        (Some(text), None) => ("path", text, true),
        (None, Some(text)) => ("path_prefix", text, false),
        _ => {
            let problem = "expected `path` or `path_prefix`, one of the two";
            return Err(ConfigError::new(path, problem));
        }
    };
    if !is_path(text) {
        let problem = "expected a path that begins with `/`, without query, fragment and space";
        return Err(ConfigError::new(&path.field(field), problem));
    }
    if let Some(problem) = not_normalized(text) {
        return Err(ConfigError::new(&path.field(field), problem));
    }
    let text = text.as_str().into();
    let host = match &raw.host {
        Some(host) if is_host(host) => Some(host.to_ascii_lowercase().into()),
        Some(_) => {
            let problem = "expected a host name without scheme, port and path";
            return Err(ConfigError::new(&path.field("host"), problem));
        }
        None => None,
    };
    let path = if is_exact {
        PathRule::Exact(text)
    } else {
        PathRule::Prefix(text)
    };
    Ok(Route::new(host, path))
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
            .any(|piece| matches!(piece.part, Part::Pointer { .. })),
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
