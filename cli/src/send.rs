//! `send`: signed callbacks to a URL, one or many, as the sender makes them.

mod challenge;
mod plan;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use callback_guard_core::time::UnixMillis;
use clap::Args;
use hyper::Uri;
use hyper::body::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use crate::http::{Client, Reply, Trust};
use crate::source::SourceArgs;
use crate::{SAID_NO, output, samples, time};
use plan::{Guise, Plan};
use summary::Summary;

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
    url: Option<Uri>,
    #[command(flatten)]
    source: SourceArgs,
    /// A documented kind of callback, with a fresh message id; several are sent in turn; `all` is
    /// each kind once [default: suno_generate.success; for presets of other senders a small body of
    /// the right form]
    #[arg(long, value_name = "KIND", conflicts_with = "body")]
    kind: Vec<String>,
    /// This body instead: a file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The message id; with --repeat, of all of them: one event, sent again and again [default: a
    /// fresh one for each]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The time of signing: Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", value_parser = time::parse)]
    timestamp: Option<UnixMillis>,
    /// One header more; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// How many callbacks [default: 1, or one of each kind]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    repeat: Option<u64>,
    /// How many at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// How many a second, at most [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Sign this percentage of them with a key that nobody has
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u64).range(0..=100))]
    forge: Option<u64>,
    /// Sign this percentage of them with a timestamp that is 60 s too old
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u64).range(0..=100))]
    stale: Option<u64>,
    /// How often a callback that is not accepted is sent again; forged and stale ones never are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=10))]
    retries: u32,
    /// The wait before the first retry, in seconds; it doubles
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    retry_wait: f64,
    /// How long to wait for a reply, in seconds; Kie waits 15
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, value_parser = parse_seconds)]
    timeout: f64,
    /// HTTP/2 instead of HTTP/1.1; in plain text with prior knowledge
    #[arg(long)]
    http2: bool,
    /// Trust the certificate authorities in this PEM file, instead of this machine's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Ask what the sender asks before it sends, and check the answer; Meta's presets need
    /// `--parameter verify_token=…`
    #[arg(long, conflicts_with_all = ["body", "kind", "id", "repeat", "concurrency", "rate", "forge", "stale", "json"])]
    challenge: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// List the kinds of callbacks and the pages that document them
    #[arg(long, exclusive = true)]
    list_kinds: bool,
}

/// Sends.
///
/// # Errors
///
/// The body or the secret cannot be read, or the body has no id where the scheme signs one.
pub(crate) fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    if args.list_kinds {
        return list_kinds();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let timeout = Duration::from_secs_f64(args.timeout);
    let is_https = args.url.as_ref().and_then(Uri::scheme_str) == Some("https");
    let trust = match &args.ca {
        Some(file) => Trust::File(file),
        None if is_https => Trust::Machine,
        None => Trust::Nobody,
    };
    let client = Client::new(args.http2, timeout, trust)?;
    if args.challenge {
        let (text, is_right) = runtime.block_on(challenge::ask(args, &client))?;
        output::print(&output::harmless(&text))?;
        return Ok(if is_right {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(SAID_NO)
        });
    }
    let plan = Plan::new(args)?;
    let is_one = plan.count == 1;
    let mut summary = runtime.block_on(send_all(Arc::new(plan), client))?;
    let text = if args.json {
        summary.json()
    } else if is_one {
        summary.reply()
    } else {
        summary.table()
    };
    output::print(&text)?;
    Ok(if summary.all_accepted() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SAID_NO)
    })
}

/// The result of one callback.
#[derive(Debug)]
struct Sent {
    guise: Guise,
    /// The last reply, or why there is none.
    last: Result<Reply, String>,
    is_accepted: bool,
    attempts: u32,
    /// How long the last attempt took.
    took: Duration,
}

async fn send_all(plan: Arc<Plan>, client: Client) -> anyhow::Result<Summary> {
    let begin = Instant::now();
    let bar = progress(plan.count);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..u64::from(plan.concurrency).min(plan.count) {
        let (plan, client, next, bar) = (plan.clone(), client.clone(), next.clone(), bar.clone());
        workers.spawn(async move {
            let mut sent = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= plan.count {
                    return anyhow::Ok(sent);
                }
                if let Some(due) = plan.due(index) {
                    tokio::time::sleep_until((begin + due).into()).await;
                }
                sent.push(send_one(&plan, &client, index).await?);
                bar.inc(1);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(worker) = workers.join_next().await {
        all.extend(worker.context("a worker")??);
    }
    bar.finish_and_clear();
    Ok(Summary::new(all, begin.elapsed()))
}

/// Sends one callback until it is accepted or given up.
async fn send_one(plan: &Plan, client: &Client, index: u64) -> anyhow::Result<Sent> {
    let callback = plan.callback(index, time::now())?;
    let retries = match callback.guise {
        Guise::Genuine => plan.retries,
        Guise::Forged | Guise::Stale => 0,
    };
    let mut wait = plan.retry_wait;
    let mut attempts = 0;
    loop {
        let (url, headers, body) = plan.sign(&callback, time::now())?;
        let begin = Instant::now();
        let body = Bytes::from(body);
        let last = client.post(&url, &headers, body).await;
        let took = begin.elapsed();
        attempts += 1;
        let is_accepted = last.as_ref().is_ok_and(|reply| plan.accepts(reply.status));
        if is_accepted || attempts > retries {
            return Ok(Sent {
                guise: callback.guise,
                last: last.map_err(|error| format!("{error:#}")),
                is_accepted,
                attempts,
                took,
            });
        }
        if plan.count == 1 {
            let seen = match &last {
                Ok(reply) => summary::answer(reply),
                Err(error) => format!("{error:#}"),
            };
            eprintln!(
                "attempt {attempts}: {seen}; again in {} s",
                wait.as_secs_f64()
            );
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2);
    }
}

/// A bar on standard error, on a terminal, from the second second on.
fn progress(count: u64) -> ProgressBar {
    if count < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr_with_hz(4));
    let style = "{bar:32} {pos}/{len} {per_sec:.0}, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

fn list_kinds() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for kind in samples::all()? {
        let stage = kind.stage.as_deref().unwrap_or("-");
        text.push_str(&format!("{:36} {stage:10} {}\n", kind.name, kind.page));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
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
