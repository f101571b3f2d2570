//! What an operator sees: metrics with labels, the access log, the log.

use serde_json::Value;

use crate::support::{Change as _, Guarded, SECRET, event, signed};

#[test]
fn verdicts_are_counted_with_labels() {
    let guarded = Guarded::builder().workers(2).start();
    let body = event("metrics").1;
    guarded.send(&signed(&body));
    guarded.send(&signed(&body));
    guarded.send(&signed(&body).without("x-webhook-signature"));
    guarded.send(&signed(&body).path("/elsewhere"));
    let metrics = guarded.envoy.prometheus().unwrap();
    for line in [
        r#"callback_guard_requests_total{source="suno",verdict="forwarded"} 1"#,
        r#"callback_guard_requests_total{source="suno",verdict="duplicate"} 1"#,
        r#"callback_guard_requests_total{source="suno",verdict="signature_missing"} 1"#,
        r#"callback_guard_requests_total{source="*",verdict="no_source"} 1"#,
        r#"callback_guard_requests_total{source="suno",verdict="timestamp_too_old"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|given| given == line),
            "{line}\n{metrics}"
        );
    }
}

#[test]
fn the_access_log_has_the_verdict() {
    let guarded = Guarded::start();
    let body = event("log").1;
    guarded.send(&signed(&body));
    guarded.send(&signed(&body));
    guarded.send(
        &signed(&body)
            .path("/callbacks/suno?token=hunter2")
            .without("x-webhook-signature"),
    );
    let log = guarded.wait_for_access_log(3);
    let seen: Vec<_> = log
        .iter()
        .map(|line| (line["verdict"].as_str(), line["details"].as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Some("forwarded"), Some("via_upstream")),
            (Some("duplicate"), Some("callback_guard:duplicate")),
            (
                Some("signature_missing"),
                Some("callback_guard:signature_missing")
            ),
        ]
    );
    assert!(log.iter().all(|line| !line.to_string().contains("hunter2")));
}

#[test]
fn a_refusal_is_one_line_of_json_without_payload() {
    let guarded = Guarded::start();
    let (id, body) = event("line");
    let body = body.replace("\"msg\"", "\"hunter2\"");
    guarded.send(&signed(&body));
    guarded.send(&signed(&body).body(event("hunter2").1));
    let lines: Vec<Value> = guarded
        .envoy
        .log()
        .lines()
        .filter_map(|line| line.split_once("callback-guard: {"))
        .map(|(_, line)| serde_json::from_str(&format!("{{{line}")).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["code"], "payload_invalid");
    assert_eq!(
        (&lines[0]["source"], &lines[0]["id"]),
        (&"suno".into(), &id.into())
    );
    assert_eq!(lines[1]["code"], "signature_mismatch");
    assert_eq!(lines[1].get("id"), None, "it is not verified");
    for line in lines {
        let text = line.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains(SECRET),
            "{text}"
        );
    }
}
