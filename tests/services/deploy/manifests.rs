//! The manifests: held against their schemas, put together to what Envoy gets of them, and run.
//!
//! What Istio and Envoy Gateway make of a manifest follows their sources: Istio,
//! `pilot/pkg/model/extensions.go` and `pkg/wasm/convert.go`; Envoy Gateway,
//! `internal/xds/translator/{wasm,request_buffer,httpfilters}.go`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config as config;
use callback_guard_harness::envoy::Options;
use callback_guard_harness::{
    Body, Render, Request, SECRET, Setup, Stack, client, native, page, upstream, wasm,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::dynamic_modules;
use super::programs::{find, run};
use super::schemas;
use super::support::{
    body, checkout, document, documents, forged, genuine, in_halves, parse_documents, path, read,
};

/// Every YAML file of Kubernetes resources under `deploy/`.
fn manifests() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for folder in ["envoy-gateway", "istio", "kubernetes"] {
        let files = fs::read_dir(path("deploy").join(folder)).unwrap();
        let mut names: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            // Values of a chart; a patch, which `image_volume` makes whole.
            .filter(|name| {
                ![
                    "gateway-values.yaml",
                    "image-volume.yaml",
                    "kustomization.yaml",
                ]
                .contains(&name.as_str())
            })
            .collect();
        names.sort();
        for name in names {
            let name = format!("deploy/{folder}/{name}");
            found.extend(documents(&name).into_iter().map(|it| (name.clone(), it)));
        }
    }
    found
}

#[test]
fn every_manifest_fits_its_published_schema() {
    let mut all = manifests();
    assert_eq!(all.len(), 26);
    for (_, manifest) in &mut all {
        dynamic_modules::taken_out(manifest);
    }
    all.push((
        "deploy/kubernetes/image-volume.yaml".to_owned(),
        image_volume(),
    ));
    schemas::assert_fit(&all);
}

#[test]
fn the_schemas_find_faults() {
    let mut plugin = document("deploy/istio/wasmplugin.yaml", "WasmPlugin");
    plugin["spec"]["failStrategy"] = json!("FAIL_SOMEHOW");
    let mut policy = document("deploy/envoy-gateway/guard.yaml", "EnvoyExtensionPolicy");
    policy["spec"]["wasm"][0]["failurePolicy"] = json!("FAIL_RELOAD");
    let mut deployment = document("deploy/kubernetes/guard.yaml", "Deployment");
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] =
        json!("ten");

    let broken = [plugin, policy, deployment].map(|manifest| ("it".to_owned(), manifest));
    let said = schemas::faults(&broken);
    for fault in [
        "failStrategy must be equal to one of the allowed values",
        "failurePolicy\"' does not exist in type 'IWasm'",
        "containerPort must be integer",
    ] {
        assert!(said.contains(fault), "{said}");
    }
}

/// The Deployment with the patch of `image-volume.yaml` in it, as a strategic merge makes it.
fn image_volume() -> Value {
    let mut whole = document("deploy/kubernetes/guard.yaml", "Deployment");
    let patch = document("deploy/kubernetes/image-volume.yaml", "Deployment");
    for list in [
        "/spec/template/spec/volumes",
        "/spec/template/spec/containers/0/volumeMounts",
    ] {
        let more = patch.pointer(list).unwrap().as_array().unwrap().clone();
        whole
            .pointer_mut(list)
            .unwrap()
            .as_array_mut()
            .unwrap()
            .extend(more);
    }
    assert_eq!(
        patch["spec"]["template"]["spec"]["containers"][0]["name"],
        whole["spec"]["template"]["spec"]["containers"][0]["name"],
    );
    whole
}

fn environment(_: &str) -> Option<Vec<u8>> {
    Some(b"test-webhook-hmac-key".to_vec())
}

#[track_caller]
fn assert_guard_accepts(text: &str) {
    config::parse(text.as_bytes(), &environment).unwrap();
}

fn module() -> PathBuf {
    wasm::module(&|_| {}).unwrap()
}

