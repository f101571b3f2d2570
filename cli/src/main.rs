//! The `callback-guard` program: what goes with the filter on a developer's or an operator's desk.
//!
//! It knows no rule of its own. What a signature is made of, what a configuration may say and why a
//! request is refused, it asks the filter's own code.

mod body;
mod capture;
mod check;
mod curl;
mod demo;
mod envoy;
mod exit;
mod explain;
mod http;
mod init;
mod output;
mod samples;
mod schema;
mod send;
mod sign;
mod source;
mod time;
mod warnings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Signs, sends and explains callbacks, and checks configurations of the callback-guard filter.
#[derive(Debug, Parser)]
#[command(
    name = "callback-guard",
    version,
    after_help = "Exit codes: 0 yes, 1 no (a refused callback, a wrong configuration), 2 usage."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Demo(demo::DemoArgs),
    Explain(explain::ExplainArgs),
    Init(init::InitArgs),
    Schema(schema::SchemaArgs),
    Send(Box<send::SendArgs>),
    Sign(sign::SignArgs),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Sign(args) => sign::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(exit::USAGE)
    })
}
