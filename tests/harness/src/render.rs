//! The repository's `envoy.yaml`, changed where a run needs it changed.

// Assigning to a member of a JSON object adds it. It panics only where no object stands.
#![allow(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::filter::Filter;
use crate::{native, places};

mod dynamic_module;

pub use dynamic_module::envoy_native_yaml;

/// The name of the guard's filter.
const WASM: &str = "envoy.filters.http.wasm";

/// Where cluster `app` says which HTTP it speaks.
const UPSTREAM_HTTP: &str = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/explicit_http_config";

/// An Envoy configuration that is being changed.
///
/// Each change says what it means to; the rest is the repository's. A change that finds nothing to
/// change is an error, which [`Render::document`] and whatever starts an Envoy report.
#[derive(Clone, Debug)]
#[must_use]
pub struct Render {
    document: Result<Value, String>,
    filter: Filter,
}

impl Render {
    /// The repository's `envoy.yaml`, as it is.
    pub fn repository() -> Self {
        let path = places::repository().join("envoy.yaml");
        match fs::read_to_string(&path) {
            Ok(text) => Self::yaml(&text),
            Err(error) => Self {
                document: Err(format!("cannot read {}: {error}", path.display())),
                filter: Filter::Wasm,
            },
        }
    }

    /// Another configuration, in YAML or JSON.
    pub fn yaml(text: &str) -> Self {
        // By way of the YAML value, which refuses a key that comes twice.
        let document = yaml_serde::from_str::<yaml_serde::Value>(text)
            .map_err(anyhow::Error::from)
            .and_then(|document| Ok(serde_json::to_value(document)?))
            .map_err(|error| format!("the Envoy configuration: {error}"));
        Self {
            document,
            filter: Filter::Wasm,
        }
    }

    /// Sets which build of the guard it is written for. Changes are made to the module's
    /// configuration in any case: what is written, or started, is translated last of all.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// As [`Render::filter`], with what the environment says.
    pub(crate) fn chosen_filter(mut self) -> Self {
        match Filter::chosen() {
            Ok(filter) => self.filter = filter,
            Err(error) => self.document = Err(format!("{error:#}")),
        }
        self
    }

    /// The build that it is written for.
    pub(crate) fn chosen(&self) -> Filter {
        self.filter
    }

    /// The same for an Envoy of another release than the repository's: before 1.40 the list of
    /// capabilities stood in the plugin, not in its `vm_config`.
    pub(crate) fn for_release(self, release: Option<(u32, u32)>) -> Self {
        if release.is_none_or(|release| release >= (1, 40)) {
            return self;
        }
        self.edit(capabilities_to_plugin)
    }