/// The repository's listener with these HTTP filters before the router.
fn with_filters(filters: Vec<Value>) -> Render {
    Render::repository()
        .without_guard()
        .on_free_ports()
        .connection_manager(move |manager| {
            let list = manager["http_filters"].as_array_mut().unwrap();
            list.splice(0..0, filters);
        })
}

fn start(render: Render) -> Stack {
    Setup::new()
        .env("SUNO_WEBHOOK_KEY_PREVIOUS", "an-older-key")
        .render(|_| render)
        .start()
        .unwrap()
}

/// Genuine callbacks come through, long ones too; of forged ones the upstream sees nothing.
#[track_caller]
fn assert_guarded(stack: &Stack) {
    for round in 0..10 {
        let event = body("forged");
        let request = forged(&event);
        for request in [request.clone(), in_halves(request, &event)] {
            let response = stack.send(&request).unwrap();
            assert_eq!(response.status, 401, "{}", response.text());
            assert_eq!(
                response.header("x-callback-guard").as_deref(),
                Some("signature_mismatch")
            );
        }
        // Long, so that it needs the raised limit.
        let event = body("genuine").replace("success", &"s".repeat(1_000_000));
        let request = if round % 2 == 0 {
            genuine(&event)
        } else {
            in_halves(genuine(&event), &event)
        };
        assert_eq!(stack.send(&request).unwrap().status, 200);
        assert_eq!(
            stack.send(&request).unwrap().text(),
            r#"{"status":"duplicate"}"#
        );
        assert_eq!(stack.upstream.heads(), round + 1);
    }
}

/// Where the patches of an EnvoyFilter put an HTTP filter.
fn http_filter(filter: &Value, operation: &str) -> Value {
    let patches = filter["spec"]["configPatches"].as_array().unwrap();
    let of_kind: Vec<_> = patches
        .iter()
        .filter(|patch| patch["applyTo"] == "HTTP_FILTER")
        .collect();
    assert_eq!(of_kind.len(), 1);
    assert_eq!(of_kind[0]["match"]["context"], "GATEWAY");
    assert_eq!(of_kind[0]["patch"]["operation"], operation);
    of_kind[0]["patch"]["value"].clone()
}

/// The value that an EnvoyFilter merges into, or adds as, this.
fn patch_of(filter: &Value, apply_to: &str) -> Value {
    let patches = filter["spec"]["configPatches"].as_array().unwrap();
    let patch = patches.iter().find(|patch| patch["applyTo"] == apply_to);
    patch.unwrap()["patch"]["value"].clone()
}

fn merge(into: &mut Value, value: &Value) {
    for (name, value) in value.as_object().unwrap() {
        into[name] = value.clone();
    }
}

#[test]
fn istio_envoyfilter_guards_a_real_envoy() {
    let manifest = document("deploy/istio/envoyfilter.yaml", "EnvoyFilter");
    let filter = http_filter(&manifest, "INSERT_FIRST");
    let extension = patch_of(&manifest, "EXTENSION_CONFIG");
    assert_eq!(filter["name"], extension["name"]);
    assert_eq!(
        filter["config_discovery"]["type_urls"],
        json!([extension["typed_config"]["@type"]])
    );

    let plugin = &extension["typed_config"]["config"];
    let guard = plugin["configuration"]["value"].as_str().unwrap();
    assert_guard_accepts(guard);
    // The whole of it is right as it stands, remote code included; then as the agent hands it on.
    let code = &plugin["vm_config"]["code"];
    let uri = code["remote"]["http_uri"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("oci://"), "{uri}");
    let mut local = extension.clone();
    local["typed_config"]["config"]["vm_config"]["code"] =
        json!({ "local": { "filename": module() } });

    let listener = patch_of(&manifest, "LISTENER");
    let stack = start(with_filters(vec![local]).listener(|it| merge(it, &listener)));
    assert_guarded(&stack);
    let seen = stack.upstream.recorded();
    assert_eq!(
        seen[0].head.header("x-callback-guard-source").as_deref(),
        Some("suno")
    );
    // Other paths of the gateway are not touched.
    assert_eq!(stack.send(&Request::get("/elsewhere")).unwrap().status, 200);
}

