//! `send`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::testkit;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;

use serde_json::{Value, json};

use crate::support::{Received, SECRET, Upstream, repository, run, run_with};

/// A secret that every preset can read.
const ANY_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn policy(preset: &str, secret: &str) -> Arc<Policy> {
    let entry = entry(preset);
    let mut source = json!({
        "name": "one",
        "match": { "path": "/callbacks/suno" },
        "preset": preset,
        "parameters": parameters(&entry),
    });
    match private(&entry) {
        Some(key) => {
            let spki = key.public_spki();
            source["public_keys"] = json!([{ "value": spki, "encoding": "spki" }]);
        }
        None => source["secrets"] = json!([{ "value": secret }]),
    }
    Arc::new(callback_guard_config::testkit::policy(
        &json!({ "sources": [source] }).to_string(),
    ))
}

fn table() -> Vec<Value> {
    let text = std::fs::read(repository().join("config/src/presets.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn entry(preset: &str) -> Value {
    let is_it = |entry: &Value| {
        entry["names"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == preset)
    };
    table().into_iter().find(is_it).unwrap()
}

/// The private key of a sender that has one.
fn private(entry: &Value) -> Option<SigningKey> {
    let algorithm: Algorithm =
        serde_json::from_value(entry["signature"]["algorithm"].clone()).ok()?;
    algorithm
        .is_asymmetric()
        .then(|| testkit::private_key(algorithm))
}

fn private_file(entry: &Value) -> std::path::PathBuf {
    let name = match entry["signature"]["algorithm"].as_str() {
        Some("ed25519") => "ed25519",
        Some("ecdsa-p256-sha256") => "p256",
        _ => "rsa",
    };
    repository().join(format!("tests/data/keys/{name}.pem"))
}

fn parameters(entry: &Value) -> Value {
    let mut parameters = json!({});
    let rules = entry["challenge"].as_array().cloned().unwrap_or_default();
    for name in rules
        .iter()
        .filter_map(|rule| rule["requires"]["parameter"].as_str())
    {
        parameters[name] = json!("https://h.example");
    }
    let parts = entry["signature"]["message"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for name in parts.iter().filter_map(|part| part["parameter"].as_str()) {
        parameters[name] = json!("https://h.example");
    }
    parameters
}

fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis::new(since.as_millis().try_into().unwrap())
}

/// What the guard itself says to a request of the preset `suno`.
fn verdict(request: &Received) -> Code {
    static POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| policy("suno", SECRET));
    verdict_of(&POLICY, request)
}

fn verdict_of(policy: &Arc<Policy>, request: &Received) -> Code {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let (line, headers) = request.head.split_once('\n').unwrap();
    let target = line.split(' ').nth(1).unwrap();
    pairs.push((b":method".to_vec(), line.split(' ').next().unwrap().into()));
    pairs.push((b":path".to_vec(), target.into()));
    for header in headers.lines().filter(|line| !line.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        pairs.push((name.to_ascii_lowercase().into(), value.into()));
    }
    let pairs: Vec<(&[u8], &[u8])> = pairs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    let owned = |(name, value): &(&[u8], &[u8])| (name.to_vec(), value.to_vec());
    let request = testkit::Request {
        headers: pairs.iter().map(owned).collect(),
        body: request.body.as_bytes().to_vec(),
    };
    let mut host = testkit::Host::new(Arc::clone(policy));
    host.send(&request, now()).1.code().unwrap()
}

#[test]
fn every_kind_is_listed_with_its_page() {
    let run = run(&["send", "--list-kinds"]);
    assert_eq!(run.code, 0);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 54);
    for line in lines {
        assert!(line.contains(" https://docs.kie.ai/"), "{line}");
    }
}