    /// The configuration as it stands.
    ///
    /// # Errors
    ///
    /// The first change that failed.
    pub fn document(&self) -> Result<&Value> {
        self.document.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// Changes anything.
    pub fn edit(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_edit(|document| {
            edit(document);
            Ok(())
        })
    }

    /// Changes anything, or fails.
    pub fn try_edit(mut self, edit: impl FnOnce(&mut Value) -> Result<()>) -> Self {
        if let Ok(document) = &mut self.document
            && let Err(error) = edit(document)
        {
            self.document = Err(format!("{error:#}"));
        }
        self
    }

    /// Listener and admin on free ports of the loopback.
    pub fn on_free_ports(self) -> Self {
        let anywhere = json!({ "address": "127.0.0.1", "port_value": 0 });
        self.try_edit(|document| {
            *at(document, "/admin/address/socket_address")? = anywhere.clone();
            *at(listener(document)?, "/address/socket_address")? = anywhere;
            Ok(())
        })
    }

    /// The address of cluster `app`.
    pub fn upstream(self, address: SocketAddr) -> Self {
        let socket = json!({ "address": address.ip(), "port_value": address.port() });
        self.try_edit(|document| {
            let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
            at(cluster(document)?, endpoint)?["address"]["socket_address"] = socket;
            Ok(())
        })
    }

    /// HTTP/2 towards the upstream, in place of HTTP/1.1.
    pub fn upstream_http2(self) -> Self {
        self.try_edit(|document| {
            *at(cluster(document)?, UPSTREAM_HTTP)? = json!({ "http2_protocol_options": {} });
            Ok(())
        })
    }

    /// Changes cluster `app`.
    pub fn cluster(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_edit(|document| {
            edit(cluster(document)?);
            Ok(())
        })
    }

    /// Adds a cluster.
    pub fn add_cluster(self, cluster: Value) -> Self {
        self.try_edit(|document| {
            list(document, "/static_resources/clusters")?.push(cluster);
            Ok(())
        })
    }

    /// Changes the listener.
    pub fn listener(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_edit(|document| {
            edit(listener(document)?);
            Ok(())
        })
    }

    /// Changes the configuration of the HTTP connection manager.
    pub fn connection_manager(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_edit(|document| {
            edit(manager(document)?);
            Ok(())
        })
    }

    /// Lets trailers of HTTP/1.1 requests through to the filters, and on to the upstream.
    pub fn http1_trailers(self) -> Self {
        self.try_edit(|document| {
            manager(document)?["http_protocol_options"]["enable_trailers"] = true.into();
            let upstream = at(cluster(document)?, UPSTREAM_HTTP)?;
            upstream["http_protocol_options"]["enable_trailers"] = true.into();
            Ok(())
        })
    }

    /// The route's timeout, in place of the repository's; zero is none.
    pub fn route_timeout(self, timeout: Duration) -> Self {
        self.try_edit(|document| {
            let route = "/route_config/virtual_hosts/0/routes/0/route";
            let seconds = format!("{:.3}s", timeout.as_secs_f64());
            at(manager(document)?, route)?["timeout"] = seconds.into();
            Ok(())
        })
    }

    /// The path of the Wasm module.
    pub fn module(self, path: &Path) -> Self {
        let path = path.display().to_string();
        self.try_plugin(|plugin| {
            *at(plugin, "/vm_config/code/local/filename")? = path.into();
            Ok(())
        })
    }

    /// Changes the guard's own configuration, the JSON of its `sources` and so on.
    pub fn guard(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_plugin(|plugin| {
            let text = at(plugin, "/configuration/value")?;
            let mut config = serde_json::from_str(text.as_str().unwrap_or_default())
                .context("the guard's configuration is no JSON")?;
            edit(&mut config);
            *text = config.to_string().into();
            Ok(())
        })
    }

    /// The guard's own configuration as a text, which need not be JSON.
    pub fn guard_text(self, text: &str) -> Self {
        self.try_plugin(|plugin| {
            *at(plugin, "/configuration/value")? = text.into();
            Ok(())
        })
    }

    /// Changes the Wasm plugin's configuration (`PluginConfig`).
    pub fn plugin(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.try_plugin(|plugin| {
            edit(plugin);
            Ok(())
        })
    }

    /// The variables that the guard sees, by value, in place of those passed on from Envoy's own.
    pub fn environment(self, variables: &[(&str, &str)]) -> Self {
        let values: BTreeMap<_, _> = variables.iter().copied().collect();
        self.plugin(|plugin| {
            plugin["vm_config"]["environment_variables"] = json!({ "key_values": values });
        })
    }

    /// The variables of Envoy's environment that the guard sees.
    pub fn host_environment(self, names: &[&str]) -> Self {
        self.plugin(|plugin| {
            plugin["vm_config"]["environment_variables"] = json!({ "host_env_keys": names });
        })
    }

    /// `allow_on_headers_stop_iteration`.
    pub fn headers_stop_iteration(self, allow: bool) -> Self {
        self.plugin(|plugin| plugin["allow_on_headers_stop_iteration"] = allow.into())
    }

    /// `failure_policy`, such as `FAIL_CLOSED`.
    pub fn failure_policy(self, policy: &str) -> Self {
        self.plugin(|plugin| plugin["failure_policy"] = policy.into())
    }

    /// The same Envoy without the guard.
    pub fn without_guard(self) -> Self {
        self.try_edit(|document| {
            let guard = guard_index(document)?;
            filters(document)?.remove(guard);
            Ok(())
        })
    }

    /// Puts an HTTP filter before the guard.
    pub fn before_guard(self, filter: Value) -> Self {
        self.try_edit(|document| {
            let guard = guard_index(document)?;
            filters(document)?.insert(guard, filter);
            Ok(())
        })
    }

    /// Puts an HTTP filter right after the guard.
    pub fn after_guard(self, filter: Value) -> Self {
        self.try_edit(|document| {
            let guard = guard_index(document)?;
            filters(document)?.insert(guard + 1, filter);
            Ok(())
        })
    }

    /// The path of the Wasm module, if the guard is there and has one.
    pub fn module_path(&self) -> Option<PathBuf> {
        let mut document = self.document.clone().ok()?;
        let guard = guard_index(&mut document).ok()?;
        let plugin = plugin(&mut document, guard).ok()?;
        let path = at(plugin, "/vm_config/code/local/filename").ok()?;
        path.as_str().map(PathBuf::from)
    }

    /// Whether the guard is there.
    pub fn has_guard(&self) -> bool {
        let document = self.document.clone();
        document.is_ok_and(|mut document| guard_index(&mut document).is_ok())
    }

    /// The configuration as Envoy gets it: with the build of the guard that was chosen.
    ///
    /// # Errors
    ///
    /// The first change that failed.
    pub fn translated(&self) -> Result<Value> {
        let mut document = self.document()?.clone();
        if self.filter == Filter::Native && self.has_guard() {
            let guard = guard_index(&mut document)?;
            let text = at(plugin(&mut document, guard)?, "/configuration/value")?.take();
            let mut native = dynamic_module::filter(text);
            let filter = filters(&mut document)?.get_mut(guard);
            let filter = filter.context("the guard is gone")?;
            if let Some(disabled) = filter.get("disabled") {
                native["disabled"] = disabled.clone();
            }
            let name = native["name"].clone();
            *filter = native;
            rename_per_filter(&mut document, name.as_str().unwrap_or_default());
            match document.pointer_mut("/layered_runtime/layers/0/static_layer") {
                Some(layer) => layer[dynamic_module::STRIP_PREFIX] = true.into(),
                None => document["layered_runtime"] = dynamic_module::runtime(),
            }
        }
        Ok(document)
    }

    /// What Envoy's own environment has to have for the native build: the directory of the module,
    /// and what the WebAssembly module would be given by value.
    pub(crate) fn process_environment(&self) -> Vec<(String, String)> {
        let (Filter::Native, Some(module)) = (self.filter, self.module_path()) else {
            return Vec::new();
        };
        let directory = module.parent().unwrap_or(&module).display().to_string();
        let mut variables = vec![(native::SEARCH_PATH_VARIABLE.to_owned(), directory)];
        if let Ok(mut document) = self.document().cloned()
            && let Ok(guard) = guard_index(&mut document)
            && let Ok(plugin) = plugin(&mut document, guard)
            && let Some(values) =
                plugin["vm_config"]["environment_variables"]["key_values"].as_object()
        {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            variables.extend(values.iter().map(|(key, value)| (key.clone(), text(value))));
        }
        variables
    }

    /// Writes the configuration into `directory`, where `envoy.json` becomes the file to start with.
    ///
    /// # Errors
    ///
    /// The first change that failed; or that the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        write(directory, "envoy.json", &self.translated()?)
    }

