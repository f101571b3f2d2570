//! From JSON text to the raw types, with errors in the words of the configuration: what was seen,
//! what is accepted, an example.
//!
//! The types speak of themselves (`expected u64`) and quote what they found, which can be a secret in
//! the wrong place. Here both end.

use serde::de::DeserializeOwned;

use crate::error::{ConfigError, Path};
use crate::locate;
use crate::tree::{Fault, NO_WORD, Node};

/// Reads JSON text into `T`; errors carry the path.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, ConfigError> {
    T::deserialize(&tree(text)?).map_err(|fault| refusal(&fault))
}

fn tree(text: &[u8]) -> Result<Node, ConfigError> {
    serde_json::from_slice(text).map_err(|error| no_json(text, &error))
}

#[cold]
#[inline(never)]
fn refusal(fault: &Fault) -> ConfigError {
    let (path, problem) = in_words(without_values(fault.path()), fault.said());
    ConfigError::new(&path, problem)
}

#[cold]
#[inline(never)]
fn no_json(text: &[u8], error: &serde_json::Error) -> ConfigError {
    let place = locate::Place {
        line: error.line(),
        column: error.column(),
    };
    let path = without_values(locate::path_at(text, place));
    let said = error.to_string();
    // What the path says better.
    let said = said
        .rsplit_once(" at line ")
        .map_or(&*said, |(said, _)| said);
    let said = if error.is_eof() {
        "the text ends too early"
    } else {
        said
    };
    let (line, column) = (place.line, place.column);
    let problem = format!("{said} at line {line}, column {column}, expected JSON");
    ConfigError::new(&path, problem)
}

/// The path up to the first name that may be a secret instead of a field.
fn without_values(path: Path) -> Path {
    const FIELDS: [&str; 7] = [
        "encoding",
        "env",
        "optional",
        "prefix",
        "sds",
        "sds_config",
        "value",
    ];
    let mut shown = String::new();
    let mut is_secret = false;
    for name in path.0.split('.') {
        let field = name.split('[').next().unwrap_or_default();
        if !is_plain(field) || is_secret && !FIELDS.contains(&name) {
            break;
        }
        if !shown.is_empty() {
            shown.push('.');
        }
        shown.push_str(name);
        is_secret |= name.starts_with("secrets[");
    }
    Path(shown)
}

/// What a type says of a value at `path`.
fn in_words(path: Path, said: &str) -> (Path, String) {
    let quoted = said.split('`').nth(1).unwrap_or_default();
    if said.starts_with("missing field ") {
        let path = path.field(quoted);
        let problem = format!("is missing, expected {}", accepted(&path, None));
        return (path, problem);
    }
    if said == NO_WORD {
        let problem = format!("{said}, expected {}", accepted(&path, None));
        return (path, problem);
    }
    if said.starts_with("duplicate field") {
        return (path, "is there twice, expected it once".to_owned());
    }
    let expected = said.split_once(", expected ").map(|(_, expected)| expected);
    if said.starts_with("unknown field ") {
        let problem = match expected {
            Some(names) if path.ends_with(quoted) => {
                format!("unknown field `{quoted}`, expected {names}")
            }
            Some(names) => format!("holds an unknown field, expected {names}"),
            None => "unknown field".to_owned(),
        };
        return (path, problem);
    }
    if said.starts_with("unknown variant ") {
        let seen = match is_plain(quoted) && !holds_secrets(&path) {
            true => format!("`{quoted}` is unknown"),
            false => "is unknown".to_owned(),
        };
        return match expected {
            Some(names) => (path, format!("{seen}, expected {names}")),
            None => (path, seen),
        };
    }
    if let Some(seen) = said.strip_prefix("invalid type: ") {
        let problem = format!(
            "is {}, expected {}",
            seen_as(seen),
            accepted(&path, expected)
        );
        return (path, problem);
    }
    if said.starts_with("invalid value: integer") {
        let problem = format!("is out of range, expected {}", accepted(&path, expected));
        return (path, problem);
    }
    let problem = format!("is not what is expected: {}", accepted(&path, None));
    (path, problem)
}

/// Whether a text can be shown: a word, not a key.
pub(super) fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || b"_-".contains(&byte);
    (1..=24).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether a secret may be at `path`, or below it.
