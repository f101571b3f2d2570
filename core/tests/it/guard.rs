//! Every step of the way of a request: its code, its status, and the order of the steps.

use std::sync::Arc;

use callback_guard_core::policy::Policy;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::{Outcome, StreamId};
use serde_json::{Value, json};

use crate::support::{Host, NOW, Request, SECRET, Seen, configuration, policy};

const TIMESTAMP: &str = "x-webhook-timestamp";
const SIGNATURE: &str = "x-webhook-signature";
const BODY: &str =
    r#"{"code":200,"msg":"success","data":{"task_id":"ee9c2715375b7837f8bb51d641ff5863"}}"#;

fn suno() -> Policy {
    policy(&configuration(|_| {}))
}

fn genuine(body: &str) -> Request {
    Request::genuine(&suno(), body, NOW)
}

/// Time passes; what became of a request that waited.
fn ask_again(host: &mut Host, stream: StreamId, now: UnixMillis) -> Seen {
    host.time(now);
    host.seen(stream)
}

#[track_caller]
fn check(request: &Request, expected: Code) {
    let mut host = Host::new(suno());
    let (guard, seen) = host.send(request, NOW);
    assert_eq!(seen.code(), Some(expected), "{seen:?}");
    assert_eq!(host.report(guard).verdict, Some(expected));
    let text = format!("{:?} {seen:?}", host.worker);
    assert!(!text.contains(SECRET), "a secret in Debug: {text}");
    if let Some(rejection) = &host.report(guard).rejection {
        let text = rejection.to_string();
        assert!(
            text.starts_with(expected.as_str()) && !text.ends_with('.'),
            "{text}"
        );
        assert!(!text.contains("ee9c"), "a payload in the log: {text}");
    }
}

#[test]
fn a_genuine_callback_is_forwarded_with_its_identity() {
    let mut host = Host::new(suno());
    let (guard, seen) = host.send(&genuine(BODY), NOW);
    let id = "ee9c2715375b7837f8bb51d641ff5863";
    // What a store remembers outlives the module: another way to the key would forget it all. Made
    // with another SHA-256, over the padded name of the source and the parts behind their lengths.
    let key = "80b8e69af5d7633757e6e6ca2595d3f9ce510cfdbb3a83cd6fc53078517b5cab";
    let headers = [
        ("x-callback-guard-source", "suno".to_owned()),
        ("x-callback-guard-id", id.to_owned()),
        ("x-callback-guard-key", key.to_owned()),
    ];
    assert_eq!(seen, Seen::Forwarded(headers.into()));
    assert_eq!(host.report(guard).id.as_ref().unwrap().as_str(), id);
}

#[test]
fn the_head_step_by_step() {
    let request = genuine(BODY);
    for (request, code) in [
        (request.clone().with(":path", "/elsewhere"), Code::NoSource),
        (
            request.clone().with(":path", "/callbacks/suno/"),
            Code::NoSource,
        ),
        (
            request.clone().with(":path", "/callbacks/Suno"),
            Code::NoSource,
        ),
        (
            request.clone().with(":path", "/callbacks/suno?a=b"),
            Code::Forwarded,
        ),
        (
            request.clone().with(":method", "GET"),
            Code::MethodNotAllowed,
        ),
        (
            request.clone().with(":method", "post"),
            Code::MethodNotAllowed,
        ),
        (
            request.clone().without("content-type"),
            Code::UnsupportedMediaType,
        ),
        (
            request.clone().with("content-type", "text/plain"),
            Code::UnsupportedMediaType,
        ),
        (
            request.clone().and("content-type", "application/json"),
            Code::UnsupportedMediaType,
        ),
        (
            request.clone().with("content-encoding", "gzip"),
            Code::UnsupportedContentEncoding,
        ),
        (
            request.clone().with("content-encoding", ""),
            Code::UnsupportedContentEncoding,
        ),
        (
            request.clone().with("content-encoding", "Identity"),
            Code::Forwarded,
        ),
        (
            request.clone().with("content-length", "1048576"),
            Code::Forwarded,
        ),
        (
            request.clone().with("content-length", "1048577"),
            Code::BodyTooLarge,
        ),
        (
            request
                .clone()
                .with("content-length", "99999999999999999999"),
            Code::BodyTooLarge,
        ),
        (request.clone().without(SIGNATURE), Code::SignatureMissing),
        (request.clone().without(TIMESTAMP), Code::TimestampMissing),
        (
            request.clone().without(SIGNATURE).without(TIMESTAMP),
            Code::SignatureMissing,
        ),
        (
            request.clone().and(SIGNATURE, "x"),
            Code::SignatureAmbiguous,
        ),
        (
            request.clone().and(TIMESTAMP, "x"),
            Code::TimestampAmbiguous,
        ),
        (
            request.clone().and(SIGNATURE, "x").without(TIMESTAMP),
            Code::TimestampMissing,
        ),
        (
            request.clone().and(SIGNATURE, "x").and(TIMESTAMP, "x"),
            Code::SignatureAmbiguous,
        ),
        (
            request.clone().with(SIGNATURE, ""),
            Code::SignatureMalformed,
        ),
        (
            request.clone().with(SIGNATURE, "AAAA"),
            Code::SignatureMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, ""),
            Code::TimestampMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, "01769670760"),
            Code::TimestampMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, "1769670760000"),
            Code::TimestampMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, "+769670760"),
            Code::TimestampMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, "-769670760"),
            Code::TimestampMalformed,
        ),
        (
            request.clone().with(TIMESTAMP, "").with(SIGNATURE, ""),
            Code::SignatureMalformed,
        ),
    ] {
        check(&request, code);
    }
}

