//! `sign`: the headers that make a body a genuine callback.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::time::UnixMillis;
use clap::Args;

use crate::curl::{self, Data};
use crate::source::{self, SourceArgs};
use crate::{body, output, samples, time};

/// Print the headers that make a body a genuine callback, or a ready `curl`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard sign body.json
  callback-guard sign --kind suno_generate.success --curl http://127.0.0.1:10000/callbacks/suno | sh
  callback-guard sign --preset suno --secret-file key.txt --timestamp 1769670760 - < body.json
  callback-guard sign --config envoy.yaml --source suno body.json")]
pub(crate) struct SignArgs {
    /// The body: a file, or `-` for standard input
    #[arg(
        value_name = "BODY",
        required_unless_present = "kind",
        conflicts_with = "kind"
    )]
    body: Option<PathBuf>,
    /// Sign a documented sample with a fresh id instead (`send --list-kinds` lists them)
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// The time of signing: Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", value_parser = time::parse)]
    timestamp: Option<UnixMillis>,
    /// The message id, where the sender has it in a header or --kind is given [default: a fresh one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Print a `curl` command that sends the signed body to this URL
    #[arg(long, value_name = "URL")]
    curl: Option<String>,
}

/// Signs.
///
/// # Errors
///
/// The body or the secret cannot be read, or the body has no id where the scheme signs one.
pub(crate) fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let policy = args.source.policy(args.curl.as_deref())?;
    let (source, secret) = source::only(&policy)?;
    let id = args.id.clone().unwrap_or_else(body::fresh_id);
    let body = match (&args.kind, &args.body) {
        (Some(kind), _) => samples::find(kind)?.body_for(&id),
        (None, Some(path)) => body::read(path)?,
        (None, None) => return Err(anyhow!("there is no body")),
    };
    let now = args.timestamp.unwrap_or_else(time::now);
    let url = args.curl.as_deref().unwrap_or("/");
    let (host, target) = source::split(url);
    let kind = source::content_type(source);
    let draft = Draft {
        target,
        is_json: kind.ends_with("json"),
        body: &body,
        id: &id,
    };
    let made = sign::callback(source, secret, &draft, now)
        .map_err(|refusal| anyhow!("it cannot be signed: {refusal}"))?;
    let (headers, is_changed) = (made.headers, made.body != body);
    let body = made.body;
    let text = match &args.curl {
        None if headers.is_empty() => {
            return Err(anyhow!(
                "this sender signs nothing: its token is part of the URL, which --curl prints"
            ));
        }
        None => headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect::<Vec<_>>()
            .join("\n"),
        Some(_) => {
            // A body that the sender signs inside of is another one than the file's.
            let file = args.body.as_deref();
            let file = file.filter(|path| *path != Path::new("-") && !is_changed);
            let data = match file {
                Some(path) => Data::File(
                    path.to_str()
                        .context("the name of the file is not UTF-8, so no command can name it")?,
                ),
                None => Data::Inline(
                    std::str::from_utf8(&body)
                        .ok()
                        .filter(|text| !text.contains('\0'))
                        .context("the body is not text: put it into a file, and name that")?,
                ),
            };
            curl::command(&format!("{host}{}", made.target), kind, &headers, data)
        }
    };
    output::print(&format!(
        "{text}
"
    ))?;
    Ok(ExitCode::SUCCESS)
}