#[test]
fn every_kind_is_one_that_the_guard_lets_through() {
    let upstream = Upstream::answering(&[200]);
    let run = run(&["send", "--kind", "all", "--concurrency", "4", &upstream.url]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let received = upstream.received();
    assert_eq!(received.len(), 54);
    let signatures: BTreeSet<&str> = received
        .iter()
        .map(|request| request.header("x-webhook-signature"))
        .collect();
    assert_eq!(signatures.len(), 54, "each has an id of its own");
    for request in &received {
        assert_eq!(verdict(request), Code::Forwarded, "{}", request.body);
    }
    assert!(run.out.contains("54 of 54 accepted"), "{}", run.out);
}

#[test]
fn one_callback_shows_its_reply() {
    let upstream = Upstream::answering(&[200]);
    let run = run(&["send", "--header", "X-One: 1", &upstream.url]);
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (0, "status: 200\nx-callback-guard: seen\n\nhi\n", "")
    );
    let received = upstream.received();
    assert!(
        received[0]
            .head
            .starts_with("POST /callbacks/suno?a=1 HTTP/1.1\n")
    );
    assert_eq!(received[0].header("x-one"), "1");
    assert_eq!(received[0].header("content-type"), "application/json");
}

#[test]
fn a_failed_callback_is_sent_again_with_its_id_as_the_sender_would() {
    let upstream = Upstream::answering(&[500, 503, 200]);
    let run = run(&["send", "--retry-wait", "0.01", &upstream.url]);
    assert_eq!(run.code, 0);
    assert_eq!(
        run.err,
        "attempt 1: 500 seen; again in 0.01 s\nattempt 2: 503 seen; again in 0.02 s\n"
    );
    let received = upstream.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[0].body, received[2].body);
}

#[test]
fn it_gives_up_after_three_retries_and_only_200_counts_for_suno() {
    let upstream = Upstream::answering(&[202]);
    let run = run(&["send", "--retry-wait", "0.01", &upstream.url]);
    assert_eq!((run.code, upstream.received().len()), (1, 4));
    assert!(run.out.starts_with("status: 202\n"), "{}", run.out);
}

#[test]
fn retries_can_be_off() {
    let upstream = Upstream::answering(&[500]);
    let run = run(&["send", "--retries", "0", &upstream.url]);
    assert_eq!((run.code, upstream.received().len()), (1, 1));
}

#[test]
fn forged_and_stale_callbacks_are_what_they_say_and_never_sent_again() {
    for (flag, code) in [
        ("--forge", Code::SignatureMismatch),
        ("--stale", Code::TimestampTooOld),
    ] {
        let upstream = Upstream::answering(&[401]);
        let run = run(&["send", flag, &upstream.url]);
        let received = upstream.received();
        assert_eq!((run.code, received.len()), (1, 1), "{flag}");
        assert_eq!(verdict(&received[0]), code);
    }
}

