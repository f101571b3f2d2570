//! `check`.

use crate::support::{OneFile, SECRET, file, repository, run, run_with};

const GUARD: &str = r#"{"sources":[{"name":"suno","match":{"path":"/callbacks/suno"},"preset":"suno",
  "secrets":[{"env":"SUNO_WEBHOOK_KEY"}]}]}"#;

#[test]
fn the_configuration_in_envoy_yaml_is_found_and_described() {
    let run = run(&["check", "envoy.yaml"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        run.out,
        "envoy.yaml: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.config.configuration
ok: 1 source, memory store for 100000 events, unmatched requests are rejected
  suno: /callbacks/suno on any host, preset suno, enforce
    secrets: SUNO_WEBHOOK_KEY (set), SUNO_WEBHOOK_KEY_PREVIOUS (unset, optional)
    timestamp up to 300 s old or 60 s ahead, body up to 1048576 bytes
    events remembered for 86400 s, lease 30 s, a second one in flight waits up to 10 s
"
    );
}

#[test]
fn a_secret_that_is_not_set_is_an_error_unless_assumed() {
    let guard = file("guard.json", GUARD);
    let refused = run_with(&["check", &guard.path], &[], "");
    assert_eq!(refused.code, 1);
    assert_eq!(
        refused.err,
        format!(
            "{}\nerror: sources[0].secrets[0].env: environment variable `SUNO_WEBHOOK_KEY` is not set\n\
             hint: set it as Envoy will have it, or check the rest with --assume-env\n",
            guard.path
        )
    );
    let assumed = run_with(&["check", "--assume-env", &guard.path], &[], "");
    assert_eq!(assumed.code, 0, "{}", assumed.err);
    assert!(
        assumed.out.contains("SUNO_WEBHOOK_KEY (unset)"),
        "{}",
        assumed.out
    );
}

#[test]
fn errors_name_the_path_and_never_the_secret() {
    let wrong = GUARD.replace(
        r#"{"env":"SUNO_WEBHOOK_KEY"}"#,
        &format!(r#"{{"value":"{SECRET}","encoding":"hex"}}"#),
    );
    let guard = file("guard.json", &wrong);
    let run = run(&["check", &guard.path]);
    assert_eq!(run.code, 1);
    assert!(
        run.err
            .contains("sources[0].secrets[0].value: the secret is not valid hex"),
        "{}",
        run.err
    );
    assert!(!format!("{run:?}").contains(SECRET));
}

#[test]
fn torn_json_says_where() {
    let guard = file("guard.json", r#"{"sources": [}"#);
    let run = run(&["check", &guard.path]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("at line 1, column 14"), "{}", run.err);
}

#[test]
fn a_file_without_a_configuration_is_a_no() {
    let other = file("other.yaml", "admin: {}\n");
    let run = run(&["check", &other.path]);
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("holds no configuration of the guard"),
        "{}",
        run.err
    );
}

/// `envoy.yaml` with each first occurrence replaced; its own warnings are none.
#[track_caller]
fn envoy_yaml(changes: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "envoy.yaml has no {old:?}");
        text = text.replacen(old, new, 1);
    }
    text
}

#[track_caller]
fn warns(changes: &[(&str, &str)], expected: &[&str]) {
    let envoy = file("envoy.yaml", &envoy_yaml(changes));
    let run = run(&["check", &envoy.path]);
    let warnings: Vec<&str> = run.err.lines().collect();
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with("warning: "), "{warning}");
        assert!(warning.contains(expected), "{warning}\nlacks {expected}");
    }
    let strict = crate::support::run(&["check", "--strict", &envoy.path]);
    assert_eq!(strict.code, i32::from(!expected.is_empty()));
}

const MANAGER: &str = "filters[0].typed_config";

