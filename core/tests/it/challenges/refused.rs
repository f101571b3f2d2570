//! Every mistake in `challenge` is refused with its path and what is accepted.

use serde_json::{Value, json};

use super::{loads, source};

/// A rule that is right, changed.
fn rule(change: impl FnOnce(&mut Value)) -> Value {
    let mut rule = json!({
        "when": { "method": "GET", "query": "c", "present": true },
        "requires": "none",
        "reply": { "status": 200, "content_type": "text/plain", "body": [{ "query": "c" }] },
    });
    change(&mut rule);
    rule
}

#[track_caller]
fn refused_for(preset: &str, change: impl FnOnce(&mut Value), expected: &str) {
    let mut source = source(preset);
    source["challenge"] = json!([rule(change)]);
    match loads(&source) {
        Ok(_) => panic!("accepted, expected: {expected}"),
        Err(error) => assert_eq!(error, format!("sources[0].{expected}")),
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    refused_for("github", change, &format!("challenge[0].{expected}"));
}

#[track_caller]
fn accepted(preset: &str, change: impl FnOnce(&mut Value)) {
    let mut source = source(preset);
    source["challenge"] = json!([rule(change)]);
    if let Err(error) = loads(&source) {
        panic!("{error}");
    }
}

fn set(pointer: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |rule| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        rule.pointer_mut(parent).unwrap()[name] = value;
    }
}

#[test]
fn shape() {
    accepted("github", |_| {});
    refused(
        set("/then", json!(1)),
        "then: unknown field `then`, expected one of `when`, `requires`, `reply`",
    );
    refused(
        set("/when/path", json!("/a")),
        "when.path: unknown field `path`, expected one of `method`, `query`, `header`, `pointer`, \
         `equals`, `present`",
    );
    refused(
        set("/reply/type", json!("a")),
        "reply.type: unknown field `type`, expected one of `status`, `content_type`, `headers`, \
         `body`",
    );
    refused(
        set("/reply/body", json!([{ "text": "a" }])),
        "reply.body[0].text: unknown field `text`, expected one of `literal`, `query`, `header`, \
         `pointer`, `hmac`, `encoding`",
    );
    refused(
        set("/requires", json!("nothing")),
        "requires: `nothing` is unknown, expected one of `none`, `token`, `signature`",
    );
    refused(
        set("/requires", json!(1)),
        "requires: is a number, expected a string, such as \"signature\"",
    );
    refused(
        set("/requires", json!({ "query": "a", "header": "b" })),
        "requires.header: unknown field `header`, expected `query` or `parameter`",
    );
    refused(
        set("/when", json!({ "query": "c", "equals": 1.5 })),
        "when.equals: is a number with a fraction, expected a string, such as \"subscribe\"",
    );
    let many: Vec<Value> = (0..9).map(|_| rule(|_| {})).collect();
    let mut source = source("github");
    source["challenge"] = json!(many);
    assert_eq!(
        loads(&source).unwrap_err(),
        "sources[0].challenge: there are 9, expected at most 8"
    );
}

#[test]
fn what_makes_a_challenge() {
    let all_posts = "when: takes every POST for a challenge, so no callback would be let through, \
                     expected `query`, `header` or `pointer`, or another `method`";
    refused(set("/when", json!({ "method": "POST" })), all_posts);
    refused(set("/when", json!({})), all_posts);
    accepted("github", |rule| {
        rule["when"] = json!({ "method": "HEAD" });
        rule["reply"]["body"] = json!([]);
    });
    refused(
        set("/when/header", json!("x-a")),
        "when: expected at most one of `query`, `header` and `pointer`",
    );
    for value in [
        json!({ "query": "c" }),
        json!({ "query": "c", "equals": "a", "present": true }),
    ] {
        refused(
            set("/when", value),
            "when: expected `equals` or `present: true`, one of the two",
        );
    }
    refused(
        set("/when", json!({ "method": "GET", "equals": "a" })),
        "when: has `equals` or `present`, but no `query`, `header` or `pointer` whose value that \
         would be",
    );
    for equals in ["", &"a".repeat(513)] {
        refused(
            set("/when", json!({ "query": "c", "equals": equals })),
            &format!("when.equals: has {} bytes, expected 1 to 512", equals.len()),
        );
    }
    for method in ["get", "", "GET POST", "CONNECT", "ABCDEFGHIJKLMNOPQ"] {
        refused(
            set("/when/method", json!(method)),
            "when.method: expected a method in capital letters, as `GET`, `HEAD`, `OPTIONS` or \
             `POST`",
        );
    }
    refused(
        set("/when/query", json!("")),
        "when.query: is empty, expected the name of a parameter",
    );
    refused(
        set("/when", json!({ "header": "a b", "present": true })),
        "when.header: expected the name of a header",
    );
    refused(
        set("/when", json!({ "pointer": "a", "present": true })),
        "when.pointer: the JSON pointer `a` does not start with `/`, expected one such as \
         `/data/task_id`",
    );
    refused(
        set(
            "/when",
            json!({ "method": "GET", "pointer": "/a", "present": true }),
        ),
        "when.method: is not POST, and the challenge needs a body: its value, its signature or its \
         token is there; expected `POST`",
    );
}

