//! The JSON Schema of the configuration says what the parser says.

use callback_guard_config as config;
use callback_guard_harness::SECRET;
use callback_guard_harness::places::repository;
use serde_json::{Value, json};

fn schema() -> Value {
    config::schema().unwrap()
}

/// What the schema and the filter's parser say.
fn verdicts(configuration: &Value) -> (bool, bool) {
    let by_schema = jsonschema::is_valid(&schema(), configuration);
    let text = configuration.to_string();
    let by_parser = config::parse(text.as_bytes(), &|_| Some(SECRET.into())).is_ok();
    (by_schema, by_parser)
}

fn least() -> Value {
    json!({ "sources": [{
        "name": "suno",
        "match": { "path": "/callbacks/suno" },
        "preset": "suno",
        "secrets": [{ "env": "KEY" }],
    }] })
}

#[test]
fn it_is_a_json_schema() {
    assert!(jsonschema::meta::is_valid(&schema()));
}

#[test]
fn what_the_parser_accepts_the_schema_accepts() {
    let whole = json!({
        "mode": "monitor", "unmatched": "pass", "expose_reason": false, "hold_headers": "buffer_after",
        "store": { "kind": "memory", "capacity": 1000 },
        "sources": [{
            "name": "a-1_b", "mode": "enforce",
            "match": { "path_prefix": "/a", "host": "h.example" },
            "signature": {
                "message": [{ "literal": "v0:" }, { "timestamp": true }, { "literal": ":" }, { "body": true }],
                "value": { "header": "x-sig", "separator": ",", "prefix": "v0=", "encoding": "hex" },
                "timestamp": { "header": "x-time", "unit": "ms" },
                "id": { "pointers": ["/id"] },
            },
            "secrets": [{ "env": "KEY" }, { "value": "a2V5", "encoding": "base64", "optional": true }],
            "tolerance_seconds": 1, "future_tolerance_seconds": 86400, "max_body_bytes": 16777216,
            "payload": {
                "allowed_url_hosts": ["*.example.com"],
                "required": [{ "pointer": "/a", "type": "integer", "optional": true }],
            },
            "dedupe": {
                "key": [{ "pointer": "/a" }, { "header": "x-b" }], "window_seconds": 90000,
                "lease_seconds": 600, "in_flight": "reject", "wait_seconds": 60,
                "on_unknown": "hold", "on_body_change": "reject",
            },
            "acknowledge_as": 299,
        }],
    });
    let mut redis = least();
    redis["store"] = json!({ "kind": "redis", "protocol": "upstash", "cluster": "c", "authority": "a",
        "token_env": "KEY", "key_prefix": "p:", "timeout_milliseconds": 100, "on_error": "reject" });
    let token = json!({ "sources": [{
        "name": "t", "match": { "path_prefix": "/t" }, "secrets": [{ "env": "KEY" }],
        "token": { "query": "token", "id": { "header": "x-id" } },
    }] });
    let text = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    let (_, rest) = text.split_once("google.protobuf.StringValue").unwrap();
    let (_, rest) = rest.split_once("value: |").unwrap();
    let (own, _) = rest
        .split_once("- name: envoy.filters.http.router")
        .unwrap();
    let own: Value = serde_json::from_str(own).unwrap();
    for configuration in [least(), whole, redis, token, own] {
        assert_eq!(verdicts(&configuration), (true, true), "{configuration:#}");
    }
}

#[test]
fn what_the_schema_refuses_the_parser_refuses() {
    for (pointer, wrong) in [
        ("", json!([])),
        ("/sources", json!({})),
        ("/mode", json!("off")),
        ("/no_such_field", json!(1)),
        ("/expose_reason", json!("yes")),
        ("/store", json!({ "kind": "disk" })),
        ("/sources/0/name", json!("Upper")),
        ("/sources/0/name", json!("a".repeat(33))),
        ("/sources/0/match", json!({ "paths": "/a" })),
        ("/sources/0/match/path", json!("no-slash")),
        ("/sources/0/preset", json!("sumo")),
        ("/sources/0/secrets", json!([])),
        ("/sources/0/secrets/0", json!({ "env": 1 })),
        (
            "/sources/0/secrets/0",
            json!({ "env": "KEY", "encoding": "rot13" }),
        ),
        ("/sources/0/tolerance_seconds", json!(0)),
        ("/sources/0/tolerance_seconds", json!(86401)),
        ("/sources/0/max_body_bytes", json!(16777217)),
        ("/sources/0/max_body_bytes", json!(-1)),
        ("/sources/0/acknowledge_as", json!(300)),
        ("/sources/0/dedupe", json!({ "lease_seconds": 601 })),
        ("/sources/0/dedupe", json!({ "wait_seconds": 0 })),
        ("/sources/0/dedupe", json!({ "on_unknown": "forget" })),
        (
            "/sources/0/payload",
            json!({ "required": [{ "pointer": "/a", "type": "text" }] }),
        ),
    ] {
        let mut configuration = least();
        match configuration.pointer_mut(pointer) {
            Some(place) => *place = wrong.clone(),
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                configuration.pointer_mut(parent).unwrap()[name] = wrong.clone();
            }
        }
        assert_eq!(
            verdicts(&configuration),
            (false, false),
            "{pointer} = {wrong}"
        );
    }
}
