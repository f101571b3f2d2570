//! What makes a good filter unsafe around it: settings of Envoy that the filter itself cannot see.

use std::fmt;

use callback_guard_core::policy::{HoldHeaders, InFlight, PathRule, Policy, Source, Unmatched};
use callback_guard_core::scheme::{Form, Proof};
use callback_guard_core::store::redis::Access;
use serde_json::Value;

use crate::envoy::{Found, Shape, Step, field, join};

/// One thing that is amiss.
#[derive(Debug)]
pub(crate) struct Warning {
    path: String,
    seen: String,
    advice: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.seen, self.advice)
    }
}

/// Envoy's default for `per_connection_buffer_limit_bytes`.
const DEFAULT_BUFFER: u64 = 1 << 20;
/// Envoy's default for the timeout of a route, in seconds.
const DEFAULT_TIMEOUT: f64 = 15.0;
/// Envoy's default for `max_headers_count`.
const DEFAULT_HEADERS: u64 = 100;
/// How many signatures a request can have where each has a header of its own: DocuSign's keys.
const NUMBERED_SIGNATURES: u64 = 100;
/// How many other headers a request has, including those that proxies add.
const OTHER_HEADERS: u64 = 20;
/// Envoy's default for `stream_idle_timeout`, in seconds.
const DEFAULT_IDLE: f64 = 300.0;

/// What is amiss around a configuration that the filter accepts as `policy`.
pub(crate) fn around(found: &Found<'_>, policy: &Policy) -> Vec<Warning> {
    let mut warnings = Warnings {
        policy,
        found,
        list: Vec::new(),
    };
    if let Some(plugin) = found.around.last() {
        match found.shape {
            // A dynamic module needs no flag and sees every variable; how it is loaded is in another resource.
            Shape::Whole | Shape::PlatformModule => {}
            Shape::Platform => warnings.platform(plugin),
            Shape::Struct | Shape::StringValue => warnings.plugin(plugin),
            Shape::DynamicModule => warnings.dynamic_module(plugin),
        }
        if !matches!(found.shape, Shape::DynamicModule | Shape::PlatformModule) {
            warnings.variables(plugin);
        }
    }
    warnings.filters();
    warnings.limits();
    warnings.headers();
    warnings.request_id();
    warnings.paths();
    warnings.routes();
    warnings.idle();
    warnings.cluster();
    warnings.list
}

struct Warnings<'w, 'f> {
    policy: &'w Policy,
    found: &'w Found<'f>,
    list: Vec<Warning>,
}

