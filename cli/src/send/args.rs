//! The arguments of `send`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use callback_guard_core::time::UnixMillis;
use clap::Args;
use hyper::Uri;

use crate::source::SourceArgs;
use crate::time;

/// Send signed callbacks to a URL, as the sender would.
///
/// A callback that is not accepted is sent again, signed anew: by default 3 times, as Kie does. Kie
/// does not say how long it waits in between; here that is --retry-wait, then twice that, and so on.
/// Accepted is a 2xx; for presets whose sender knows only 200 (suno), a 200.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard send http://127.0.0.1:10000/callbacks/suno
  callback-guard send --kind suno_midi.success http://127.0.0.1:10000/callbacks/suno
  callback-guard send --kind all http://127.0.0.1:10000/callbacks/suno
  callback-guard send https://hooks.example.com/callbacks/suno
  callback-guard send --body body.json --http2 --retries 0 http://127.0.0.1:10000/callbacks/suno
  callback-guard send --id one-event --repeat 3 --concurrency 3 http://127.0.0.1:10000/callbacks/suno
  callback-guard send --repeat 5000 --rate 500 --concurrency 20 --forge=10 --stale=5 \\
      http://127.0.0.1:10000/callbacks/suno
  callback-guard send --preset slack --secret-env SLACK_SECRET --challenge http://127.0.0.1:10000/callbacks/slack
  callback-guard send --list-kinds

Exit code 0 if every callback was accepted, or every challenge answered as it has to be, 1 if one was not, 2
usage.")]
pub(crate) struct SendArgs {
    /// Where to
    #[arg(value_name = "URL", required_unless_present = "list_kinds", value_parser = parse_url)]
    pub(super) url: Option<Uri>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// A documented kind of callback, with a fresh message id; several are sent in turn; `all` is
    /// each kind once [default: suno_generate.success; for presets of other senders a small body of
    /// the right form]
    #[arg(long, value_name = "KIND", conflicts_with = "body")]
    pub(super) kind: Vec<String>,
    /// This body instead: a file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) body: Option<PathBuf>,
    /// The message id; with --repeat, of all of them: one event, sent again and again [default: a
    /// fresh one for each]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// The time of signing: Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", value_parser = time::parse)]
    pub(super) timestamp: Option<UnixMillis>,
    /// One header more; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(super) header: Vec<(String, String)>,
    /// How many callbacks [default: 1, or one of each kind]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(super) repeat: Option<u64>,
    /// How many at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) concurrency: u16,
    /// How many a second, at most [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Sign this percentage of them with a key that nobody has
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(super) forge: Option<u64>,
    /// Sign this percentage of them with a timestamp that is 60 s too old
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(super) stale: Option<u64>,
    /// How often a callback that is not accepted is sent again; forged and stale ones never are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(super) retries: u32,
    /// The wait before the first retry, in seconds; it doubles
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub(super) retry_wait: f64,
    /// How long to wait for a reply, in seconds; Kie waits 15
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, value_parser = parse_seconds)]
    pub(super) timeout: f64,
    /// HTTP/2 instead of HTTP/1.1; in plain text with prior knowledge
    #[arg(long)]
    pub(super) http2: bool,
    /// Trust the certificate authorities in this PEM file, instead of this machine's
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Ask what the sender asks before it sends, and check the answer; Meta's presets need
    /// `--parameter verify_token=…`
    #[arg(long, conflicts_with_all = ["body", "kind", "id", "repeat", "concurrency", "rate", "forge", "stale", "json"])]
    pub(super) challenge: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// List the kinds of callbacks and the pages that document them
    #[arg(long, exclusive = true)]
    pub(super) list_kinds: bool,
}

fn parse_url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri = text.parse().context("not a URL")?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        _ => bail!("expected http://host:port/path or https://host/path"),
    }
}

fn parse_header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').context("expected `name: value`")?;
    let name: hyper::header::HeaderName = name.trim().parse()?;
    let value: hyper::header::HeaderValue = value.trim().parse()?;
    Ok((name.to_string(), value.to_str()?.to_owned()))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .ok_or_else(|| "expected seconds, 0.001 to 3600".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=1_000_000.0).contains(rate))
        .ok_or_else(|| "expected a number of callbacks, 0.001 to 1000000".to_owned())
}