fn holds_secrets(path: &Path) -> bool {
    ["secrets", "parameters", "token_env", "url_env"]
        .iter()
        .any(|name| path.0.contains(name))
}

/// What the parser found, without its value.
fn seen_as(seen: &str) -> &'static str {
    const KINDS: [(&str, &str); 7] = [
        ("string", "a string"),
        ("integer", "a number"),
        ("floating point", "a number with a fraction"),
        ("boolean", "`true` or `false`"),
        ("null", "null"),
        ("map", "an object"),
        ("sequence", "a list"),
    ];
    let kind = KINDS.iter().find(|(start, _)| seen.starts_with(start));
    kind.map_or("something else", |(_, words)| words)
}

/// What is accepted at `path`, with an example; `expected` is what the parser says of it.
fn accepted(path: &Path, expected: Option<&str>) -> String {
    let named = EXAMPLES.iter().filter(|(name, _)| path.ends_with(name));
    let example = named
        .max_by_key(|(name, _)| name.len())
        .map(|(_, example)| *example);
    let kind = match (expected, example) {
        (Some(expected), _) if is_integer(expected) => "a whole number",
        (Some("a boolean"), _) => "`true` or `false`",
        (Some("a sequence"), _) => "a list",
        (Some("a map"), _) => "an object",
        (Some(expected), _) if expected.starts_with("struct") => "an object",
        (Some("a string" | "string or map" | "unit variant"), _) => "a string",
        (_, Some(example)) => match example.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "`true` or `false`",
            _ => "a whole number",
        },
        _ => "another kind of value",
    };
    match example {
        Some(example) => format!("{kind}, such as {example}"),
        None => kind.to_owned(),
    }
}

fn is_integer(expected: &str) -> bool {
    let digits = expected.strip_prefix('u').or(expected.strip_prefix('i'));
    digits.is_some_and(|rest| rest == "size" || rest.parse::<u8>().is_ok())
}

