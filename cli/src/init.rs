//! `init`: from a sender's name to a filter block for an existing Envoy, Istio or Envoy Gateway.
//!
//! The blocks are cut out of the repository's own files, which tests run in a real Envoy: there is
//! no second copy to keep in step.

mod block;
mod files;
mod limits;
mod source;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::output;
use files::{ENVOY, GATEWAY, GATEWAY_GUARD, ISTIO};
use source::{Match, Wanted};

/// Print a complete filter block for a sender, to be put into an existing configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  callback-guard init --preset stripe
  callback-guard init --preset github --path /hooks/github --secret-env GITHUB_SECRET
  callback-guard init --preset suno --istio > callback-guard.yaml
  callback-guard init --preset suno --gateway | callback-guard check --assume-env -
  callback-guard init --list")]
pub(crate) struct InitArgs {
    /// The sender's preset
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    preset: Option<String>,
    /// List the presets and their senders
    #[arg(long, exclusive = true)]
    list: bool,
    /// A filter for an Envoy configuration, with the limits that go with it; this is the default
    #[arg(long, group = "platform")]
    envoy: bool,
    /// An EnvoyFilter for an Istio gateway
    #[arg(long, group = "platform")]
    istio: bool,
    /// Manifests for Envoy Gateway
    #[arg(long, group = "platform")]
    gateway: bool,
    /// The guard's own JSON alone
    #[arg(long, group = "platform")]
    json: bool,
    /// The path of the callback URL [default: /callbacks/NAME]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The environment variable with the secret or public key [default: NAME_WEBHOOK_KEY]
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Option<String>,
}

/// Prints the block.
///
/// # Errors
///
/// The preset is unknown, or the path or the variable is one that the filter refuses.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let Some(preset) = args.preset.as_deref() else {
        return output::print(&source::list()?);
    };
    let mut source = source::build(Wanted {
        preset,
        path: args.path.as_deref(),
        // A URL that is signed up to its end needs an exact path.
        matching: if args.istio && !crate::source::signs_url(preset) {
            Match::Prefix
        } else {
            Match::Path
        },
        variable: args.secret_env.as_deref(),
    })?;
    let text = if args.json {
        let mut text = serde_json::to_string_pretty(&source.configuration)?;
        text.push('\n');
        text
    } else if args.istio {
        source.configuration.unmatched = Some("pass");
        block::filled(ISTIO, &source)?
    } else if args.gateway {
        source.configuration.hold_headers = Some("buffer_after");
        let gateway = block::filled(GATEWAY, &source)?;
        format!("{gateway}---\n{}", block::filled(GATEWAY_GUARD, &source)?)
    } else {
        let filter = block::cut(ENVOY, "- name: envoy.filters.http.wasm")
            .context("envoy.yaml has no guard")?;
        limits::comment(&source)? + &block::filled(&filter, &source)?
    };
    output::print(&text)
}