#[test]
fn what_makes_a_good_filter_unsafe_is_warned_of() {
    let flag = "allow_on_headers_stop_iteration: true";
    let policy = "failure_policy: FAIL_RELOAD";
    let router = "                  - name: envoy.filters.http.router";
    let cluster = "                            cluster: app";
    let limit = "per_connection_buffer_limit_bytes: 1310720";
    warns(&[], &[]);
    warns(
        &[(flag, "allow_on_headers_stop_iteration: false")],
        &["config.allow_on_headers_stop_iteration: is not true, and hold_headers is `filter`"],
    );
    warns(
        &[(flag, "")],
        &["config.allow_on_headers_stop_iteration: is not true"],
    );
    warns(
        &[(policy, "failure_policy: FAIL_OPEN")],
        &["config.failure_policy: is FAIL_OPEN: if the VM dies, every request passes unchecked"],
    );
    warns(
        &[(policy, "fail_open: true")],
        &["config.fail_open: is true"],
    );
    warns(
        &[(policy, "")],
        &["config.failure_policy: is not set: if the VM dies"],
    );
    warns(
        &[(policy, "failure_policy: FAIL_CLOSED")],
        &["config.failure_policy: is FAIL_CLOSED"],
    );
    warns(
        &[("vm_id: callback-guard", "vm_id: \" \"")],
        &["config.vm_config.vm_id: is not set"],
    );
    warns(
        &[("host_env_keys: [SUNO_WEBHOOK_KEY,", "host_env_keys: [")],
        &["vm_config.environment_variables.host_env_keys: lacks SUNO_WEBHOOK_KEY, so"],
    );
    warns(
        &[(limit, "per_connection_buffer_limit_bytes: 1048575")],
        &[
            "listeners[0].per_connection_buffer_limit_bytes: is 1048575 bytes, under the 1048576 bytes",
        ],
    );
    warns(
        &[(limit, "per_connection_buffer_limit_bytes: 1048576")],
        &[],
    );
    warns(&[(limit, "")], &[]);
    warns(
        &[(
            "initial_stream_window_size: 1310720",
            "initial_stream_window_size: 65535",
        )],
        &["http2_protocol_options.initial_stream_window_size: is 65535 bytes"],
    );
    warns(
        &[("timeout: 15s\n", "timeout: 30s\n")],
        &["routes[0].route.timeout: is 30 s, and lease_seconds is 30"],
    );
    warns(&[("timeout: 15s\n", "timeout: 19.9s\n")], &[]);
    warns(
        &[("timeout: 15s\n", "timeout: 0s\n")],
        &["routes[0].route.timeout: is 0, which is no limit"],
    );
    warns(
        &[(
            cluster,
            "                            retry_policy: { retry_on: \"5xx\" }\n                            cluster: app",
        )],
        &["routes[0].route.retry_policy: retries on `5xx`"],
    );
    warns(
        &[(
            "                      domains: [\"*\"]",
            "                      domains: [\"*\"]\n                      retryPolicy: { retryOn: reset }",
        )],
        &["virtual_hosts[0].retry_policy: retries on `reset`"],
    );
    let decompressor =
        format!("                  - name: envoy.filters.http.decompressor\n{router}");
    warns(&[(router, &decompressor)], &[]);
    let first = "                  - name: envoy.filters.http.wasm";
    let before = format!("                  - name: envoy.filters.http.decompressor\n{first}");
    warns(
        &[(first, &before)],
        &[&format!("{MANAGER}.http_filters[0]: decompresses")],
    );
}

#[test]
fn a_held_header_behind_the_guard_needs_a_buffer_filter() {
    let after = (
        "\"sources\": [",
        "\"hold_headers\": \"buffer_after\", \"sources\": [",
    );
    let router = "                  - name: envoy.filters.http.router";
    warns(
        &[after],
        &["http_filters: has no buffer filter behind the guard"],
    );
    let buffer = |most: u32| {
        format!(
            "                  - name: b\n                    typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: {most} }}\n{router}"
        )
    };
    warns(&[after, (router, &buffer(1_048_576))], &[]);
    warns(
        &[after, (router, &buffer(1_048_575))],
        &["http_filters[1].typed_config.max_request_bytes: is 1048575 bytes"],
    );
}

