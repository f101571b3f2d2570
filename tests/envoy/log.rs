//! What the filter writes to Envoy's log.

use std::collections::BTreeMap;

use callback_guard_harness::{Body, wait};
use serde_json::{Value, json};

use callback_guard_support::{Change as _, Guarded, SECRET, event, signed};

/// The lines of the guard with this `event`.
fn lines(guarded: &Guarded, event: &str) -> Vec<Value> {
    let log = guarded.envoy.log();
    let objects = log.lines().filter_map(|line| {
        let start = line.find("{\"event\":")?;
        let mut values = serde_json::Deserializer::from_str(line.get(start..)?).into_iter();
        values.next()?.ok()
    });
    objects
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

#[test]
fn a_process_says_once_that_the_filter_starts() {
    let guarded = Guarded::builder()
        .lds()
        .configuration(|configuration| configuration["unmatched"] = json!("pass"))
        .start();
    let started = lines(&guarded, "start");
    assert_eq!(started.len(), 1, "{started:#?}");
    let line = &started[0];
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["store"], "memory");
    let source = json!({ "name": "suno", "preset": "suno", "path": "/callbacks/suno" });
    assert_eq!(line["sources"], json!([source]));
    let warning = line["warnings"][0].as_str().unwrap();
    assert!(warning.contains("near miss"), "{warning}");
    assert!(!guarded.envoy.log().contains(SECRET));
    // Another configuration is said, too, and that once.
    guarded.reload(|configuration| configuration["unmatched"] = json!("reject"));
    let started = lines(&guarded, "start");
    assert_eq!(started.len(), 2, "{started:#?}");
    assert_eq!(started[1]["warnings"], json!([]));
}

#[test]
fn a_flood_of_refusals_is_counted_and_not_written() {
    const FLOOD: usize = 400;
    let guarded = Guarded::builder()
        .workers(1)
        .configuration(|configuration| {
            configuration["log"] = json!({ "refusals_per_second": 3 });
        })
        .start();
    for _ in 0..FLOOD {
        let request = signed(&event("flood").1).without("x-webhook-signature");
        assert_eq!(guarded.send(&request).status, 401);
    }
    // Every refusal is in the log: by itself, or in a count that comes by itself as well.
    let counted = || -> usize {
        let left_out = lines(&guarded, "left_out");
        let counts = left_out.iter().map(|line| line["count"].as_u64().unwrap());
        lines(&guarded, "refused").len() + usize::try_from(counts.sum::<u64>()).unwrap()
    };
    wait::wait_for("all refusals in the log", || {
        (counted() >= FLOOD).then_some(())
    })
    .unwrap();
    assert_eq!(counted(), FLOOD);
    // Not more of a second than was allowed; the clock may turn during the flood.
    let mut seconds: BTreeMap<String, usize> = BTreeMap::new();
    for line in guarded.envoy.log().lines() {
        if line.contains(r#"{"event":"refused""#) {
            *seconds.entry(line.chars().take(20).collect()).or_default() += 1;
        }
    }
    assert!(seconds.values().all(|count| *count <= 4), "{seconds:?}");
    assert_eq!(guarded.requests("suno", "signature_missing"), FLOOD as u64);
}

/// Everything that a request can carry, in requests of every kind of end, while all that Envoy can log
/// of the filter is logged.
#[test]
fn neither_secrets_nor_signatures_nor_payloads_are_logged() {
    let guarded = Guarded::builder()
        .map(|setup| setup.options(|options| options.component_log_level = "wasm:trace".to_owned()))
        .start();
    let (_, body) = event("quiet");
    let body = body.replace("\"success\"", "\"payload-of-the-sender\"");
    let genuine = signed(&body).path("/callbacks/suno?token=token-in-the-query");
    let signature = genuine
        .headers
        .iter()
        .find(|(name, _)| name == "x-webhook-signature")
        .map(|(_, value)| String::from_utf8(value.clone()).unwrap())
        .unwrap();
    let forged = signed(&body).replace(
        "x-webhook-signature",
        "Zm9yZ2VkLXNpZ25hdHVyZS1mb3JnZWQtc2lnbmF0dXI=",
    );
    for (request, status) in [
        (genuine.clone(), 200),
        (genuine, 200),
        (forged, 401),
        (
            signed(&body).replace("x-webhook-timestamp", "1000000000"),
            401,
        ),
        (
            signed(&body).body(Body::from("{\"payload-of-the-sender\"")),
            400,
        ),
    ] {
        assert_eq!(guarded.send(&request).status, status);
    }
    let lines = guarded.wait_for_access_log(5);
    let all =
        guarded.envoy.log() + &json!(lines).to_string() + &guarded.envoy.prometheus().unwrap();
    for secret in [
        SECRET,
        signature.as_str(),
        "Zm9yZ2Vk",
        "payload-of-the-sender",
        "token-in-the-query",
    ] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[test]
fn the_version_is_a_metric() {
    let guarded = Guarded::start();
    let page = guarded.envoy.prometheus().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("callback_guard_build_info{{version=\"{version}\"}} 1");
    assert!(page.lines().any(|one| one == line), "{page}");
}
