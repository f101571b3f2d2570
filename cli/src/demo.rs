//! `demo`: the guard in a real Envoy, before an upstream that records what it sees.

use std::process::ExitCode;

use clap::Args;

/// Start a real Envoy with the filter and show what it does with genuine and forged callbacks.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  callback-guard demo --keep")]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, and print a ready `curl`
    #[arg(long)]
    pub(crate) keep: bool,
    /// Several Envoys that share their events
    #[arg(long)]
    pub(crate) fleet: bool,
}

/// Runs the demo.
#[allow(clippy::unnecessary_wraps, reason = "what is to come can fail")]
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let _ = (args.keep, args.fleet);
    println!("not built yet");
    Ok(ExitCode::SUCCESS)
}
