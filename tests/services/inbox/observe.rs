//! The inbox's alerts and its row of the dashboard ask for metrics that it has.

use std::collections::BTreeSet;

use callback_guard_harness::client::{self, Request};
use callback_guard_harness::inbox::program;
use callback_guard_harness::{InboxSetup, Upstream, wait};
use serde_json::Value;

use crate::deploy::prometheus::check_rules;
use crate::deploy::support::{documents, read};

const RULES: &str = "deploy/prometheus/inbox.yaml";

#[test]
fn the_alerts_pass_their_unit_tests() {
    check_rules(RULES, "deploy/prometheus/inbox.test.yaml");
}

fn rules() -> Vec<Value> {
    documents(RULES)[0]["groups"][0]["rules"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn every_alert_is_tested_and_in_the_documentation() {
    let text = read("docs/inbox.md");
    let tests = read("deploy/prometheus/inbox.test.yaml");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let url = format!("docs/inbox.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], url);
        assert!(text.contains(&format!("\n### {name}\n")), "{name}");
        // Once where it does not fire, once where it does, once with its labels.
        assert_eq!(tests.matches(&format!("\"{name}\"")).count(), 3, "{name}");
    }
}

/// The names of metrics in `text`.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("callback_guard_inbox_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_is_asked_for_and_documented_is_what_a_running_inbox_shows() {
    let upstream = Upstream::start().unwrap();
    let program = program(false, &|_| {}).unwrap();
    let setup = InboxSetup::new(&program, &format!("http://{}", upstream.address())).unwrap();
    let inbox = setup.arguments(["--schedule", "1ms"]).start().unwrap();
    upstream.answer_in_turn([
        callback_guard_harness::Answer::status(410),
        callback_guard_harness::Answer::status(200),
    ]);
    for number in ["1", "2", "2"] {
        let key = format!("{number:0>64}");
        assert_eq!(inbox.send(&key, "task", b"{}").unwrap().status, 200);
    }
    wait::wait_for("both to end", || {
        let stats = inbox.setup.json("stats", &[]).ok()?;
        (stats["delivered"] == 1 && stats["dead"] == 1).then_some(())
    })
    .unwrap();
    let page = client::send(inbox.admin_address(), &Request::get("/metrics")).unwrap();
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let shown: BTreeSet<String> = page
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| names(line.split(['{', ' ']).next().unwrap()))
        .collect();
    let mut asked = BTreeSet::new();
    for rule in rules() {
        asked.extend(names(rule["expr"].as_str().unwrap()));
    }
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/callback-guard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    assert!(asked.len() >= 10, "{asked:?}");
    assert!(asked.is_subset(&shown), "{asked:?}\n{shown:?}");
    let documented = names(&read("docs/inbox.md"));
    let families: BTreeSet<String> = shown
        .iter()
        .map(|name| {
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| name.strip_suffix(end));
            family.unwrap_or(name).to_owned()
        })
        .collect();
    let documented: BTreeSet<String> = documented.into_iter().collect();
    assert_eq!(documented, families);
}
