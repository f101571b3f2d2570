//! The options that say whose callbacks are meant: a preset and a secret, or a source of a
//! configuration.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use callback_guard_config as config;
use callback_guard_core::policy::{Policy, Source};
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::scheme::{Part, Proof};
use clap::Args;
use serde_json::{Value, json};

use crate::envoy;

/// Whose callbacks.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The sender's scheme, as in `sources[].preset`
    #[arg(long, default_value = "suno", conflicts_with = "config")]
    pub(crate) preset: String,
    /// Take the source from this configuration instead: JSON, or an Envoy YAML that holds one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which source of the configuration; may be left out if it has only one
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) source: Option<String>,
    /// A parameter of the preset, as `notification_url=https://…`; may be given several times
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "config", value_parser = parse_parameter)]
    pub(crate) parameter: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) secret: SecretArgs,
}

/// Where the secret is. Never on the command line itself: there every user of the machine can read
/// it in the list of processes, and the shell keeps it in its history.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// The environment variable with the secret. (A secret is never an argument: arguments are
    /// seen by every user of the machine, and kept in the shell's history.) [default:
    /// SUNO_WEBHOOK_KEY, or with --config the source's own first secret]
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    pub(crate) secret_env: Option<String>,
    /// A file with the secret; one line break at its end is not part of it
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// How the secret is written [default: the preset's own, or utf8]
    #[arg(long, value_name = "ENCODING", value_parser = ["utf8", "base64", "hex"])]
    pub(crate) secret_encoding: Option<String>,
}

/// The variable that is read where no other is named.
const DEFAULT_VARIABLE: &str = "SUNO_WEBHOOK_KEY";

/// What the secret is called in the configuration that is made here.
const GIVEN: &str = "the given secret";

impl SourceArgs {
    /// A policy with the one source that is meant.
    ///
    /// # Errors
    ///
    /// The configuration or the secret cannot be read, or is refused.
    ///
    /// `url` is where the callback goes, where that is known: some senders sign it.
    pub(crate) fn policy(&self, url: Option<&str>) -> anyhow::Result<Policy> {
        self.policy_of(self.raw(url, false)?)
    }

    /// The one source that is meant, as a configuration has it; `asks` is whether its challenges are of
    /// interest, which may need parameters.
    ///
    /// # Errors
    ///
    /// The configuration cannot be read.
    pub(crate) fn raw(&self, url: Option<&str>, asks: bool) -> anyhow::Result<Value> {
        let Some(file) = &self.config else {
            let mut source = json!({
                "name": "source",
                "match": match signs_url(&self.preset) {
                    true => json!({ "path": path_of(url.unwrap_or("/")) }),
                    false => json!({ "path_prefix": "/" }),
                },
                "preset": self.preset,
                "parameters": parameters(&self.parameter),
            });
            // Where nobody asks, nobody needs a verify token.
            if let (false, Some(source)) = (asks, source.as_object_mut()) {
                source.insert("challenge".to_owned(), json!([]));
            }
            return Ok(source);
        };
        pick(&envoy::only_configuration(file)?, self.source.as_deref())
    }

    /// The policy of the source that [`SourceArgs::raw`] has given, with the secret.
    ///
    /// # Errors
    ///
    /// As for [`SourceArgs::policy`].
    pub(crate) fn policy_of(&self, mut source: Value) -> anyhow::Result<Policy> {
        let given = match &self.config {
            None => Some(self.secret.read_or_default()?),
            Some(_) => self.secret.read()?,
        };
        let algorithm = algorithm(&source);
        let private = match &given {
            Some(text) if algorithm.is_asymmetric() => {
                Some(SigningKey::private(algorithm, text).context(self.secret.label())?)
            }
            _ => None,
        };
        if let (Some(private), Some(source)) = (&private, source.as_object_mut()) {
            let keys = json!([{ "value": private.public_spki(), "encoding": "spki" }]);
            source.insert("public_keys".to_owned(), keys);
        } else if given.is_some() {
            let mut secret = json!({ "env": GIVEN });
            set(
                &mut secret,
                "encoding",
                self.secret.secret_encoding.as_deref(),
            );
            if let Some(source) = source.as_object_mut() {
                source.insert("secrets".to_owned(), json!([secret]));
            }
        }
        let text = json!({ "sources": [source] }).to_string();
        let environment = |name: &str| match &given {
            Some(secret) if name == GIVEN => Some(secret.clone()),
            _ => std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes),
        };
        let mut policy = config::parse(text.as_bytes(), &environment).map_err(|error| {
            let error = error.to_string();
            match (&self.config, error.strip_prefix("sources[0].")) {
                (None, Some(rest)) => anyhow!("{rest}"),
                _ => anyhow!("{error}"),
            }
        })?;
        if let Some(source) = policy.sources.first_mut().and_then(Arc::get_mut) {
            source.signing_keys.extend(private);
        }
        Ok(policy)
    }

    /// Whether the preset's bodies are arrays.
    pub(crate) fn sends_arrays(&self) -> bool {
        let entry = entry(&self.preset).unwrap_or_default();
        self.config.is_none() && entry.get("root").and_then(Value::as_str) == Some("array")
    }
}

/// The entry of the table of presets with this name.
pub(crate) fn entry(name: &str) -> Option<Value> {
    let table: Vec<Value> = serde_json::from_slice(config::PRESETS).ok()?;
    table.into_iter().find(|entry| {
        let names = entry.get("names").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    })
}

