//! `explain`: a captured request against a configuration, step by step.
//!
//! The verdict is the filter's own: its [`Worker`](callback_guard_core::worker::Worker) is driven with the captured request. The
//! details of each step come from the same functions that the guard uses.

mod case;
mod mistakes;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use callback_guard_config::{self as config, Build};
use callback_guard_core::policy::{Mode, Policy};
use callback_guard_core::request::RequestHead;
use callback_guard_core::scheme::keys::native;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use clap::Args;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::exit::SAID_NO;
use crate::source::{self, SecretArgs};
use crate::{body, envoy, output, time};
use case::{Case, Judgement, NamedSecret, judge, rule};

/// Explain what the guard does with a captured request, step by step, and why.
///
/// The capture is raw HTTP (request line, headers, empty line, body), a HAR file or one entry of it,
/// or what `curl -v` printed, which has no body: give that with --body.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard explain --config envoy.yaml request.txt
  callback-guard explain --config guard.json --body body.json curl.log
  callback-guard explain --secret-file key.txt request.har
  callback-guard explain --config envoy.yaml --try-env OLD_KEY --now now request.txt

Where the signature does not match, the likely mistakes are tried: another secret or public key (those
of the other sources and of --try-env), a secret that is to be decoded or has a line break at its end,
another HMAC, another spelling of the signature, another scheme, port, path or slash of the URL, the id
from another field, a timestamp in another unit, a body that was written anew on the way.

The store is not asked: whether an event was delivered before, only the running Envoy knows.

Exit code 0 if the request is authentic and well formed, 1 if it is refused, 2 usage.")]
pub(crate) struct ExplainArgs {
    /// The capture: a file, or `-` for standard input
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// The body, if the capture has none or another
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The configuration: JSON, or an Envoy YAML that holds one; its secrets are read from the
    /// environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without a configuration: the sender's scheme, on any path
    #[arg(long, default_value = "suno", conflicts_with = "config")]
    preset: String,
    /// A parameter of the preset, as `notification_url=https://…`; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = source::parse_parameter)]
    parameter: Vec<(String, String)>,
    #[command(flatten)]
    secret: SecretArgs,
    /// Where the signature does not match, try the secret in this environment variable too; may be
    /// given several times
    #[arg(long, value_name = "NAME")]
    try_env: Vec<String>,
    /// When the request was received: Unix seconds, or `now` [default: as the capture says; if it
    /// does not, the moment of its timestamp]
    #[arg(long, value_name = "SECONDS", value_parser = parse_now)]
    now: Option<UnixMillis>,
    /// Which entry of a HAR file, from 0 [default: the last POST]
    #[arg(long, value_name = "N")]
    entry: Option<usize>,
}

fn parse_now(text: &str) -> Result<UnixMillis, String> {
    match text {
        "now" => Ok(time::now()),
        _ => time::parse(text),
    }
}

/// Explains.
///
/// # Errors
///
/// The capture, the configuration or a secret cannot be read.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let bytes = body::read(&args.capture)?;
    let capture = Capture::parse(&bytes, args.entry)
        .with_context(|| format!("{}", args.capture.display()))?;
    let body = match (&args.body, &capture.body) {
        (Some(file), _) => body::read(file)?,
        (None, Some(body)) => body.clone(),
        (None, None) if capture.form == "curl -v" => {
            bail!("`curl -v` does not print the body: give it with --body")
        }
        (None, None) => Vec::new(),
    };
    let mut others = Vec::new();
    for name in &args.try_env {
        let text = std::env::var_os(name)
            .ok_or_else(|| anyhow!("--try-env: environment variable `{name}` is not set"))?;
        others.push(NamedSecret::new(name, text.into_encoded_bytes()));
    }
    let pairs: Vec<(&[u8], &[u8])> = capture
        .headers
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    let head = RequestHead::new(&pairs);
    let (policy, secrets) = configuration(args, &head)?;
    let policy = Arc::new(policy);
    let now = time::now();
    let (received, basis) = match (args.now, capture.received, signed_at(&policy, &head)) {
        (Some(given), _, _) => (given, "as given by --now"),
        (None, Some(received), _) => (received, "as the capture says"),
        (None, None, Some(signed)) => (
            signed,
            "the moment of its own timestamp, as the capture does not say when it was received",
        ),
        (None, None, None) => (now, "now, as nothing says when it was"),
    };
    let case = Case {
        policy: &policy,
        head: &head,
        body: &body,
        received,
        now,
        secrets: &secrets,
        others: &others,
    };
    let judgement = judge(&case);
    let mut text = format!(
        "{}: {}, {} headers, {} bytes of body\n",
        args.capture.display(),
        capture.form,
        capture
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with(b":"))
            .count(),
        body.len()
    );
    for note in &capture.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!(
        "received: {}, {basis}\n\n",
        time::display(received)
    ));
    text.push_str(&steps::table(&case, &judgement));
    text.push('\n');
    text.push_str(&conclusion(&case, &judgement));
    output::print(&output::harmless(&text))?;
    Ok(match judgement.report.rejection {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(SAID_NO),
    })
}

