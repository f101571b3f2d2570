//! The guard as a dynamic module, made from its configuration as a WebAssembly module.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{native, places};

/// The HTTP filter in place of the WebAssembly one, with the guard's own configuration.
///
/// With the name space of the WebAssembly host's metrics, so that names, tags, dashboards and alerts
/// are the same for both.
pub(super) fn filter(configuration: Value) -> Value {
    json!({
        "name": "callback-guard",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {
                "name": native::NAME,
                "do_not_close": true,
                "metrics_namespace": "wasmcustom",
            },
            "filter_name": "callback-guard",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration,
            },
        },
    })
}

/// What has to be switched on in Envoy beside the filter: that Prometheus sees the metrics without their name
/// space and without `envoy_`, as it sees those of a WebAssembly module.
pub(super) fn runtime() -> Value {
    json!({
        "layers": [{
            "name": "callback-guard",
            "static_layer": { STRIP_PREFIX: true },
        }],
    })
}

pub(super) const STRIP_PREFIX: &str =
    "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";

/// The same, as `envoy-native.yaml` has it.
const RUNTIME: &str = concat!(
    "        # The guard's metrics are called callback_guard_... in Prometheus, as those of the WebAssembly module are.\n",
    "        envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix: true\n",
);

/// The filter as `envoy-native.yaml` has it, up to the guard's own configuration.
const FILTER: &str = r#"                  - name: callback-guard
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter
                      dynamic_module_config:
                        # libcallback_guard.so, in the directory ENVOY_DYNAMIC_MODULES_SEARCH_PATH.
                        name: callback_guard
                        # The memory store is in the module: it must outlive a change of this file.
                        do_not_close: true
                        # As the WebAssembly module's: one set of names, tags and alerts for both.
                        metrics_namespace: wasmcustom
                      filter_name: callback-guard
                      filter_config:
"#;

/// `envoy-native.yaml`: the repository's `envoy.yaml`, comments and all, with the guard as a dynamic
/// module.
///
/// # Errors
///
/// If `envoy.yaml` cannot be read, or a line that has to be replaced is not in it.
pub fn envoy_native_yaml() -> Result<String> {
    let path = places::repository().join("envoy.yaml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = replaced(
        &text,
        "#   envoy -c envoy.yaml --component-log-level wasm:info\n",
        "#   ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/envoy \\\n\
         #     envoy -c envoy-native.yaml --component-log-level dynamic_modules:info\n#\n\
         # Made from envoy.yaml; do not edit. docs/native.md says what differs, and how to make it again.\n",
    )?;
    let text = replaced(&text, "`wasm:info`", "`dynamic_modules:info`")?;

    let text = replaced(
        &text,
        "        http.max_requests_per_io_cycle: 10\n",
        &format!("        http.max_requests_per_io_cycle: 10\n{RUNTIME}"),
    )?;
    let (before, guard) = text
        .split_once("                  - name: envoy.filters.http.wasm\n")
        .context("envoy.yaml: no envoy.filters.http.wasm")?;
    let (_, configuration) = guard
        .split_once("                        configuration:\n")
        .context("envoy.yaml: no configuration of the guard")?;
    let (configuration, after) = configuration
        .split_once("                  - name: envoy.filters.http.router\n")
        .context("envoy.yaml: no envoy.filters.http.router")?;
    Ok(format!(
        "{before}{FILTER}{configuration}                  - name: envoy.filters.http.router\n{after}"
    ))
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "envoy.yaml: no {from:?}");
    Ok(text.replacen(from, to, 1))
}
