//! Every mistake in a configuration is refused with its path and what is accepted.

use callback_guard_config as config;
use serde_json::{Value, json};

use crate::support::configuration;

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    let text = configuration(change).to_string();
    let environment = |name: &str| match name {
        "EMPTY" => Some(Vec::new()),
        "BREAK" => Some(b"secret\n".to_vec()),
        "KEY" => Some(b"secret".to_vec()),
        _ => None,
    };
    match config::parse(text.as_bytes(), &environment) {
        Ok(_) => panic!("accepted, expected: {expected}"),
        Err(error) => {
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Value)) {
    let text = configuration(change).to_string();
    if let Err(error) = config::parse(text.as_bytes(), &|_| None) {
        panic!("{error}");
    }
}

fn source(field: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |configuration| configuration["sources"][0][field] = value
}

#[test]
fn shape() {
    refused(
        |c| c["sorces"] = json!([]),
        "sorces: unknown field `sorces`, expected one of `mode`, `unmatched`, `expose_reason`, \
         `hold_headers`, `max_held_bytes`, `store`, `log`, `inspector`, `sources`",
    );
    refused(
        |c| c["sources"][0]["dedupe"] = json!({ "in_fligth": "wait" }),
        "sources[0].dedupe.in_fligth: unknown field `in_fligth`, expected one of `key`, \
         `window_seconds`, `lease_seconds`, `in_flight`, `wait_seconds`, `on_unknown`, \
         `on_body_change`, `events_per_id`",
    );
    refused(
        |c| c["sources"] = json!([]),
        "sources: there is none, expected at least one",
    );
    refused(
        |c| drop(c.as_object_mut().unwrap().remove("sources")),
        "sources: is missing, expected a list, such as [{ \"name\": \"suno\", \"match\": \
         { \"path\": \"/callbacks/suno\" }, \"preset\": \"suno\", \"secrets\": [{ \"env\": \
         \"SUNO_WEBHOOK_KEY\" }] }]",
    );
    refused(
        |c| drop(c["sources"][0].as_object_mut().unwrap().remove("match")),
        "sources[0].match: is missing, expected an object, such as { \"path\": \"/callbacks/suno\" }",
    );
    refused(
        |c| c["mode"] = json!("observe"),
        "mode: `observe` is unknown, expected `enforce` or `monitor`",
    );
    refused(
        |c| c["store"] = json!({ "kind": "memory", "capacity": 999 }),
        "store.capacity: 999 is out of range, expected 1000 to 4000000",
    );
    refused(
        |c| c["store"] = json!({ "kind": "memory", "capacity": "many" }),
        "store.capacity: is a string, expected a whole number, such as 100000",
    );
}

