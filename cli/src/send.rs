//! `send`: signed callbacks to a URL, one or many, as the sender makes them.

mod args;
mod challenge;
mod plan;
mod summary;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Uri;
use hyper::body::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use crate::exit::SAID_NO;
use crate::http::{Client, Trust};
use crate::{output, samples, time};
pub(crate) use args::SendArgs;
use plan::{Guise, Plan};
use summary::{Sent, Summary};

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
