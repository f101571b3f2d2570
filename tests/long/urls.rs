//! Schemes that sign the URL: it is the one that the sender was given, whatever proxies are between it and the
//! guard, and whatever Envoy makes of path and host behind the guard.

use callback_guard_config::testkit as config;
use callback_guard_core::testkit;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Body, Protocol, Request};
use serde_json::{Value, json};

use callback_guard_support::{Guarded, now};

/// A source, the URL that its sender was given, and what Envoy makes of the request.
struct Case {
    name: &'static str,
    public_url: &'static str,
    rewrite: Value,
    /// What the upstream sees.
    path: &'static str,
    host: &'static str,
}

fn cases() -> [Case; 4] {
    let case = |name, public_url, rewrite, path, host| Case {
        name,
        public_url,
        rewrite,
        path,
        host,
    };
    let internal = "internal.example";
    let regex = json!({
        "host_rewrite_literal": internal,
        "regex_rewrite": {
            "pattern": { "regex": "^/callbacks/(.*)$" },
            "substitution": "/v2/\\1/in",
        },
    });
    [
        case(
            "path",
            "https://hooks.example.com",
            json!({ "prefix_rewrite": "/app" }),
            "/app",
            "callbacks.test",
        ),
        case(
            "host",
            "https://hooks.example.com:8443",
            json!({ "host_rewrite_literal": internal }),
            "/callbacks/host",
            internal,
        ),
        case(
            "both",
            "http://hooks.example.com:8080",
            regex,
            "/v2/both/in",
            internal,
        ),
        // An outer proxy has taken a prefix off.
        case(
            "edge",
            "https://hooks.example.com/edge",
            json!({ "prefix_rewrite": "/app" }),
            "/app",
            "callbacks.test",
        ),
    ]
}

/// Method, URL, body and time are signed, under this public URL.
fn source(name: &str, public_url: &str) -> Value {
    json!({
        "name": name,
        "match": { "path": format!("/callbacks/{name}") },
        "preset": "hubspot",
        "parameters": { "public_url": public_url },
        "secrets": [{ "value": "a secret of this test" }],
    })
}

/// A callback about `event` of a sender that was given `public_url`, as it arrives here.
fn callback(name: &str, public_url: &str, event: &str) -> Request {
    let configuration = json!({ "sources": [source(name, public_url)] });
    let policy = config::policy(&configuration.to_string());
    let path = format!("/callbacks/{name}");
    let body = json!({ "event": event }).to_string();
    let at = UnixMillis::from_seconds(now());
    let made = testkit::Request::genuine_at(&policy, &path, &body, at);
    let mut request = Request::post(&path).body(Body::halves(body));
    for (name, value) in &made.headers {
        if !name.starts_with(b":") {
            request = request.header(std::str::from_utf8(name).unwrap(), value);
        }
    }
    request
}

#[test]
fn the_senders_own_url_verifies_whatever_the_proxies_make_of_it() {
    let cases = cases();
    let guarded = Guarded::builder()
        .configuration(|guard| {
            let sources = cases.iter().map(|case| source(case.name, case.public_url));
            guard["sources"] = sources.collect();
        })
        .render(|render| {
            render.connection_manager(|manager| {
                let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
                let routes = routes.as_array_mut().unwrap();
                for case in &cases {
                    let mut route = routes.last().unwrap().clone();
                    route["match"] = json!({ "path": format!("/callbacks/{}", case.name) });
                    let action = route["route"].as_object_mut().unwrap();
                    action.extend(case.rewrite.as_object().unwrap().clone());
                    routes.insert(0, route);
                }
            })
        })
        .start();
    let address = format!("http://{}", guarded.address());
    for case in &cases {
        let before = guarded.upstream.heads();
        // For another URL: another scheme, port, host or path, what the upstream sees, what arrives here.
        for other in [
            "https://hooks.example.com:443",
            "http://hooks.example.com",
            "https://internal.example",
            "https://hooks.example.com/app",
            "https://hooks.example.com:10000",
            &address,
        ] {
            let response = guarded.send(&callback(case.name, other, "forged"));
            let code = response.header("x-callback-guard");
            let given = (response.status, code.as_deref());
            assert_eq!(
                given,
                (401, Some("signature_mismatch")),
                "{}, {other}",
                case.name
            );
        }
        assert_eq!(guarded.upstream.heads(), before, "{}", case.name);
        // What the client and the proxies in front say of scheme, host and port is no part of it.
        let said = [
            ("x-forwarded-proto", "http"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-host", "other.example"),
            ("x-envoy-original-path", "/other"),
        ];
        for (number, (name, value)) in said.into_iter().enumerate() {
            let request = callback(case.name, case.public_url, &format!("event {number}"));
            let protocol = Protocol::ALL[number % Protocol::ALL.len()];
            let response = guarded.send(&request.header(name, value).protocol(protocol));
            assert_eq!(
                response.status,
                200,
                "{}, {name}: {}",
                case.name,
                response.text()
            );
            let seen = guarded.upstream.recorded();
            assert_eq!(seen.len(), before + number + 1, "{}", case.name);
            let head = &seen[before + number].head;
            let arrived = (head.path.as_str(), head.host.as_str());
            assert_eq!(arrived, (case.path, case.host), "{}", case.name);
        }
        let before = guarded.upstream.heads();
        for host in ["hooks.example.com:8443", "10.0.0.7:10000"] {
            let request = callback(case.name, case.public_url, host).host(host);
            assert_eq!(guarded.send(&request).status, 200, "{}, {host}", case.name);
        }
        assert_eq!(guarded.upstream.heads(), before + 2, "{}", case.name);
    }
}

/// A filter in front of the guard takes the sender's path away from it: the public URL says what it was.
#[test]
fn a_path_that_is_rewritten_in_front_of_the_guard_is_made_up_for_by_the_public_url() {
    let rewrite = json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string":
                "function envoy_on_request(handle) handle:headers():replace(':path', '/callbacks/edge') end" },
        },
    });
    let public_url = "https://hooks.example.com/edge";
    let guarded = Guarded::builder()
        .configuration(|guard| guard["sources"] = json!([source("edge", public_url)]))
        .render(|render| render.before_guard(rewrite))
        .start();
    for (signed_for, status) in [("https://hooks.example.com", 401), (public_url, 200)] {
        let mut request = callback("edge", signed_for, "event");
        request.path = "/edge/callbacks/edge".to_owned();
        let response = guarded.send(&request);
        assert_eq!(response.status, status, "{signed_for}: {}", response.text());
        let arrived = usize::from(status == 200);
        assert_eq!(guarded.upstream.heads(), arrived, "{signed_for}");
    }
}