/// Whether the message of a preset holds the URL.
pub(crate) fn signs_url(preset: &str) -> bool {
    let entry = entry(preset);
    let parts = entry
        .as_ref()
        .and_then(|entry| entry.pointer("/signature/message")?.as_array());
    parts.is_some_and(|parts| parts.iter().any(|part| part.get("target").is_some()))
}

/// Whether the sender of a preset signs with a private key.
pub(crate) fn is_asymmetric(preset: &str) -> bool {
    algorithm(&json!({ "preset": preset })).is_asymmetric()
}

/// How the sender of a source signs.
fn algorithm(source: &Value) -> Algorithm {
    let preset = source.get("preset").and_then(Value::as_str).and_then(entry);
    let preset = preset.unwrap_or_default();
    let scheme = source.get("signature").or(preset.get("signature"));
    let algorithm = scheme.and_then(|scheme| scheme.get("algorithm")).cloned();
    algorithm
        .and_then(|name| serde_json::from_value(name).ok())
        .unwrap_or_default()
}

/// The challenges of a source: its own, or its preset's.
pub(crate) fn challenges(source: &Value) -> Vec<Value> {
    let preset = source.get("preset").and_then(Value::as_str).and_then(entry);
    let preset = preset.unwrap_or_default();
    let rules = source.get("challenge").or(preset.get("challenge"));
    rules.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Scheme and host of a URL, and its path and query.
pub(crate) fn split(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
    let (_, rest) = url.split_at_checked(after_scheme).unwrap_or(("", url));
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (start, target) = url
        .split_at_checked(after_scheme.saturating_add(at))
        .unwrap_or((url, ""));
    (start, if target.is_empty() { "/" } else { target })
}

fn path_of(url: &str) -> &str {
    let (_, target) = split(url);
    target.split('?').next().unwrap_or("/")
}

/// The content type that the sender of `source` sends.
pub(crate) fn content_type(source: &Source) -> &str {
    const JSON: &str = "application/json";
    let holds_form = match &source.scheme.proof {
        Proof::Signature(rule) => rule.holds(&Part::FormSorted),
        Proof::Token(_) => false,
    };
    let types = &source.media_types;
    match types.iter().find(|kind| ***kind == *JSON) {
        Some(_) if !holds_form => JSON,
        _ => types.first().map_or(JSON, |kind| kind),
    }
}

/// Reads `name=value`.
///
/// # Errors
///
/// There is no `=`.
pub(crate) fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parameters as the configuration has them.
pub(crate) fn parameters(given: &[(String, String)]) -> Value {
    let given = given
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)));
    Value::Object(given.collect())
}

/// The one source of a policy that [`SourceArgs::policy`] made, with its first secret.
pub(crate) fn only(policy: &Policy) -> anyhow::Result<(&Source, &SigningKey)> {
    let source = policy.sources.first().context("there is no source")?;
    let secret = source.signing_keys.first().context("there is no secret")?;
    Ok((source, secret))
}

impl SecretArgs {
    /// The secret that was named, if one was.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        match (&self.secret_file, &self.secret_env) {
            (Some(file), _) => {
                let mut secret = std::fs::read(file)
                    .with_context(|| format!("--secret-file {}", file.display()))?;
                if secret.ends_with(b"\n") {
                    secret.pop();
                    if secret.ends_with(b"\r") {
                        secret.pop();
                    }
                }
                Ok(Some(secret))
            }
            (None, Some(name)) => variable(name).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The option that names a secret, if one does.
    pub(crate) fn name(&self) -> Option<&'static str> {
        let file = self.secret_file.as_ref().map(|_| "--secret-file");
        file.or(self.secret_env.as_ref().map(|_| "--secret-env"))
    }

    /// What the secret is called in messages.
    pub(crate) fn label(&self) -> String {
        match (&self.secret_file, &self.secret_env) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => DEFAULT_VARIABLE.to_owned(),
        }
    }

    /// The secret that was named, or the default variable's.
    pub(crate) fn read_or_default(&self) -> anyhow::Result<Vec<u8>> {
        match self.read()? {
            Some(secret) => Ok(secret),
            None => variable(DEFAULT_VARIABLE),
        }
    }
}

fn variable(name: &str) -> anyhow::Result<Vec<u8>> {
    match std::env::var_os(name) {
        Some(value) => Ok(value.into_encoded_bytes()),
        None => bail!(
            "environment variable `{name}` is not set: set it to the secret, or name another with \
             --secret-env, or a file with --secret-file"
        ),
    }
}

fn set(object: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_owned(), json!(value));
    }
}

/// The source `name` of a configuration; its only one if no name is given.
fn pick(configuration: &str, name: Option<&str>) -> anyhow::Result<Value> {
    let configuration: Value =
        serde_json::from_str(configuration).context("the configuration is not JSON")?;
    let sources = configuration
        .get("sources")
        .and_then(Value::as_array)
        .context("the configuration has no sources")?;
    let names: Vec<&str> = sources
        .iter()
        .filter_map(|source| source.get("name")?.as_str())
        .collect();
    let found = match name {
        Some(name) => sources
            .iter()
            .find(|source| source.get("name").and_then(Value::as_str) == Some(name)),
        None if sources.len() == 1 => sources.first(),
        None => bail!("--source is needed: one of {}", names.join(", ")),
    };
    found.cloned().with_context(|| {
        format!(
            "--source: `{}` is unknown, expected one of {}",
            name.unwrap_or_default(),
            names.join(", ")
        )
    })
}