#[test]
fn what_it_has_to_prove() {
    refused(
        set("/requires", json!("token")),
        "requires: is `token`, but the source is signed, expected `signature`",
    );
    refused_for(
        "gitlab-token",
        set("/requires", json!("signature")),
        "challenge[0].requires: is `signature`, but the source has a token, expected `token`",
    );
    refused(
        set("/requires", json!("signature")),
        "when.method: is not POST, and the challenge needs a body: its value, its signature or its \
         token is there; expected `POST`",
    );
    refused_for(
        "suno",
        |rule| {
            rule["when"] = json!({ "pointer": "/type", "equals": "a" });
            rule["requires"] = json!("signature");
        },
        "challenge[0].requires: is `signature`, but the challenge reads the body, which this scheme \
         does not sign",
    );
    refused_for(
        "github",
        set(
            "/requires",
            json!({ "query": "t", "parameter": "verify_token" }),
        ),
        "parameters.verify_token: is missing, expected the text that the scheme asks for",
    );
}

#[test]
fn a_verify_token_is_no_blank_and_is_never_quoted() {
    for (token, problem) in [
        ("", "is empty, expected the text that the scheme asks for"),
        ("  \t", "is blank, expected a token that nobody can guess"),
    ] {
        let mut source = source("whatsapp");
        source["parameters"] = json!({ "verify_token": token });
        assert_eq!(
            loads(&source).unwrap_err(),
            format!("sources[0].parameters.verify_token: {problem}")
        );
    }
    for (length, warned) in [(1, true), (15, true), (16, false)] {
        let mut source = source("whatsapp");
        source["parameters"] = json!({ "verify_token": "t".repeat(length) });
        let warnings = loads(&source).unwrap().warnings;
        let expected = format!(
            "sources[0].parameters.verify_token: has {length} bytes, so somebody may guess it and \
             get a challenge answered; expected at least 16 random ones"
        );
        let seen: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(seen, if warned { vec![expected] } else { vec![] });
    }
    let mut source = source("whatsapp");
    source["parameters"] = json!({ "verify_token": 5318008 });
    let error = loads(&source).unwrap_err();
    assert!(!error.contains("5318008"), "{error}");
    // A list of one's own that does not use it: then nobody asks for it.
    source["parameters"] = json!({ "verify_token": "a token that nobody can guess" });
    source["challenge"] = json!([]);
    assert_eq!(
        loads(&source).unwrap_err(),
        "sources[0].parameters.verify_token: is no parameter of this scheme"
    );
    source["parameters"] = json!({});
    loads(&source).unwrap();
}