/// The Wasm filter that Istio makes of a WasmPlugin.
fn of_wasm_plugin(manifest: &Value) -> Value {
    let spec = &manifest["spec"];
    let names: Vec<_> = spec["vmConfig"]["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| {
            assert_eq!(variable["valueFrom"], "HOST");
            variable["name"].clone()
        })
        .collect();
    json!({
        "name": "istio-ingress.callback-guard",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "istio-ingress.callback-guard",
                "root_id": spec["pluginName"],
                "failure_policy": spec["failStrategy"],
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module() } },
                    "environment_variables": { "host_env_keys": names },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": spec["pluginConfig"].to_string(),
                },
            },
        },
    })
}

#[test]
fn istio_wasmplugin_guards_a_real_envoy() {
    let file = "deploy/istio/wasmplugin.yaml";
    let manifest = document(file, "WasmPlugin");
    assert_guard_accepts(&manifest["spec"]["pluginConfig"].to_string());
    let behind = document(file, "EnvoyFilter");
    let buffer = http_filter(&behind, "INSERT_BEFORE");
    let filters = vec![of_wasm_plugin(&manifest), buffer];
    let listener = patch_of(&behind, "LISTENER");
    assert_guarded(&start(
        with_filters(filters).listener(|it| merge(it, &listener)),
    ));
}

#[test]
fn istio_metrics_get_their_labels() {
    let tags = |document: &Value| document["stats_config"]["stats_tags"].clone();
    let patch = patch_of(
        &document("deploy/istio/metrics.yaml", "EnvoyFilter"),
        "BOOTSTRAP",
    );
    assert_eq!(tags(&patch), tags(Render::repository().document().unwrap()));
}

#[test]
fn istio_values_name_the_variables_of_the_guard() {
    let values = &documents("deploy/istio/gateway-values.yaml")[0];
    let variables = values["envVarFrom"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["SUNO_WEBHOOK_KEY", "SUNO_WEBHOOK_KEY_PREVIOUS"]);

    // A delivery ends before the pod does.
    let agent = values["podAnnotations"]["proxy.istio.io/config"].as_str();
    assert_eq!(agent, Some("terminationDrainDuration: 30s\n"));
    assert_eq!(values["terminationGracePeriodSeconds"], 45);
}

/// Bytes, of a quantity such as `1280Ki`.
fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    let number: u64 = text.strip_suffix("Ki").unwrap().parse().unwrap();
    number * 1024
}

const GATEWAY: &str = "deploy/envoy-gateway/gateway.yaml";
const GUARD: &str = "deploy/envoy-gateway/guard.yaml";
const WASM_NAME: &str =
    "envoy.filters.http.wasm/envoyextensionpolicy/callbacks/callback-guard/wasm/0";

/// The listener that Envoy Gateway makes of the manifests; `is_ordered` if it heeds `filterOrder`.
fn of_envoy_gateway(is_ordered: bool) -> Render {
    let policy = document(GUARD, "EnvoyExtensionPolicy");
    let wasm = &policy["spec"]["wasm"][0];
    let filter = json!({
        "name": WASM_NAME,
        "disabled": true,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": wasm["name"],
                "root_id": wasm["rootID"],
                "fail_open": wasm["failOpen"],
                "vm_config": {
                    "vm_id": "envoyextensionpolicy/callbacks/callback-guard/wasm/0",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module() } },
                    "environment_variables": { "host_env_keys": wasm["env"]["hostKeys"] },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": wasm["config"].to_string(),
                },
            },
        },
    });
    let traffic = document(GUARD, "BackendTrafficPolicy");
    let limit = quantity(&traffic["spec"]["requestBuffer"]["limit"]);
    let buffer = json!({
        "name": "envoy.filters.http.buffer",
        "disabled": true,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": limit,
        },
    });

    let order = &document(GATEWAY, "EnvoyProxy")["spec"]["filterOrder"];
    assert_eq!(
        *order,
        json!([{ "name": "envoy.filters.http.buffer", "after": "envoy.filters.http.wasm" }])
    );
    // By default the buffer has place 12, and Wasm filters come from 200.
    let filters = if is_ordered {
        vec![filter, buffer]
    } else {
        vec![buffer, filter]
    };
    let client = document(GATEWAY, "ClientTrafficPolicy");
    let connection = quantity(&client["spec"]["connection"]["bufferLimit"]);
    with_filters(filters)
        .listener(|listener| listener["per_connection_buffer_limit_bytes"] = json!(connection))
        .connection_manager(|manager| {
            let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
            let timeouts = &document(GUARD, "HTTPRoute")["spec"]["rules"][0]["timeouts"];
            route["route"]["timeout"] = timeouts["request"].clone();
            route["typed_per_filter_config"] = json!({
                WASM_NAME: {
                    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                    "config": {},
                },
                "envoy.filters.http.buffer": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
                    "buffer": { "max_request_bytes": limit },
                },
            });
        })
}

