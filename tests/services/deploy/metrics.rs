//! `docs/metrics.md` says what there is: no more, and no less.

use std::collections::{BTreeMap, BTreeSet};

use callback_guard_core::verdict::Code;
use callback_guard_harness::{Setup, wait};

use super::support::{body, genuine, read};

type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// The cells of the table under this heading, without its head.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("docs/metrics.md has no section {heading}"));
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// What stands between backticks.
fn codes(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

fn documented() -> Metrics {
    let rows = table(&read("docs/metrics.md"), "The metrics");
    rows.iter()
        .map(|row| {
            let labels = codes(&row[2]).into_iter().collect();
            (codes(&row[0])[0].clone(), (row[1].clone(), labels))
        })
        .collect()
}

/// The guard's metrics in Prometheus' text format, with the values of their labels beside.
fn exposed(text: &str) -> (Metrics, BTreeMap<String, BTreeSet<String>>) {
    let mut metrics = Metrics::new();
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE callback_guard_") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics
                .entry(format!("callback_guard_{name}"))
                .or_insert_with(|| (kind.to_owned(), BTreeSet::new()));
        } else if line.starts_with("callback_guard_") {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, _) = rest.split_once('}').unwrap();
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|name| metrics.contains_key(*name))
                .unwrap_or(name);
            let labels = labels.split(',').filter(|label| !label.is_empty());
            for label in labels {
                let (label, value) = label.split_once('=').unwrap();
                if label == "le" {
                    continue;
                }
                let (_, known) = metrics.get_mut(name).unwrap();
                known.insert(label.to_owned());
                let value = value.trim_matches('"').to_owned();
                values.entry(label.to_owned()).or_default().insert(value);
            }
        }
    }
    (metrics, values)
}

#[test]
fn the_documented_metrics_are_those_of_a_running_envoy() {
    let stack = Setup::new().start().unwrap();
    let (metrics, values) = exposed(&stack.envoy.prometheus().unwrap());

    // There before the first request.
    assert_eq!(metrics, documented());

    let verdicts: BTreeSet<_> = Code::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(values["verdict"], verdicts);
    let outcomes = table(&read("docs/metrics.md"), "Outcomes");
    let outcomes: BTreeSet<_> = outcomes.iter().flat_map(|row| codes(&row[0])).collect();
    assert_eq!(values["outcome"], outcomes);
    let sources: Vec<_> = values["source"].iter().map(String::as_str).collect();
    assert_eq!(sources, ["*", "suno"]);
}

#[test]
fn every_verdict_stands_in_one_group() {
    let groups = table(&read("docs/metrics.md"), "Verdicts");
    let mut grouped: Vec<_> = groups.iter().flat_map(|row| codes(&row[1])).collect();
    let mut all: Vec<_> = Code::ALL.iter().map(ToString::to_string).collect();
    grouped.sort();
    all.sort();
    assert_eq!(grouped, all);
}

#[test]
fn histograms_and_releases_count() {
    let stack = Setup::new()
        .render(|render| render.edit(|document| document["stats_flush_interval"] = "0.1s".into()))
        .start()
        .unwrap();
    let event = body("histogram");
    stack.upstream.answer_in_turn([
        callback_guard_harness::Answer::status(500),
        callback_guard_harness::Answer::status(200),
    ]);
    for status in [500, 200] {
        assert_eq!(stack.send(&genuine(&event)).unwrap().status, status);
    }
    // Refused by its head: neither read nor waited for.
    let unsigned = callback_guard_harness::Request::post("/callbacks/suno").json(event.clone());
    assert_eq!(stack.send(&unsigned).unwrap().status, 401);

    assert!((51..=100).contains(&event.len()));
    let expected = [
        r#"callback_guard_body_bytes_count{source="suno"} 2"#.to_owned(),
        r#"callback_guard_body_bytes_bucket{source="suno",le="50"} 0"#.to_owned(),
        r#"callback_guard_body_bytes_bucket{source="suno",le="100"} 2"#.to_owned(),
        r#"callback_guard_decision_milliseconds_count{source="suno"} 2"#.to_owned(),
        r#"callback_guard_releases_total{source="suno"} 1"#.to_owned(),
        r#"callback_guard_outcomes_total{source="suno",outcome="refused"} 1"#.to_owned(),
        r#"callback_guard_enforcing{source="suno"} 1"#.to_owned(),
        "callback_guard_store_claims{} 0".to_owned(),
        "callback_guard_store_delivered{} 1".to_owned(),
        "callback_guard_store_capacity{} 100000".to_owned(),
    ];
    for line in expected {
        wait::try_wait_for(wait::DEADLINE, &line, || {
            let text = stack.envoy.prometheus()?;
            Ok(text.lines().any(|found| found == line).then_some(()))
        })
        .unwrap();
    }
}
