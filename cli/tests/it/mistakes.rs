//! The likely mistakes that `explain` finds, for every kind of scheme.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config::testkit::policy;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::testkit::private_key;
use callback_guard_core::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::{Run, SECRET, file, run_with};

const NOW: u64 = 1_769_670_760;
const BODY: &str = r#"{"id":"event-1","event_id":"event-1"}"#;
/// The public key of the known answer of Standard Webhooks, whose private one nobody here has.
const ANOTHER: &str = "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

/// A request as its sender signs it, and the source that it comes to.
struct Case {
    source: Value,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// `source` with its path and its key.
fn with_key(mut source: Value, key: &Value) -> Value {
    source["name"] = json!("one");
    if source["match"].is_null() {
        source["match"] = json!({ "path": "/callbacks" });
    }
    let list = if source["public_keys"].is_null() {
        "secrets"
    } else {
        "public_keys"
    };
    source[list] = json!([key]);
    source
}

impl Case {
    /// A callback that `sender` describes, signed with `key`, to a guard that has `source`.
    fn new(sender: &Value, key: &SigningKey, source: &Value, body: &str) -> Self {
        let value = match key.public_spki() {
            Some(spki) => json!({ "value": spki, "encoding": "spki" }),
            None => json!({ "value": SECRET, "encoding": "utf8" }),
        };
        let sender = with_key(sender.clone(), &value);
        let policy = policy(&json!({ "sources": [sender] }).to_string());
        let target = sender["match"]["path"].as_str().unwrap();
        let draft = Draft {
            target,
            is_json: true,
            body: body.as_bytes(),
            id: "msg_1",
        };
        let at = UnixMillis::from_seconds(NOW);
        let made = sign::callback(&policy.sources[0], key, &draft, at).unwrap();
        Self {
            source: with_key(source.clone(), &json!({ "env": "KEY" })),
            target: "/callbacks".to_owned(),
            headers: made.headers,
            body: String::from_utf8(made.body).unwrap(),
        }
    }

    /// By an HMAC with the secret of the tests.
    fn hmac(sender: &Value, algorithm: Algorithm, source: &Value) -> Self {
        let key = SigningKey::secret(algorithm, SECRET.as_bytes()).unwrap();
        Self::new(sender, &key, source, BODY)
    }

    fn header(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        let mut found = self.headers.iter_mut().filter(|(given, _)| given == name);
        let (_, value) = found.next().unwrap();
        *value = change(value);
        self
    }

    fn explain(&self, key: &str, arguments: &[&str]) -> Run {
        let lines: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let text = format!(
            "POST {} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{lines}\r\n{}",
            self.target, self.body
        );
        let guard = file(
            "guard.json",
            &json!({ "sources": [self.source] }).to_string(),
        );
        let request = file("request.txt", &text);
        let now = NOW.to_string();
        let all = [
            "explain",
            "--now",
            &now,
            "--config",
            &guard.path,
            &request.path,
        ];
        let other = private_key(Algorithm::Ed25519).public_spki().unwrap();
        run_with(
            &[&all, arguments].concat(),
            &[("KEY", key), ("OTHER", &other)],
            "",
        )
    }

