//! Secrets that Envoy delivers (SDS): what a source does before one comes, and what counts as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use callback_guard_config::{self as config, Build};
use callback_guard_core::log::start_line;
use callback_guard_core::metrics::{Kind, definitions};
use callback_guard_core::policy::Policy;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::Outcome;
use serde_json::{Value, json};

use crate::support::{Host, NOW, Request, SECRET, Seen, configuration, policy};

const OTHER: &str = "another-secret-of-the-sender";

fn with_sds(change: impl FnOnce(&mut Value)) -> String {
    let mut text = configuration(|c| c["sources"][0]["secrets"] = json!([{ "sds": "suno" }]));
    change(&mut text);
    text.to_string()
}

/// The policy with what has been delivered, by name.
fn delivered(text: &str, secrets: &[(&str, &str)]) -> Result<Policy, String> {
    let secrets: BTreeMap<&str, &str> = secrets.iter().copied().collect();
    config::parse_delivered(text.as_bytes(), &|_| None, &|one| {
        secrets.get(&*one.name).map(|value| value.as_bytes().into())
    })
    .map_err(|error| error.to_string())
}

/// A genuine callback under `secret`.
fn genuine(secret: &str, id: &str) -> Request {
    let signer = policy(&configuration(|c| {
        c["sources"][0]["secrets"] = json!([{ "value": secret }]);
    }));
    let body = format!(r#"{{"code":200,"msg":"success","data":{{"task_id":"{id}"}}}}"#);
    Request::genuine(&signer, &body, NOW)
}

#[track_caller]
fn code(host: &mut Host, request: &Request) -> Option<Code> {
    host.send(request, NOW).1.code()
}

#[test]
fn the_module_refuses_what_it_cannot_subscribe_to() {
    let refused = config::parse(with_sds(|_| {}).as_bytes(), &|_| None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "sources[0].secrets[0].sds: needs the native build, libcallback_guard.so: a WebAssembly filter cannot \
         subscribe to secrets. Expected `env`, such as `{ \"env\": \"SUNO_WEBHOOK_KEY\" }`"
    );
}

#[test]
fn a_source_without_a_delivered_secret_says_later_and_not_forged() {
    let text = with_sds(|_| {});
    let policy = config::parse_for(Build::Native, text.as_bytes(), &|_| None).unwrap();
    let mut host = Host::new(policy);
    let (_, seen) = host.send(&genuine(SECRET, "a"), NOW);
    let Seen::Answered(reply) = &seen else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (reply.status, seen.code()),
        (503, Some(Code::InternalError))
    );
    assert!(reply.headers.iter().any(|(name, _)| *name == "retry-after"));
    let log = host.log.join("\n");
    assert!(
        log.contains("no secret of the source has been delivered"),
        "{log}"
    );
    // What no secret would make right is refused as ever.
    let unsigned = genuine(SECRET, "b").without("x-webhook-signature");
    assert_eq!(code(&mut host, &unsigned), Some(Code::SignatureMissing));
}

#[test]
fn a_source_with_tokens_to_come_says_later_wherever_the_token_is() {
    for token in [
        json!({ "header": "x-token" }),
        json!({ "query": "token" }),
        json!({ "path_segment": true }),
        json!({ "pointer": "/token" }),
        json!({ "basic": true }),
    ] {
        let mut text: Value = serde_json::from_str(&with_sds(|_| {})).unwrap();
        let source = text["sources"][0].as_object_mut().unwrap();
        source.remove("preset");
        source.insert("token".into(), token.clone());
        source.insert("match".into(), json!({ "path_prefix": "/callbacks/suno" }));
        let mut host = Host::new(delivered(&text.to_string(), &[]).unwrap());
        let request = Request::unsigned(r#"{"token":"user:0123456789abcdef"}"#)
            .with(
                ":path",
                "/callbacks/suno/user%3A0123456789abcdef?token=user:0123456789abcdef",
            )
            .with("x-token", "user:0123456789abcdef")
            .with("authorization", "Basic dXNlcjowMTIzNDU2Nzg5YWJjZGVm");
        assert_eq!(
            code(&mut host, &request),
            Some(Code::InternalError),
            "{token}"
        );
        host.renew(delivered(&text.to_string(), &[("suno", "user:0123456789abcdef")]).unwrap());
        assert_eq!(code(&mut host, &request), Some(Code::Forwarded), "{token}");
    }
}

#[test]
fn a_delivered_secret_counts_from_the_next_request_on() {
    let text = with_sds(|_| {});
    let mut host = Host::new(delivered(&text, &[]).unwrap());
    assert_eq!(
        code(&mut host, &genuine(SECRET, "a")),
        Some(Code::InternalError)
    );
    host.renew(delivered(&text, &[("suno", SECRET)]).unwrap());
    let (first, seen) = host.send(&genuine(SECRET, "a"), NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded));
    host.settle(first, Outcome::Accepted, NOW);
    // A request that has begun under one secret ends under it.
    let (begun, seen) = host.head(&genuine(SECRET, "begun"), NOW);
    assert_eq!(seen, Seen::Held);
    host.renew(delivered(&text, &[("suno", OTHER)]).unwrap());
    let seen = host.body(begun, &genuine(SECRET, "begun").body, NOW);
    assert_eq!(seen.code(), Some(Code::Forwarded));
    assert_eq!(
        code(&mut host, &genuine(SECRET, "b")),
        Some(Code::SignatureMismatch)
    );
    assert_eq!(code(&mut host, &genuine(OTHER, "b")), Some(Code::Forwarded));
    // What was delivered before is known.
    assert_eq!(code(&mut host, &genuine(OTHER, "a")), Some(Code::Duplicate));
}