#[test]
fn a_mix_has_exactly_the_percentages_asked_for() {
    let upstream = Upstream::answering(&[200]);
    let arguments = [
        "--repeat",
        "200",
        "--concurrency",
        "8",
        "--forge=10",
        "--stale=5",
    ];
    let run = run(&[&["send", "--json"], &arguments[..], &[&upstream.url]].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let summary: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(summary["callbacks"], 200);
    let count = |sent: &str| {
        let outcomes = summary["outcomes"].as_array().unwrap().iter();
        let one = outcomes.filter(|outcome| outcome["sent"] == sent);
        one.map(|outcome| outcome["callbacks"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (count("genuine"), count("forged"), count("stale")),
        (170, 20, 10)
    );
    let seen = upstream.received();
    let with = |code| {
        seen.iter()
            .filter(|request| verdict(request) == code)
            .count()
    };
    assert_eq!(with(Code::Forwarded), 170);
    assert_eq!(with(Code::SignatureMismatch), 20);
    assert_eq!(with(Code::TimestampTooOld), 10);
}

#[test]
fn one_id_is_one_event() {
    let upstream = Upstream::answering(&[200]);
    let run = run(&["send", "--id", "one_event", "--repeat", "3", &upstream.url]);
    assert_eq!(run.code, 0);
    let bodies: BTreeSet<String> = upstream
        .received()
        .into_iter()
        .map(|request| request.body)
        .collect();
    assert_eq!(bodies.len(), 1);
    assert!(bodies.first().unwrap().contains("one_event"));
}

#[test]
fn a_rate_is_kept() {
    let upstream = Upstream::answering(&[200]);
    let begin = std::time::Instant::now();
    let arguments = ["--repeat", "11", "--rate", "20", "--concurrency", "4"];
    assert_eq!(
        run(&[&["send"], &arguments[..], &[&upstream.url]].concat()).code,
        0
    );
    assert!(begin.elapsed() >= std::time::Duration::from_millis(500));
}

#[test]
fn more_than_all_of_them_cannot_be_forged_or_stale() {
    let run = run(&["send", "--forge=60", "--stale=41", "http://127.0.0.1:1/"]);
    assert_eq!(run.code, 2);
    assert_eq!(
        run.err,
        "error: --forge and --stale together are 101 %, expected at most 100\n"
    );
}

#[test]
fn an_unknown_kind_says_what_is_near() {
    let run = run(&["send", "--kind", "suno_wav", "http://127.0.0.1:1/"]);
    assert_eq!(run.code, 2);
    assert_eq!(
        run.err,
        "error: --kind: `suno_wav` is unknown, expected suno_wav.failure, suno_wav.success\n"
    );
}

#[test]
fn nobody_there_is_a_no() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let run = run(&["send", "--retries", "0", &url]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with("cannot connect: "), "{}", run.err);
}

#[test]
fn silence_ends_with_the_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let run = run(&["send", "--retries", "0", "--timeout", "0.2", &url]);
    assert_eq!((run.code, run.err.as_str()), (1, "no reply within 0.2 s\n"));
}

#[test]
fn every_preset_sends_what_its_guard_lets_through_and_forges_what_it_refuses() {
    let table = table();
    assert!(table.len() > 100);
    // The first name of each: the others are the same entry.
    for entry in &table {
        let preset = entry["names"][0].as_str().unwrap();
        let secret = match entry["secret"]["encoding"].as_str() {
            Some("hex") => "746573742d776562686f6f6b2d686d61632d6b6579",
            Some("base64") if entry["secret"]["prefix"].is_null() => {
                "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
            }
            _ if preset == "supabase" => "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            _ => ANY_SECRET,
        };
        let guard = policy(preset, secret);
        let file = private_file(entry);
        for (flag, codes) in [
            ("--forge=0", &[Code::Forwarded][..]),
            ("--forge", &[Code::SignatureMismatch]),
        ] {
            let upstream = Upstream::answering(&[200]);
            let url = match preset {
                "mercado-pago" => format!("{}&data.id=1", upstream.url),
                // These sign the whole URL: its query would be one of the parameter's.
                _ if !parameters(entry)["public_url"].is_null() => upstream.url.replace("?a=1", ""),
                _ => upstream.url.clone(),
            };
            let mut arguments = vec!["send", "--preset", preset, flag, &url];
            let parameters = parameters(entry);
            let parameters: Vec<String> = parameters
                .as_object()
                .unwrap()
                .keys()
                // It is for challenges, which nothing is sent for here.
                .filter(|name| *name != "verify_token")
                .map(|name| format!("{name}=https://h.example"))
                .collect();
            for parameter in &parameters {
                arguments.extend(["--parameter", parameter]);
            }
            if private(entry).is_some() {
                arguments.extend(["--secret-file", file.to_str().unwrap()]);
            }
            let run = run_with(&arguments, &[("SUNO_WEBHOOK_KEY", secret)], "");
            assert_eq!((run.code, run.err.as_str()), (0, ""), "{preset} {flag}");
            let received = upstream.received();
            let code = verdict_of(&guard, &received[0]);
            assert!(
                codes.contains(&code),
                "{preset} {flag}: {code}\n{received:?}"
            );
        }
    }
}
