//! `demo`: the guard in a real Envoy, in front of an application that records what it sees.

mod envoy;
mod fleet;
mod inbox;
mod interrupt;
mod screen;
mod story;
mod words;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use callback_guard_harness::{Answer, Filter, SECRET, Setup, Stack, native, wasm};
use clap::Args;

use crate::{curl, time};
use envoy::find_envoy;
use interrupt::{INTERRUPTED, stop_if};
use screen::{Row, Screen};
use story::Step;
use words::{answers, callbacks, words};

/// What to do after the demo.
const NEXT: &[(&str, &str)] = &[
    ("cargo demo --keep", "leave it running, with a ready curl"),
    (
        "cargo callback-guard init --preset suno",
        "a configuration for you",
    ),
    ("docs/envoy.md", "in front of your existing Envoy"),
];

/// Start a real Envoy with the filter, send it genuine and forged callbacks, and show what the
/// sender got and what the application saw
///
/// Exits with 0 only if all is as promised.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  callback-guard demo\n  callback-guard demo --verbose\n  callback-guard demo --keep\n  callback-guard demo --fleet\n  callback-guard demo --inbox\n  callback-guard demo --native"
)]
pub(crate) struct DemoArgs {
    /// List each of the genuine kinds of callbacks
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Leave everything running at the end, and print a ready `curl`; Ctrl-C ends it
    #[arg(long)]
    pub(crate) keep: bool,
    /// The native build (`docs/native.md`) instead of the WebAssembly module
    #[arg(long)]
    pub(crate) native: bool,
    /// Instead: two Envoys that share their events through one Redis
    #[arg(long, conflicts_with_all = ["keep", "native", "verbose"])]
    pub(crate) fleet: bool,
    /// Instead: an inbox between Envoy and the application, which is down for a while
    #[arg(long, conflicts_with_all = ["fleet", "keep", "native", "verbose"])]
    pub(crate) inbox: bool,
}

/// Runs the demo.
///
/// # Errors
///
/// There is no Envoy, or the filter does not build: nothing could be shown.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // What was started ends with this process's values, so the handler only sets a flag. Programs
    // that are running, a compiler or pip, get the terminal's signal themselves.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("cannot listen for Ctrl-C")?;
    let result = if args.fleet {
        fleet::show(&interrupted)
    } else if args.inbox {
        inbox::show(&interrupted)
    } else {
        single(args, &interrupted)
    };
    // Whatever failed then, Ctrl-C is the reason: the programs that were started got it too.
    if result.is_err() && interrupted.load(Ordering::Relaxed) {
        eprintln!("interrupted; nothing is left running");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    result
}

fn single(args: &DemoArgs, interrupted: &AtomicBool) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new("who gets through, and what the application sees");
    let filter = if args.native {
        Filter::Native
    } else {
        Filter::Wasm
    };
    let stack = start(&screen, filter)?;
    for chapter in story::chapters(SECRET)? {
        screen.chapter(chapter.title);
        for step in &chapter.steps {
            stop_if(interrupted)?;
            screen.detail(&step.what);
            screen.row(&show(&stack, step)?);
        }
    }
    genuine(&mut screen, &stack, args.verbose, interrupted)?;
    let verdict = screen.end(NEXT);
    if args.keep {
        keep(&stack, interrupted)?;
    }
    Ok(verdict)
}

/// Builds the filter, finds Envoy, and starts both ends.
fn start(screen: &Screen, filter: Filter) -> anyhow::Result<Stack> {
    let detail = |line: &str| screen.detail(line);
    screen.working("building the filter (the first build takes a minute)");
    let (module, name) = match filter {
        Filter::Native => (native::module(&detail)?, "libcallback_guard.so"),
        Filter::Wasm => (wasm::module(&detail)?, "callback_guard.wasm"),
    };
    let size = std::fs::metadata(&module)?.len() / 1000;
    screen.fact("filter", &format!("{name}, {size} KB"));
    find_envoy(screen)?;
    screen.working("starting Envoy");
    let stack = Setup::new().filter(filter).progress(&detail).start()?;
    screen.fact(
        "listens on",
        &format!("http://{}{}", stack.address(), story::PATH),
    );
    Ok(stack)
}

/// The chapter of the genuine kinds: one row, or with `verbose` a row each.
fn genuine(
    screen: &mut Screen,
    stack: &Stack,
    verbose: bool,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    screen.chapter("4. Everything genuine arrives, byte for byte");
    let steps = story::genuine(SECRET)?;
    let total = steps.len();
    let mut arrived = 0_usize;
    for step in &steps {
        stop_if(interrupted)?;
        screen.detail(&step.what);
        let row = show(stack, step)?;
        arrived = arrived.saturating_add(usize::from(row.is_as_promised));
        if verbose || !row.is_as_promised {
            screen.row(&row);
        }
    }
    if !verbose {
        screen.row(&Row {
            what: format!("{total} kinds from the sender's docs"),
            sender: "200 each".to_owned(),
            application: format!("{arrived} of {total}"),
            is_as_promised: arrived == total,
        });
        screen.say("  (--verbose lists them)");
    }
    Ok(())
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
    let seen = stack.upstream.recorded();
    let bodies: Vec<&[u8]> = seen.iter().map(|record| record.body.as_slice()).collect();
    let expected = step
        .sender
        .iter()
        .map(|(status, code)| (*status, code.map(str::to_owned)));
    Ok(Row {
        what: step.what.clone(),
        sender: answers(
            got.iter()
                .map(|(status, code)| words(*status, code.as_deref())),
        ),
        application: callbacks(bodies.len()),
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
        curl::command(
            &url,
            "application/json",
            &headers,
            curl::Data::Inline(&data)
        )
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