#[test]
fn text() {
    for (text, expected) in [
        (
            "",
            "the text ends too early at line 1, column 0, expected JSON",
        ),
        (
            "{\"sources\":[]}}",
            "trailing characters at line 1, column 15, expected JSON",
        ),
        (
            "{\"sources\":[{\"name\":\"a\",\"name\":\"b\"}]}",
            "sources[0].name: is there twice, expected it once",
        ),
        (
            "{\n \"sources\": nul }",
            "sources: expected ident at line 2, column 16, expected JSON",
        ),
    ] {
        let error = config::parse(text.as_bytes(), &|_| None).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn a_body_that_could_never_be_held_is_refused() {
    let limits = |held: u64, body: u64| {
        move |c: &mut Value| {
            c["max_held_bytes"] = json!(held);
            c["sources"][0]["max_body_bytes"] = json!(body);
        }
    };
    accepted(limits(2 << 20, 2 << 20));
    refused(
        limits(2 << 20, (2 << 20) + 1),
        "sources[0].max_body_bytes: 2097153 is more than `max_held_bytes` (2097152): such a body \
         could never be held",
    );
    // A preset's own limit counts as well.
    refused(
        |c| {
            c["max_held_bytes"] = json!(1 << 20);
            c["sources"][0] = json!({
                "name": "voices", "match": { "path": "/voices" }, "preset": "elevenlabs",
                "secrets": [{ "value": "0123456789abcdef" }],
            });
        },
        "sources[0].max_body_bytes: 16777216 is more than `max_held_bytes` (1048576): such a body \
         could never be held",
    );
    refused(
        |c| c["max_held_bytes"] = json!((1 << 20) - 1),
        "max_held_bytes: 1048575 is out of range, expected 1048576 to 1073741824",
    );
}

#[test]
fn pointers_into_an_array_begin_with_an_index() {
    refused(
        source("payload", json!({ "root": "list" })),
        "sources[0].payload.root: `list` is unknown, expected one of `any`, `array`, `object`",
    );
    let payload = |root: &str, pointer: &str| {
        let required = json!([{ "pointer": pointer, "type": "string" }]);
        let payload = json!({ "root": root, "required": required });
        move |c: &mut Value| {
            c["sources"][0].as_object_mut().unwrap().remove("preset");
            c["sources"][0]["token"] = json!({ "header": "x-token" });
            c["sources"][0]["payload"] = payload;
        }
    };
    refused(
        payload("array", "/id"),
        "sources[0].payload.required[0].pointer: the JSON pointer `/id` finds nothing in an array, which \
         `payload.root` wants, expected one that begins with an index, such as `/0/id`",
    );
    for (root, pointer) in [
        ("array", "/0/id"),
        ("array", "/12"),
        ("any", "/id"),
        ("any", "/0"),
        ("object", "/0/id"),
    ] {
        accepted(payload(root, pointer));
    }
}

#[test]
fn names_and_matches() {
    let problem = "sources[0].name: expected 1 to 32 characters of a-z, 0-9, `_` and `-`";
    for name in [
        "",
        "Suno",
        "a b",
        "a.b",
        "012345678901234567890123456789012",
    ] {
        refused(source("name", json!(name)), problem);
    }
    accepted(source("name", json!("01234567890123456789012345678901")));
    refused(
        source("match", json!({})),
        "sources[0].match: expected `path` or `path_prefix`, one of the two",
    );
    let problem = "expected a path that begins with `/`, without query, fragment and space";
    for path in ["", "a", "/a?b", "/a#b", "/a b", "/ä"] {
        refused(
            source("match", json!({ "path": path })),
            &format!("sources[0].match.path: {problem}"),
        );
    }
    for (path, problem) in [
        (
            "//a",
            "an empty segment, which no normalized path has, expected one `/` between segments",
        ),
        (
            "/a//b/",
            "an empty segment, which no normalized path has, expected one `/` between segments",
        ),
        (
            "/a/../b",
            "the segment `..`, which no normalized path has, expected the path without `.` and `..`",
        ),
        (
            "/a/.",
            "the segment `.`, which no normalized path has, expected the path without `.` and `..`",
        ),
        (
            "/%2E%2e/a",
            "the segment `%2E%2e`, which no normalized path has, expected the path without `.` and `..`",
        ),
        (
            "/a\\b",
            "a `\\`, which no normalized path has, expected `/`",
        ),
        (
            "/%73uno",
            "`%73`, an escape of `s`, which no normalized path has, expected `s`",
        ),
        (
            "/a%7Eb",
            "`%7E`, an escape of `~`, which no normalized path has, expected `~`",
        ),
        (
            "/v1%2e0",
            "`%2e`, an escape of `.`, which no normalized path has, expected `.`",
        ),
    ] {
        for field in ["path", "path_prefix"] {
            refused(
                source("match", json!({ field: path })),
                &format!("sources[0].match.{field}: holds {problem}"),
            );
        }
    }
    for path in ["/", "/a/", "/a..b/...", "/a%20b", "/%c3%a4", "/a;b=c"] {
        accepted(source("match", json!({ "path": path })));
    }
    refused(
        source("match", json!({ "path": "/a", "host": "https://a" })),
        "sources[0].match.host: expected a host name without scheme, port and path",
    );
    refused(
        |c| {
            let mut second = c["sources"][0].clone();
            second["name"] = json!("other");
            c["sources"].as_array_mut().unwrap().push(second);
        },
        "sources[1].match: equals the match of sources[0]",
    );
    refused(
        |c| {
            let mut second = c["sources"][0].clone();
            second["match"] = json!({ "path": "/other" });
            c["sources"].as_array_mut().unwrap().push(second);
        },
        "sources[1].name: `suno` is the name of sources[0] too",
    );
}

#[test]
fn secrets() {
    refused(
        source("secrets", json!([])),
        "sources[0].secrets: there is none, expected at least one",
    );
    refused(
        source(
            "secrets",
            json!([{ "env": "KEY" }, { "env": "SUNO_KEY_OLD" }]),
        ),
        "sources[0].secrets[1].env: environment variable `SUNO_KEY_OLD` is not set",
    );
    refused(
        source(
            "secrets",
            json!([{ "env": "SUNO_KEY_OLD", "optional": true }]),
        ),
        "sources[0].secrets: none of them is set, expected at least one",
    );
    refused(
        source("secrets", json!([{ "env": "EMPTY", "optional": true }])),
        "sources[0].secrets[0].env: the secret is empty",
    );
    refused(
        source("secrets", json!([{ "value": " \t\n" }])),
        "sources[0].secrets[0].value: the secret is blank",
    );
    refused(
        source("secrets", json!([{ "env": "hunter2hunter2" }])),
        "sources[0].secrets[0].env: names a variable that is not set (not shown, as it may be a secret), \
         expected the name of an environment variable, such as `SUNO_WEBHOOK_KEY`",
    );
    refused(
        source("secrets", json!([{ "env": "BREAK" }])),
        "sources[0].secrets[0].env: the secret ends with a line break",
    );
    refused(
        source("secrets", json!([{ "env": "KEY", "value": "hunter2" }])),
        "sources[0].secrets[0]: expected `env`, `value` or `sds`, one of the three",
    );
    refused(
        source("secrets", json!([{ "value": "" }])),
        "sources[0].secrets[0].value: the secret is empty",
    );
    refused(
        source(
            "secrets",
            json!([{ "value": "hunter2", "encoding": "hex" }]),
        ),
        "sources[0].secrets[0].value: the secret is not valid hex",
    );
    refused(
        source(
            "secrets",
            json!([{ "value": "hunter2!", "encoding": "base64" }]),
        ),
        "sources[0].secrets[0].value: the secret is not valid base64",
    );
    refused(
        source("secrets", json!(vec![json!({ "value": "hunter2" }); 9])),
        "sources[0].secrets: there are 9, expected at most 8",
    );
    // A secret in the wrong place is not echoed.
    refused(
        source("secrets", json!("hunter2")),
        "sources[0].secrets: is a string, expected a list, such as [{ \"env\": \
         \"SUNO_WEBHOOK_KEY\" }]",
    );
    refused(
        source("secrets", json!([{ "value": "a", "encoding": "hunter2" }])),
        "sources[0].secrets[0].encoding: is unknown, expected one of `utf8`, `base64`, `hex`",
    );
    accepted(source(
        "secrets",
        json!([{ "value": "c2VjcmV0", "encoding": "base64" }]),
    ));
    accepted(source(
        "secrets",
        json!([{ "value": "c2VjcmU", "encoding": "base64" }]),
    ));
    accepted(source(
        "secrets",
        json!([{ "value": "00fF", "encoding": "hex" }]),
    ));
}

#[test]
fn secrets_as_supabase_writes_them() {
    let secret = |secret: Value| {
        move |c: &mut Value| {
            c["sources"][0]["preset"] = json!("standard-webhooks");
            c["sources"][0]["secrets"] = json!([secret]);
        }
    };
    let text = "v1,whsec_AAECAwQFBgcICQoLDA0ODw==";
    refused(
        secret(json!({ "value": text })),
        "sources[0].secrets[0].value: the secret begins with `v1,whsec_`, as Supabase writes it, \
         expected `\"prefix\": \"v1,whsec_\"` and `\"encoding\": \"base64\"` with it",
    );
    accepted(secret(
        json!({ "value": text, "prefix": "v1,whsec_", "encoding": "base64" }),
    ));
}

#[test]
fn tokens_that_can_be_guessed() {
    let token = |token: &'static str| {
        move |c: &mut Value| {
            let source = c["sources"][0].as_object_mut().unwrap();
            source.remove("preset");
            source.insert("token".into(), json!({ "header": "x-token" }));
            source.insert("secrets".into(), json!([{ "value": token }]));
        }
    };
    refused(
        token("hunter2hunter2!"),
        "sources[0].secrets[0].value: the token has 15 bytes, which can be guessed, expected at least \
         16 random ones",
    );
    accepted(token("hunter2hunter2!!"));
}

#[test]
fn a_parameter_has_one_value() {
    let text = r#"{ "sources": [{ "name": "a", "match": { "path": "/a" }, "preset": "square",
        "parameters": { "notification_url": "https://a", "notification_url": "https://b" },
        "secrets": [{ "value": "0123456789abcdef" }] }] }"#;
    let error = config::parse(text.as_bytes(), &|_| None).unwrap_err();
    let expected = "sources[0].parameters.notification_url: is there twice, expected it once";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn numbers() {
    for (field, wrong, range) in [
        ("tolerance_seconds", 0, "1 to 86400"),
        ("tolerance_seconds", 86_401, "1 to 86400"),
        ("future_tolerance_seconds", 0, "1 to 86400"),
        ("max_body_bytes", 0, "1 to 16777216"),
        ("max_body_bytes", 16_777_217, "1 to 16777216"),
        ("acknowledge_as", 199, "200 to 299"),
        ("acknowledge_as", 300, "200 to 299"),
    ] {
        let expected = format!("sources[0].{field}: {wrong} is out of range, expected {range}");
        refused(source(field, json!(wrong)), &expected);
    }
    for (field, wrong, range) in [
        ("lease_seconds", 0, "1 to 600"),
        ("lease_seconds", 601, "1 to 600"),
        ("wait_seconds", 0, "1 to 60"),
        ("wait_seconds", 61, "1 to 60"),
    ] {
        let expected =
            format!("sources[0].dedupe.{field}: {wrong} is out of range, expected {range}");
        refused(source("dedupe", json!({ field: wrong })), &expected);
    }
    refused(
        source("dedupe", json!({ "window_seconds": 360 })),
        "sources[0].dedupe.window_seconds: 360 is too short, expected more than tolerance_seconds \
         and future_tolerance_seconds together (360), or a replay outlives its record",
    );
    accepted(source("dedupe", json!({ "window_seconds": 361 })));
}

