//! Keys: known answers of every algorithm, and what is refused when a configuration is loaded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config as config;
use callback_guard_core::scheme::keys::{
    Algorithm, Key, KeyIndex, Mismatch, PublicEncoding, SignatureBytes, SigningKey, Token, native,
    no_verifier, probe, verify,
};
use serde_json::{Value, json};

use crate::vectors::data;

fn vectors() -> Vec<Value> {
    serde_json::from_slice(&data("vectors-2.json")).unwrap()
}

fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "ecdsa-p256-sha256-der" => Algorithm::EcdsaP256Sha256,
        "ed25519" => Algorithm::Ed25519,
        "hmac-sha1" => Algorithm::HmacSha1,
        "hmac-sha256" => Algorithm::HmacSha256,
        // A plain digest of secret and body: no key at all.
        "sha256" => return None,
        other => panic!("{other}"),
    })
}

fn key(vector: &Value, algorithm: Algorithm) -> Option<Key> {
    let text = vector["key"].as_str().unwrap();
    let bytes = text.as_bytes();
    let secret = |bytes: &[u8]| Key::secret(algorithm, bytes).unwrap();
    Some(match vector["key_encoding"].as_str().unwrap() {
        "utf8" => secret(bytes),
        "hex" => secret(&hex::decode(text).unwrap()),
        "base64" => secret(&STANDARD.decode(text).unwrap()),
        "raw-hex" => Key::public(algorithm, bytes, PublicEncoding::Hex).unwrap(),
        "raw-base64" => Key::public(algorithm, bytes, PublicEncoding::Base64).unwrap(),
        "spki-der-base64" => Key::public(algorithm, bytes, PublicEncoding::Spki).unwrap(),
        // Braintree's key is a digest of the secret.
        "sha1-of-utf8" => return None,
        other => panic!("{other}"),
    })
}

#[test]
fn every_official_signature_verifies_and_with_one_bit_changed_it_does_not() {
    let mut checked = 0;
    for vector in vectors() {
        let sender = vector["sender"].as_str().unwrap();
        let Some(algorithm) = algorithm(vector["algorithm"].as_str().unwrap()) else {
            continue;
        };
        let Some(key) = key(&vector, algorithm) else {
            continue;
        };
        let message = STANDARD
            .decode(vector["message_base64"].as_str().unwrap())
            .unwrap();
        let text = vector["signature"].as_str().unwrap();
        let signature = match vector["signature_encoding"].as_str().unwrap() {
            "hex" => hex::decode(text).unwrap(),
            "base64url-unpadded" => base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .unwrap(),
            _ => STANDARD.decode(text).unwrap(),
        };
        let check = |message: &[u8], signature: &[u8]| {
            let (left, right) = message.split_at(message.len() / 3);
            let signature = SignatureBytes::new(algorithm, signature).unwrap();
            let keys = std::slice::from_ref(&key);
            verify(keys, &[left, right], &[signature], native::verify)
        };
        assert_eq!(check(&message, &signature), Ok(KeyIndex(0)), "{sender}");
        for place in [0, message.len() / 2, message.len() - 1] {
            let mut changed = message.clone();
            changed[place] ^= 1;
            let seen = check(&changed, &signature);
            assert_eq!(seen, Err(Mismatch::Signature), "{sender}");
        }
        for place in 0..signature.len() {
            let mut changed = signature.clone();
            changed[place] ^= 1;
            let seen = check(&message, &changed);
            assert_eq!(seen, Err(Mismatch::Signature), "{sender}, byte {place}");
        }
        checked += 1;
    }
    assert_eq!(checked, 18);
}

fn private(name: &str, algorithm: Algorithm) -> SigningKey {
    SigningKey::private(algorithm, &data(&format!("keys/{name}.pem"))).unwrap()
}

#[test]
fn what_a_private_key_signs_its_public_key_verifies_and_no_other_does() {
    for (name, algorithm) in [
        ("ed25519", Algorithm::Ed25519),
        ("p256", Algorithm::EcdsaP256Sha256),
        ("rsa", Algorithm::RsaPkcs1Sha256),
    ] {
        let signing = private(name, algorithm);
        let spki = signing.public_spki().unwrap();
        let public = |text: &str| Key::public(algorithm, text.as_bytes(), PublicEncoding::Spki);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        let signature = signing.sign(&[b"mess", b"age"]).unwrap();
        for text in [&spki, &pem] {
            let keys = [public(text).unwrap()];
            let given = std::slice::from_ref(&signature);
            let check = |message: &[u8]| verify(&keys, &[message], given, native::verify);
            assert_eq!(check(b"message"), Ok(KeyIndex(0)), "{name}");
            assert_eq!(check(b"massage"), Err(Mismatch::Signature), "{name}");
        }
        // Rotation: the second of two keys.
        let other = match algorithm {
            Algorithm::Ed25519 => {
                let seed = SigningKey::private(algorithm, "11".repeat(32).as_bytes()).unwrap();
                public(&seed.public_spki().unwrap()).unwrap()
            }
            Algorithm::EcdsaP256Sha256 => public(SENDGRID).unwrap(),
            _ => continue,
        };
        let keys = [other, public(&spki).unwrap()];
        let seen = verify(
            &keys,
            &[b"message"],
            std::slice::from_ref(&signature),
            native::verify,
        );
        assert_eq!(seen, Ok(KeyIndex(1)), "{name}");
        let seen = verify(&keys[..1], &[b"message"], &[signature], native::verify);
        assert_eq!(seen, Err(Mismatch::Signature), "{name}");
    }
}