#[test]
fn envoy_gateway_guards_a_real_envoy() {
    let policy = document(GUARD, "EnvoyExtensionPolicy");
    assert_guard_accepts(&policy["spec"]["wasm"][0]["config"].to_string());
    assert_guarded(&start(of_envoy_gateway(true)));
}

#[test]
fn envoy_gateway_leaks_without_the_filter_order() {
    // Why gateway.yaml has it: the client is refused all the same, so only the upstream can tell.
    let stack = start(of_envoy_gateway(false));
    let leaks = (0..100).any(|_| {
        let event = body("forged");
        let response = stack.send(&in_halves(forged(&event), &event)).unwrap();
        assert_eq!(response.status, 401);
        stack.upstream.heads() > 0
    });
    assert!(leaks);
}

#[test]
fn envoy_gateway_flag_lets_the_filter_hold_the_headers() {
    let manifest = document("deploy/envoy-gateway/filter-flag.yaml", "EnvoyPatchPolicy");
    let patches = manifest["spec"]["jsonPatches"].as_array().unwrap().clone();
    let render = of_envoy_gateway(true).connection_manager(|manager| {
        let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
        let enabled = route["typed_per_filter_config"].as_object_mut().unwrap();
        enabled.remove("envoy.filters.http.buffer");
        let plugin = &mut manager["http_filters"][0]["typed_config"]["config"];
        let text = plugin["configuration"]["value"].as_str().unwrap();
        let mut guard: Value = serde_json::from_str(text).unwrap();
        guard["hold_headers"] = json!("filter");
        plugin["configuration"]["value"] = guard.to_string().into();
        for patch in &patches {
            let operation = &patch["operation"];
            assert_eq!(patch["name"], "callbacks/callbacks/http");
            assert_eq!(operation["op"], "add");
            assert_eq!(
                operation["jsonPath"],
                format!("..http_filters[?@.name=='{WASM_NAME}'].typed_config.config")
            );
            let member = operation["path"]
                .as_str()
                .unwrap()
                .strip_prefix('/')
                .unwrap();
            plugin[member] = operation["value"].clone();
        }
        // Not set is the same as false, which is what Envoy Gateway says.
        plugin.as_object_mut().unwrap().remove("fail_open");
    });
    let stack = start(render);
    assert_guarded(&stack);
    let seen = stack.upstream.recorded();
    assert_eq!(
        seen[0].head.header("x-callback-guard-source").as_deref(),
        Some("suno")
    );
}

/// The patches of an EnvoyProxy's bootstrap, but that of the runtime: labels for metrics.
fn labels(proxy: &Value) -> Vec<Value> {
    let patches = proxy["spec"]["bootstrap"]["jsonPatches"]
        .as_array()
        .unwrap();
    patches
        .iter()
        .filter(|patch| patch["path"] != STRIP_PREFIX)
        .map(|patch| {
            assert_eq!(patch["op"], "add");
            assert_eq!(patch["path"], "/stats_config/stats_tags/-");
            patch["value"].clone()
        })
        .collect()
}

