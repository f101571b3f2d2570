//! The source that a preset's name makes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use callback_guard_config as config;
use serde::Serialize;
use serde_json::{Value, json};

/// A placeholder for a secret while the configuration is checked: valid as UTF-8, base64 and hex.
const ASSUMED: &[u8] = b"00000000000000000000000000000000";

/// Which part of the path `match` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// All of it.
    Path,
    /// Whole segments from its beginning. With `unmatched: "pass"` no path below the guarded one
    /// passes then.
    Prefix,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'w> {
    /// The preset's name.
    pub(super) preset: &'w str,
    /// The path of the callback URL.
    pub(super) path: Option<&'w str>,
    /// How it is matched.
    pub(super) matching: Match,
    /// The variable with the secret.
    pub(super) variable: Option<&'w str>,
}

/// A source, in the order in which a person writes it.
#[derive(Debug, Serialize)]
struct Written {
    name: String,
    r#match: Value,
    preset: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Variable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    public_keys: Vec<Variable>,
}

#[derive(Debug, Serialize)]
struct Variable {
    env: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
}

/// The guard's configuration.
#[derive(Debug, Serialize)]
pub(super) struct Configuration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hold_headers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unmatched: Option<&'static str>,
    sources: [Written; 1],
}

/// A configuration of one source, and what the blocks around it need to know.
#[derive(Debug)]
pub(super) struct Source {
    /// The guard's configuration.
    pub(super) configuration: Configuration,
    /// The variables of the environment that it reads, the required one first.
    pub(super) variables: [String; 2],
    /// The largest body that it accepts, in bytes.
    pub(super) max_body_bytes: usize,
    /// The path of its callbacks.
    pub(super) path: String,
}

/// Builds it, and has the filter's own parser check it.
///
/// # Errors
///
/// As the filter would refuse it.
pub(super) fn build(wanted: Wanted<'_>) -> anyhow::Result<Source> {
    let Wanted {
        preset, matching, ..
    } = wanted;
    let path = wanted
        .path
        .map_or_else(|| format!("/callbacks/{preset}"), str::to_owned);
    let variable = wanted
        .variable
        .map_or_else(|| default_variable(preset), str::to_owned);
    let previous = format!("{variable}_PREVIOUS");
    let table = table()?;
    let entry = table.iter().find(|entry| is_named(entry, preset));
    let keys = vec![
        Variable {
            env: variable.clone(),
            optional: false,
        },
        Variable {
            env: previous.clone(),
            optional: true,
        },
    ];
    let (secrets, public_keys) = if entry.is_some_and(has_public_key) {
        (Vec::new(), keys)
    } else {
        (keys, Vec::new())
    };
    let written = Written {
        name: preset.to_owned(),
        r#match: match matching {
            Match::Path => json!({ "path": path }),
            Match::Prefix => json!({ "path_prefix": path }),
        },
        preset: preset.to_owned(),
        parameters: entry
            .map(|entry| parameters(entry, &path))
            .unwrap_or_default(),
        secrets,
        public_keys,
    };
    let configuration = Configuration {
        hold_headers: None,
        unmatched: None,
        sources: [written],
    };
    let given = variable.clone();
    let json = serde_json::to_value(&configuration)?;
    let environment = |name: &str| {
        let key = || crate::check::assumed_key(&json, name).map(|key| key.as_bytes().to_vec());
        (name == given).then(|| key().unwrap_or_else(|| assumed(entry)))
    };
    let policy = config::parse(&serde_json::to_vec(&json)?, &environment)?;
    let max_body_bytes = policy
        .sources
        .first()
        .context("there is no source")?
        .max_body_bytes;
    Ok(Source {
        configuration,
        variables: [variable, previous],
        max_body_bytes,
        path,
    })
}

/// Every preset and its sender, a line each.
///
/// # Errors
///
/// None that a build with a sound table has.
pub(super) fn list() -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in table()? {
        let sender = entry
            .get("sender")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for name in names(&entry) {
            let _ = writeln!(text, "{name:<24} {sender}");
        }
    }
    Ok(text)
}

fn table() -> anyhow::Result<Vec<Value>> {
    serde_json::from_slice(config::PRESETS).context("the table of presets")
}

fn names(entry: &Value) -> impl Iterator<Item = &str> {
    entry
        .get("names")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn is_named(entry: &Value, preset: &str) -> bool {
    names(entry).any(|name| name == preset)
}

fn has_public_key(entry: &Value) -> bool {
    let algorithm = entry
        .pointer("/signature/algorithm")
        .and_then(Value::as_str);
    algorithm.is_some_and(|algorithm| !algorithm.starts_with("hmac"))
}

/// `STRIPE_WEBHOOK_KEY` for `stripe`.
fn default_variable(preset: &str) -> String {
    format!("{}_WEBHOOK_KEY", preset.replace('-', "_").to_uppercase())
}

/// The parameters that an entry of the table asks for, with values to be replaced.
fn parameters(entry: &Value, path: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut values = vec![entry];
    while let Some(value) = values.pop() {
        if let Some(name) = value.get("parameter").and_then(Value::as_str) {
            found.insert(name.to_owned(), example(name, path));
        }
        match value {
            Value::Object(fields) => values.extend(fields.values()),
            Value::Array(items) => values.extend(items),
            _ => {}
        }
    }
    found
}

/// A value for a parameter, to be replaced by the reader's own.
fn example(parameter: &str, path: &str) -> String {
    match parameter {
        "notification_url" => format!("https://hooks.example.com{path}"),
        "public_url" => "https://hooks.example.com".to_owned(),
        _ => format!("replace-this-{}", parameter.replace('_', "-")),
    }
}

/// A value that the preset's secret can have.
fn assumed(entry: Option<&Value>) -> Vec<u8> {
    let prefix = entry
        .and_then(|entry| entry.pointer("/secret/prefix"))
        .and_then(Value::as_str);
    [prefix.unwrap_or_default().as_bytes(), ASSUMED].concat()
}