#[test]
fn a_signature_has_one_spelling() {
    let request = genuine(BODY);
    let signature = "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=";
    check(&request.clone().with(SIGNATURE, signature), Code::Forwarded);
    for (spelling, code) in [
        // Trailing bits that say nothing, no padding, the URL alphabet, white space, another MAC.
        (
            "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb5=",
            Code::SignatureMalformed,
        ),
        (
            "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4",
            Code::SignatureMalformed,
        ),
        (
            "xG6_yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=",
            Code::SignatureMalformed,
        ),
        (
            " xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=",
            Code::SignatureMalformed,
        ),
        (
            "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb8=",
            Code::SignatureMismatch,
        ),
    ] {
        check(&request.clone().with(SIGNATURE, spelling), code);
    }
    let mut bytes = request.without(SIGNATURE);
    bytes.headers.push((SIGNATURE.into(), vec![0xff; 44]));
    check(&bytes, Code::SignatureMalformed);
}

#[test]
fn the_tolerance_has_two_sides() {
    for (offset, code) in [
        (-301_i64, Code::TimestampTooOld),
        (-300, Code::Forwarded),
        (60, Code::Forwarded),
        (61, Code::TimestampInFuture),
    ] {
        let then = UnixMillis::from_seconds(NOW.as_seconds().saturating_add_signed(offset));
        check(&Request::genuine(&suno(), BODY, then), code);
    }
    for timestamp in ["0000000000", "9999999999"] {
        let code = if timestamp.starts_with('0') {
            Code::TimestampTooOld
        } else {
            Code::TimestampInFuture
        };
        check(&genuine(BODY).with(TIMESTAMP, timestamp), code);
    }
}

