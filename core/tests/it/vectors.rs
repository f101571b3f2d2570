//! Known answers: the senders' sample bodies and published signatures.

use callback_guard_core::scheme::Encoding;
use callback_guard_core::scheme::keys::{Algorithm, Key, no_verifier, verify};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use serde_json::Value;

use crate::support::{Host, NOW, Request, configuration, policy};

pub(crate) fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_sample_of_the_sender_verifies_and_is_forwarded() {
    let index: Value = serde_json::from_slice(&data("samples/index.json")).unwrap();
    let files = index["files"].as_array().unwrap();
    assert!(files.len() > 40, "{} samples", files.len());
    let timestamp = index["test_timestamp"].as_str().unwrap();
    assert_eq!(timestamp, NOW.as_seconds().to_string());
    for file in files {
        let name = file["file"].as_str().unwrap();
        let body = String::from_utf8(data(&format!("samples/{name}"))).unwrap();
        let policy = policy(&configuration(|_| {}));
        // The signature of the table, and the one that our own signer makes.
        let known = Request::unsigned(&body)
            .with("x-webhook-timestamp", timestamp)
            .with(
                "x-webhook-signature",
                file["test_signature"].as_str().unwrap(),
            );
        let own = Request::genuine(&policy, &body, NOW);
        let mut sorted = (known.headers.clone(), own.headers);
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1, "{name}");
        let mut host = Host::new(policy);
        let (stream, seen) = host.send(&known, NOW);
        assert_eq!(seen.code(), Some(Code::Forwarded), "{name}: {seen:?}");
        assert_eq!(
            host.report(stream).id.as_ref().unwrap().as_str(),
            file["task_id"].as_str().unwrap()
        );
    }
}

#[test]
fn the_known_answer_of_the_contract() {
    let key = Key::secret(Algorithm::HmacSha256, b"test-webhook-hmac-key").unwrap();
    let parts: &[&[u8]] = &[b"ee9c2715375b7837f8bb51d641ff5863", b".", b"1769670760"];
    let mac = key.mac(parts).unwrap();
    assert_eq!(
        Encoding::Base64.encode(&mac),
        "xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4="
    );
    assert_eq!(UnixMillis::from_seconds(1_769_670_760), NOW);
}

/// Source: RFC 4231, section 4.
#[test]
fn rfc_4231() {
    let repeated = |byte: u8, count: usize| vec![byte; count];
    for (key, message, expected) in [
        (
            repeated(0x0b, 20),
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            repeated(0xaa, 20),
            repeated(0xdd, 50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            repeated(0xaa, 131),
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ] {
        let key = Key::secret(Algorithm::HmacSha256, &key).unwrap();
        let (left, right) = message.split_at(message.len() / 2);
        let mac = key.mac(&[left, right]).unwrap();
        assert_eq!(Encoding::Hex.encode(&mac), expected);
    }
}

/// Every vector of project Wycheproof, changed tags included. The guard knows whole tags only: of the
/// truncated ones, half as long, none is taken.
///
/// Source: tests/data/wycheproof/README.md.
#[test]
fn wycheproof() {
    let text = include_str!("../../../tests/data/wycheproof/hmac_sha256_test.json");
    let file: Value = serde_json::from_str(text).unwrap();
    let (mut taken, mut refused, mut short) = (0, 0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex::decode(test[name].as_str().unwrap()).unwrap();
            let key = Key::secret(Algorithm::HmacSha256, &field("key")).unwrap();
            let (message, tag) = (field("msg"), test["tag"].as_str().unwrap());
            let Some(tag) = Encoding::Hex.decode(tag.as_bytes(), Algorithm::HmacSha256) else {
                assert_eq!(group["tagSize"], 128);
                short += 1;
                continue;
            };
            let found = verify(&[key], &[&message], &[tag], no_verifier);
            let is_valid = test["result"] == "valid";
            assert_eq!(found.is_ok(), is_valid, "{}", test["tcId"]);
            if is_valid {
                taken += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert_eq!(
        taken + refused + short,
        file["numberOfTests"].as_u64().unwrap()
    );
    assert_eq!((taken, refused, short), (33, 54, 87));
}