fn conclusion(case: &Case<'_>, judgement: &Judgement) -> String {
    let source = judgement.report.source.as_deref();
    let Some(rejection) = &judgement.report.rejection else {
        let text = match source {
            _ if judgement.is_inspectors => "the inspector answers it, and nothing is forwarded\n",
            None => "passes untouched: it matches no source, and `unmatched` is `pass`\n",
            Some(_) if judgement.report.verdict == Some(Code::Challenge) => {
                "a challenge: the guard answers it, and nothing is forwarded (in monitor mode the \
                 application answers)\n"
            }
            Some(source) if !source.dedupe.is_on => {
                "authentic and well formed: it is forwarded, each time (`dedupe` is `false`)\n"
            }
            Some(_) => {
                "authentic and well formed: it is forwarded, unless the store knows the event as \
                 delivered (200 duplicate) or another request holds its claim\n"
            }
        };
        return text.to_owned();
    };
    let mut text = format!("refused: {} {rejection}\n", rejection.code().status());
    if source.is_some_and(|source| source.mode == Mode::Monitor) {
        text.push_str("but this source is in monitor mode: it is forwarded all the same\n");
    }
    let advice = match rejection.code() {
        Code::SignatureMismatch | Code::SignatureMalformed | Code::TimestampMalformed => {
            mistakes::advice(case, judgement)
        }
        Code::SignatureMissing => {
            "most likely: the sender does not sign. With Kie, signing is off \
                                   until a key is made on its settings page\n"
                .to_owned()
        }
        Code::TimestampTooOld if judgement.at_head => {
            "most likely: a copy of an old request, or one of the two clocks is wrong\n".to_owned()
        }
        _ => String::new(),
    };
    text.push_str(&advice);
    text.push_str(&format!(
        "see docs/troubleshooting.md, {}\n",
        rejection.code()
    ));
    text
}

/// The moment of the request's own timestamp, if its head has one that can be read.
fn signed_at(policy: &Policy, head: &RequestHead<'_>) -> Option<UnixMillis> {
    let source = policy.source_of(head)?;
    let signed = rule(source)?.read_head(head).ok()?;
    Some(UnixMillis::from_seconds(signed.timestamp()?.seconds()))
}

/// The policy, and for each source the secrets that are set.
fn configuration(
    args: &ExplainArgs,
    head: &RequestHead<'_>,
) -> anyhow::Result<(Policy, Vec<Vec<NamedSecret>>)> {
    let given = match (&args.config, args.secret.name()) {
        (Some(_), Some(name)) => {
            bail!(
                "{name} cannot be combined with --config, which has its own secrets; --try-env tries another"
            )
        }
        (Some(_), None) => None,
        (None, _) => Some(args.secret.read_or_default()?),
    };
    let called = args.secret.label();
    let text = match &args.config {
        Some(file) => envoy::only_configuration(file)?,
        None => {
            let mut secret = json!({ "env": called });
            if let (Some(secret), Some(encoding)) =
                (secret.as_object_mut(), &args.secret.secret_encoding)
            {
                secret.insert("encoding".to_owned(), json!(encoding));
            }
            let keys = match source::is_asymmetric(&args.preset) {
                true => "public_keys",
                false => "secrets",
            };
            let target = |head: &RequestHead<'_>| String::from_utf8_lossy(head.path()).into_owned();
            json!({ "sources": [{
                "name": "source",
                "match": match source::signs_url(&args.preset) {
                    true => json!({ "path": target(head) }),
                    false => json!({ "path_prefix": "/" }),
                },
                "preset": args.preset,
                "parameters": source::parameters(&args.parameter),
                keys: [secret],
            }] })
            .to_string()
        }
    };
    let environment = |name: &str| match &given {
        Some(secret) if name == called => Some(secret.clone()),
        _ => std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes),
    };
    let mut policy = config::parse_for(Build::Native, text.as_bytes(), &environment)
        .map_err(|error| anyhow!("{error}"))?;
    policy.host_verify = native::verify;
    let raw: Value = serde_json::from_str(&text).unwrap_or_default();
    let sources = raw.get("sources").and_then(Value::as_array);
    let secrets = sources
        .into_iter()
        .flatten()
        .map(|source| {
            let lists = ["secrets", "public_keys"].into_iter();
            let lists = lists.filter_map(|name| Some((name, source.get(name)?.as_array()?)));
            lists
                .flat_map(|(list, keys)| keys.iter().map(move |key| (list, key)).enumerate())
                .filter_map(|(index, (list, raw))| named(list, index, raw, &environment))
                .collect()
        })
        .collect();
    Ok((policy, secrets))
}

fn named(
    list: &str,
    index: usize,
    raw: &Value,
    environment: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Option<NamedSecret> {
    match raw.get("env").and_then(Value::as_str) {
        Some(name) => Some(NamedSecret::new(name, environment(name)?)),
        None => {
            let value = raw.get("value")?.as_str()?;
            let name = format!("{list}[{index}].value");
            Some(NamedSecret::new(&name, value.into()))
        }
    }
}
