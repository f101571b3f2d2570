//! `check`: a configuration, by the filter's own parser.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::ExitCode;

use callback_guard_config::{self as config, Build};
use callback_guard_core::policy::{InFlight, Mode, PathRule, Policy, Unmatched};
use callback_guard_core::store::redis::{Access, OnError, Place, Protocol};
use clap::Args;
use serde_json::Value;

use crate::envoy::{self, File, Found, Shape};
use crate::exit::SAID_NO;
use crate::source;
use crate::{output, warnings};

/// Check a configuration: JSON, or an Envoy configuration or Kubernetes manifest that holds one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard check envoy.yaml
  callback-guard check --assume-env guard.json
  callback-guard check --strict --assume-env envoy.yaml
  cat envoy.yaml | callback-guard check -

Besides what the filter itself refuses, it warns of what is accepted and probably a mistake, and of what
makes a good filter unsafe around it: Envoy settings that let requests pass, hang or arrive twice, or
that keep out what a preset promises.

Exit code 0 if every configuration in the file is one that the filter accepts, else 1; with --strict
also 1 if there is a warning.")]
pub(crate) struct CheckArgs {
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take variables that are not set as set, so that a file can be checked without its secrets
    #[arg(long)]
    assume_env: bool,
    /// Count warnings as errors
    #[arg(long)]
    strict: bool,
}

/// A placeholder for the unset secret in `variable`: valid as UTF-8, base64 and hex, and different for
/// each variable.
fn assumed(configuration: &str, variable: &str) -> Vec<u8> {
    let configuration: Value = serde_json::from_str(configuration).unwrap_or_default();
    let store = configuration.pointer("/store/token_env");
    if store.and_then(Value::as_str) == Some(variable) {
        return b"user:password".to_vec();
    }
    let url = configuration.pointer("/store/url_env");
    if url.and_then(Value::as_str) == Some(variable) {
        return b"redis://user:password@127.0.0.1".to_vec();
    }
    if let Some(key) = assumed_key(&configuration, variable) {
        return key.as_bytes().to_vec();
    }
    let mut hasher = DefaultHasher::new();
    variable.hash(&mut hasher);
    format!("{:032x}", hasher.finish()).into_bytes()
}