#[test]
fn what_the_answer_may_be() {
    for status in [199, 300, 401] {
        refused(
            set("/reply/status", json!(status)),
            &format!("reply.status: {status} is out of range, expected 200 to 299"),
        );
    }
    refused(
        set("/reply/status", json!(204)),
        "reply.body: is there, but an answer with status 204 has none",
    );
    for kind in [
        "text/html",
        "text/javascript",
        "text/css",
        "image/svg+xml",
        "application/xml",
        "text/plain; charset=latin1",
        "text/plain\r\nx: y",
        "",
    ] {
        refused(
            set("/reply/content_type", json!(kind)),
            "reply.content_type: expected `text/plain` or a JSON media type, as `application/json`, \
             with no parameter but `charset=utf-8`",
        );
    }
    accepted(
        "github",
        set("/reply/content_type", json!("Text/Plain; charset=UTF-8")),
    );
    for name in [
        "content-length",
        "Content-Type",
        "x-callback-guard-id",
        "X-Content-Type-Options",
    ] {
        refused(
            set("/reply/headers", json!({ name: [{ "literal": "a" }] })),
            &format!("reply.headers.{name}: is a header that the guard sets itself"),
        );
    }
    refused(
        set("/reply/headers", json!({ "x a": [{ "literal": "a" }] })),
        "reply.headers.x a: expected the name of a header",
    );
    refused(
        set(
            "/reply/headers",
            json!({ "X-A": [{ "literal": "a" }], "x-a": [{ "literal": "a" }] }),
        ),
        "reply.headers.x-a: is there twice",
    );
    refused(
        set("/reply/headers", json!({ "x-a": [] })),
        "reply.headers.x-a: is empty, expected at least one part",
    );
    for text in ["a\r\nb", "\u{e9}", "a\0"] {
        refused(
            set(
                "/reply/headers",
                json!({ "x-a": [{ "query": "c" }, { "literal": text }] }),
            ),
            "reply.headers.x-a[1].literal: expected visible ASCII characters and spaces in a header",
        );
    }
}

#[test]
fn what_a_part_may_be() {
    let one_part = "reply.body[0]: expected one of `literal`, `query`, `header`, `pointer`, and \
                    `hmac` with `encoding`";
    for part in [
        json!({}),
        json!({ "literal": "a", "query": "c" }),
        json!({ "query": "c", "header": "x" }),
        json!({ "query": "c", "encoding": "hex" }),
        json!({ "hmac": { "query": "c" }, "query": "c", "encoding": "hex" }),
    ] {
        refused(set("/reply/body", json!([part])), one_part);
    }
    refused(
        set("/reply/body", json!([{ "literal": "" }])),
        "reply.body[0].literal: is empty",
    );
    refused(
        set("/reply/body", json!([{ "hmac": { "query": "c" } }])),
        "reply.body[0].encoding: is missing, expected how the MAC is written, as `hex`",
    );
    refused(
        set("/reply/body", json!([{ "hmac": {}, "encoding": "hex" }])),
        "reply.body[0].hmac: expected one of `query`, `header` and `pointer`",
    );
    let many: Vec<Value> = (0..17).map(|_| json!({ "query": "c" })).collect();
    refused(
        set("/reply/body", json!(many)),
        "reply.body: there are 17 parts, expected at most 16",
    );
}

#[test]
fn a_value_stands_in_json_inside_strings_alone() {
    let expected = "reply.body: is not JSON with each value inside a string, expected as in \
                    [{ \"literal\": \"{\\\"challenge\\\":\\\"\" }, { \"pointer\": \"/challenge\" }, \
                    { \"literal\": \"\\\"}\" }]";
    for (before, after) in [
        ("", ""),
        ("{\"a\":", "}"),
        ("{\"a\":f", "lse}"),
        ("{\"a\":\"\\", "\"}"),
        ("{\"a\":\"\\u00", "\"}"),
        ("{\"a\":\"", "\""),
        ("[", "]"),
        ("", "1"),
    ] {
        let mut body = vec![
            json!({ "literal": before }),
            json!({ "query": "c" }),
            json!({ "literal": after }),
        ];
        body.retain(|part| part["literal"] != "");
        refused(
            |rule| {
                rule["reply"]["content_type"] = json!("application/json");
                rule["reply"]["body"] = json!(body);
            },
            expected,
        );
    }
    for (before, after) in [
        ("\"", "\""),
        ("{\"a\":\"x", "y\"}"),
        ("[\"", "\",1]"),
        ("{\"", "\":1}"),
    ] {
        accepted("github", |rule| {
            rule["reply"]["content_type"] = json!("application/problem+json");
            rule["reply"]["body"] =
                json!([{ "literal": before }, { "query": "c" }, { "literal": after }]);
        });
    }
}

/// A rule of a preset that is no good for this source is said to be the preset's.
#[test]
fn a_rule_of_a_preset_is_named_as_such() {
    let mut source = source("x");
    source["content_types"] = json!(["application/json", "application/x-www-form-urlencoded"]);
    let error = loads(&source).err().unwrap();
    assert!(
        error.starts_with("sources[0].preset.challenge[0].reply.body[1].hmac: would sign"),
        "{error}"
    );
}
