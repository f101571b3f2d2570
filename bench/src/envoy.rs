//! Envoy's configuration for each row. All are the same but for the filters before the router.

use std::path::Path;

use serde_json::{Value, json};

use crate::stores::{TOKEN, URL};
use crate::traffic::KEY;

/// Ports of the processes around one Envoy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) listener: u16,
    pub(crate) upstream: u16,
    pub(crate) authorization: u16,
    pub(crate) webdis: u16,
}

/// Where the guard keeps its events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store {
    Memory,
    Webdis,
    /// Redis, by the native build's own connection.
    Connection,
}

/// A whole bootstrap, as JSON, with `filters` before the router.
pub(crate) fn bootstrap(ports: Ports, filters: &[Value]) -> Value {
    let mut filters = filters.to_vec();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    }));
    let cluster = |name: &str, port: u16| {
        json!({
            "name": name,
            "connect_timeout": "2s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(port) } }] }],
            },
        })
    };
    json!({
        "static_resources": {
            "listeners": [{
                "address": address(ports.listener),
                "per_connection_buffer_limit_bytes": 1_310_720,
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "callbacks",
                        "normalize_path": true,
                        "merge_slashes": true,
                        "http_filters": filters,
                        "route_config": { "virtual_hosts": [{
                            "name": "callbacks",
                            "domains": ["*"],
                            "routes": [{
                                "match": { "prefix": "/" },
                                "route": { "cluster": "app", "timeout": "15s" },
                            }],
                        }] },
                    },
                }] }],
            }],
            "clusters": [
                cluster("app", ports.upstream),
                cluster("authorization", ports.authorization),
                cluster("redis_http", ports.webdis),
            ],
        },
    })
}

/// Answers everything 401.
pub(crate) fn direct_response(ports: Ports) -> Value {
    let mut bootstrap = bootstrap(ports, &[]);
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let routes = format!("{manager}/route_config/virtual_hosts/0/routes");
    if let Some(routes) = bootstrap.pointer_mut(&routes) {
        *routes = json!([{
            "match": { "prefix": "/" },
            "direct_response": { "status": 401, "body": { "inline_string": "no" } },
        }]);
    }
    bootstrap
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// A Wasm filter from the file `module`.
pub(crate) fn wasm(name: &str, module: &Path, configuration: &Value) -> Value {
    json!({
        "name": "envoy.filters.http.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": name,
                "allow_on_headers_stop_iteration": true,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": name,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                    "environment_variables": { "host_env_keys": [TOKEN.0] },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration.to_string(),
                },
            },
        },
    })
}

/// The native build of the guard, from Envoy's search path of dynamic modules.
pub(crate) fn dynamic_module(configuration: &Value) -> Value {
    json!({
        "name": "callback-guard",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {
                "name": "callback_guard",
                "do_not_close": true,
                "metrics_namespace": "wasmcustom",
            },
            "filter_name": "callback-guard",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration.to_string(),
            },
        },
    })
}

/// The guard's configuration: the first sender, and one that signs the body.
pub(crate) fn guard(capacity: u32, store: Store) -> Value {
    // An event that Redis is not asked for would be a cheap one: it is refused, and the report says so.
    let place = match store {
        Store::Memory => json!({ "kind": "memory", "capacity": capacity }),
        Store::Webdis => json!({
            "kind": "redis",
            "protocol": "webdis",
            "cluster": "redis_http",
            "token_env": TOKEN.0,
            "capacity": capacity,
            "on_error": "reject",
        }),
        Store::Connection => json!({
            "kind": "redis",
            "url_env": URL,
            "capacity": capacity,
            "on_error": "reject",
        }),
    };
    json!({
        "store": place,
        "sources": [
            {
                "name": "suno",
                "match": { "path": "/callbacks/suno" },
                "preset": "suno",
                "secrets": [{ "value": KEY }],
            },
            {
                "name": "signed-body",
                "match": { "path": "/callbacks/signed-body" },
                "signature": {
                    "message": [
                        { "id": true }, { "literal": "." },
                        { "timestamp": true }, { "literal": "." },
                        { "body": true },
                    ],
                    "value": {
                        "header": "webhook-signature",
                        "separator": " ",
                        "prefix": "v1,",
                        "encoding": "base64",
                    },
                    "timestamp": { "header": "webhook-timestamp", "unit": "s" },
                    "id": { "header": "webhook-id" },
                },
                "secrets": [{ "value": KEY }],
            },
        ],
    })
}

/// Envoy's own filter that holds the body.
pub(crate) fn buffer() -> Value {
    json!({
        "name": "envoy.filters.http.buffer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": 1_310_720,
        },
    })
}

/// The check as a script for the Lua filter.
pub(crate) fn lua() -> Value {
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {
                "inline_string": include_str!("../peers/guard.lua").replace("@KEY@", KEY),
            },
        },
    })
}

/// The check in a service of its own, which gets head and body over HTTP.
pub(crate) fn external_authorization(port: u16) -> Value {
    let exact = |names: &[&str]| {
        let patterns: Vec<Value> = names.iter().map(|name| json!({ "exact": name })).collect();
        json!({ "patterns": patterns })
    };
    json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "failure_mode_allow": false,
            "with_request_body": {
                "max_request_bytes": 1_310_720,
                "allow_partial_message": false,
                "pack_as_bytes": true,
            },
            "allowed_headers": exact(&["content-type", "x-webhook-timestamp", "x-webhook-signature"]),
            "http_service": {
                "server_uri": {
                    "uri": format!("http://127.0.0.1:{port}"),
                    "cluster": "authorization",
                    "timeout": "5s",
                },
            },
        },
    })
}
