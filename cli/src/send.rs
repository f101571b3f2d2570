//! `send`: signed callbacks to a URL.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use callback_guard::signer;
use callback_guard::time::UnixMillis;
use clap::Args;
use hyper::Uri;
use hyper::body::Bytes;

use crate::http::Client;
use crate::source::{self, SourceArgs};
use crate::{SAID_NO, body, samples, time};

/// Send a signed callback to a URL, as the sender would.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard send http://127.0.0.1:10000/callbacks/suno
  callback-guard send --kind suno_midi.success http://127.0.0.1:10000/callbacks/suno
  callback-guard send --body body.json --http2 http://127.0.0.1:10000/callbacks/suno
  callback-guard send --list-kinds

Exit code 0 if the reply is a 2xx, 1 if it is another or there is none.")]
pub(crate) struct SendArgs {
    /// Where to
    #[arg(value_name = "URL", required_unless_present = "list_kinds", value_parser = parse_url)]
    url: Option<Uri>,
    #[command(flatten)]
    source: SourceArgs,
    /// A documented kind of callback, with a fresh message id [default: suno_generate.success]
    #[arg(long, value_name = "KIND", conflicts_with = "body")]
    kind: Option<String>,
    /// This body instead: a file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The message id [default: a fresh one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The time of signing: Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", value_parser = time::parse)]
    timestamp: Option<UnixMillis>,
    /// One header more; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// HTTP/2 in plain text, with prior knowledge, instead of HTTP/1.1
    #[arg(long)]
    http2: bool,
    /// How long to wait for a reply, in seconds; Kie waits 15
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, value_parser = parse_seconds)]
    timeout: f64,
    /// List the kinds of callbacks and the pages that document them
    #[arg(long, exclusive = true)]
    list_kinds: bool,
}

/// The kind that is sent where none is named.
const DEFAULT_KIND: &str = "suno_generate.success";

/// Sends.
///
/// # Errors
///
/// The body or the secret cannot be read, or the body has no id where the scheme signs one.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    if args.list_kinds {
        return list_kinds();
    }
    let url = args.url.as_ref().context("there is no URL")?;
    let policy = args.source.policy()?;
    let (source, secret) = source::only(&policy)?;
    let id = args.id.clone().unwrap_or_else(body::fresh_id);
    let body = match &args.body {
        Some(path) => body::read(path)?,
        None => samples::find(args.kind.as_deref().unwrap_or(DEFAULT_KIND))?.body_for(&id),
    };
    let now = args.timestamp.unwrap_or_else(time::now);
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    headers.extend(
        signer::sign(source, secret, &body, &id, now)
            .map_err(|_| anyhow!("the body has no message id where the sender signs it"))?,
    );
    headers.extend(args.header.iter().cloned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let client = Client::new(args.http2, Duration::from_secs_f64(args.timeout));
    let reply = runtime.block_on(client.post(url, &headers, Bytes::from(body)));
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            eprintln!("{url}: {error:#}");
            return Ok(ExitCode::from(SAID_NO));
        }
    };
    let mut text = format!("status: {}\n", reply.status);
    if let Some(verdict) = &reply.verdict {
        text.push_str(&format!("x-callback-guard: {verdict}\n"));
    }
    if !reply.body.is_empty() {
        text.push_str(&format!("\n{}\n", reply.body.trim_end()));
    }
    write!(std::io::stdout(), "{text}").context("standard output")?;
    Ok(if (200..300).contains(&reply.status) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SAID_NO)
    })
}

fn list_kinds() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for kind in samples::all()? {
        let stage = kind.stage.as_deref().unwrap_or("-");
        text.push_str(&format!("{:36} {stage:10} {}\n", kind.name, kind.page));
    }
    write!(std::io::stdout(), "{text}").context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn parse_url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri = text.parse().context("not a URL")?;
    match (url.scheme_str(), url.authority()) {
        (Some("http"), Some(_)) => Ok(url),
        _ => bail!("expected http://host:port/path"),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .ok_or_else(|| "expected seconds, 0.001 to 3600".to_owned())
}
