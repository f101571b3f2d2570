//! What the module is made of, and what it may do in the proxy: the functions it imports, and the
//! capabilities that `envoy.yaml` gives it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use callback_guard_harness::{Render, Setup, places, wasm};
use serde_json::Value;

/// What the guard calls: its own border, and what Rust's standard library needs of WASI to read the
/// environment, to draw random numbers and to die.
const CALLED: &[&str] = &[
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_log_level",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_effective_context",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
    "random_get",
];

/// What the SDK names in methods that a filter could use and this one does not: they are in its
/// tables of methods, so no linker can drop them. The proxy answers them with an error.
const ONLY_NAMED: &[&str] = &[
    "proxy_close_stream",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_header_map_value",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_set_buffer_bytes",
    "proxy_set_header_map_pairs",
];

/// The callbacks that the filter does something in.
const CALLBACKS: &[&str] = &[
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_done",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_on_vm_start",
];

fn names(lists: &[&[&str]]) -> BTreeSet<String> {
    lists
        .concat()
        .iter()
        .map(|name| (*name).to_owned())
        .collect()
}

#[test]
fn the_module_imports_these_functions_and_no_other() {
    let path = wasm::module(&|_| {}).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    for payload in wasmparser::Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            wasmparser::Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.unwrap();
                    let module = if import.name.starts_with("proxy_") {
                        "env"
                    } else {
                        "wasi_snapshot_preview1"
                    };
                    assert_eq!(import.module, module, "{}", import.name);
                    imports.insert(import.name.to_owned());
                }
            }
            wasmparser::Payload::ExportSection(section) => {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| export.unwrap().name.to_owned()),
                );
            }
            _ => {}
        }
    }
    assert_eq!(imports, names(&[CALLED, ONLY_NAMED]), "{}", path.display());
    for callback in CALLBACKS {
        assert!(exports.contains(*callback), "{callback}");
    }
}

#[test]
fn the_border_calls_what_is_listed() {
    let path = places::repository().join("src/host.rs");
    let text = fs::read_to_string(path).unwrap();
    let declared: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("proxy_"))
        .collect();
    // The SDK has to know of a call-out, to bring its answer to the right stream.
    let by_the_sdk = ["proxy_http_call"];
    let called = CALLED
        .iter()
        .copied()
        .filter(|name| name.starts_with("proxy_") && !by_the_sdk.contains(name));
    assert_eq!(declared, called.collect());
}

#[test]
fn envoy_allows_the_module_these_and_no_other() {
    let mut allowed = None;
    let _ = Render::repository().plugin(|plugin| {
        let list = &plugin["vm_config"]["capability_restriction_config"]["allowed_capabilities"];
        let keys = list.as_object().unwrap().keys().cloned();
        allowed = Some(keys.collect::<BTreeSet<String>>());
    });
    assert_eq!(allowed.unwrap(), names(&[CALLED, CALLBACKS]));
}

/// The flag for this is in `.cargo/config.toml`; a build without it works, and is slower.
#[test]
fn the_module_looks_at_sixteen_bytes_at_a_time() {
    let bytes = fs::read(wasm::module(&|_| {}).unwrap()).unwrap();
    let mut count = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&bytes) {
        if let wasmparser::Payload::CodeSectionEntry(body) = payload.unwrap() {
            count += body
                .get_operators_reader()
                .unwrap()
                .into_iter()
                .filter(|operator| matches!(operator, Ok(wasmparser::Operator::I8x16Bitmask)))
                .count();
        }
    }
    assert!(count > 0);
}

fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo"),
        PathBuf::from,
    )
}

/// The names of source files that panics would print: each ends with a zero byte.
fn source_files(module: &[u8]) -> Vec<String> {
    let is_of_a_path = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    module
        .split(|byte| !is_of_a_path(byte))
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
        .filter(|text| text.ends_with(".rs"))
        .collect()
}

#[test]
fn the_module_tells_nothing_of_the_machine_that_built_it() {
    let module = fs::read(wasm::module(&|_| {}).unwrap()).unwrap();
    let text = String::from_utf8_lossy(&module);
    for place in [places::repository(), cargo_home()] {
        let place = place.to_str().unwrap();
        assert!(!text.contains(place), "{place}");
    }
    let files = source_files(&module);
    assert!(
        files.iter().any(|file| file == "src/filter.rs"),
        "{files:?}"
    );
    for file in files {
        assert!(
            !file.starts_with('/') || file.starts_with("/rustc/"),
            "{file}"
        );
        assert!(!file.contains("registry"), "{file}");
    }
}

#[test]
fn the_bill_of_materials_is_that_of_the_lock_file() {
    let output = Command::new("python3")
        .arg(places::repository().join("deploy/sbom.py"))
        .args(["callback-guard", "wasm32-wasip1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let kept = fs::read(places::repository().join("docs/sbom.cdx.json")).unwrap();
    // Not `assert_eq`, which would print both.
    assert!(
        kept == output.stdout,
        "look at what changed: deploy/sbom.py callback-guard wasm32-wasip1 > docs/sbom.cdx.json"
    );
    let now: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(now["metadata"]["component"]["name"], "callback-guard");
    let components = now["components"].as_array().unwrap();
    let of = |name: &str| components.iter().find(|it| it["name"] == name).unwrap();
    let checksum = of("sha2")["hashes"][0]["content"].as_str().unwrap();
    let lock = fs::read_to_string(places::repository().join("Cargo.lock")).unwrap();
    assert!(lock.contains(&format!("checksum = \"{checksum}\"")));
    // No procedural macro, and nothing that only the tests use.
    for name in ["serde_derive", "anyhow"] {
        assert!(components.iter().all(|it| it["name"] != name), "{name}");
    }
}

/// With the guard in it: what stands in its block counts, too.
#[test]
fn envoy_starts_with_each_shipped_file_and_warns_of_nothing() {
    for name in ["envoy.yaml", "deploy/redis/envoy.yaml"] {
        let text = fs::read_to_string(places::repository().join(name)).unwrap();
        let stack = Setup::new()
            .env("CALLBACK_GUARD_REDIS_TOKEN", "guard:change-me-webdis")
            .render(|_| Render::yaml(&text))
            .start()
            .unwrap();
        let log = stack.envoy.log();
        for line in log.lines() {
            let is_warning = ["[warning]", "[error]", "[critical]", "eprecated"]
                .iter()
                .any(|sign| line.contains(sign));
            assert!(!is_warning, "{name}: {line}");
        }
    }
}