#[test]
fn payload_and_key() {
    refused(
        source(
            "payload",
            json!({ "allowed_url_hosts": ["*.a.com", "https://b"] }),
        ),
        "sources[0].payload.allowed_url_hosts[1]: expected a host name, or `*.` and a host name, \
         without scheme, port or path",
    );
    refused(
        source("dedupe", json!({ "key": [] })),
        "sources[0].dedupe.key: is empty, expected at least one part",
    );
    refused(
        source("dedupe", json!({ "key": [{ "header": "a b" }] })),
        "sources[0].dedupe.key[0].header: expected the name of a header",
    );
    refused(
        source("dedupe", json!({ "key": [{}] })),
        "sources[0].dedupe.key[0]: expected one of `pointer`, `header`, and `path`, `host` or `body` with `true`",
    );
    refused(
        source(
            "payload",
            json!({ "required": [{ "pointer": "/a", "type": "text" }] }),
        ),
        "sources[0].payload.required[0].type: `text` is unknown, expected one of `boolean`, \
         `integer`, `number`, `array`, `object`, `string`",
    );
}

/// A scheme that is fine: a body-signing one with a timestamp.
fn signature() -> Value {
    json!({
        "message": [{ "timestamp": true }, { "literal": "." }, { "body": true }],
        "value": { "header": "x-sig", "separator": ",", "key": "v1", "encoding": "hex" },
        "timestamp": { "key": "t" },
        "id": { "pointers": ["/id"] },
    })
}

