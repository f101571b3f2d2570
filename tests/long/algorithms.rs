//! Every algorithm in a real Envoy: what the module computes itself, and what it asks Envoy for.

use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey, native};
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Body, Request};
use serde_json::{Value, json};

use callback_guard_support::{Guarded, has_vms, now};

const SECRET: &str = "a secret of this test";

/// Each algorithm, with a key that signs.
fn all() -> [(Algorithm, SigningKey); 6] {
    let private = |algorithm, pem: &str| {
        let key = SigningKey::private(algorithm, pem.as_bytes()).unwrap();
        (algorithm, key)
    };
    let secret = |algorithm| {
        let key = SigningKey::secret(algorithm, SECRET.as_bytes()).unwrap();
        (algorithm, key)
    };
    [
        secret(Algorithm::HmacSha1),
        secret(Algorithm::HmacSha256),
        secret(Algorithm::HmacSha512),
        private(Algorithm::Ed25519, include_str!("../data/keys/ed25519.pem")),
        private(
            Algorithm::EcdsaP256Sha256,
            include_str!("../data/keys/p256.pem"),
        ),
        private(
            Algorithm::RsaPkcs1Sha256,
            include_str!("../data/keys/rsa.pem"),
        ),
    ]
}

fn source(algorithm: Algorithm, key: &SigningKey) -> Value {
    let name = algorithm.name();
    let mut source = json!({
        "name": name,
        "match": { "path": format!("/callbacks/{name}") },
        "signature": {
            "algorithm": name,
            "message": [{ "timestamp": true }, { "literal": "." }, { "body": true }],
            "value": { "header": "x-signature", "encoding": "base64" },
            "timestamp": { "header": "x-timestamp" },
        },
    });
    match key.public_spki() {
        None => source["secrets"] = json!([{ "value": "another" }, { "value": SECRET }]),
        Some(spki) => source["public_keys"] = json!([{ "value": spki }]),
    }
    source
}

fn sources() -> Value {
    all()
        .iter()
        .map(|(algorithm, key)| source(*algorithm, key))
        .collect()
}

fn policy() -> Policy {
    let text = json!({ "sources": sources() }).to_string();
    let mut policy = config::parse(text.as_bytes(), &|_| None).unwrap();
    policy.host_verify = native::verify;
    policy
}

fn request(path: &str, headers: &[(String, String)], body: &str) -> Request {
    let mut request = Request::post(path).json(Body::halves(body.to_owned()));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

#[test]
fn every_algorithm_lets_through_what_is_signed_and_nothing_else() {
    let guarded = Guarded::with(|guard| guard["sources"] = sources());
    let policy = policy();
    for ((algorithm, key), source) in all().iter().zip(&policy.sources) {
        let name = algorithm.name();
        let path = format!("/callbacks/{name}");
        let body = format!(r#"{{"event":"{name}"}}"#);
        let at = UnixMillis::from_seconds(now());
        let headers = sign::sign(source, key, body.as_bytes(), "", at).unwrap();
        let before = guarded.upstream.heads();
        let changed = body.replace("event", "Event");
        let response = guarded.send(&request(&path, &headers, &changed));
        assert_eq!(response.status, 401, "{name}");
        let code = response.header("x-callback-guard");
        assert_eq!(code.as_deref(), Some("signature_mismatch"), "{name}");
        assert_eq!(guarded.upstream.heads(), before, "{name}");
        let response = guarded.send(&request(&path, &headers, &body));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(guarded.upstream.heads(), before + 1, "{name}");
        let response = guarded.send(&request(&path, &headers, &body));
        let code = response.header("x-callback-guard");
        assert_eq!(code.as_deref(), Some("duplicate"), "{name}");
    }
    guarded.assert_alive();
}

/// Neither a forgery nor genuine: nobody can tell. The other sources are not touched by it.
#[test]
fn a_proxy_without_the_foreign_function_answers_503_and_says_why() {
    if !has_vms() {
        return;
    }
    let guarded = Guarded::builder()
        .render(|render| {
            render.plugin(|plugin| {
                let config = &mut plugin["vm_config"]["capability_restriction_config"];
                let allowed = config["allowed_capabilities"].as_object_mut().unwrap();
                allowed.remove("proxy_call_foreign_function").unwrap();
            })
        })
        .configuration(|guard| guard["sources"] = sources())
        .start();
    let policy = policy();
    for ((algorithm, key), source) in all().iter().zip(&policy.sources) {
        let name = algorithm.name();
        let body = format!(r#"{{"event":"{name}"}}"#);
        let at = UnixMillis::from_seconds(now());
        let headers = sign::sign(source, key, body.as_bytes(), "", at).unwrap();
        let before = guarded.upstream.heads();
        let response = guarded.send(&request(&format!("/callbacks/{name}"), &headers, &body));
        let (status, heads) = if algorithm.is_hosts() {
            (503, before)
        } else {
            (200, before + 1)
        };
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(guarded.upstream.heads(), heads, "{name}");
    }
    let log = guarded.envoy.log();
    assert!(log.contains("foreign function `verify_signature`"), "{log}");
}
