//! Every kind of value at every place of a configuration: what is refused is refused in the words of
//! the configuration, never in those of the program, and without the value.

use callback_guard_config as config;
use serde_json::{Value, json};

/// Every field, in sound configurations.
fn configurations() -> [Value; 2] {
    let first = json!({
        "mode": "enforce",
        "unmatched": "reject",
        "expose_reason": true,
        "hold_headers": "filter",
        "store": {
            "kind": "redis",
            "capacity": 1000,
            "protocol": "webdis",
            "cluster": "redis",
            "authority": "redis:7379",
            "token_env": "REDIS",
            "key_prefix": "a:",
            "timeout_milliseconds": 250,
            "on_error": "memory",
        },
        "log": { "refusals_per_second": 20 },
        "inspector": { "path": "/inspector", "events": 100, "token_env": "INSPECTOR" },
        "sources": [{
            "name": "spelled",
            "match": { "path": "/a", "host": "a.example" },
            "mode": "monitor",
            "signature": {
                "message": [
                    { "header": "x-id" },
                    { "literal": "." },
                    { "timestamp": true },
                    { "literal": "." },
                    { "parameter": "name" },
                    { "literal": "." },
                    { "body": true },
                ],
                "value": { "header": "x-sig", "separator": ",", "key": "v1", "encoding": "hex" },
                "timestamp": { "key": "t", "unit": "s" },
                "id": { "pointers": ["/id"], "or_body_digest": true },
            },
            "parameters": { "name": "value" },
            "secrets": [{
                "value": SECRET,
                "encoding": "hex",
                "prefix": "x_",
                "optional": true,
            }, { "env": "KEY" }],
            "content_types": ["application/json"],
            "tolerance_seconds": 300,
            "future_tolerance_seconds": 60,
            "max_body_bytes": 1000,
            "payload": {
                "allowed_url_hosts": ["*.example.com"],
                "required": [{ "pointer": "/id", "type": "string", "optional": true }],
            },
            "dedupe": {
                "key": [{ "pointer": "/id" }, { "header": "x-id" }],
                "window_seconds": 1000,
                "lease_seconds": 30,
                "in_flight": "wait",
                "wait_seconds": 10,
                "on_unknown": "release",
                "on_body_change": "acknowledge",
            },
            "acknowledge_as": 200,
        }],
    });
    let second = json!({
        "sources": [
            {
                "name": "preset",
                "match": { "path": "/b" },
                "preset": "suno",
                "secrets": [{ "env": "KEY" }],
            },
            {
                "name": "token",
                "match": { "path_prefix": "/c" },
                "token": { "path_segment": true, "id": { "pointers": ["/id"], "or_body_digest": false } },
                "secrets": [{ "env": "KEY" }],
            },
        ],
    });
    [first, second]
}

const SECRET: &str = "x_00112233445566778899aabbccddeeff";

fn environment(name: &str) -> Option<Vec<u8>> {
    match name {
        "REDIS" => Some(b"user:password".to_vec()),
        "INSPECTOR" | "KEY" => Some(b"00112233445566778899aabbccddeeff".to_vec()),
        _ => None,
    }
}

/// The pointer of every value in `value`, itself included.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                pointers(field, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

/// What a program says of its own types and its parser.
fn is_of_the_program(text: &str) -> bool {
    const WORDS: [&str; 16] = [
        "struct",
        "enum",
        "variant",
        "invalid type",
        "invalid value",
        "invalid length",
        "sequence",
        "map",
        "unit",
        "untagged",
        "EOF",
        "Raw",
        "Option",
        "usize",
        "boolean",
        "floating point",
    ];
    // The path, and what stands between backticks, are names of the configuration's own.
    let text = text.split_once(": ").map_or(text, |(_, said)| said);
    let text: String = text.split('`').step_by(2).collect();
    let is_number = |word: &str| ["u8", "u16", "u32", "u64", "i64", "f64"].contains(&word);
    let mut words = text.split(|one: char| !one.is_alphanumeric());
    WORDS.iter().any(|word| text.contains(word)) || words.any(is_number)
}

#[test]
fn every_mistake_in_a_value_is_told_in_the_words_of_the_configuration() {
    const HIDDEN: &str = "whsec_hunter2hunter2";
    let wrong = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(70_000_000_000_u64),
        json!(HIDDEN),
        json!([]),
        json!([HIDDEN]),
        json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        json!({}),
        json!({ HIDDEN: 1 }),
    ];
    let mut count = 0;
    for sound in configurations() {
        config::parse(sound.to_string().as_bytes(), &environment).unwrap();
        let mut places = Vec::new();
        pointers(&sound, "", &mut places);
        for place in places {
            for wrong in &wrong {
                let mut configuration = sound.clone();
                *configuration.pointer_mut(&place).unwrap() = wrong.clone();
                let text = configuration.to_string();
                let Err(error) = config::parse(text.as_bytes(), &environment) else {
                    continue;
                };
                count += 1;
                let error = error.to_string();
                let case = format!("{place} = {wrong}: {error}");
                assert!(!is_of_the_program(&error), "{case}");
                assert!(!error.contains("at line"), "sound JSON, {case}");
                let may_hold_secrets = ["secrets", "parameters", "token_env", "url_env"];
                let is_token = place.ends_with("/token");
                if is_token || may_hold_secrets.iter().any(|name| place.contains(name)) {
                    assert!(!error.contains("hunter2"), "{case}");
                }
            }
        }
    }
    assert!(count > 800, "{count}");
}

#[test]
fn a_field_that_is_missing_is_named_with_an_example() {
    for sound in configurations() {
        let mut places = Vec::new();
        pointers(&sound, "", &mut places);
        for place in places {
            let (object, name) = place.rsplit_once('/').unwrap_or_default();
            let mut configuration = sound.clone();
            let Some(object) = configuration
                .pointer_mut(object)
                .and_then(Value::as_object_mut)
            else {
                continue;
            };
            if object.remove(name).is_none() {
                continue;
            }
            if let Err(error) = config::parse(configuration.to_string().as_bytes(), &environment) {
                let error = error.to_string();
                assert!(!is_of_the_program(&error), "without {place}: {error}");
                let (_, said) = error.split_once(": ").unwrap();
                if said.starts_with("is missing") {
                    assert!(said.contains("expected"), "without {place}: {error}");
                }
            }
        }
    }
}