fn scheme(change: impl FnOnce(&mut Value)) -> impl FnOnce(&mut Value) {
    let mut signature = signature();
    change(&mut signature);
    move |configuration| {
        let source = configuration["sources"][0].as_object_mut().unwrap();
        source.remove("preset");
        source.insert("signature".into(), signature);
    }
}

#[test]
fn schemes_that_protect_nothing_are_refused() {
    accepted(scheme(|_| {}));
    refused(
        scheme(|s| s["message"] = json!([{ "timestamp": true }])),
        "sources[0].signature.message: covers neither the body nor the id, so it authenticates \
         nothing",
    );
    refused(
        scheme(|s| s["message"] = json!([{ "body": true }])),
        "sources[0].signature.timestamp: is not part of the message, so it proves no freshness",
    );
    refused(
        scheme(|s| drop(s.as_object_mut().unwrap().remove("timestamp"))),
        "sources[0].signature.message: holds the timestamp, but `timestamp` says no place for it",
    );
    refused(
        scheme(|s| {
            s["message"] = json!([{ "id": true }]);
            s.as_object_mut().unwrap().remove("timestamp");
        }),
        "sources[0].signature: has neither a timestamp nor the body in its message, so one \
         captured signature would be good for ever",
    );
    refused(
        scheme(|s| {
            s["message"] = json!([{ "timestamp": true }, { "body": true }]);
            s["timestamp"] = json!({ "pointer": "/time" });
        }),
        "sources[0].signature.message: holds a timestamp that is inside the body",
    );
    refused(
        scheme(|s| {
            s["message"] = json!([{ "header": "x-a" }, { "body": true }]);
            s.as_object_mut().unwrap().remove("timestamp");
        }),
        "sources[0].signature.message: has two parts of free length with no literal between that \
         ends one, so it could be cut in two ways",
    );
    refused(
        scheme(|s| s["message"] = json!([{ "body": true, "id": true }])),
        "sources[0].signature.message[0]: expected one of `literal`, `parameter`, `header`, `pointer`, \
         `id`, `timestamp`, `method`, `url`, `query`, `body_digest`, `form_sorted` and `body`",
    );
    refused(
        |c| c["sources"][0]["signature"] = signature(),
        "sources[0].signature: cannot be combined with `preset` or `token`, expected one of the three",
    );
    refused(
        |c| drop(c["sources"][0].as_object_mut().unwrap().remove("preset")),
        "sources[0]: expected `preset`, `signature` or `token`",
    );
    refused(
        source("preset", json!("acme")),
        "sources[0].preset: `acme` is unknown, expected one of docs/presets.md, such as \
         `acuity`",
    );
}