#[test]
fn routes_that_no_callback_takes_may_do_as_they_like() {
    let rule = "- match: { prefix: \"/\" }";
    let slow = ("timeout: 15s\n", "timeout: 60s\n");
    warns(&[slow, (rule, "- match: { prefix: \"/other\" }")], &[]);
    warns(
        &[slow, (rule, "- match: { path: \"/callbacks/suno/x\" }")],
        &[],
    );
    warns(
        &[slow, (rule, "- match: { path: \"/callbacks/suno\" }")],
        &["route.timeout: is 60 s"],
    );
    warns(
        &[slow, (rule, "- match: { prefix: \"/callbacks\" }")],
        &["route.timeout: is 60 s"],
    );
}

#[test]
fn a_struct_is_refused_as_envoy_hands_on_its_protobuf() {
    let given = file(
        "envoy.yaml",
        r#"
config:
  name: guard
  configuration:
    "@type": type.googleapis.com/google.protobuf.Struct
    value: { sources: [] }
"#,
    );
    let run = run(&["check", &given.path]);
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("is a google.protobuf.Struct"),
        "{}",
        run.err
    );
}

#[test]
fn the_native_build_is_a_filter_like_the_other() {
    let kept = run(&["check", "--strict", "envoy-native.yaml"]);
    assert_eq!(kept.code, 0, "{}{}", kept.out, kept.err);
    assert!(
        kept.out.contains(
            "http_filters[0].typed_config.filter_config
ok: 1 source"
        ),
        "{}",
        kept.out
    );

    let text = std::fs::read_to_string(repository().join("envoy-native.yaml")).unwrap();
    let closed = file(
        "envoy.yaml",
        &text.replace("do_not_close: true", "do_not_close: false"),
    );
    let warned = run(&["check", "--strict", &closed.path]);
    assert_eq!(warned.code, 1);
    let said = format!("{}{}", warned.out, warned.err);
    assert!(
        said.contains("dynamic_module_config.do_not_close: is not true"),
        "{said}"
    );
}

#[test]
fn manifests_are_searched_too() {
    let guard: String = GUARD.replace('\n', " ");
    let manifest = format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{ name: other }}
---
apiVersion: v1
kind: ConfigMap
data:
  envoy.yaml: |
    config:
      name: callback-guard
      allowOnHeadersStopIteration: true
      failurePolicy: FAIL_RELOAD
      vmConfig: {{ vmId: g, environmentVariables: {{ hostEnvKeys: [SUNO_WEBHOOK_KEY] }} }}
      configuration:
        "@type": type.googleapis.com/google.protobuf.StringValue
        value: '{guard}'
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
spec:
  failStrategy: FAIL_OPEN
  vmConfig: {{ env: [{{ name: OTHER, valueFrom: HOST }}] }}
  pluginConfig: {guard}
"#
    );
    let manifest = file("manifest.yaml", &manifest);
    let run = run(&["check", &manifest.path]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out
            .contains("[document 1].data.envoy.yaml.config.configuration\nok: 1 source"),
        "{}",
        run.out
    );
    assert!(
        run.out
            .contains("[document 2].spec.pluginConfig\nok: 1 source"),
        "{}",
        run.out
    );
    let warnings: Vec<&str> = run.err.lines().collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip([
        "has hold_headers `filter`, and this resource cannot set",
        "spec.failStrategy: is FAIL_OPEN",
        "spec.vmConfig.env: lacks SUNO_WEBHOOK_KEY",
    ]) {
        assert!(warning.contains(expected), "{warning}");
    }
}

#[test]
fn a_variable_that_the_file_itself_sets_counts_as_set() {
    let envoy = envoy_yaml(&[(
        "host_env_keys: [SUNO_WEBHOOK_KEY,",
        "key_values: { SUNO_WEBHOOK_KEY: \"in-the-file-itself\" }\n                            host_env_keys: [",
    )]);
    let envoy = file("envoy.yaml", &envoy);
    let run = run_with(&["check", "--strict", &envoy.path], &[], "");
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out.contains("SUNO_WEBHOOK_KEY (set in the file)"),
        "{}",
        run.out
    );
    assert!(!run.out.contains("in-the-file"));
}

