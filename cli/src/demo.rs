//! `demo`: the guard in a real Envoy, before an upstream that records what it sees.

mod fleet;
mod story;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use callback_guard_harness::{Answer, SECRET, Setup, Stack};
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::ProgressBar;

use crate::{SAID_NO, curl, time};
use story::Step;

/// Start a real Envoy with the filter, send it genuine and forged callbacks, and show what the
/// sender got and what the upstream saw
///
/// Exits with 0 only if all is as promised.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  callback-guard demo\n  callback-guard demo --keep\n  callback-guard demo --fleet"
)]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, and print a ready `curl`; Ctrl-C ends it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Instead: two Envoys that share their events through one Redis
    #[arg(long, conflicts_with = "keep")]
    pub(crate) fleet: bool,
}

/// Runs the demo.
///
/// # Errors
///
/// There is no Envoy, or the filter does not build: nothing could be shown.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // What was started ends with this process's values, so the handler only tells the others.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("cannot listen for Ctrl-C")?;

    let progress = Progress::new();
    progress.report("building the filter and looking for Envoy");
    if args.fleet {
        return Ok(judge(fleet::show(&progress)?));
    }
    let report = |line: &str| progress.report(line);
    let stack = Setup::new().progress(&report).start()?;
    progress.done();
    println!("Envoy listens on http://{}{}", stack.address(), story::PATH);

    let mut rows = Vec::new();
    for step in story::tell(SECRET)? {
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        rows.push(show(&stack, &step)?);
    }
    let verdict = judge(rows);
    if args.keep {
        keep(&stack, &interrupted)?;
    }
    Ok(verdict)
}

/// What came of a step.
struct Row {
    what: String,
    sender: String,
    upstream: String,
    is_as_promised: bool,
}

/// Prints all of it, and says whether it is as promised.
fn judge(rows: Vec<Row>) -> ExitCode {
    let total = rows.len();
    let broken = rows.iter().filter(|row| !row.is_as_promised).count();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "what was sent",
        "the sender got",
        "the upstream saw",
        "as promised",
    ]);
    for row in rows {
        let mark = if row.is_as_promised { "yes" } else { "NO" };
        table.add_row([row.what.as_str(), &row.sender, &row.upstream, mark]);
    }
    println!("{table}");
    if broken > 0 {
        println!("{broken} of {total} are not as promised");
        return ExitCode::from(SAID_NO);
    }
    println!("all {total} are as promised");
    ExitCode::SUCCESS
}

fn show(stack: &Stack, step: &Step) -> anyhow::Result<Row> {
    stack.upstream.clear();
    if step.upstream.is_empty() {
        stack.upstream.answer(Answer::status(200));
    } else {
        stack.upstream.answer_in_turn(step.upstream.clone());
    }
    let mut got = Vec::with_capacity(step.requests.len());
    for request in &step.requests {
        let response = stack.send(request)?;
        got.push((response.status, response.header("x-callback-guard")));
    }
    let told: Vec<String> = got
        .iter()
        .map(|(status, code)| words(*status, code.as_deref()))
        .collect();
    let seen = stack.upstream.recorded();
    let bodies: Vec<&[u8]> = seen.iter().map(|record| record.body.as_slice()).collect();
    let expected = step
        .sender
        .iter()
        .map(|(status, code)| (*status, code.map(str::to_owned)));
    Ok(Row {
        what: step.what.clone(),
        sender: told.join(", "),
        upstream: callbacks(bodies.len()),
        is_as_promised: got.iter().cloned().eq(expected) && bodies == step.delivered,
    })
}

/// A status, and the guard's own word if it has answered.
fn words(status: u16, code: Option<&str>) -> String {
    match code {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

/// So many callbacks, in words.
fn callbacks(count: usize) -> String {
    match count {
        0 => "nothing".to_owned(),
        1 => "the callback".to_owned(),
        count => format!("{count} callbacks"),
    }
}

fn keep(stack: &Stack, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let now = time::now();
    let body = story::body(&format!("by-hand-{}", now.as_millis()), "complete");
    let headers = story::Signer::new(SECRET)?.headers(&body, now)?;
    let url = format!("http://{}{}", stack.address(), story::PATH);
    let data = String::from_utf8(body).context("the body is no text")?;
    println!("\nIt keeps running until Ctrl-C. A genuine callback, fresh for five minutes:\n");
    println!(
        "{}",
        curl::command(&url, &headers, curl::Data::Inline(&data))
    );
    println!("\nFor others: SUNO_WEBHOOK_KEY={SECRET} cargo callback-guard send {url}");
    println!(
        "Metrics: http://{}/stats/prometheus",
        stack.envoy.admin_address()
    );
    while !interrupted.load(Ordering::Relaxed) && stack.envoy.is_running() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// One line that says what takes so long; without a terminal, a line for each thing said.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self(bar)
    }

    fn report(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(line.to_owned()),
            None => eprintln!("{line}"),
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