#[test]
fn messages_that_could_be_cut_in_two_ways_are_refused() {
    let ambiguous = "sources[0].signature.message: has two parts of free length with no literal \
                     between that ends one, so it could be cut in two ways";
    let header = json!({ "header": "x-a" });
    let other = json!({ "header": "x-b" });
    let (body, time, dot) = (
        json!({ "body": true }),
        json!({ "timestamp": true }),
        json!({ "literal": "." }),
    );
    for message in [
        json!([time, dot, header, body]),
        json!([header, time, body]),
        json!([header, time, dot, body]),
        json!([body, time, header]),
        json!([body, dot, time, header]),
        json!([header, other, dot, time, dot, body]),
    ] {
        refused(scheme(|s| s["message"] = message), ambiguous);
    }
    for message in [
        json!([time, dot, body]),
        json!([time, body]),
        json!([body, time]),
        json!([header, dot, time, dot, body]),
        json!([header, dot, other, dot, time, body]),
        json!([body, time, dot, header]),
        json!([header, dot, body, time, dot, other]),
    ] {
        accepted(scheme(|s| s["message"] = message));
    }
}

#[test]
fn an_id_that_gives_way_to_the_body_needs_a_signed_body() {
    accepted(scheme(|s| s["id"]["or_body_digest"] = json!(true)));
    refused(
        scheme(|s| {
            s["message"] = json!([{ "id": true }, { "literal": "." }, { "timestamp": true }]);
            s["id"]["or_body_digest"] = json!(true);
        }),
        "sources[0].signature.id.or_body_digest: needs a signed body, or whoever changes the body \
         makes a new id",
    );
    refused(
        scheme(|s| s["id"] = json!({ "header": "x-id", "or_body_digest": true })),
        "sources[0].signature.id: expected `header` or `pointers`, one of the two; \
         `or_body_digest` goes with `pointers`",
    );
}

