//! The options that say whose callbacks are meant: a preset and a secret, or a source of a
//! configuration.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use callback_guard_core::config;
use callback_guard_core::policy::{Policy, Source};
use callback_guard_core::scheme::keys::SigningKey;
use callback_guard_core::sign;
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
    pub(crate) fn policy(&self) -> anyhow::Result<Policy> {
        let given = match &self.config {
            None => Some(self.secret.read_or_default()?),
            Some(_) => self.secret.read()?,
        };
        let mut source = match &self.config {
            None => json!({
                "name": "source",
                "match": { "path_prefix": "/" },
                "preset": self.preset,
                "parameters": parameters(&self.parameter),
                // Nobody asks here, so nobody needs a verify token.
                "challenge": [],
            }),
            Some(file) => {
                let found = envoy::only_configuration(file)?;
                pick(&found, self.source.as_deref())?
            }
        };
        if given.is_some() {
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
        config::parse(text.as_bytes(), &environment).map_err(|error| {
            let error = error.to_string();
            match (&self.config, error.strip_prefix("sources[0].")) {
                (None, Some(rest)) => anyhow!("{rest}"),
                _ => anyhow!("{error}"),
            }
        })
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

/// `url` as the sender of `source` calls it: with the token in it, where it belongs there.
pub(crate) fn url(source: &Source, secret: &SigningKey, url: &str) -> String {
    let after_scheme = url.find("://").map_or(0, |at| at.saturating_add(3));
    let (scheme, rest) = url.split_at_checked(after_scheme).unwrap_or(("", url));
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(at).unwrap_or((rest, ""));
    let target = sign::target(source, secret, target);
    format!("{scheme}{authority}{target}")
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