const SENDGRID: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";

#[test]
fn a_host_that_cannot_verify_is_neither_a_yes_nor_a_no() {
    let key = Key::public(
        Algorithm::EcdsaP256Sha256,
        SENDGRID.as_bytes(),
        PublicEncoding::Spki,
    );
    let signature = SignatureBytes::new(Algorithm::EcdsaP256Sha256, &[0x30; 70]).unwrap();
    let seen = verify(&[key.unwrap()], &[b"x"], &[signature], no_verifier);
    assert_eq!(seen, Err(Mismatch::Host));
    assert!(probe(native::verify).is_ok());
    assert!(probe(no_verifier).is_err());
    assert!(probe(|_| Ok(true)).is_err());
    assert!(probe(|_| Ok(false)).is_err());
}

#[track_caller]
fn refused(algorithm: &str, change: Value, expected: &str) {
    let mut source = json!({
        "name": "a",
        "match": { "path": "/a" },
        "signature": {
            "algorithm": algorithm,
            "message": [{ "body": true }],
            "value": { "header": "x-sig", "encoding": "base64" },
        },
    });
    for (name, value) in change.as_object().unwrap() {
        source[name] = value.clone();
    }
    let text = json!({ "sources": [source] }).to_string();
    let error = config::parse(text.as_bytes(), &|_| None).unwrap_err();
    assert_eq!(error.to_string(), format!("sources[0].{expected}"));
}

#[test]
fn a_key_that_cannot_be_of_its_algorithm_is_refused_at_load() {
    let spki = |name: &str, algorithm| private(name, algorithm).public_spki().unwrap();
    let ed25519 = spki("ed25519", Algorithm::Ed25519);
    let p256 = spki("p256", Algorithm::EcdsaP256Sha256);
    let rsa = spki("rsa", Algorithm::RsaPkcs1Sha256);
    let keys = |value: &str| json!({ "public_keys": [{ "value": value }] });
    let value = "public_keys[0].value: ";
    for (algorithm, key, problem) in [
        (
            "ed25519",
            &p256,
            "the public key is of another type than Ed25519",
        ),
        (
            "ed25519",
            &rsa,
            "the public key is of another type than Ed25519",
        ),
        (
            "ecdsa-p256-sha256",
            &rsa,
            "the public key is of another type than ECDSA",
        ),
        (
            "ecdsa-p256-sha256",
            &ed25519,
            "the public key is of another type than ECDSA",
        ),
        (
            "rsa-pkcs1-sha256",
            &p256,
            "the public key is of another type than RSA",
        ),
        (
            "ed25519",
            &"AAAA".to_owned(),
            "the public key is no SubjectPublicKeyInfo",
        ),
        (
            "ed25519",
            &"!".to_owned(),
            "the public key is neither PEM nor DER in base64",
        ),
        (
            "rsa-pkcs1-sha256",
            &"-----BEGIN RSA PUBLIC KEY-----".to_owned(),
            "the PEM is no public key, expected one that begins with `-----BEGIN PUBLIC KEY-----`",
        ),
    ] {
        refused(algorithm, keys(key), &format!("{value}{problem}"));
    }
    let raw = |value: String, encoding: &str| json!({ "public_keys": [{ "value": value, "encoding": encoding }] });
    refused(
        "ed25519",
        raw("00".repeat(31), "hex"),
        "public_keys[0].value: the public key is no Ed25519 key, which has 32 bytes",
    );
    // The neutral element: under it everything would be signed.
    refused(
        "ed25519",
        raw(format!("01{}", "00".repeat(31)), "hex"),
        "public_keys[0].value: the public key is no point of Ed25519, or a weak one",
    );
    refused(
        "ecdsa-p256-sha256",
        raw("00".repeat(32), "hex"),
        "public_keys[0].value: a key of this algorithm is written as a SubjectPublicKeyInfo, \
         expected `\"encoding\": \"spki\"`",
    );
    refused(
        "hmac-sha256",
        keys(&ed25519),
        "public_keys: hmac-sha256 has no public key, expected `secrets`",
    );
    refused(
        "ed25519",
        json!({ "secrets": [{ "value": "x" }] }),
        "secrets: ed25519 is verified under a public key, expected `public_keys`",
    );
    refused(
        "ed25519",
        json!({}),
        "public_keys: there is none, expected at least one",
    );
}

#[test]
fn keys_and_signatures_are_not_shown() {
    let key = SigningKey::secret(Algorithm::HmacSha512, b"hunter2").unwrap();
    let signature = key.sign(&[b"m"]).unwrap();
    let token = Token::new(b"hunter2").unwrap();
    let shown = format!("{key:?} {signature:?} {token:?}");
    assert_eq!(
        shown,
        "SigningKey([redacted]) SignatureBytes(64 bytes) Token([redacted])"
    );
}