#[test]
fn parameters_are_those_of_the_scheme() {
    let square = |parameters: Value| {
        move |c: &mut Value| {
            c["sources"][0]["preset"] = json!("square");
            c["sources"][0]["parameters"] = parameters;
        }
    };
    accepted(square(
        json!({ "notification_url": "https://app.example/x" }),
    ));
    refused(
        square(json!({})),
        "sources[0].parameters.notification_url: is missing, expected the text that the scheme asks \
         for",
    );
    refused(
        square(json!({ "notification_url": "" })),
        "sources[0].parameters.notification_url: is empty, expected the text that the scheme asks for",
    );
    refused(
        square(json!({ "notification_url": "x", "url": "y" })),
        "sources[0].parameters.url: is no parameter of this scheme",
    );
    refused(
        source("parameters", json!({ "url": "y" })),
        "sources[0].parameters.url: is no parameter of this scheme",
    );
    refused(
        scheme(|s| s["message"][1] = json!({ "literal": ".", "parameter": "url" })),
        "sources[0].signature.message[1]: expected one of `literal`, `parameter`, `header`, `pointer`, \
         `id`, `timestamp`, `method`, `url`, `query`, `body_digest`, `form_sorted` and `body`",
    );
}

#[test]
fn secrets_are_read_as_their_sender_writes_them() {
    let with = |preset: &'static str, secret: Value| {
        move |c: &mut Value| {
            c["sources"][0]["preset"] = json!(preset);
            c["sources"][0]["secrets"] = json!([secret]);
        }
    };
    accepted(with("svix", json!({ "value": "whsec_AAECAwQF" })));
    accepted(with("svix", json!({ "value": "AAECAwQF" })));
    accepted(with("svix", json!({ "value": "AAECAwQ" })));
    accepted(with(
        "svix",
        json!({ "value": "no base64!", "encoding": "utf8" }),
    ));
    accepted(with(
        "suno",
        json!({ "value": "x_6162", "encoding": "hex", "prefix": "x_" }),
    ));
    refused(
        with("svix", json!({ "value": "no base64!" })),
        "sources[0].secrets[0].value: the secret is not valid base64",
    );
    refused(
        with("svix", json!({ "value": "whsec_" })),
        "sources[0].secrets[0].value: the secret is empty",
    );
    refused(
        with(
            "svix",
            json!({ "value": "whsec_AAECAwQF", "encoding": "base64" }),
        ),
        "sources[0].secrets[0].value: the secret is not valid base64",
    );
}