    /// As [`Render::write`], with the listener in a file of its own, which Envoy watches.
    ///
    /// # Errors
    ///
    /// As for [`Render::write`].
    pub(crate) fn write_dynamic(&self, directory: &Path) -> Result<PathBuf> {
        self.write_listener(directory)?;
        let mut document = self.translated()?;
        if let Some(resources) = document["static_resources"].as_object_mut() {
            resources.remove("listeners");
        }
        let file = directory.join(LISTENER).display().to_string();
        document["node"] = json!({ "id": "callback-guard", "cluster": "callback-guard" });
        document["dynamic_resources"] = json!({
            "lds_config": {
                "resource_api_version": "V3",
                "path_config_source": { "path": file },
            },
        });
        write(directory, "envoy.json", &document)
    }

    /// Moves the listener's file into its place in `directory`, where Envoy watches it.
    ///
    /// # Errors
    ///
    /// As for [`Render::write`].
    pub(crate) fn write_listener(&self, directory: &Path) -> Result<()> {
        let mut document = self.translated()?;
        let mut listener = listener(&mut document)?.take();
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        let next = write(
            directory,
            "listener.next",
            &json!({ "resources": [listener] }),
        )?;
        fs::rename(next, directory.join(LISTENER))?;
        Ok(())
    }