#[test]
fn the_manifests_are_in_order() {
    for (manifest, place) in [
        (
            "deploy/istio/envoyfilter.yaml",
            "spec.configPatches[1].patch.value.typed_config.config.configuration",
        ),
        (
            "deploy/istio/wasmplugin.yaml",
            "[document 1].spec.pluginConfig",
        ),
        (
            "deploy/envoy-gateway/guard.yaml",
            "[document 1].spec.wasm[0].config",
        ),
    ] {
        let run = run(&["check", manifest]);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{manifest}");
        let begin = format!("{manifest}: {place}\nok: 1 source, ");
        assert!(run.out.starts_with(&begin), "{}", run.out);
    }
}

#[test]
fn a_remote_store_needs_its_cluster() {
    let store = "\"store\": { \"kind\": \"redis\", \"protocol\": \"webdis\", \"cluster\": \"redis_http\", \"authority\": \"webdis\" }, \"sources\": [";
    let change = ("\"sources\": [", store);
    warns(
        &[change],
        &["static_resources.clusters: lacks redis_http, which store.cluster names"],
    );
    warns(
        &[
            change,
            ("  clusters:\n", "  clusters:\n    - name: redis_http\n"),
        ],
        &[],
    );
    let envoy = file("envoy.yaml", &envoy_yaml(&[change]));
    let run = run(&["check", &envoy.path]);
    assert!(
        run.out.contains("ok: 1 source, Redis store by Webdis on cluster redis_http, on errors memory store for 100000 events"),
        "{}",
        run.out
    );
}

/// What only the native build can do is refused where the file loads the module.
#[test]
fn a_connection_to_redis_is_checked_by_the_build_that_the_file_loads() {
    let store = "\"store\": { \"kind\": \"redis\", \"url_env\": \"REDIS\" }, \"sources\": [";
    let module = file("envoy.yaml", &envoy_yaml(&[("\"sources\": [", store)]));
    let native = std::fs::read_to_string(repository().join("envoy-native.yaml")).unwrap();
    let native = file("envoy.yaml", &native.replacen("\"sources\": [", store, 1));
    let alone = file("guard.json", &GUARD.replacen("\"sources\":[", store, 1));
    let variables = [
        ("SUNO_WEBHOOK_KEY", SECRET),
        ("REDIS", "rediss://guard:another-secret@redis.internal"),
    ];
    let checked = |file: &OneFile| run_with(&["check", "--strict", &file.path], &variables, "");
    let refused = checked(&module);
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .contains("error: store.url_env: needs the native build"),
        "{}",
        refused.err
    );
    for file in [&native, &alone] {
        let fine = checked(file);
        assert_eq!(fine.code, 0, "{}", fine.err);
        assert!(
            fine.out.contains(
                "Redis store by a connection with TLS of the native build, on errors memory"
            ),
            "{}",
            fine.out
        );
        assert!(!fine.out.contains("another-secret") && !fine.out.contains("redis.internal"));
    }
    let assumed = run(&["check", "--assume-env", &native.path]);
    assert_eq!(assumed.code, 0, "{}", assumed.err);
}