    #[track_caller]
    fn mistake(&self, key: &str, expected: &str) {
        let run = self.explain(key, &["--try-env", "OTHER"]);
        assert_eq!((run.code, run.err.as_str()), (1, ""), "{}", run.out);
        assert!(
            run.out.contains(&format!("\nmost likely: {expected}\n")),
            "{}",
            run.out
        );
    }
}

/// The body is signed, in hex.
fn plain(algorithm: &str) -> Value {
    json!({ "signature": {
        "algorithm": algorithm,
        "message": [{ "body": true }],
        "value": { "header": "x-sig", "encoding": "hex" },
    } })
}

#[test]
fn another_hmac_is_found() {
    let all = [
        Algorithm::HmacSha1,
        Algorithm::HmacSha256,
        Algorithm::HmacSha512,
    ];
    for signed in all {
        for configured in all.into_iter().filter(|other| *other != signed) {
            let (by, has) = (signed.name(), configured.name());
            let case = Case::hmac(&plain(by), signed, &plain(has));
            case.mistake(
                SECRET,
                &format!("it is signed with {by}, where this scheme has {has}"),
            );
        }
    }
}

#[test]
fn another_form_of_the_url_is_found_where_path_and_query_are_signed_too() {
    let hubspot = |path: &str, url: &str| json!({ "preset": "hubspot", "match": { "path": path }, "parameters": { "public_url": url } });
    let configured = "https://hooks.example.com";
    let source = hubspot("/callbacks", configured);
    for (path, url) in [
        ("/callbacks", "http://hooks.example.com"),
        ("/callbacks", "https://hooks.example.com:443"),
        ("/callbacks", "https://hooks.example.com:8443"),
        ("/callbacks/", "https://hooks.example.com"),
        ("/edge/callbacks", "https://hooks.example.com"),
    ] {
        let mut case = Case::hmac(&hubspot(path, url), Algorithm::HmacSha256, &source);
        // What Envoy leaves behind where it has rewritten the path.
        case.headers
            .push(("x-envoy-original-path".into(), "/edge/callbacks".into()));
        let expected = format!("the sender signs for {url}{path}, not for {configured}/callbacks");
        case.mistake(SECRET, &expected);
    }
}

#[test]
fn a_key_as_text_where_the_preset_decodes_it_is_found() {
    for (preset, key, encoding) in [
        ("svix", "dGVzdC13ZWJob29rLWhtYWMta2V5", "utf8"),
        (
            "adyen-banking",
            "746573742d776562686f6f6b2d686d61632d6b6579",
            "utf8",
        ),
    ] {
        let source = json!({ "preset": preset });
        let signing = SigningKey::secret(Algorithm::HmacSha256, key.as_bytes()).unwrap();
        let case = Case::new(&source, &signing, &source, BODY);
        let expected =
            format!("the key is KEY as it is: give the secret `\"encoding\": \"{encoding}\"`");
        case.mistake(key, &expected);
    }
}

#[test]
fn another_public_key_is_found_among_those_given() {
    let source = json!({ "public_keys": [], "preset": "telnyx" });
    let case = Case::new(&source, &private_key(Algorithm::Ed25519), &source, BODY);
    case.mistake(ANOTHER, "its key is OTHER, which the source does not have");
    let run = case.explain(ANOTHER, &[]);
    let unknown = "most likely: the sender signs with another key than the public one that is configured, or the body \
                   was changed on the way; ";
    assert!(run.out.contains(unknown), "{}", run.out);
}

#[test]
fn a_public_key_of_another_type_is_refused_with_what_it_should_be() {
    let rsa = private_key(Algorithm::RsaPkcs1Sha256)
        .public_spki()
        .unwrap();
    let p256 = private_key(Algorithm::EcdsaP256Sha256)
        .public_spki()
        .unwrap();
    for (preset, key, expected) in [
        ("kick", &p256, "the public key is of another type than RSA"),
        (
            "sendgrid",
            &rsa,
            "the public key is of another type than ECDSA",
        ),
    ] {
        let source = json!({ "public_keys": [], "preset": preset });
        let algorithm = if preset == "kick" {
            Algorithm::RsaPkcs1Sha256
        } else {
            Algorithm::EcdsaP256Sha256
        };
        let body = if preset == "kick" {
            BODY.to_owned()
        } else {
            format!("[{BODY}]")
        };
        let case = Case::new(&source, &private_key(algorithm), &source, &body);
        let run = case.explain(key, &[]);
        assert_eq!(run.code, 2, "{}", run.out);
        assert!(run.err.contains(expected), "{}", run.err);
        assert!(run.err.contains("sources[0].public_keys[0]"), "{}", run.err);
    }
}

#[test]
fn a_signature_of_a_public_key_in_another_spelling_is_found() {
    let source = json!({ "public_keys": [], "preset": "sendgrid" });
    let key = private_key(Algorithm::EcdsaP256Sha256);
    let spki = key.public_spki().unwrap();
    let header = "x-twilio-email-event-webhook-signature";
    let case = || Case::new(&source, &key, &source, &format!("[{BODY}]"));
    let run = case().explain(&spki, &[]);
    assert_eq!(
        run.code, 0,
        "Envoy's part of it is done here, too: {}{}",
        run.out, run.err
    );
    let hex = case().header(header, |value| hex::encode(STANDARD.decode(value).unwrap()));
    hex.mistake(
        &spki,
        "the signature is written in hex, where this scheme has padded standard base64",
    );
    let raw = case().header(header, |value| {
        STANDARD.encode(raw(&STANDARD.decode(value).unwrap()))
    });
    let numbers =
        "the signature is the two numbers one after the other, where this scheme has them in DER";
    raw.mistake(&spki, numbers);
}

/// The two numbers of an ECDSA signature in DER, 32 bytes each.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let digits = &rest[2..2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        raw.extend(vec![0; 32 - digits.len()]);
        raw.extend(digits);
        rest = &rest[2 + length..];
    }
    raw
}

#[test]
fn a_timestamp_in_another_unit_is_found_wherever_it_is() {
    let in_header = |unit: &str| {
        json!({ "signature": {
            "message": [{ "timestamp": true }, { "literal": "." }, { "body": true }],
            "value": { "header": "x-sig", "encoding": "hex" },
            "timestamp": { "header": "x-time", "unit": unit },
        } })
    };
    let in_list = |unit: &str| {
        json!({ "signature": {
            "message": [{ "timestamp": true }, { "literal": "." }, { "body": true }],
            "value": { "header": "x-sig", "separator": ",", "key": "v1", "encoding": "hex" },
            "timestamp": { "key": "t", "unit": unit },
        } })
    };
    let units = [
        ("s", "seconds"),
        ("ms", "milliseconds"),
        ("rfc3339", "RFC 3339"),
    ];
    let schemes: [&dyn Fn(&str) -> Value; 2] = [&in_header, &in_list];
    for scheme in schemes {
        for (sent, is) in units {
            for (wanted, has) in units.into_iter().filter(|(unit, _)| *unit != sent) {
                let case = Case::hmac(&scheme(sent), Algorithm::HmacSha256, &scheme(wanted));
                let run = case.explain(SECRET, &[]);
                let expected = format!("the timestamp is in {is}, where this scheme has {has}");
                assert!(run.out.contains(&expected), "{}", run.out);
            }
        }
    }
}
