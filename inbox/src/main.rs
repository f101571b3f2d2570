//! The `callback-guard-inbox` program: see the library.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use callback_guard_inbox::args::{Cli, Command};
use callback_guard_inbox::commands::{self, Said};
use callback_guard_inbox::inbox::Inbox;
use callback_guard_inbox::settings::Settings;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The exit code for an answer that is no.
const SAID_NO: u8 = 1;
/// The exit code for wrong arguments, or a store or port that cannot be opened.
const USAGE: u8 = 2;

/// Sent for a file that would grow beyond its limit: without a handler it ends the process, with
/// one the write fails, and the event is answered 503.
const SIGXFSZ: i32 = 25;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(Said::Yes) => ExitCode::SUCCESS,
        Ok(Said::No) => ExitCode::from(SAID_NO),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

async fn run(command: Command) -> Result<Said> {
    match command {
        Command::Run(args) => serve((*args).settings()?).await,
        Command::List(args) => commands::list(&args).await,
        Command::Show(args) => commands::show(&args).await,
        Command::Replay(args) => commands::replay(&args).await,
        Command::Discard(args) => commands::discard(&args).await,
        Command::Pause(args) => commands::pause(&args).await,
        Command::Resume(args) => commands::resume(&args).await,
        Command::Stats(args) => commands::stats(&args).await,
    }
}

async fn serve(settings: Settings) -> Result<Said> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("cannot handle SIGXFSZ")?;
    let (store, to) = (settings.store.clone(), settings.to.clone());
    let inbox = Inbox::open(settings).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = %store,
        to = %to,
        listen = %inbox.address()?,
        admin = %inbox.admin_address()?,
        "ready"
    );
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true);
    });
    inbox.run(stopped).await?;
    tracing::info!("stopped");
    Ok(Said::Yes)
}