impl<'f> Warnings<'_, 'f> {
    fn add(&mut self, path: String, seen: impl Into<String>, advice: &'static str) {
        self.list.push(Warning {
            path,
            seen: seen.into(),
            advice,
        });
    }

    /// Envoy's own `PluginConfig`.
    fn plugin(&mut self, Step { path, value }: &Step<'_>) {
        let at = |name: &str| join(path, name);
        let given = |name: &str| field(value, name);
        let holds = self.policy.hold_headers == HoldHeaders::Filter;
        if holds && given("allow_on_headers_stop_iteration") != Some(&Value::Bool(true)) {
            self.add(
                at("allow_on_headers_stop_iteration"),
                "is not true, and hold_headers is `filter`: a held request never gets its body and \
                 hangs",
                "set it to true, or use hold_headers `buffer_after` with a buffer filter behind",
            );
        }
        let fails_open = given("fail_open") == Some(&Value::Bool(true));
        match given("failure_policy").and_then(Value::as_str) {
            Some("FAIL_RELOAD") => {}
            Some("FAIL_OPEN") => self.fails_open(at("failure_policy"), "is FAIL_OPEN"),
            _ if fails_open => self.fails_open(at("fail_open"), "is true"),
            other => {
                let seen = format!(
                    "is {}: if the VM dies, its worker answers 503 until Envoy restarts",
                    other.unwrap_or("not set")
                );
                self.add(at("failure_policy"), seen, "set it to FAIL_RELOAD");
            }
        }
        let vm_id = field(value, "vm_config").and_then(|vm| field(vm, "vm_id"));
        if vm_id
            .and_then(Value::as_str)
            .is_none_or(|id| id.trim().is_empty())
        {
            self.add(
                at("vm_config.vm_id"),
                "is not set: the store's name is shared with every other plugin without one",
                "give the guard a vm_id of its own, and keep it: the memory store lives under it",
            );
        }
    }

    fn fails_open(&mut self, path: String, seen: &str) {
        self.add(
            path,
            format!("{seen}: if the VM dies, every request passes unchecked"),
            "use failure_policy FAIL_RELOAD",
        );
    }

    /// Envoy's own `DynamicModuleFilter`. It sees all of Envoy's environment.
    fn dynamic_module(&mut self, Step { path, value }: &Step<'_>) {
        let module = field(value, "dynamic_module_config");
        let stays = module.and_then(|module| field(module, "do_not_close"));
        if stays != Some(&Value::Bool(true)) {
            self.add(
                join(path, "dynamic_module_config.do_not_close"),
                "is not true: a change of the configuration can unload the module, and its memory \
                 store with it",
                "set it to true",
            );
        }
    }

    /// A platform's resource: Istio's WasmPlugin, Envoy Gateway's EnvoyExtensionPolicy.
    fn platform(&mut self, Step { path, value }: &Step<'_>) {
        if self.policy.hold_headers == HoldHeaders::Filter {
            self.add(
                self.found.path.clone(),
                "has hold_headers `filter`, and this resource cannot set \
                 allow_on_headers_stop_iteration: requests hang",
                "use hold_headers `buffer_after` with a buffer filter behind the guard, or an \
                 EnvoyFilter or EnvoyPatchPolicy that sets the flag",
            );
        }
        if field(value, "fail_open") == Some(&Value::Bool(true)) {
            self.fails_open(join(path, "failOpen"), "is true");
        }
        if field(value, "fail_strategy").and_then(Value::as_str) == Some("FAIL_OPEN") {
            self.fails_open(join(path, "failStrategy"), "is FAIL_OPEN");
        }
    }

    /// Variables that the configuration names and the VM does not get.
    fn variables(&mut self, Step { path, value }: &Step<'_>) {
        let passed = passed_variables(value);
        let place = match self.found.shape {
            Shape::Platform if field(value, "vm_config").is_some() => "vmConfig.env",
            Shape::Platform => "env.hostKeys",
            _ => "vm_config.environment_variables.host_env_keys",
        };
        for name in named_variables(&self.found.text) {
            if !passed.contains(&name) {
                self.add(
                    join(path, place),
                    format!("lacks {name}, so the guard cannot see that variable"),
                    "add it",
                );
            }
        }
    }

    /// The filters before and behind the guard.
    fn filters(&mut self) {
        let Some((list, index)) = self.in_list("http_filters") else {
            return;
        };
        let filters = list.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let (before, rest) = filters.split_at_checked(index).unwrap_or_default();
        for (place, filter) in before.iter().enumerate() {
            if is_filter(filter, "decompressor") {
                self.add(
                    format!("{}[{place}]", list.path),
                    "decompresses bodies before the guard, which then checks other bytes than the \
                     sender signed",
                    "put it behind the guard",
                );
            }
        }
        if self.policy.hold_headers != HoldHeaders::BufferAfter {
            return;
        }
        let buffer = rest
            .iter()
            .enumerate()
            .skip(1)
            .find(|(_, filter)| is_filter(filter, "buffer"));
        match buffer {
            None => self.add(
                list.path.clone(),
                "has no buffer filter behind the guard, and hold_headers is `buffer_after`: the \
                 upstream sees the headers before the decision",
                "put envoy.filters.http.buffer behind the guard",
            ),
            Some((place, filter)) => {
                let most = field(filter, "typed_config")
                    .and_then(|config| field(config, "max_request_bytes"))
                    .and_then(number);
                if let Some(most) = most {
                    let path = format!(
                        "{}[{}].typed_config.max_request_bytes",
                        list.path,
                        index.saturating_add(place)
                    );
                    self.limit(path, most);
                }
            }
        }
    }

    /// Buffer limits that refuse a body before the guard can measure it.
    fn limits(&mut self) {
        let mut around = self.found.around.iter().rev();
        if let Some(listener) = around.find(|step| field(step.value, "filter_chains").is_some()) {
            let given = field(listener.value, "per_connection_buffer_limit_bytes");
            let path = join(&listener.path, "per_connection_buffer_limit_bytes");
            match given.and_then(number) {
                Some(0) => {}
                limit => self.limit(path, limit.unwrap_or(DEFAULT_BUFFER)),
            }
        }
        if let Some(manager) = self.manager() {
            let window = field(manager.value, "http2_protocol_options")
                .and_then(|options| field(options, "initial_stream_window_size"))
                .and_then(number);
            if let Some(window) = window {
                let path = "http2_protocol_options.initial_stream_window_size";
                self.limit(join(&manager.path, path), window);
            }
        }
    }

    /// A limit on headers that keeps out a sender with a header for each signature.
    fn headers(&mut self) {
        let is_numbered = |source: &Source| match &source.scheme.proof {
            Proof::Signature(rule) => rule.value.form == Form::Numbered,
            Proof::Token(_) => false,
        };
        let needed = NUMBERED_SIGNATURES.saturating_add(OTHER_HEADERS);
        let (Some(manager), Some(source)) = (
            self.manager(),
            self.policy
                .sources
                .iter()
                .find(|source| is_numbered(source)),
        ) else {
            return;
        };
        let given = field(manager.value, "common_http_protocol_options")
            .and_then(|options| field(options, "max_headers_count"))
            .and_then(number);
        let most = given.unwrap_or(DEFAULT_HEADERS);
        if most < needed {
            self.add(
                join(
                    &manager.path,
                    "common_http_protocol_options.max_headers_count",
                ),
                format!(
                    "is {most}, and a callback to {} can have {NUMBERED_SIGNATURES} headers with \
                     signatures: Envoy answers 431",
                    source.name
                ),
                "raise it to 120 or more",
            );
        }
    }

    /// A header that the sender signs, and that Envoy writes anew.
    fn request_id(&mut self) {
        const NAME: &str = "preserve_external_request_id";
        let reads_it = |source: &&std::sync::Arc<Source>| {
            source
                .headers
                .iter()
                .any(|header| &*header.name == "x-request-id")
        };
        let source = self.policy.sources.iter().find(reads_it);
        let (Some(manager), Some(source)) = (self.manager(), source) else {
            return;
        };
        if field(manager.value, NAME) != Some(&Value::Bool(true)) {
            self.add(
                join(&manager.path, NAME),
                format!(
                    "is not true, and {} reads x-request-id: Envoy puts its own in place of the sender's, so that no \
                     signature over it matches",
                    source.name
                ),
                "set it to true",
            );
        }
    }

    /// Paths that reach the guard as they were written, where what it does not know passes.
    fn paths(&mut self) {
        let Some(manager) = self.manager() else {
            return;
        };
        if self.policy.unmatched != Unmatched::Pass {
            return;
        }
        for name in ["normalize_path", "merge_slashes"] {
            if field(manager.value, name) != Some(&Value::Bool(true)) {
                self.add(
                    join(&manager.path, name),
                    "is not true, and `unmatched` is `pass`: a near miss of a guarded path reaches the \
                     guard as it was written",
                    "set it to true",
                );
            }
        }
        let name = "path_with_escaped_slashes_action";
        let action = field(manager.value, name).and_then(Value::as_str);
        let is_strict = matches!(
            action,
            Some("REJECT_REQUEST" | "UNESCAPE_AND_REDIRECT" | "UNESCAPE_AND_FORWARD")
        );
        if !is_strict {
            self.add(
                join(&manager.path, name),
                "keeps escaped slashes, and `unmatched` is `pass`: a near miss of a guarded path \
                 reaches the guard as it was written",
                "set it to REJECT_REQUEST",
            );
        }
    }

    /// An idle timeout that ends a request while the guard has it wait, or the application works.
    fn idle(&mut self) {
        let Some(manager) = self.manager() else {
            return;
        };
        let idle = match field(manager.value, "stream_idle_timeout") {
            None => DEFAULT_IDLE,
            Some(given) => match seconds(given) {
                Some(0.0) | None => return,
                Some(idle) => idle,
            },
        };
        let waits = self
            .policy
            .sources
            .iter()
            .map(|source| match source.dedupe.in_flight {
                InFlight::Reject => 0,
                InFlight::Wait { seconds } => seconds,
            });
        let wait = waits.max().unwrap_or(0);
        let wait = f64::from(u32::try_from(wait).unwrap_or(u32::MAX));
        let work = self.longest_timeout();
        // A route that takes longer than a claim lives is warned of as that.
        let leases = self
            .policy
            .sources
            .iter()
            .map(|source| source.dedupe.lease_seconds);
        let lease = f64::from(u32::try_from(leases.min().unwrap_or(0)).unwrap_or(u32::MAX));
        if work < lease && idle <= wait + work {
            self.add(
                join(&manager.path, "stream_idle_timeout"),
                format!(
                    "is {idle} s, and a request can wait {wait} s (dedupe.wait_seconds) and then be \
                     worked on for {work} s (the route's timeout): Envoy ends it before"
                ),
                "keep it above both together",
            );
        }
    }

    /// The longest timeout of a route of callbacks, in seconds.
    fn longest_timeout(&self) -> f64 {
        let manager = self.manager();
        let hosts = manager
            .as_ref()
            .and_then(|manager| field(manager.value, "route_config"))
            .and_then(|config| field(config, "virtual_hosts"))
            .and_then(Value::as_array);
        let routes = hosts
            .into_iter()
            .flatten()
            .filter_map(|host| field(host, "routes")?.as_array())
            .flatten()
            .filter(|route| self.serves(route))
            .filter_map(|route| field(route, "route"));
        routes
            .map(|action| match field(action, "timeout") {
                None => DEFAULT_TIMEOUT,
                Some(given) => seconds(given).unwrap_or(0.0),
            })
            .fold(0.0, f64::max)
    }

    fn limit(&mut self, path: String, limit: u64) {
        let largest = self
            .policy
            .sources
            .iter()
            .map(|source| source.max_body_bytes);
        let largest = u64::try_from(largest.max().unwrap_or(0)).unwrap_or(u64::MAX);
        if limit < largest {
            self.add(
                path,
                format!(
                    "is {limit} bytes, under the {largest} bytes of max_body_bytes: Envoy answers \
                     413 to bodies that the guard accepts"
                ),
                "raise it above max_body_bytes, or lower that",
            );
        }
    }

    /// Routes that deliver twice, or longer than a claim lives.
    fn routes(&mut self) {
        let Some(manager) = self.manager() else {
            return;
        };
        let Some(config) = field(manager.value, "route_config") else {
            return;
        };
        let config_path = join(&manager.path, "route_config");
        let hosts = field(config, "virtual_hosts").and_then(Value::as_array);
        for (index, host) in hosts.into_iter().flatten().enumerate() {
            let host_path = format!("{config_path}.virtual_hosts[{index}]");
            let routes = field(host, "routes").and_then(Value::as_array);
            let mut is_inherited = false;
            for (index, route) in routes.into_iter().flatten().enumerate() {
                let Some(action) = field(route, "route").filter(|_| self.serves(route)) else {
                    continue;
                };
                let path = format!("{host_path}.routes[{index}].route");
                self.timeout(&path, action);
                match field(action, "retry_policy") {
                    Some(policy) => self.retries(join(&path, "retry_policy"), policy),
                    None => is_inherited = true,
                }
            }
            if let Some(policy) = field(host, "retry_policy").filter(|_| is_inherited) {
                self.retries(join(&host_path, "retry_policy"), policy);
            }
        }
    }

    /// A remote store on a cluster that is not there: no call to it can be made.
    fn cluster(&mut self) {
        let Some(remote) = &self.policy.remote else {
            return;
        };
        let Access::Front(front) = &remote.access else {
            return;
        };
        let document = self.found.around.first();
        let Some(clusters) = document
            .and_then(|step| field(step.value, "static_resources"))
            .and_then(|resources| field(resources, "clusters"))
            .and_then(Value::as_array)
        else {
            return;
        };
        let mut names = clusters.iter().filter_map(|cluster| field(cluster, "name"));
        if names.any(|name| name.as_str() == Some(&*front.cluster)) {
            return;
        }
        self.add(
            "static_resources.clusters".to_owned(),
            format!("lacks {}, which store.cluster names", front.cluster),
            "add it, unless it comes by CDS",
        );
    }

    fn timeout(&mut self, path: &str, action: &Value) {
        let leases = self
            .policy
            .sources
            .iter()
            .map(|source| source.dedupe.lease_seconds);
        let Some(lease) = leases.min() else {
            return;
        };
        let timeout = match field(action, "timeout") {
            None => Some(DEFAULT_TIMEOUT),
            Some(given) => seconds(given),
        };
        let path = join(path, "timeout");
        let advice = "keep it shorter than dedupe.lease_seconds, or a second delivery can start \
                      while the first is still at work";
        let lease_text = format!("lease_seconds is {lease}");
        match timeout {
            Some(0.0) => self.add(
                path,
                format!("is 0, which is no limit, and {lease_text}"),
                advice,
            ),
            Some(timeout) if timeout >= f64::from(u32::try_from(lease).unwrap_or(u32::MAX)) => {
                self.add(path, format!("is {timeout} s, and {lease_text}"), advice);
            }
            _ => {}
        }
    }

    fn retries(&mut self, path: String, policy: &Value) {
        let is_off = field(policy, "num_retries").and_then(number) == Some(0);
        let on = field(policy, "retry_on")
            .and_then(Value::as_str)
            .unwrap_or("");
        if !is_off && !on.is_empty() {
            self.add(
                path,
                format!("retries on `{on}`: an attempt that seemed to fail may have been processed"),
                "remove it: the sender tries again, and the guard knows what came of the last attempt",
            );
        }
    }

    /// Whether a route can be the way of a callback. What cannot be told counts as yes.
    fn serves(&self, route: &Value) -> bool {
        let Some(rule) = field(route, "match") else {
            return true;
        };
        let text = |name: &str| field(rule, name).and_then(Value::as_str);
        let prefix = text("prefix").or_else(|| text("path_separated_prefix"));
        self.policy
            .sources
            .iter()
            .any(|source| match (&source.route.path, prefix, text("path")) {
                (PathRule::Exact(path), Some(prefix), _) => path.starts_with(prefix),
                (PathRule::Exact(path), _, Some(exact)) => **path == *exact,
                (PathRule::Prefix(path), Some(prefix), _) => {
                    path.starts_with(prefix) || prefix.starts_with(&**path)
                }
                (PathRule::Prefix(path), _, Some(exact)) => exact.starts_with(&**path),
                (_, None, None) => true,
            })
    }

    /// The connection manager that the guard's filter belongs to.
    fn manager(&self) -> Option<Step<'f>> {
        let around = self.found.around.iter().rev();
        let mut managers = around.filter(|step| field(step.value, "http_filters").is_some());
        managers.next().cloned()
    }

    /// The list called `name` that contains the guard's filter, and its place there.
    fn in_list(&self, name: &str) -> Option<(Step<'f>, usize)> {
        let manager = self.manager()?;
        let value = field(manager.value, name)?;
        let filters = value.as_array()?;
        let index = filters.iter().position(|filter| {
            let mut around = self.found.around.iter();
            around.any(|step| std::ptr::eq(step.value, filter))
        })?;
        let path = join(&manager.path, name);
        Some((Step { path, value }, index))
    }
}