    fn try_plugin(self, edit: impl FnOnce(&mut Value) -> Result<()>) -> Self {
        self.try_edit(|document| {
            let guard = guard_index(document)?;
            edit(plugin(document, guard)?)
        })
    }
}

/// Has the routes' settings for the guard follow its name.
fn rename_per_filter(value: &mut Value, name: &str) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| rename_per_filter(item, name)),
        Value::Object(fields) => {
            if let Some(Value::Object(settings)) = fields.get_mut("typed_per_filter_config")
                && let Some(guards) = settings.remove(WASM)
            {
                settings.insert(name.to_owned(), guards);
            }
            fields
                .values_mut()
                .for_each(|field| rename_per_filter(field, name));
        }
        _ => {}
    }
}

/// The file that holds the dynamic listener.
const LISTENER: &str = "listener.json";

/// Envoy's buffer filter, which holds a request until its body is complete.
pub fn buffer_filter(max_request_bytes: u32) -> Value {
    json!({
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": max_request_bytes,
        },
    })
}

fn write(directory: &Path, name: &str, document: &Value) -> Result<PathBuf> {
    let path = directory.join(name);
    let text = serde_json::to_string_pretty(document)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What stands at `pointer`, which must be there.
fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value
        .pointer_mut(pointer)
        .with_context(|| format!("the Envoy configuration has no {pointer}"))
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Vec<Value>> {
    at(value, pointer)?
        .as_array_mut()
        .with_context(|| format!("{pointer} of the Envoy configuration is no list"))
}

fn cluster(document: &mut Value) -> Result<&mut Value> {
    at(document, "/static_resources/clusters/0")
}

fn listener(document: &mut Value) -> Result<&mut Value> {
    at(document, "/static_resources/listeners/0")
}

fn manager(document: &mut Value) -> Result<&mut Value> {
    at(
        listener(document)?,
        "/filter_chains/0/filters/0/typed_config",
    )
}

fn filters(document: &mut Value) -> Result<&mut Vec<Value>> {
    list(manager(document)?, "/http_filters")
}

fn guard_index(document: &mut Value) -> Result<usize> {
    let mut filters = filters(document)?.iter();
    filters
        .position(|filter| filter["name"] == WASM)
        .with_context(|| format!("the Envoy configuration has no {WASM}"))
}

fn capabilities_to_plugin(value: &mut Value) {
    const LIST: &str = "capability_restriction_config";

    match value {
        Value::Object(members) => {
            let vm = members.get_mut("vm_config").and_then(Value::as_object_mut);
            if let Some(list) = vm.and_then(|vm| vm.remove(LIST)) {
                members.insert(LIST.to_owned(), list);
            }
            members.values_mut().for_each(capabilities_to_plugin);
        }
        Value::Array(items) => items.iter_mut().for_each(capabilities_to_plugin),
        _ => {}
    }
}

fn plugin(document: &mut Value, guard: usize) -> Result<&mut Value> {
    at(
        manager(document)?,
        &format!("/http_filters/{guard}/typed_config/config"),
    )
}