#[test]
fn tokens_have_one_place() {
    let token = |token: Value, route: Value| {
        move |c: &mut Value| {
            let source = c["sources"][0].as_object_mut().unwrap();
            source.remove("preset");
            source.insert("token".into(), token);
            source.insert("match".into(), route);
        }
    };
    let (path, prefix) = (json!({ "path": "/a" }), json!({ "path_prefix": "/a" }));
    accepted(token(json!({ "header": "X-Token" }), path.clone()));
    accepted(token(json!({ "query": "token" }), path.clone()));
    accepted(token(json!({ "path_segment": true }), prefix.clone()));
    refused(
        token(json!({ "path_segment": true }), path.clone()),
        "sources[0].token.path_segment: is the last segment below `match.path_prefix`, and there \
         is none",
    );
    refused(
        token(json!({ "header": "x-a", "query": "b" }), path.clone()),
        "sources[0].token: expected one of `header`, `query`, `path_segment`, `pointer` and `basic`",
    );
    refused(
        token(json!({}), path.clone()),
        "sources[0].token: expected one of `header`, `query`, `path_segment`, `pointer` and `basic`",
    );
    refused(
        token(json!({ "query": "a&b" }), path.clone()),
        "sources[0].token.query: expected a name of letters, digits, `-`, `.`, `_` and `~`",
    );
    refused(
        source("token", json!({ "query": "t" })),
        "sources[0].token: cannot be combined with a signed preset, expected one of the two",
    );
    accepted(|c| {
        c["sources"][0]["preset"] = json!("sunoapi-token");
        c["sources"][0]["token"] = json!({ "path_segment": true });
        c["sources"][0]["match"] = prefix;
    });
}

#[test]
fn types_that_are_not_json_go_with_rules_that_need_none() {
    let form = json!(["application/json", "application/x-www-form-urlencoded"]);
    let with = |change: fn(&mut Value)| {
        let form = form.clone();
        move |c: &mut Value| {
            c["sources"][0]["preset"] = json!("stripe");
            c["sources"][0]["content_types"] = form;
            change(&mut c["sources"][0]);
        }
    };
    accepted(with(|_| {}));
    let blind = |what: &str| {
        format!(
            "sources[0].content_types: holds a type that is not JSON, in which {what} finds nothing"
        )
    };
    refused(with(|s| s["preset"] = json!("suno")), &blind("`id`"));
    refused(
        with(|s| s["preset"] = json!("linear")),
        &blind("`timestamp`"),
    );
    refused(
        with(|s| s["dedupe"] = json!({ "key": [{ "header": "x" }, { "pointer": "/a" }] })),
        &blind("`dedupe.key`"),
    );
    refused(
        with(|s| s["payload"] = json!({ "required": [{ "pointer": "/a", "type": "string" }] })),
        &blind("`payload.required`"),
    );
    refused(
        with(|s| s["payload"] = json!({ "allowed_url_hosts": ["a.example"] })),
        &blind("`payload.allowed_url_hosts`"),
    );
    refused(
        source("content_types", json!([])),
        "sources[0].content_types: is empty, expected at least one media type",
    );
    for text in ["json", "a/b; charset=utf-8", "/b", "a/", "a/b/c", "a b/c"] {
        refused(
            source("content_types", json!([text])),
            "sources[0].content_types[0]: expected a media type such as `application/json`, \
             without parameters",
        );
    }
    accepted(source(
        "content_types",
        json!(["application/JSON", "text/json+json"]),
    ));
}

#[test]
fn no_text_makes_the_reader_panic() {
    let text = configuration(|_| {}).to_string().into_bytes();
    for at in 0..text.len() {
        for byte in [0, b'"', b'{', b'}', b'[', b'\\', 0xff] {
            let mut text = text.clone();
            text[at] = byte;
            let _ = config::parse(&text, &|_| None);
        }
        let _ = config::parse(&text[..at], &|_| None);
    }
}
