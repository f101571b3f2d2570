//! `demo`: the guard in a real Envoy, before an upstream that records what it sees.

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
#[command(after_help = "Examples:\n  callback-guard demo\n  callback-guard demo --keep")]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, and print a ready `curl`; Ctrl-C ends it
    #[arg(long)]
    pub(crate) keep: bool,
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
    let report = |line: &str| progress.report(line);
    progress.report("building the filter and looking for Envoy");
    let stack = Setup::new().progress(&report).start()?;
    progress.done();
    println!("Envoy listens on http://{}{}", stack.address(), story::PATH);

    let steps = story::tell(SECRET)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "what was sent",
        "the sender got",
        "the upstream saw",
        "as promised",
    ]);
    let mut broken = 0_usize;
    let total = steps.len();
    for step in steps {
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let Shown {
            sender,
            upstream,
            is_as_promised,
        } = show(&stack, &step)?;
        let mark = if is_as_promised { "yes" } else { "NO" };
        table.add_row([step.what.as_str(), &sender, &upstream, mark]);
        broken = broken.saturating_add(usize::from(!is_as_promised));
    }
    println!("{table}");
    if broken > 0 {
        println!("{broken} of {total} are not as promised");
    } else {
        println!("all {total} are as promised");
    }
    if args.keep {
        keep(&stack, &interrupted)?;
    }
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SAID_NO)
    })
}

/// What came of a step.
struct Shown {
    sender: String,
    upstream: String,
    is_as_promised: bool,
}

fn show(stack: &Stack, step: &Step) -> anyhow::Result<Shown> {
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
    let words: Vec<String> = got
        .iter()
        .map(|(status, code)| match code {
            Some(code) => format!("{status} {code}"),
            None => status.to_string(),
        })
        .collect();
    let seen = stack.upstream.recorded();
    let bodies: Vec<&[u8]> = seen.iter().map(|record| record.body.as_slice()).collect();
    let expected = step
        .sender
        .iter()
        .map(|(status, code)| (*status, code.map(str::to_owned)));
    Ok(Shown {
        sender: words.join(", "),
        upstream: match bodies.len() {
            0 => "nothing".to_owned(),
            1 => "the callback".to_owned(),
            count => format!("{count} callbacks"),
        },
        is_as_promised: got.iter().cloned().eq(expected) && bodies == step.delivered,
    })
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