#[test]
fn secrets_that_envoy_delivers_are_checked_by_the_build_that_the_file_loads() {
    const FILE: &str = r#""sds": "suno", "sds_config": { "path_config_source": { "path": "/secrets/suno.yaml" } }"#;
    let delivered =
        |text: &str, secret: &str| text.replacen(r#""env": "SUNO_WEBHOOK_KEY""#, secret, 1);
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let native = read("envoy-native.yaml");
    assert_ne!(delivered(&native, FILE), native);
    for (secret, shown) in [
        (FILE, "suno (by SDS), SUNO_WEBHOOK_KEY_PREVIOUS"),
        (
            r#""sds": "suno""#,
            "suno (a static secret of Envoy), SUNO_WEBHOOK_KEY_PREVIOUS",
        ),
    ] {
        let file = file("envoy.yaml", &delivered(&native, secret));
        let fine = run(&["check", "--strict", &file.path]);
        assert_eq!(fine.code, 0, "{}", fine.err);
        assert!(fine.out.contains(shown), "{}", fine.out);
    }
    let module = file("envoy.yaml", &delivered(&read("envoy.yaml"), FILE));
    let refused = run(&["check", "--assume-env", &module.path]);
    assert_eq!(refused.code, 1);
    let expected = "error: sources[0].secrets[0].sds: needs the native build, libcallback_guard.so";
    assert!(refused.err.contains(expected), "{}", refused.err);
}

#[test]
fn limits_that_keep_out_what_a_preset_promises_are_warned_of() {
    let preset = "\"preset\": \"suno\"";
    let docusign = (preset, "\"preset\": \"docusign\"");
    warns(&[docusign], &[]);
    warns(
        &[
            docusign,
            ("max_headers_count: 128", "max_headers_count: 64"),
        ],
        &[
            "common_http_protocol_options.max_headers_count: is 64, and a callback to suno can have 100",
        ],
    );
    warns(
        &[("stream_idle_timeout: 30s", "stream_idle_timeout: 25s")],
        &[
            "stream_idle_timeout: is 25 s, and a request can wait 10 s (dedupe.wait_seconds) and then be \
           worked on for 15 s",
        ],
    );
}

#[test]
fn near_misses_that_reach_the_guard_as_they_were_written_are_warned_of() {
    let pass = ("\"sources\": [", "\"unmatched\": \"pass\", \"sources\": [");
    let prefix = (
        "\"path\": \"/callbacks/suno\"",
        "\"path_prefix\": \"/callbacks\"",
    );
    let normal = ("normalize_path: true", "normalize_path: false");
    let slashes = ("merge_slashes: true", "merge_slashes: false");
    let escaped = (
        "path_with_escaped_slashes_action: REJECT_REQUEST",
        "path_with_escaped_slashes_action: KEEP_UNCHANGED",
    );
    warns(
        &[pass],
        &[
            "unmatched: is `pass`, and sources[0] matches one exact path: the guard refuses each near miss",
        ],
    );
    warns(&[pass, prefix], &[]);
    warns(
        &[pass, prefix, normal, slashes, escaped],
        &[
            "normalize_path: is not true, and `unmatched` is `pass`: a near miss",
            "merge_slashes: is not true",
            "path_with_escaped_slashes_action: keeps escaped slashes",
        ],
    );
    // Where nothing passes, nothing is missed.
    warns(&[normal, slashes, escaped], &[]);
}

#[test]
fn a_signed_header_that_envoy_writes_anew_is_warned_of() {
    let sender = ("\"preset\": \"suno\"", "\"preset\": \"mercado-pago\"");
    let anew = (
        "preserve_external_request_id: true",
        "preserve_external_request_id: false",
    );
    warns(&[sender], &[]);
    warns(
        &[sender, anew],
        &["preserve_external_request_id: is not true, and suno reads x-request-id"],
    );
    warns(&[anew], &[]);
}

#[test]
fn a_scheme_without_a_signed_time_is_not_said_to_have_one() {
    let guard = GUARD.replace("\"suno\",\n", "\"github\",\n");
    let guard = file("guard.json", &guard);
    let run = run(&["check", &guard.path]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out.contains("the time is not signed, body up to"),
        "{}",
        run.out
    );
    assert!(!run.out.contains("s old"), "{}", run.out);
}

/// Every file of the repository that holds a configuration is one that the filter accepts, and nothing
/// in it is warned of.
#[test]
fn every_file_of_the_repository_is_in_order() {
    let files = std::process::Command::new("git")
        .args(["ls-files", "*.yaml", "*.yml", "*.json"])
        .current_dir(repository())
        .output()
        .unwrap();
    let mut checked = Vec::new();
    for name in String::from_utf8(files.stdout).unwrap().lines() {
        let bytes = std::fs::read(repository().join(name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let is_data = ["tests/", "cli/tests/", "core/", "fuzz/", "docs/"];
        if !text.contains("sources") || is_data.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let run = run_with(&["check", "--strict", "--assume-env", name], &[], "");
        if run.err.contains("holds no configuration of the guard") {
            continue;
        }
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{name}");
        checked.push(name.to_owned());
    }
    assert!(checked.len() >= 5, "{checked:?}");
}