/// A placeholder for the unset public key in `variable`, in its source's algorithm and encoding.
pub(crate) fn assumed_key(configuration: &Value, variable: &str) -> Option<&'static str> {
    let sources = configuration.get("sources")?.as_array()?;
    let (source, key) = sources.iter().find_map(|source| {
        let keys = source.get("public_keys")?.as_array()?;
        let key = keys
            .iter()
            .find(|key| key.get("env").and_then(Value::as_str) == Some(variable))?;
        Some((source, key))
    })?;
    let preset = source.get("preset").and_then(Value::as_str);
    let preset = preset.and_then(source::entry).unwrap_or_default();
    let scheme = source.get("signature").or(preset.get("signature"));
    let encoding = key.get("encoding");
    let encoding = encoding.or(preset.pointer("/public_key/encoding"));
    let algorithm = scheme.and_then(|scheme| scheme.get("algorithm")?.as_str());
    Some(match (algorithm, encoding.and_then(Value::as_str)) {
        (Some("rsa-pkcs1-sha256"), _) => include_str!("check/rsa.txt").trim_ascii(),
        (Some("ecdsa-p256-sha256"), _) => include_str!("check/p256.txt").trim_ascii(),
        (_, Some("hex")) => "d52880e28f61caa4c2a48a82e55f4751a92289a78009ea9f6532270c16ce8abe",
        (_, Some("base64")) => "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        _ => "MCowBQYDK2VwAyEA1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    })
}

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
        match judge(args, found) {
            Ok(policy) => {
                let text = describe(&policy, found);
                output::print(&format!(
                    "{place}
{text}
"
                ))?;
                let own = policy.warnings.iter().map(ToString::to_string);
                let around = warnings::around(found, &policy);
                for warning in own.chain(around.iter().map(ToString::to_string)) {
                    eprintln!("warning: {warning}");
                    all_fine &= !args.strict;
                }
            }
            Err(error) => {
                eprintln!("{place}\nerror: {error}");
                if error.ends_with("is not set") {
                    eprintln!(
                        "hint: set it as Envoy will have it, or check the rest with --assume-env"
                    );
                }
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

/// What the filter would say to the configuration.
fn judge(args: &CheckArgs, found: &Found<'_>) -> Result<Policy, String> {
    if found.shape == Shape::Struct {
        return Err(
            "is a google.protobuf.Struct, of which Envoy hands on the protobuf bytes and not JSON; \
             expected a google.protobuf.StringValue whose `value` is the JSON text"
                .to_owned(),
        );
    }
    let given = given_variables(found);
    let environment = |variable: &str| {
        let in_file = given.iter().find(|(name, _)| name == variable);
        in_file
            .map(|(_, value)| value.clone().into_bytes())
            .or_else(|| std::env::var_os(variable).map(std::ffi::OsString::into_encoded_bytes))
            .or_else(|| args.assume_env.then(|| assumed(&found.text, variable)))
    };
    // A file that is nothing but the configuration may be for either; the native build takes more.
    let build = match found.shape {
        Shape::DynamicModule | Shape::PlatformModule | Shape::Whole => Build::Native,
        Shape::Platform | Shape::StringValue | Shape::Struct => Build::Module,
    };
    config::parse_for(build, found.text.as_bytes(), &environment).map_err(|error| error.to_string())
}

fn given_variables(found: &Found<'_>) -> Vec<(String, String)> {
    let plugin = found.around.last();
    plugin.map_or(Vec::new(), |step| warnings::given_variables(step.value))
}

/// What the configuration says, in a few lines.
fn describe(policy: &Policy, found: &Found<'_>) -> String {
    let raw: Value = serde_json::from_str(&found.text).unwrap_or_default();
    let mut text = String::new();
    let count = policy.sources.len();
    let _ = writeln!(
        text,
        "ok: {count} source{}, {}, unmatched requests {}",
        if count == 1 { "" } else { "s" },
        store(policy),
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
        let given = given_variables(found);
        let secrets = secrets.into_iter().flatten();
        let secrets: Vec<String> = secrets.map(|raw| secret(raw, &given)).collect();
        let _ = writeln!(text, "    secrets: {}", secrets.join(", "));
        let time = match source.scheme.timestamp() {
            Some(_) => format!(
                "timestamp up to {} s old or {} s ahead",
                source.tolerance.past, source.tolerance.future
            ),
            None => "the time is not signed".to_owned(),
        };
        let _ = writeln!(
            text,
            "    {time}, body up to {} bytes",
            source.max_body_bytes
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
fn secret(raw: &Value, given: &[(String, String)]) -> String {
    let optional = raw.get("optional").and_then(Value::as_bool) == Some(true);
    if let Some(name) = raw.get("sds").and_then(Value::as_str) {
        return match raw.get("sds_config") {
            Some(_) => format!("{name} (by SDS)"),
            None => format!("{name} (a static secret of Envoy)"),
        };
    }
    match raw.get("env").and_then(Value::as_str) {
        Some(name) => {
            if given.iter().any(|(known, _)| known == name) {
                return format!("{name} (set in the file)");
            }
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

fn store(policy: &Policy) -> String {
    let memory = format!("memory store for {} events", policy.capacity);
    match &policy.remote {
        None => memory,
        Some(remote) => {
            let way = match &remote.access {
                Access::Front(front) => {
                    let protocol = match front.protocol {
                        Protocol::Upstash => "Upstash",
                        Protocol::Webdis => "Webdis",
                    };
                    format!("by {protocol} on cluster {}", front.cluster)
                }
                Access::Server(server) => {
                    let tls = if server.is_tls { " with TLS" } else { "" };
                    let finder = match server.place {
                        Place::At(_) => "",
                        Place::Sentinels { .. } => ", found by Sentinels",
                    };
                    format!("by a connection{tls} of the native build{finder}")
                }
            };
            let on_error = match remote.on_error {
                OnError::Memory => format!("on errors {memory}"),
                OnError::Pass => "on errors requests pass unclaimed".to_owned(),
                OnError::Reject => "on errors 503".to_owned(),
            };
            format!("Redis store {way}, {on_error}")
        }
    }
}
