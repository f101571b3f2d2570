//! Every preset in a real Envoy, signed by the senders' own libraries where they publish any.
//!
//! The libraries are pinned in `requirements.txt` and `package.json`, and installed under the build
//! directory by the first run, with the ordinary clients of their registries.

mod callback;
mod libraries;
mod proof;

use std::time::{SystemTime, UNIX_EPOCH};

use callback::{Case, table};
use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::render::{Render, buffer_filter};
use callback_guard_harness::{Body, Request, Setup, Stack, wait};
use serde_json::{Value, json};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Whether a preset's callbacks are signed, and by a sender that also asks nothing under the same secret.
fn is_signed(preset: &Value) -> bool {
    // A challenge that asks for a verify token, or signs: not under the secret of all the others.
    let asks = preset["challenge"].to_string();
    preset["token"].is_null() && !["parameter", "hmac"].iter().any(|word| asks.contains(word))
}

fn policy(sources: &Value) -> Policy {
    let text = json!({ "sources": sources }).to_string();
    config::parse(text.as_bytes(), &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn start(sources: &Value) -> Stack {
    let sources = sources.clone();
    Setup::new()
        .guard(|guard| guard["sources"] = sources)
        .start()
        .unwrap()
}

/// A body with the id of the event in each place that a preset with a token looks in.
fn body(id: &str) -> String {
    json!({ "code": 200, "msg": "success", "data": { "task_id": id } }).to_string()
}

fn request(path: &str, headers: &[(String, String)], body: Body) -> Request {
    let mut request = Request::post(path).json(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

#[test]
fn every_preset_that_signs() {
    let table = table();
    let signed = table.iter().filter(|preset| is_signed(preset));
    let names = signed.flat_map(|preset| preset["names"].as_array().unwrap());
    let cases: Vec<Case> = names
        .map(|name| Case::new(name.as_str().unwrap()))
        .collect();
    assert!(cases.len() > 100, "{}", cases.len());
    let stack = start(&cases.iter().map(|case| case.source.clone()).collect());
    for case in &cases {
        case.signed(now()).check(&stack);
    }
}

/// Sources with a token in each place.
fn token_sources() -> Value {
    let secret = json!([{ "value": "s3cret-t0ken-of-tests" }]);
    let suno = json!({ "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "sunoapi-token", "secrets": secret });
    let mut path = suno.clone();
    path["name"] = json!("path");
    path["match"] = json!({ "path_prefix": "/callbacks/path" });
    path["token"] = json!({ "path_segment": true });
    let gitlab = json!({ "name": "gitlab", "match": { "path": "/callbacks/gitlab" }, "preset": "gitlab-token", "secrets": secret });
    let mut monitored = suno.clone();
    monitored["name"] = json!("monitored");
    monitored["match"] = json!({ "path": "/callbacks/monitored" });
    monitored["mode"] = json!("monitor");
    json!([suno, path, gitlab, monitored])
}

/// The access log says all that it can of the path.
fn with_paths(render: Render) -> Render {
    render.connection_manager(|manager| {
        let format = &mut manager["access_log"][0]["typed_config"]["log_format"]["json_format"];
        format["target"] = json!("%REQ(:PATH)%");
        format["original"] = json!("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%");
        format["pathq"] = json!("%PATH(WQ)%");
    })
}

#[track_caller]
fn check_tokens(stack: &Stack, holds_headers: bool) {
    let genuine = "s3cret-t0ken-of-tests";
    let (suno, path, gitlab) = ("/callbacks/suno", "/callbacks/path", "/callbacks/gitlab");
    let forwarded: [(String, &str); 4] = [
        (format!("{suno}?token={genuine}"), suno),
        (
            format!("{suno}?a=b&token={genuine}&c"),
            "/callbacks/suno?a=b&c",
        ),
        (format!("{path}/{genuine}"), path),
        (
            format!("{path}/deeper/{genuine}?a=b"),
            "/callbacks/path/deeper?a=b",
        ),
    ];
    for (number, (target, clean)) in forwarded.iter().enumerate() {
        let before = stack.upstream.heads();
        let text = body(&format!("event-{number}"));
        let response = stack
            .send(&request(target, &[], Body::halves(text.clone())))
            .unwrap();
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let recorded = stack.upstream.recorded();
        assert_eq!(recorded.len(), before + 1);
        let last = recorded.last().unwrap();
        assert_eq!(last.head.path, *clean);
        assert_eq!(last.body, text.as_bytes());
        assert!(!format!("{:?}", last.head).contains("t0ken"));
        let response = stack
            .send(&request(target, &[], Body::one_piece(text)))
            .unwrap();
        assert_eq!(
            response.header("x-callback-guard").as_deref(),
            Some("duplicate")
        );
        assert_eq!(stack.upstream.heads(), before + 1);
    }
    let headers = [("X-Gitlab-Token".to_owned(), genuine.to_owned())];
    let text = body("event-gitlab");
    let response = stack
        .send(&request(gitlab, &headers, Body::halves(text)))
        .unwrap();
    assert_eq!(response.status, 200, "{}", response.text());

    let before = stack.upstream.heads();
    let wrong = "wr0ng-t0ken";
    for (target, code) in [
        (suno.to_owned(), "signature_missing"),
        (format!("{suno}?token={wrong}"), "signature_mismatch"),
        (
            format!("{suno}?token={genuine}&token={genuine}"),
            "signature_ambiguous",
        ),
        (format!("{suno}?token="), "signature_malformed"),
        (path.to_owned(), "signature_missing"),
        (format!("{path}/{wrong}"), "signature_mismatch"),
        (gitlab.to_owned(), "signature_missing"),
    ] {
        for body in [
            Body::one_piece(text_of(&target)),
            Body::halves(text_of(&target)),
        ] {
            let response = stack.send(&request(&target, &[], body)).unwrap();
            let given = (response.status, response.header("x-callback-guard"));
            assert_eq!(given, (401, Some(code.to_owned())), "{target}");
        }
    }
    // Refused for something else, with the token there all the same.
    let response = stack
        .send(&Request::get(&format!("{suno}?token={genuine}")))
        .unwrap();
    assert_eq!(response.status, 405);
    assert_eq!(stack.upstream.heads(), before);

    // Monitored: refused is forwarded, without the token.
    let target = format!("/callbacks/monitored?token={wrong}");
    let response = stack
        .send(&request(&target, &[], Body::one_piece(body("event-m"))))
        .unwrap();
    assert_eq!(response.status, 200);
    let last = stack.upstream.recorded().pop().unwrap();
    assert_eq!(last.head.path, "/callbacks/monitored");
    let verdict = holds_headers.then_some("signature_mismatch");
    assert_eq!(
        last.head.header("x-callback-guard-verdict").as_deref(),
        verdict
    );

    // 8 genuine ones and duplicates, one at GitLab's, 14 refused, one GET, one monitored.
    let lines = wait::wait_for("the access log", || {
        stack.envoy.access_log().ok().filter(|log| log.len() == 25)
    })
    .unwrap();
    for line in &lines {
        let line = line.to_string();
        assert!(!line.contains("t0ken"), "a token in the access log: {line}");
    }
    let targets: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["target"].as_str())
        .collect();
    assert!(targets.contains(&"/callbacks/suno?a=b&c"), "{targets:?}");
    let log = stack.envoy.log();
    assert!(
        log.contains("signature_mismatch") && !log.contains("t0ken"),
        "{log}"
    );
}

fn text_of(target: &str) -> String {
    body(&format!("event-{}", target.len()))
}

#[test]
fn tokens_reach_neither_the_upstream_nor_the_logs() {
    let stack = Setup::new()
        .guard(|guard| guard["sources"] = token_sources())
        .render(with_paths)
        .start()
        .unwrap();
    check_tokens(&stack, true);
}

/// As on Istio and Envoy Gateway: the head goes on before the decision, and so without the token.
#[test]
fn tokens_reach_neither_with_envoys_buffer_behind_the_guard() {
    let stack = Setup::new()
        .guard(|guard| {
            guard["sources"] = token_sources();
            guard["hold_headers"] = json!("buffer_after");
        })
        .render(with_paths)
        .render(|render| {
            render
                .headers_stop_iteration(false)
                .after_guard(buffer_filter(1 << 20))
        })
        .start()
        .unwrap();
    check_tokens(&stack, false);
}

#[test]
fn slack_forms_go_through_as_they_are() {
    let sources = json!([Case::new("slack").source]);
    let (stack, policy) = (start(&sources), policy(&sources));
    let source = &policy.sources[0];
    let form = "command=%2Fdeploy&text=now&trigger_id=1";
    let at = UnixMillis::from_seconds(now());
    let headers = sign::sign(source, &source.signing_keys[0], form.as_bytes(), "", at).unwrap();
    let send = |body: &str, kind: &str| {
        let mut request = Request::post("/callbacks/slack")
            .header("content-type", kind)
            .body(Body::halves(body.to_owned()));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        stack.send(&request).unwrap()
    };
    let urlencoded = "application/x-www-form-urlencoded";
    assert_eq!(send("command=%2Fdestroy", urlencoded).status, 401);
    assert_eq!(send(form, "application/json").status, 400);
    assert_eq!(send(form, "text/plain").status, 415);
    assert_eq!(stack.upstream.heads(), 0);
    assert_eq!(send(form, urlencoded).status, 200);
    assert_eq!(stack.upstream.recorded()[0].body, form.as_bytes());
    let again = send(form, urlencoded);
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(stack.upstream.heads(), 1);
}
