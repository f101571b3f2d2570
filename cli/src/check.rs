//! `check`: a configuration, by the filter's own parser.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use callback_guard::config;
use callback_guard::policy::{InFlight, Mode, PathRule, Policy, Unmatched};
use clap::Args;
use serde_json::Value;

use crate::SAID_NO;
use crate::envoy::{self, File, Found};

/// Check a configuration: JSON, or an Envoy configuration or Kubernetes manifest that holds one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard check envoy.yaml
  callback-guard check --assume-env guard.json
  cat envoy.yaml | callback-guard check -

Exit code 0 if every configuration in the file is one that the filter accepts, else 1.")]
pub(crate) struct CheckArgs {
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take variables that are not set as set, so that a file can be checked without its secrets
    #[arg(long)]
    assume_env: bool,
}

/// Stands for a secret that is not there: valid as UTF-8, base64 and hex.
const ASSUMED: &[u8] = b"00000000000000000000000000000000";

/// Checks.
///
/// # Errors
///
/// The file cannot be read, or is neither JSON nor YAML.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let file = File::read(&args.file)?;
    let name = args.file.display();
    let found = file.configurations();
    if found.is_empty() {
        eprintln!("{name}: {}", envoy::NONE);
        return Ok(ExitCode::from(SAID_NO));
    }
    let mut all_fine = true;
    for found in &found {
        let place = if found.path.is_empty() {
            name.to_string()
        } else {
            format!("{name}: {}", found.path)
        };
        let environment = |variable: &str| {
            let given = std::env::var_os(variable).map(std::ffi::OsString::into_encoded_bytes);
            given.or_else(|| args.assume_env.then(|| ASSUMED.to_vec()))
        };
        match config::parse(found.text.as_bytes(), &environment) {
            Ok(policy) => {
                let text = describe(&policy, found);
                writeln!(std::io::stdout(), "{place}\n{text}").context("standard output")?;
            }
            Err(error) => {
                eprintln!("{place}\nerror: {error}");
                all_fine = false;
            }
        }
    }
    Ok(if all_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SAID_NO)
    })
}

/// What the configuration says, in a few lines.
fn describe(policy: &Policy, found: &Found<'_>) -> String {
    let raw: Value = serde_json::from_str(&found.text).unwrap_or_default();
    let mut text = String::new();
    let count = policy.sources.len();
    let _ = writeln!(
        text,
        "ok: {count} source{}, memory store for {} events, unmatched requests {}",
        if count == 1 { "" } else { "s" },
        policy.capacity,
        match policy.unmatched {
            Unmatched::Pass => "pass",
            Unmatched::Reject => "are rejected",
        }
    );
    for (index, source) in policy.sources.iter().enumerate() {
        let raw = raw.pointer(&format!("/sources/{index}"));
        let field = |name: &str| raw.and_then(|raw| raw.get(name));
        let preset = field("preset").and_then(Value::as_str);
        let path = match &source.route.path {
            PathRule::Exact(path) => path.to_string(),
            PathRule::Prefix(path) => format!("{path} and below"),
        };
        let host = source.route.host.as_deref().unwrap_or("any host");
        let _ = writeln!(
            text,
            "  {}: {path} on {host}, {}, {}",
            source.name,
            preset.map_or("signature spelled out".to_owned(), |preset| format!(
                "preset {preset}"
            )),
            match source.mode {
                Mode::Enforce => "enforce",
                Mode::Monitor => "monitor: nothing is refused",
            }
        );
        let secrets = field("secrets").and_then(Value::as_array);
        let secrets: Vec<String> = secrets.into_iter().flatten().map(secret).collect();
        let _ = writeln!(text, "    secrets: {}", secrets.join(", "));
        let _ = writeln!(
            text,
            "    timestamp up to {} s old or {} s ahead, body up to {} bytes",
            source.tolerance.past, source.tolerance.future, source.max_body_bytes
        );
        let dedupe = &source.dedupe;
        let in_flight = match dedupe.in_flight {
            InFlight::Reject => "rejected".to_owned(),
            InFlight::Wait { seconds } => format!("waits up to {seconds} s"),
        };
        let _ = writeln!(
            text,
            "    events remembered for {} s, lease {} s, a second one in flight {in_flight}",
            dedupe.window_seconds, dedupe.lease_seconds
        );
    }
    text.pop();
    text
}

/// A secret by where it comes from, and whether it is there; never itself.
fn secret(raw: &Value) -> String {
    let optional = raw.get("optional").and_then(Value::as_bool) == Some(true);
    match raw.get("env").and_then(Value::as_str) {
        Some(name) => {
            let state = match (std::env::var_os(name).is_some(), optional) {
                (true, _) => "set",
                (false, true) => "unset, optional",
                (false, false) => "unset",
            };
            format!("{name} ({state})")
        }
        None => "in the file".to_owned(),
    }
}
