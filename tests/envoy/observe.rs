//! What an operator sees: metrics with labels, the access log, the log.

use callback_guard_harness::client::RawConnection;
use serde_json::{Value, json};

use callback_guard_support::{Change as _, Guarded, SECRET, event, signed};

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

/// What the access log shows of a sender whose secret is a segment of the path.
#[test]
fn no_token_in_a_path_is_logged_whatever_the_answer() {
    const TOKEN: &str = "correct-horse-battery";
    let guarded = |unmatched: &str, mode: &str| {
        let (unmatched, mode) = (json!(unmatched), json!(mode));
        Guarded::builder()
            .configuration(move |configuration| {
                configuration["unmatched"] = unmatched;
                configuration["mode"] = mode;
                configuration["sources"][0] = json!({
                    "name": "hooks",
                    "match": { "path_prefix": "/hooks" },
                    "token": { "path_segment": true },
                    "secrets": [{ "value": TOKEN }],
                });
            })
            .start()
    };
    let escaped: String = TOKEN.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let targets = [
        format!("/hooks/{TOKEN}"),
        format!("/hooks/{TOKEN}/"),
        format!("/hooks/{TOKEN}/x"),
        format!("/hooks/x/{TOKEN}"),
        format!("/hooks/{TOKEN}/{TOKEN}"),
        format!("/hooks/{escaped}/{TOKEN}?{TOKEN}"),
        format!("/Hooks/{TOKEN}"),
        format!("/hooks;x/{TOKEN}/"),
        format!("/hoks/{TOKEN}"),
        format!("//hooks//{TOKEN}/../{TOKEN}/"),
        format!("/hooks/{TOKEN}%00"),
        format!("/hooks%2F{TOKEN}"),
        format!("/hooks/{TOKEN}#x"),
        format!("/hooks\\{TOKEN}"),
        format!("http://evil/hooks/{TOKEN}"),
        format!("hooks/{TOKEN}"),
    ];
    // What Envoy itself refuses: a header it does not take, too many, too large; another method.
    let odd = [
        "x_underscore: 1\r\n".to_owned(),
        (0..200).map(|n| format!("x-{n}: 1\r\n")).collect(),
        format!("x-large: {}\r\n", "x".repeat(100_000)),
        "transfer-encoding: chunked\r\n".to_owned(),
        "expect: nonsense\r\n".to_owned(),
        String::new(),
    ];
    for (unmatched, mode) in [
        ("reject", "enforce"),
        ("pass", "enforce"),
        ("pass", "monitor"),
    ] {
        let guarded = guarded(unmatched, mode);
        let mut sent = 0;
        for (method, target, odd) in targets
            .iter()
            .map(|target| ("POST", target, &odd[5]))
            .chain(odd.iter().map(|odd| ("POST", &targets[0], odd)))
            .chain([
                ("GET", &targets[0], &odd[5]),
                ("CONNECT", &targets[0], &odd[5]),
            ])
        {
            let body = event("token").1;
            let bytes = format!(
                "{method} {target} HTTP/1.1\r\nhost: app.example\r\n{odd}content-type: \
                 application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut connection = RawConnection::open(guarded.address()).unwrap();
            connection.write(bytes).unwrap();
            let _ = connection.read_response();
            sent += 1;
        }
        let log = guarded.wait_for_access_log(sent);
        for line in &log {
            let text = line.to_string();
            assert!(
                !text.contains("horse") && !text.contains(&escaped),
                "{text}"
            );
        }
        // A path is there where it is safe.
        let paths: Vec<_> = log
            .iter()
            .filter_map(|line| line["path"].as_str())
            .collect();
        assert!(
            paths.contains(&"/hooks") && paths.contains(&"/hooks/x"),
            "{paths:?}"
        );
        let statuses: Vec<_> = log
            .iter()
            .filter_map(|line| line["status"].as_u64())
            .collect();
        assert!(statuses.contains(&200) && statuses.contains(&400) && statuses.contains(&431));
        guarded.assert_alive();
    }
}

#[test]
fn the_access_log_shows_the_path_of_other_requests() {
    let guarded = Guarded::start();
    let body = event("path").1;
    guarded.send(&signed(&body).path("/callbacks/suno?secret=1"));
    guarded.send(&signed(&body).path("/callbacks/sun"));
    let log = guarded.wait_for_access_log(2);
    let paths: Vec<_> = log
        .iter()
        .filter_map(|line| line["path"].as_str())
        .collect();
    assert_eq!(paths, ["/callbacks/suno", "/callbacks/sun"]);
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
        .filter(|(_, line)| line.contains(r#""event":"refused""#))
        .map(|(_, line)| serde_json::from_str(&format!("{{{line}")).unwrap())
        .filter(|line: &Value| line["event"] == "refused")
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