#[test]
fn the_body_step_by_step() {
    let request = genuine(BODY);
    for (body, code) in [
        ("", Code::BodyEmpty),
        (" ", Code::JsonMalformed),
        ("[]", Code::JsonMalformed),
        ("null", Code::JsonMalformed),
        ("{", Code::JsonMalformed),
        (r#"{"a":1}{"#, Code::JsonMalformed),
        (r#"{"a":"\ud800"}"#, Code::JsonMalformed),
        (r#"{"a":1,"\u0061":2}"#, Code::JsonDuplicateKey),
        (
            r#"{"data":{"task_id":"a","task_id":"a"}}"#,
            Code::JsonDuplicateKey,
        ),
        (
            r#"{"data":{"task_id":"a","Task_ID":"b"}}"#,
            Code::JsonAmbiguousKey,
        ),
        (
            "{\"data\":{\"task_id\":\"a\",\"ta\u{17f}k_id\":\"b\"}}",
            Code::JsonAmbiguousKey,
        ),
        (
            r#"{"data":{"task_id":"a"},"Data":{"task_id":"b"}}"#,
            Code::JsonAmbiguousKey,
        ),
        (
            r#"{"data":{"task_id":"a","callbacktype":"b"}}"#,
            Code::JsonAmbiguousKey,
        ),
        (
            r#"{"data":{"task_id":"a"},"CODE":200}"#,
            Code::JsonAmbiguousKey,
        ),
        (r#"{"code":1e999}"#, Code::IdMissing),
        (r#"{"data":{"task_id":null}}"#, Code::IdMissing),
        (
            r#"{"data":{"task_id":"a","taskId":"b"}}"#,
            Code::IdAmbiguous,
        ),
        (
            r#"{"data":{"task_id":"a"},"taskId":"b"}"#,
            Code::IdAmbiguous,
        ),
        (r#"{"data":{"task_id":1}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":""}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":"a","taskId":""}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":{}}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":"a.b"}}"#, Code::SignatureMismatch),
        (r#"{"data":{"task_id":"a b"}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":"a\nb"}}"#, Code::IdMalformed),
        (r#"{"data":{"task_id":"another"}}"#, Code::SignatureMismatch),
    ] {
        check(&request.clone().body(body), code);
    }
    let nested = |depth| format!(r#"{}1{}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
    check(&request.clone().body(&nested(64)), Code::IdMissing);
    check(&request.clone().body(&nested(65)), Code::JsonTooDeep);
    let long = |length| format!(r#"{{"data":{{"task_id":"{}"}}}}"#, "x".repeat(length));
    check(&request.clone().body(&long(256)), Code::SignatureMismatch);
    check(&request.clone().body(&long(257)), Code::IdMalformed);
}

/// QuickBooks, SendGrid and HubSpot send arrays.
#[test]
fn the_root_of_a_body_is_what_the_source_allows() {
    let policy = |root: &str, pointer: &str| {
        policy(&configuration(|c| {
            let source = c["sources"][0].as_object_mut().unwrap();
            source.remove("preset");
            source.insert(
                "signature".to_owned(),
                json!({
                    "value": { "header": "x-signature", "encoding": "hex" },
                    "message": [{ "body": true }],
                    "id": { "pointers": [pointer] },
                }),
            );
            source.insert("payload".to_owned(), json!({ "root": root }));
        }))
    };
    for (root, pointer, body, code) in [
        (
            "array",
            "/0/id",
            r#"[{"id":"a"},{"id":"b"}]"#,
            Code::Forwarded,
        ),
        ("array", "/0/id", r#"{"0":{"id":"a"}}"#, Code::JsonMalformed),
        ("array", "/0/id", "[]", Code::IdMissing),
        (
            "array",
            "/0/id",
            r#"[{"id":"a","id":"a"}]"#,
            Code::JsonDuplicateKey,
        ),
        ("any", "/0/id", r#"[{"id":"a"}]"#, Code::Forwarded),
        ("any", "/0/id", r#"{"0":{"id":"a"}}"#, Code::Forwarded),
        ("any", "/id", r#"{"id":"a"}"#, Code::Forwarded),
        ("any", "/id", "1", Code::IdMissing),
        ("object", "/id", r#"{"id":"a"}"#, Code::Forwarded),
        ("object", "/id", r#"[{"id":"a"}]"#, Code::JsonMalformed),
    ] {
        let request = Request::genuine(&policy(root, pointer), body, NOW);
        let (_, seen) = Host::new(policy(root, pointer)).send(&request, NOW);
        assert_eq!(seen.code(), Some(code), "{root} {body}");
    }
}

#[test]
fn ids_that_agree_are_one_id() {
    for body in [
        r#"{"code":200,"msg":"","data":{"task_id":"a","taskId":"\u0061"},"taskId":"a"}"#,
        r#"{"code":200,"msg":"","data":null,"taskId":"a"}"#,
        r#"{"code":200,"msg":"","taskId":"a"}"#,
        r#"{"code":200,"msg":"","data":{"task_id":null,"taskId":"a"}}"#,
    ] {
        check(&genuine(body), Code::Forwarded);
    }
}

#[test]
fn the_payload_is_checked_after_the_mac() {
    for (fields, pointer) in [
        (r#""msg":"","#, "/code"),
        (r#""code":"200","msg":"","#, "/code"),
        (r#""code":2e2,"msg":"","#, "/code"),
        (r#""code":200,"#, "/msg"),
        (r#""code":200,"msg":null,"#, "/msg"),
    ] {
        let body = format!(r#"{{{fields}"data":{{"task_id":"a"}}}}"#);
        let request = genuine(&body);
        check(&request, Code::PayloadInvalid);
        check(
            &request
                .clone()
                .with(SIGNATURE, &"A".repeat(43).add_padding()),
            Code::SignatureMismatch,
        );
        let mut host = Host::new(suno());
        let (stream, _) = host.send(&request, NOW);
        let rejection = host.report(stream).rejection.as_ref().unwrap();
        assert_eq!(rejection.pointer(), Some(pointer));
    }
    check(
        &genuine(r#"{"code":1,"msg":"","data":[],"taskId":"a"}"#),
        Code::PayloadInvalid,
    );
}

trait AddPadding {
    fn add_padding(&self) -> String;
}

impl AddPadding for String {
    fn add_padding(&self) -> String {
        format!("{self}=")
    }
}

#[test]
fn urls_must_point_to_an_allowed_host() {
    let policy = policy(&configuration(|c| {
        c["sources"][0]["payload"] =
            json!({ "allowed_url_hosts": ["*.aiquickdraw.com", "example.com"] });
    }));
    let mut host = Host::new(policy);
    for (data, code) in [
        (
            r#""audio_url":"https://file.aiquickdraw.com/a""#,
            Code::Forwarded,
        ),
        (r#""audio_url":"","image_url":null"#, Code::Forwarded),
        (r#""audio_url":"https:\/\/example.com\/a""#, Code::Forwarded),
        (r#""audio_url":"https://evil.com/a""#, Code::UrlNotAllowed),
        (
            r#""audioWavUrl":"http://example.com/a""#,
            Code::UrlNotAllowed,
        ),
        (
            r#""info":{"result_urls":["https://example.com/a","https://evil.com"]}"#,
            Code::UrlNotAllowed,
        ),
        (r#""images":[["https://evil.com"]]"#, Code::UrlNotAllowed),
        (r#""images":[{"a":"https://evil.com"}]"#, Code::Forwarded),
        (r#""a\u0055RL":"https://evil.com""#, Code::UrlNotAllowed),
        (
            r#""video_url":"video_url_847715e66259""#,
            Code::UrlNotAllowed,
        ),
        (r#""curl":"x""#, Code::UrlNotAllowed),
        (r#""urlx":"https://evil.com""#, Code::Forwarded),
    ] {
        let body = format!(
            r#"{{"code":200,"msg":"","data":{{"task_id":"{}",{data}}}}}"#,
            data.len()
        );
        let request = Request::genuine(&host.policy, &body, NOW);
        let (stream, seen) = host.send(&request, NOW);
        assert_eq!(seen.code(), Some(code), "{data}");
        if let Some(rejection) = &host.report(stream).rejection {
            assert_eq!(
                rejection.pointer(),
                Some("/sources/0/payload/allowed_url_hosts")
            );
        }
    }
}

#[test]
fn either_secret_of_a_rotation_verifies() {
    let old = policy(&configuration(|c| {
        c["sources"][0]["secrets"] = json!([{ "value": "old" }]);
    }));
    let both = policy(&configuration(|c| {
        c["sources"][0]["secrets"] = json!([{ "value": "new" }, { "value": "old" }]);
    }));
    let mut host = Host::new(both);
    let (_, seen) = host.send(&Request::genuine(&old, BODY, NOW), NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded));
    let (_, seen) = host.send(&genuine(BODY), NOW);
    assert_eq!(seen.code(), Some(Code::SignatureMismatch));
}

#[test]
fn the_most_specific_source_wins() {
    let names = ["any", "deep", "exact", "host"];
    let matches = [
        json!({ "path_prefix": "/" }),
        json!({ "path_prefix": "/a/b" }),
        json!({ "path": "/a/b/c" }),
        json!({ "path_prefix": "/a", "host": "Hooks.example" }),
    ];
    let configuration = configuration(|c| {
        let source = c["sources"][0].clone();
        let sources = names.iter().zip(matches).map(|(name, route)| {
            let mut source = source.clone();
            source["name"] = json!(name);
            source["match"] = route;
            source
        });
        c["sources"] = Value::Array(sources.collect());
    });
    let policy = policy(&configuration);
    for (host, path, expected) in [
        ("x", "/", "any"),
        ("x", "/a", "any"),
        ("x", "/a/b", "deep"),
        ("x", "/a/bc", "any"),
        ("x", "/a/b/", "deep"),
        ("x", "/a/b/c", "exact"),
        ("x", "/a/b/c?d=/", "exact"),
        ("x", "/a/b/c/d", "deep"),
        ("hooks.EXAMPLE:8443", "/a/b/c", "host"),
        ("hooks.example", "/b", "any"),
        ("hooks.example.evil", "/a", "any"),
    ] {
        let pairs: &[(&[u8], &[u8])] = &[
            (b":authority", host.as_bytes()),
            (b":path", path.as_bytes()),
        ];
        let head = callback_guard_core::request::RequestHead::new(pairs);
        let source = policy.source_of(&head).map(|source| &*source.name);
        assert_eq!(source, Some(expected), "{host}{path}");
    }
}

#[test]
fn what_matches_no_source_passes_if_so_configured() {
    let policy = policy(&configuration(|c| c["unmatched"] = json!("pass")));
    let mut host = Host::new(policy);
    let (stream, seen) = host.head(&genuine(BODY).with(":path", "/x"), NOW);
    assert_eq!(seen, Seen::Forwarded(Vec::new()), "with nothing added");
    assert!(host.worker.report(stream).is_none());
    assert!(host.counts.is_empty() && host.log.is_empty());
}

#[test]
fn the_outcome_decides_about_the_next_attempt() {
    for (on_unknown, outcome, next) in [
        ("release", Outcome::Accepted, Some(Code::Duplicate)),
        ("release", Outcome::Refused, Some(Code::Forwarded)),
        ("release", Outcome::NotReached, Some(Code::Forwarded)),
        ("release", Outcome::Unknown, Some(Code::Forwarded)),
        ("hold", Outcome::NotReached, Some(Code::Forwarded)),
        ("hold", Outcome::Unknown, None),
    ] {
        let policy = policy(&configuration(|c| {
            c["sources"][0]["dedupe"] = json!({ "on_unknown": on_unknown });
        }));
        let mut host = Host::new(policy);
        let (guard, _) = host.send(&genuine(BODY), NOW);
        host.settle(guard, outcome, NOW);
        let (_, seen) = host.send(&genuine(BODY), NOW);
        assert_eq!(seen.code(), next, "{on_unknown} {outcome:?}");
        // A claim that was left to its lease ends with it.
        let later = NOW.plus_seconds(30);
        let (_, seen) = host.send(&Request::genuine(&host.policy, BODY, later), later);
        let expected = match outcome {
            Outcome::Unknown => [Code::Forwarded, Code::Forwarded],
            Outcome::Accepted => [Code::Duplicate; 2],
            _ => [Code::Forwarded, Code::Forwarded],
        };
        assert!(
            expected.contains(&seen.code().unwrap()),
            "{on_unknown} {outcome:?} {seen:?}"
        );
    }
}

#[test]
fn every_stage_of_a_task_is_an_event_of_its_own() {
    let mut host = Host::new(suno());
    let stages = [
        r#"{"code":200,"msg":"","data":{"task_id":"t","callbackType":"text"}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t","callbackType":"first"}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t","callbackType":"complete"}}"#,
        r#"{"code":501,"msg":"","data":{"task_id":"t","callbackType":"complete"}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t","state":"complete"}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t","status":"complete"}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t","status":"\"complete\""}}"#,
        r#"{"code":200,"msg":"","data":{"task_id":"t"}}"#,
    ];
    for expected in [Code::Forwarded, Code::Duplicate] {
        for stage in stages {
            let (guard, seen) = host.send(&genuine(stage), NOW);
            assert_eq!(seen.code(), Some(expected), "{stage}");
            host.settle(guard, Outcome::Accepted, NOW);
        }
    }
}

#[test]
fn a_duplicate_with_another_body_is_seen() {
    let body = |msg: &str| format!(r#"{{"code":200,"msg":"{msg}","data":{{"task_id":"t"}}}}"#);
    for (on_body_change, expected) in [
        ("acknowledge", Code::Duplicate),
        ("reject", Code::BodyChanged),
        ("forward", Code::Forwarded),
    ] {
        let policy = policy(&configuration(|c| {
            c["sources"][0]["dedupe"] = json!({ "on_body_change": on_body_change });
        }));
        let mut host = Host::new(policy);
        let (guard, _) = host.send(&genuine(&body("a")), NOW);
        host.settle(guard, Outcome::Accepted, NOW);
        let (guard, seen) = host.send(&genuine(&body("b")), NOW);
        assert_eq!(
            (seen.code(), host.report(guard).body_changed),
            (Some(expected), true)
        );
        let (guard, seen) = host.send(&genuine(&body("a")), NOW);
        assert_eq!(
            (seen.code(), host.report(guard).body_changed),
            (Some(Code::Duplicate), false)
        );
    }
}

#[test]
fn a_request_waits_for_another_and_gets_its_answer() {
    let mut host = Host::new(suno());
    let (first, _) = host.send(&genuine(BODY), NOW);
    let (second, seen) = host.send(&genuine(BODY), NOW);
    assert_eq!(seen, Seen::Held);
    let later = NOW.plus_seconds(9);
    assert_eq!(ask_again(&mut host, second, later), Seen::Held);
    host.settle(first, Outcome::Accepted, later);
    assert_eq!(
        ask_again(&mut host, second, later).code(),
        Some(Code::Duplicate)
    );
}

#[test]
fn a_wait_does_not_grow_with_a_clock_that_steps_back() {
    let mut host = Host::new(suno());
    let (_first, _) = host.send(&genuine(BODY), NOW);
    let (second, seen) = host.send(&genuine(BODY), NOW);
    assert_eq!(seen, Seen::Held);
    let back = UnixMillis::new(NOW.as_millis() - 3_600_000);
    assert_eq!(ask_again(&mut host, second, back), Seen::Held);
    let end = back.plus_seconds(10);
    let before = UnixMillis::new(end.as_millis() - 1);
    assert_eq!(ask_again(&mut host, second, before), Seen::Held);
    assert_eq!(
        ask_again(&mut host, second, end).code(),
        Some(Code::InFlight)
    );
}

#[test]
fn a_request_that_waits_takes_over_what_is_released() {
    let mut host = Host::new(suno());
    let (first, _) = host.send(&genuine(BODY), NOW);
    let (second, _) = host.send(&genuine(BODY), NOW);
    let (third, _) = host.send(&genuine(BODY), NOW);
    host.settle(first, Outcome::Refused, NOW);
    assert_eq!(
        ask_again(&mut host, second, NOW).code(),
        Some(Code::Forwarded)
    );
    assert_eq!(ask_again(&mut host, third, NOW), Seen::Held);
    host.settle(second, Outcome::Accepted, NOW);
    assert_eq!(
        ask_again(&mut host, third, NOW).code(),
        Some(Code::Duplicate)
    );
}

#[test]
fn a_wait_has_an_end() {
    let mut host = Host::new(suno());
    let (_first, _) = host.send(&genuine(BODY), NOW);
    let (second, _) = host.send(&genuine(BODY), NOW);
    let end = NOW.plus_seconds(10);
    let before = UnixMillis::new(end.as_millis() - 1);
    assert_eq!(ask_again(&mut host, second, before), Seen::Held);
    assert_eq!(
        ask_again(&mut host, second, end).code(),
        Some(Code::InFlight)
    );
    let rejecting = policy(&configuration(|c| {
        c["sources"][0]["dedupe"] = json!({ "in_flight": "reject" });
    }));
    let mut host = Host::new(rejecting);
    let (_first, _) = host.send(&genuine(BODY), NOW);
    assert_eq!(
        host.send(&genuine(BODY), NOW).1.code(),
        Some(Code::InFlight)
    );
}

#[test]
fn the_time_from_the_head_to_the_decision_is_known() {
    let after = |millis: u64| UnixMillis::new(NOW.as_millis() + millis);
    let mut host = Host::new(suno());

    // A refusal by the head takes no time; one by the body has waited for it.
    let (guard, _) = host.send(&genuine(BODY).with(":method", "GET"), NOW);
    assert_eq!(host.report(guard).held_millis, None);
    let (guard, seen) = host.send(&genuine(BODY).body("{"), NOW);
    assert_eq!(seen.code(), Some(Code::JsonMalformed));
    assert_eq!(host.report(guard).held_millis, Some(0));

    let (first, _) = host.send(&genuine(BODY), NOW);
    assert_eq!(host.report(first).held_millis, Some(0));
    let (second, _) = host.send(&genuine(BODY), NOW);
    assert_eq!(ask_again(&mut host, second, after(1234)), Seen::Held);
    host.settle(first, Outcome::Accepted, after(1234));
    ask_again(&mut host, second, after(1235));
    assert_eq!(host.report(second).held_millis, Some(1235));

    // A clock that steps back.
    const OTHER: &str = r#"{"code":200,"msg":"","data":{"task_id":"other"}}"#;
    let (_first, _) = host.send(&genuine(OTHER), NOW);
    let (fourth, _) = host.send(&genuine(OTHER), NOW);
    let back = UnixMillis::new(NOW.as_millis() - 5000);
    assert_eq!(ask_again(&mut host, fourth, back), Seen::Held);
    assert_eq!(host.report(fourth).held_millis, Some(0));
}

#[test]
fn monitoring_forwards_everything_and_says_what_enforcing_would_do() {
    let policy = policy(&configuration(|c| c["mode"] = json!("monitor")));
    let mut host = Host::new(policy);
    let monitored = |host: &mut Host, request: &Request| {
        let (stream, seen) = host.send(request, NOW);
        let verdict = seen.header("x-callback-guard-verdict").unwrap().to_owned();
        (
            stream,
            verdict,
            seen.header("x-callback-guard-key").is_some(),
        )
    };
    let (guard, verdict, has_key) = monitored(&mut host, &genuine(BODY).with(":method", "GET"));
    assert_eq!((&*verdict, has_key), ("method_not_allowed", false));
    let report = host.report(guard);
    assert!(report.id.is_none() && report.rejection.is_some());
    assert_eq!(
        monitored(&mut host, &genuine(BODY).body("{}")).1,
        "id_missing"
    );
    assert_eq!(
        monitored(&mut host, &genuine(BODY).body("")).1,
        "body_empty"
    );
    let (first, verdict, has_key) = monitored(&mut host, &genuine(BODY));
    assert_eq!((&*verdict, has_key), ("forwarded", true));
    let (second, verdict, has_key) = monitored(&mut host, &genuine(BODY));
    assert_eq!((&*verdict, has_key), ("in_flight", true));
    // Who has no claim settles none.
    host.settle(second, Outcome::Refused, NOW);
    assert_eq!(monitored(&mut host, &genuine(BODY)).1, "in_flight");
    host.settle(first, Outcome::Accepted, NOW);
    assert_eq!(monitored(&mut host, &genuine(BODY)).1, "duplicate");
}

/// A host that has lost a request does not open a way around the guard.
#[test]
fn what_is_said_of_an_unknown_request_refuses_it() {
    let mut host = Host::new(suno());
    let (stream, _) = host.send(&genuine(BODY), NOW);
    host.end(stream, Outcome::Accepted, NOW);
    let seen = Host::new(suno()).body(stream, BODY.as_bytes(), NOW);
    assert_eq!(seen.code(), Some(Code::InternalError));
}

#[test]
fn the_answer_to_a_refused_head_waits_for_the_end_of_a_short_body() {
    let unsigned = genuine(BODY).without(SIGNATURE);
    let configured = |change: fn(&mut Value)| Arc::new(policy(&configuration(change)));
    let (enforcing, monitoring, leaving) = (
        configured(|_| {}),
        configured(|value| value["mode"] = json!("monitor")),
        configured(|value| value["hold_headers"] = json!("buffer_after")),
    );
    for (policy, declared, ends, waits) in [
        (&enforcing, Some("1"), false, true),
        (&enforcing, Some("16384"), false, true),
        (&enforcing, Some("16385"), false, false),
        (&enforcing, None, false, false),
        (&enforcing, Some("1"), true, false),
        (&monitoring, Some("1"), false, false),
        (&leaving, Some("1"), false, false),
    ] {
        let mut request = match declared {
            Some(length) => unsigned.clone().with("content-length", length),
            None => unsigned.clone().without("content-length"),
        };
        if ends {
            request = request.body("");
        }
        let mut host = Host::new(Arc::clone(policy));
        let (stream, mut seen) = host.head(&request, NOW);
        assert_eq!(seen == Seen::Held, waits, "{declared:?} {ends}");
        if waits {
            assert_eq!(host.report(stream).verdict, None, "it is not answered yet");
            assert_eq!(host.part(stream, 1, NOW), Seen::Held);
            // No byte of it is read.
            seen = host.body(stream, b"", NOW);
            assert_eq!(seen.code(), Some(Code::SignatureMissing));
        }
        let report = host.report(stream);
        assert_eq!(report.verdict, Some(Code::SignatureMissing));
        assert_eq!(report.body_bytes, None);
        assert_eq!(host.log.len(), 1, "it is told once");
    }
    // An upgraded request has no end.
    let upgrade = unsigned
        .with("content-length", "1")
        .and("upgrade", "websocket");
    let (_, seen) = Host::new(enforcing).head(&upgrade, NOW);
    assert_eq!(seen.code(), Some(Code::SignatureMissing));
}
