//! `schema`: the JSON Schema of the configuration.

use std::process::ExitCode;

use anyhow::anyhow;
use callback_guard_config as config;
use clap::Args;

use crate::output;

/// Print the JSON Schema of the configuration, for completion and checks in an editor.
///
/// docs/config.schema.json holds the same. The schema knows fields, types, choices and ranges;
/// `check` knows the rules between them too.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  callback-guard schema > guard.schema.json

In the settings of an editor (a field `$schema` in the configuration itself would be refused):
  \"json.schemas\": [{ \"fileMatch\": [\"guard.json\"], \"url\": \"./guard.schema.json\" }]")]
pub(crate) struct SchemaArgs {}

/// Prints the schema.
///
/// # Errors
///
/// Standard output is closed.
pub(crate) fn run(SchemaArgs {}: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let schema = config::schema().map_err(|error| anyhow!("{error}"))?;
    output::print(&format!(
        "{schema:#}
"
    ))?;
    Ok(ExitCode::SUCCESS)
}