/// Whether an HTTP filter is of the extension `kind`, by its type or by its well-known name.
fn is_filter(filter: &Value, kind: &str) -> bool {
    let config = field(filter, "typed_config");
    let by_type = config
        .and_then(|config| config.get("@type"))
        .and_then(Value::as_str)
        .map(|url| url.contains(&format!("envoy.extensions.filters.http.{kind}.")));
    let by_name = || {
        field(filter, "name").and_then(Value::as_str)
            == Some(format!("envoy.filters.http.{kind}").as_str())
    };
    by_type.unwrap_or_else(by_name)
}

/// The variables that a configuration names.
pub(crate) fn named_variables(configuration: &str) -> Vec<String> {
    let configuration: Value = serde_json::from_str(configuration).unwrap_or_default();
    let sources = configuration.get("sources").and_then(Value::as_array);
    let secrets = sources
        .into_iter()
        .flatten()
        .filter_map(|source| source.get("secrets")?.as_array())
        .flatten()
        .filter_map(|secret| secret.get("env"));
    let tokens = ["store", "inspector"]
        .into_iter()
        .filter_map(|part| configuration.get(part)?.get("token_env"));
    let mut names: Vec<String> = Vec::new();
    for name in secrets.chain(tokens).filter_map(Value::as_str) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The variables that a plugin's VM gets.
fn passed_variables(plugin: &Value) -> Vec<String> {
    let variables = field(plugin, "vm_config")
        .and_then(|vm| field(vm, "environment_variables"))
        .or_else(|| field(plugin, "env"));
    let keys = variables
        .and_then(|variables| field(variables, "host_env_keys").or(field(variables, "host_keys")))
        .and_then(Value::as_array);
    let listed = keys.into_iter().flatten().filter_map(Value::as_str);
    // Istio: vmConfig.env is a list of { name, valueFrom }.
    let istio = field(plugin, "vm_config")
        .and_then(|vm| field(vm, "env"))
        .and_then(Value::as_array);
    let istio = istio
        .into_iter()
        .flatten()
        .filter_map(|variable| field(variable, "name")?.as_str());
    let mut names: Vec<String> = listed.chain(istio).map(str::to_owned).collect();
    names.extend(given_variables(plugin).into_iter().map(|(name, _)| name));
    names
}

/// The variables whose values are in the file itself.
pub(crate) fn given_variables(plugin: &Value) -> Vec<(String, String)> {
    let values = field(plugin, "vm_config")
        .and_then(|vm| field(vm, "environment_variables"))
        .and_then(|variables| field(variables, "key_values"))
        .and_then(Value::as_object);
    values
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

/// Seconds of a protobuf duration, as `1.5s`.
fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}