/// The first layer is there in the bootstrap of Envoy Gateway, `internal/xds/bootstrap/bootstrap.yaml.tpl`.
const STRIP_PREFIX: &str = "/layered_runtime/layers/0/static_layer/envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";

const NATIVE: &str = "deploy/envoy-gateway/native.yaml";

/// The listener that Envoy Gateway makes of the manifests for the native build.
///
/// Source: Envoy Gateway, `internal/xds/translator/dynamicmodule.go`.
fn native_of_envoy_gateway() -> Render {
    const NAME: &str = "envoy.filters.http.dynamic_modules/envoyextensionpolicy/callbacks/callback-guard/dynamic-module/0";
    let proxy = document(NATIVE, "EnvoyProxy");
    let policy = document(NATIVE, "EnvoyExtensionPolicy");
    let named = &policy["spec"]["dynamicModule"][0];
    let entry = &proxy["spec"]["dynamicModules"][0];
    assert_eq!(entry["name"], named["name"]);
    // The image of a release has the library under its own name, in its root.
    let mount =
        &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"]["volumeMounts"][0];
    let library = PathBuf::from(mount["mountPath"].as_str().unwrap()).join("libcallback_guard.so");
    assert_eq!(entry["source"]["local"]["path"], library.to_str().unwrap());

    let filter = json!({
        "name": NAME,
        "disabled": true,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {
                "do_not_close": entry["doNotClose"],
                "module": { "local": { "filename": native::module(&|_| {}).unwrap() } },
            },
            "filter_name": named["filterName"],
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": named["config"].to_string(),
            },
        },
    });
    let client = document(GATEWAY, "ClientTrafficPolicy");
    let connection = quantity(&client["spec"]["connection"]["bufferLimit"]);
    let runtime = proxy["spec"]["bootstrap"]["jsonPatches"]
        .as_array()
        .unwrap()
        .iter()
        .find(|patch| patch["path"] == STRIP_PREFIX)
        .unwrap()["value"]
        .clone();
    with_filters(vec![filter])
        .edit(|document| {
            let (_, name) = STRIP_PREFIX.rsplit_once('/').unwrap();
            document["layered_runtime"]["layers"][0]["static_layer"][name] = runtime;
            document["stats_config"]["stats_tags"] = labels(&proxy).into();
        })
        .listener(|listener| listener["per_connection_buffer_limit_bytes"] = json!(connection))
        .connection_manager(|manager| {
            let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0];
            let timeouts = &document(NATIVE, "HTTPRoute")["spec"]["rules"][0]["timeouts"];
            route["route"]["timeout"] = timeouts["request"].clone();
            route["typed_per_filter_config"] = json!({
                NAME: {
                    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                    "config": {},
                },
            });
        })
}