#[test]
fn two_secrets_overlap_and_one_that_is_there_is_enough() {
    let text = with_sds(|c| {
        c["sources"][0]["secrets"] = json!([{ "sds": "new" }, { "sds": "old" }]);
    });
    for (secrets, accepted) in [
        (&[("old", SECRET)][..], &[SECRET][..]),
        (&[("new", OTHER)], &[OTHER]),
        (&[("new", OTHER), ("old", SECRET)], &[OTHER, SECRET]),
    ] {
        let mut host = Host::new(delivered(&text, secrets).unwrap());
        for secret in [SECRET, OTHER] {
            let expected = match accepted.contains(&secret) {
                true => Code::Forwarded,
                false => Code::SignatureMismatch,
            };
            assert_eq!(
                code(&mut host, &genuine(secret, secret)),
                Some(expected),
                "{secrets:?}"
            );
        }
    }
}

#[test]
fn a_delivered_secret_is_refused_as_one_of_the_environment_is() {
    let preset = |name: &'static str| move |c: &mut Value| c["sources"][0]["preset"] = name.into();
    let token = |c: &mut Value| {
        let source = c["sources"][0].as_object_mut().unwrap();
        source.remove("preset");
        source.insert("token".into(), json!({ "header": "x-token" }));
    };
    type Change<'c> = &'c dyn Fn(&mut Value);
    let changes: [(Change<'_>, &[u8]); 7] = [
        (&|_| {}, b""),
        (&|_| {}, b" \t"),
        (&|_| {}, b"the-secret\n"),
        (&|_| {}, b"the-secret\r\n"),
        (&preset("standard-webhooks"), b"whsec_no base64"),
        (&preset("standard-webhooks"), b"whsec_"),
        (&token, b"fifteen-bytes.."),
    ];
    for (change, secret) in changes {
        let text = with_sds(|c| change(c));
        let by_sds = config::parse_delivered(text.as_bytes(), &|_| None, &|_| Some(secret.into()));
        let text = text.replace("\"sds\"", "\"env\"");
        let by_environment = config::parse(text.as_bytes(), &|_| Some(secret.into()));
        let by_environment = by_environment.unwrap_err().to_string();
        assert_eq!(
            by_sds.unwrap_err().to_string(),
            by_environment.replace(".env: ", ".sds: "),
            "{}",
            secret.escape_ascii()
        );
    }
}

#[test]
fn what_is_warned_of_is_warned_of_when_it_is_delivered() {
    let text = with_sds(|_| {});
    assert!(delivered(&text, &[]).unwrap().warnings.is_empty());
    let policy = delivered(&text, &[("suno", "short")]).unwrap();
    let warning = policy.warnings[0].to_string();
    let expected = "sources[0].secrets[0].sds: the secret has 5 bytes";
    assert!(warning.starts_with(expected), "{warning}");
    assert!(!start_line(&policy).contains("short\""));
}

#[test]
fn a_challenge_does_not_become_an_oracle_by_a_delivery() {
    // LinkedIn's answer would sign what the other source takes for a callback.
    let text = json!({ "sources": [
        { "name": "asked", "match": { "path": "/asked" }, "preset": "linkedin", "secrets": [{ "sds": "asked" }] },
        {
            "name": "other", "match": { "path": "/other" }, "secrets": [{ "sds": "other" }],
            "signature": {
                "message": [{ "id": true }, { "literal": "." }, { "timestamp": true }],
                "value": { "header": "x-signature", "encoding": "hex" },
                "timestamp": { "header": "x-time" },
                "id": { "header": "x-id" },
            },
        },
    ]})
    .to_string();
    assert!(delivered(&text, &[("asked", SECRET), ("other", OTHER)]).is_ok());
    let refused = delivered(&text, &[("asked", SECRET), ("other", SECRET)]).unwrap_err();
    assert!(refused.contains("both have the same secret"), "{refused}");
}

#[test]
fn each_secret_is_subscribed_to_once_in_the_words_that_were_given() {
    let file = json!({ "path_config_source": { "path": "/secrets/a.yaml" }, "initial_fetch_timeout": "1.5s" });
    let text = json!({ "sources": [
        {
            "name": "a", "match": { "path": "/a" }, "preset": "suno",
            "secrets": [{ "value": SECRET }, { "sds": "one", "sds_config": file }, { "sds": "one" }],
        },
        {
            "name": "b", "match": { "path": "/b" }, "preset": "suno",
            "secrets": [{ "sds": "one", "sds_config": file }, { "sds": "two", "sds_config": { "ads": {} } }],
        },
    ]})
    .to_string();
    let policy = config::parse_for(Build::Native, text.as_bytes(), &|_| None).unwrap();
    let seen: Vec<_> = policy
        .subscriptions
        .iter()
        .map(|one| (&*one.path, &*one.name, one.config_source.as_deref()))
        .collect();
    let file =
        r#"{"initial_fetch_timeout":"1.5s","path_config_source":{"path":"/secrets/a.yaml"}}"#;
    assert_eq!(
        seen,
        [
            ("sources[0].secrets[1].sds", "one", Some(file)),
            ("sources[0].secrets[2].sds", "one", None),
            ("sources[1].secrets[1].sds", "two", Some(r#"{"ads":{}}"#)),
        ]
    );
    assert!(
        !format!("{policy:?}").contains("a.yaml"),
        "the words of others"
    );
}

/// Envoy refuses a field that is there twice, and gets the chance to.
#[test]
fn the_words_for_envoy_are_not_mended() {
    let text = with_sds(|_| {}).replace(
        r#"{"sds":"suno"}"#,
        r#"{"sds":"suno","sds_config":{"a":[1,-2,1.5,null,true,"\u00e4\n"],"a":{}}}"#,
    );
    let policy = config::parse_for(Build::Native, text.as_bytes(), &|_| None).unwrap();
    assert_eq!(
        policy.subscriptions[0].config_source.as_deref(),
        Some("{\"a\":[1,-2,1.5,null,true,\"ä\\n\"],\"a\":{}}")
    );
}

#[test]
fn mistakes_are_named() {
    #[track_caller]
    fn refused(secret: Value, expected: &str) {
        let text = with_sds(|c| c["sources"][0]["secrets"][0] = secret);
        let native = config::parse_for(Build::Native, text.as_bytes(), &|_| None);
        assert_eq!(native.unwrap_err().to_string(), expected);
    }
    let one_of_three = "sources[0].secrets[0]: expected `env`, `value` or `sds`, one of the three";
    refused(json!({}), one_of_three);
    refused(json!({ "sds": "suno", "env": "A" }), one_of_three);
    refused(json!({ "sds": "suno", "value": SECRET }), one_of_three);
    refused(
        json!({ "env": "A", "sds_config": {} }),
        "sources[0].secrets[0].sds_config: given without `sds`, expected both or none",
    );
    refused(
        json!({ "sds": "" }),
        "sources[0].secrets[0].sds: is empty, expected the name of a secret",
    );
    refused(
        json!({ "sds": "suno", "optional": true }),
        "sources[0].secrets[0].optional: does nothing with `sds`, expected none: what Envoy has not delivered \
         is not there",
    );
    refused(
        json!({ "sds": ["suno"] }),
        "sources[0].secrets[0].sds: is a list, expected a string, such as \"suno_webhook_key\"",
    );
    refused(
        json!({ "sds": "suno", "sds_config": "/secrets/a.yaml" }),
        "sources[0].secrets[0].sds_config: is a string, expected an object, such as { \"path_config_source\": \
         { \"path\": \"/etc/envoy/suno.yaml\" } }",
    );
}

#[test]
fn updates_are_counted_where_there_can_be_some() {
    let counters = |policy: &Policy| {
        let all = definitions(policy).into_iter();
        let of_secrets = all.filter(|one| one.name.contains("secret_update"));
        of_secrets
            .map(|one| {
                assert_eq!(one.kind, Kind::Counter);
                one.name
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        counters(&delivered(&with_sds(|_| {}), &[]).unwrap()),
        [
            "callback_guard.secret_updates_total",
            "callback_guard.secret_update_failures_total"
        ]
    );
    assert!(counters(&policy(&configuration(|_| {}))).is_empty());
    let policy = Arc::new(delivered(&with_sds(|_| {}), &[]).unwrap());
    let mut indices: Vec<_> = definitions(&policy)
        .iter()
        .map(|one| one.metric.index())
        .collect();
    let all = indices.len();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), all, "no two metrics in one place");
}
