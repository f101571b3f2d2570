//! The settings of an existing Envoy that belong to the guard, as a comment: taken from the
//! repository's `envoy.yaml`.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::files::ENVOY;
use super::source::Source;

/// Where `envoy.yaml` has the HTTP connection manager.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// Where the connection manager has the timeout of the route.
const ROUTE_TIMEOUT: &str = "/route_config/virtual_hosts/0/routes/0/route/timeout";

/// Room for what Envoy counts in addition to the body, in bytes.
const SLACK: usize = 256 << 10;

/// Fields of the HTTP connection manager that the guard relies on.
const MANAGED: &[&str] = &[
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "strip_any_host_port",
    "strip_trailing_host_dot",
    "preserve_external_request_id",
    "request_headers_timeout",
    "request_timeout",
    "stream_idle_timeout",
    "max_request_headers_kb",
    "common_http_protocol_options",
    "http2_protocol_options",
];

/// The comment.
///
/// # Errors
///
/// None while `envoy.yaml` has the form that tests hold it to.
pub(super) fn comment(source: &Source) -> anyhow::Result<String> {
    let envoy: Value = yaml_serde::from_str(ENVOY).context("envoy.yaml")?;
    let manager = envoy.pointer(MANAGER).context("envoy.yaml: no manager")?;
    let timeout = manager
        .pointer(ROUTE_TIMEOUT)
        .context("envoy.yaml: no timeout of the route")?;
    let buffer = json!(source.max_body_bytes.saturating_add(SLACK));

    let mut fields = Map::new();
    for name in MANAGED {
        if let Some(value) = manager.get(*name) {
            fields.insert((*name).to_owned(), value.clone());
        }
    }
    if let Some(window) = fields
        .get_mut("http2_protocol_options")
        .and_then(|options| options.get_mut("initial_stream_window_size"))
    {
        *window = buffer.clone();
    }
    let mut text = String::from(
        "# In your Envoy, besides this filter (envoy.yaml gives the reason for each setting):\n#\n",
    );
    let mut section = |place: &str, value: &Value| -> anyhow::Result<()> {
        let _ = writeln!(text, "# {place}:");
        for line in yaml_serde::to_string(value)?.lines() {
            let _ = writeln!(text, "#   {line}");
        }
        Ok(())
    };
    section(
        "the listener",
        &json!({ "per_connection_buffer_limit_bytes": buffer }),
    )?;
    section("its http_connection_manager", &Value::Object(fields))?;
    section(
        &format!("the route of {}, with no retry_policy", source.path),
        &json!({ "timeout": timeout }),
    )?;
    text.push_str("#\n# First in http_filters, before every other filter:\n");
    Ok(text)
}