#[test]
fn envoy_gateway_guards_a_real_envoy_by_the_native_build() {
    let policy = document(NATIVE, "EnvoyExtensionPolicy");
    assert_guard_accepts(&policy["spec"]["dynamicModule"][0]["config"].to_string());
    let stack = start(native_of_envoy_gateway());
    assert_guarded(&stack);
    let seen = stack.upstream.recorded();
    assert_eq!(
        seen[0].head.header("x-callback-guard-source").as_deref(),
        Some("suno")
    );
    // Names and labels of the metrics are the WebAssembly module's.
    let text = stack.envoy.admin_get("/stats/prometheus").unwrap();
    for line in [
        "callback_guard_requests_total{source=\"suno\",verdict=\"forwarded\"} 10\n",
        "callback_guard_outcomes_total{source=\"suno\",outcome=\"accepted\"} 10\n",
        "callback_guard_build_info{version=\"0.2.0\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[test]
fn envoy_gateway_gets_an_envoy_that_the_native_build_can_be_loaded_by() {
    let proxy = document(NATIVE, "EnvoyProxy");
    let container = &proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    let image = container["image"].as_str().unwrap();
    let image = image.replace("distroless-", "");
    assert!(
        read("Dockerfile").contains(&format!("\nFROM {image}\n")),
        "{image}"
    );
    // The rest of the proxy is as gateway.yaml has it.
    let other = document(GATEWAY, "EnvoyProxy");
    assert_eq!(proxy["metadata"], other["metadata"]);
    let other = &other["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"];
    assert_eq!(container["env"], other["env"]);
}

#[test]
fn the_fields_of_dynamic_modules_are_those_of_the_published_crd() {
    let proxy = document(NATIVE, "EnvoyProxy");
    let policy = document(NATIVE, "EnvoyExtensionPolicy");
    let (entries, filters) = (
        &proxy["spec"]["dynamicModules"],
        &policy["spec"]["dynamicModule"],
    );
    dynamic_modules::check(entries, filters).unwrap();

    let mut unknown = entries.clone();
    unknown[0]["do_not_close"] = json!(true);
    let error = dynamic_modules::check(&unknown, filters).unwrap_err();
    assert!(error.contains("unknown field `do_not_close`"), "{error}");
    let mut relative = entries.clone();
    relative[0]["source"]["type"] = json!("Remote");
    let error = dynamic_modules::check(&relative, filters).unwrap_err();
    assert!(error.contains("`remote`"), "{error}");
    let mut upper = filters.clone();
    upper[0]["name"] = json!("Callback_Guard");
    let error = dynamic_modules::check(entries, &upper).unwrap_err();
    assert!(error.contains("Callback_Guard"), "{error}");
}

#[test]
fn envoy_gateway_metrics_get_their_labels() {
    let tags = labels(&document(GATEWAY, "EnvoyProxy"));
    let repository = Render::repository();
    let expected = &repository.document().unwrap()["stats_config"]["stats_tags"];
    assert_eq!(Value::from(tags), *expected);
}

#[test]
fn kubernetes_gives_envoy_what_it_needs() {
    let deployment = document("deploy/kubernetes/guard.yaml", "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let names: Vec<_> = container["env"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|it| it["name"].clone()).collect();
    let names = names
        .into_iter()
        .filter(|name| *name != "CALLBACK_GUARD_DRAIN_DELAY"); // for the preStop hook
    let repository = Render::repository();
    let text = repository.document().unwrap().to_string();
    for name in names {
        assert!(text.contains(name.as_str().unwrap()), "{name}");
    }
    // The image is the one of the repository's Dockerfile, and the module is where envoy.yaml looks.
    let image = container["image"].as_str().unwrap();
    assert!(
        read("Dockerfile").contains(&format!("\nFROM {image}\n")),
        "{image}"
    );
    let mount = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    assert_eq!(
        repository.module_path().unwrap(),
        PathBuf::from(mount).join("callback_guard.wasm")
    );
    // In a ConfigMap: at most 1 MiB, counted before Base64.
    //
    // Source: Kubernetes, `ValidateConfigMap`, which adds up the lengths of the decoded values.
    let size = fs::metadata(module()).unwrap().len();
    assert!(
        size + read("envoy.yaml").len() as u64 + 1024 < 1 << 20,
        "{size}"
    );
}

#[test]
fn kubernetes_shows_metrics_and_readiness_and_nothing_else() {
    let deployment = document("deploy/kubernetes/guard.yaml", "Deployment");
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments: Vec<_> = arguments
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect();
    assert_eq!(arguments[..2], ["--config-path", "/etc/envoy/envoy.yaml"]);
    assert_eq!(arguments[2], "--config-yaml");
    let [admin, metrics, callbacks] = [(); 3].map(|()| upstream::unused_address().unwrap());
    let more = arguments[3]
        .replace("port_value: 9901", &format!("port_value: {}", admin.port()))
        .replace(
            "address: 0.0.0.0, port_value: 9902",
            &format!("address: 127.0.0.1, port_value: {}", metrics.port()),
        );
    assert!(!more.contains("990"), "{more}");

    let at = |address: std::net::SocketAddr| json!({ "address": "127.0.0.1", "port_value": address.port() });
    let stack = Setup::new()
        .render(|render| {
            render
                .edit(|document| document["admin"]["address"]["socket_address"] = at(admin))
                .listener(|listener| listener["address"]["socket_address"] = at(callbacks))
        })
        .options(|options: &mut Options| {
            options.arguments = vec!["--config-yaml".to_owned(), more];
        })
        .start()
        .unwrap();

    let event = body("kubernetes");
    let sent = client::send(callbacks, &genuine(&event)).unwrap();
    assert_eq!(sent.status, 200);
    assert_eq!(stack.upstream.heads(), 1);

    for line in stack.envoy.log().lines() {
        assert!(
            !line.contains("[warning]") && !line.contains("eprecated"),
            "{line}"
        );
    }
    let get = |page: &str| client::send(metrics, &Request::get(page)).unwrap();
    assert_eq!(get("/ready").text(), "LIVE\n");
    let text = get("/stats/prometheus").text();
    assert!(
        text.contains("callback_guard_requests_total{source=\"suno\",verdict=\"forwarded\"} 1\n"),
        "{text}"
    );
    for page in [
        "/",
        "/config_dump",
        "/quitquitquit",
        "/stats",
        "/stats/prometheus/",
        "/ready/../quitquitquit",
    ] {
        assert_eq!(get(page).status, 404, "{page}");
    }
    for page in [
        "/quitquitquit",
        "/stats/prometheus",
        "/ready",
        "/reset_counters",
    ] {
        let post = Request::post(page).body(Body::empty());
        assert_eq!(client::send(metrics, &post).unwrap().status, 404, "{page}");
    }
    assert!(stack.envoy.is_running());

    // What the preStop hook does first: the pod is unready, and still serves.
    stack.envoy.admin_post("/healthcheck/fail").unwrap();
    assert_eq!(get("/ready").status, 503);
    let event = body("kubernetes");
    assert_eq!(
        client::send(callbacks, &genuine(&event)).unwrap().status,
        200
    );
}

/// What `kubectl` makes of the base.
fn kustomized() -> (TempDir, Vec<Value>) {
    let directory = TempDir::new().unwrap();
    let base = directory.path().join("base");
    run(Command::new(path("deploy/kubernetes/base.sh"))
        .arg(module())
        .arg(&base));
    let rendered = run(Command::new(find("kubectl", "kubernetes-client"))
        .arg("kustomize")
        .arg(&base));
    (directory, parse_documents(&rendered).unwrap())
}

#[test]
fn the_kustomize_base_is_complete_and_fits_its_schemas() {
    let (_directory, mut documents) = kustomized();
    // The lines of Base64 that kustomize makes are put together, as the API server does.
    for document in &mut documents {
        if let Some(Value::String(packed)) = document.pointer_mut("/binaryData/callback_guard.wasm")
        {
            packed.retain(|c| c != '\n');
        }
    }
    let of_kind = |kind: &str| {
        documents
            .iter()
            .find(|document| document["kind"] == kind)
            .unwrap_or_else(|| panic!("no {kind}"))
    };
    let all: Vec<_> = documents
        .iter()
        .map(|document| ("the base".to_owned(), document.clone()))
        .collect();
    assert_eq!(all.len(), 4);
    schemas::assert_fit(&all);

    // The Deployment mounts the ConfigMap under the name that its content gives it.
    let map = of_kind("ConfigMap");
    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    assert_ne!(map["metadata"]["name"], "callback-guard");
    assert_eq!(
        pod["volumes"][0]["configMap"]["name"],
        map["metadata"]["name"]
    );
    assert_eq!(map["data"]["envoy.yaml"], read("envoy.yaml"));
    assert_eq!(map["data"]["drain.sh"], read("deploy/envoy/drain.sh"));
    let module = STANDARD.encode(fs::read(module()).unwrap());
    assert!(map["binaryData"]["callback_guard.wasm"] == module);

    // The hook runs what the ConfigMap has, and ends before the pod is killed.
    let container = &pod["containers"][0];
    let hook = &container["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(*hook, json!(["bash", "/etc/envoy/drain.sh"]));
    let delay = container["env"].as_array().unwrap().iter();
    let delay: Vec<_> = delay
        .filter(|it| it["name"] == "CALLBACK_GUARD_DRAIN_DELAY")
        .map(|it| it["value"].as_str().unwrap())
        .collect();
    assert_eq!(delay, ["5"]);
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(5 + 30 < grace);
}

/// There is no cluster: `kubectl` says what it would make, and which files it would apply.
#[test]
fn kubectl_makes_the_secret_that_the_manifests_name() {
    find("kubectl", "kubernetes-client");
    let known: BTreeSet<String> = manifests().into_iter().map(|(name, _)| name).collect();
    for (page, with_secret) in [
        ("deploy/envoy-gateway/README.md", "gateway.yaml"),
        ("deploy/istio/README.md", "gateway-values.yaml"),
        ("deploy/kubernetes/README.md", "guard.yaml"),
    ] {
        let folder = page.trim_end_matches("/README.md");
        let block = page::block(page, "kubectl_makes_the_secret_that_the_manifests_name");
        let reader = checkout();
        let mut secrets = 0;
        for command in block.unwrap().commands() {
            if let Some(file) = command.strip_prefix("kubectl apply --filename ") {
                assert!(
                    known.contains(&format!("{folder}/{file}")),
                    "{page}: {file}"
                );
                continue;
            }
            if command.starts_with("helm ") {
                let values = format!(" --values {with_secret}");
                assert!(command.ends_with(&values), "{page}: {command}");
                continue;
            }
            let command = command.replace("apply --kustomize", "kustomize");
            let makes = command.contains(" create ");
            let dry = if makes {
                " --dry-run=client --output json"
            } else {
                ""
            };
            let said = reader.run(&(command.clone() + dry)).unwrap();
            assert_eq!(said.code, Some(0), "{page}: {command}: {said:?}");
            if !command.contains(" create secret ") {
                continue;
            }
            let secret: Value = serde_json::from_str(&said.text).unwrap();
            let data = secret["data"].as_object().unwrap();
            let text = read(&format!("{folder}/{with_secret}"));
            for (key, value) in data {
                assert_eq!(*value, STANDARD.encode(SECRET));
                assert!(text.contains(&format!("key: {key}")), "{page}: {key}");
            }
            let name = format!("name: {}", secret["metadata"]["name"].as_str().unwrap());
            assert!(text.contains(&name), "{page}: {name}");
            secrets += 1;
        }
        assert_eq!(secrets, 1, "{page}");
    }
}

/// The block that is a comment in `envoy.yaml`.
fn commented(start: &str) -> Value {
    let text = read("envoy.yaml");
    let lines = text
        .lines()
        .skip_while(|line| line.trim() != format!("#   {start}"));
    let block: Vec<_> = lines
        .map_while(|line| line.trim().strip_prefix("#   "))
        .collect();
    assert!(block.len() > 3, "{block:?}");
    let block: yaml_serde::Value = yaml_serde::from_str(&block.join("\n")).unwrap();
    serde_json::to_value(block).unwrap()
}

#[test]
fn traces_pass_through_and_envoy_can_take_part() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let send = |stack: &Stack| {
        let request = genuine(&body("traced"))
            .header("traceparent", PARENT)
            .header("tracestate", "vendor=value");
        assert_eq!(stack.send(&request).unwrap().status, 200);
        let head = stack.upstream.recorded()[0].head.clone();
        assert_eq!(head.header("tracestate").as_deref(), Some("vendor=value"));
        head.header("traceparent").unwrap()
    };
    assert_eq!(send(&Setup::new().start().unwrap()), PARENT);

    let tracing = commented("tracing:");
    let nobody = upstream::unused_address().unwrap();
    let collector = json!({
        "name": "otel",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": { "cluster_name": "otel", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": nobody.port() } },
        } }] }] },
    });
    let stack = Setup::new()
        .render(|render| {
            render
                .add_cluster(collector)
                .connection_manager(|manager| merge(manager, &tracing))
        })
        .start()
        .unwrap();
    // The same trace, and Envoy's span in it.
    let parent = send(&stack);
    assert_eq!(parent[..36], PARENT[..36]);
    assert_ne!(parent, PARENT);
}