/// A sound value of each field, by the end of its path.
const EXAMPLES: &[(&str, &str)] = &[
    // Of challenges.
    ("content_type", r#""text/plain""#),
    ("equals", r#""subscribe""#),
    ("hmac", r#"{ "query": "crc_token" }"#),
    ("present", "true"),
    (
        "reply",
        r#"{ "status": 200, "content_type": "text/plain", "body": [{ "query": "challenge" }] }"#,
    ),
    ("reply.body", r#"[{ "query": "challenge" }]"#),
    ("reply.body[]", r#"{ "query": "challenge" }"#),
    ("reply.headers", r#"{ "x-name": [{ "header": "x-name" }] }"#),
    ("requires", r#""signature""#),
    ("status", "200"),
    (
        "when",
        r#"{ "method": "GET", "query": "challenge", "present": true }"#,
    ),
    ("when.method", r#""GET""#),
    ("acknowledge_as", "200"),
    ("algorithm", r#""hmac-sha256""#),
    ("allowed_url_hosts", r#"["*.example.com"]"#),
    ("allowed_url_hosts[]", r#""*.example.com""#),
    ("authority", r#""webdis:7379""#),
    ("body", "true"),
    ("capacity", "100000"),
    (
        "challenge",
        r#"[{ "when": { "method": "HEAD" }, "requires": "none", "reply": { "status": 200, "content_type": "text/plain" } }]"#,
    ),
    ("cluster", r#""redis_http""#),
    ("content_types", r#"["application/json"]"#),
    ("content_types[]", r#""application/json""#),
    ("dedupe", r#"{ "window_seconds": 86400 }"#),
    ("dedupe.key", r#"[{ "pointer": "/data/id" }]"#),
    ("dedupe.key[]", r#"{ "pointer": "/data/id" }"#),
    ("encoding", r#""base64""#),
    ("env", r#""SUNO_WEBHOOK_KEY""#),
    ("events", "200"),
    ("events_per_id", "64"),
    ("expose_reason", "true"),
    ("future_tolerance_seconds", "60"),
    ("header", r#""x-webhook-signature""#),
    ("hold_headers", r#""filter""#),
    ("host", r#""hooks.example.com""#),
    ("id", r#"{ "pointers": ["/data/id"] }"#),
    ("in_flight", r#""wait""#),
    (
        "inspector",
        r#"{ "path": "/inspector", "token_env": "INSPECTOR_TOKEN" }"#,
    ),
    ("inspector.path", r#""/inspector""#),
    ("key", r#""v1""#),
    ("key_prefix", r#""callback-guard:""#),
    ("kind", r#""memory""#),
    ("lease_seconds", "30"),
    ("literal", r#"".""#),
    ("log", r#"{ "refusals_per_second": 20 }"#),
    ("match", r#"{ "path": "/callbacks/suno" }"#),
    ("match.path", r#""/callbacks/suno""#),
    ("max_body_bytes", "1048576"),
    ("max_held_bytes", "33554432"),
    (
        "message",
        r#"[{ "id": true }, { "literal": "." }, { "timestamp": true }]"#,
    ),
    ("message[]", r#"{ "literal": "." }"#),
    ("message[].id", "true"),
    ("message[].timestamp", "true"),
    ("mode", r#""enforce""#),
    ("name", r#""suno""#),
    ("numbered", "true"),
    ("on_body_change", r#""acknowledge""#),
    ("on_error", r#""memory""#),
    ("on_unknown", r#""release""#),
    ("optional", "true"),
    ("or_body_digest", "true"),
    ("parameter", r#""notification_url""#),
    (
        "parameters",
        r#"{ "notification_url": "https://hooks.example.com/square" }"#,
    ),
    ("path_prefix", r#""/callbacks""#),
    ("path_segment", "true"),
    ("payload", r#"{ "allowed_url_hosts": ["*.example.com"] }"#),
    ("pointer", r#""/data/id""#),
    ("pointers", r#"["/data/id"]"#),
    ("pointers[]", r#""/data/id""#),
    ("prefix", r#""sha256=""#),
    ("preset", r#""suno""#),
    ("protocol", r#""webdis""#),
    ("public_keys", r#"[{ "env": "SENDER_PUBLIC_KEY" }]"#),
    ("public_keys[]", r#"{ "env": "SENDER_PUBLIC_KEY" }"#),
    ("query", r#""token""#),
    ("refusals_per_second", "20"),
    (
        "required",
        r#"[{ "pointer": "/data/id", "type": "string" }]"#,
    ),
    (
        "required[]",
        r#"{ "pointer": "/data/id", "type": "string" }"#,
    ),
    ("sds", r#""suno_webhook_key""#),
    (
        "sds_config",
        r#"{ "path_config_source": { "path": "/etc/envoy/suno.yaml" } }"#,
    ),
    ("secrets", r#"[{ "env": "SUNO_WEBHOOK_KEY" }]"#),
    ("secrets[]", r#"{ "env": "SUNO_WEBHOOK_KEY" }"#),
    ("separator", r#"",""#),
    (
        "signature",
        r#"{ "message": [{ "body": true }], "value": { "header": "x-signature", "encoding": "hex" } }"#,
    ),
    (
        "signature.value",
        r#"{ "header": "x-signature", "encoding": "hex" }"#,
    ),
    (
        "sources",
        r#"[{ "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "suno", "secrets": [{ "env": "SUNO_WEBHOOK_KEY" }] }]"#,
    ),
    (
        "sources[]",
        r#"{ "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "suno", "secrets": [{ "env": "SUNO_WEBHOOK_KEY" }] }"#,
    ),
    ("store", r#"{ "kind": "memory", "capacity": 100000 }"#),
    ("timeout_milliseconds", "250"),
    ("timestamp", r#"{ "header": "x-webhook-timestamp" }"#),
    ("token", r#"{ "header": "x-token" }"#),
    ("token_env", r#""REDIS_TOKEN""#),
    ("tolerance_seconds", "300"),
    ("type", r#""string""#),
    ("unit", r#""s""#),
    ("unmatched", r#""reject""#),
    ("url_env", r#""REDIS_URL""#),
    ("value", r#""the secret itself, in tests""#),
    ("wait_seconds", "10"),
    ("window_seconds", "86400"),
    (
        "",
        r#"{ "sources": [{ "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "suno", "secrets": [{ "env": "SUNO_WEBHOOK_KEY" }] }] }"#,
    ),
];
