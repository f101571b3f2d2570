//! The alerts and the dashboard, in a real Prometheus that reads a real Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use callback_guard_core::verdict::Code;
use callback_guard_harness::{Answer, Request, Setup, Stack, client, page, upstream, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::programs::{Running, find, run};
use super::schemas;
use super::support::{body, documents, forged, genuine, path, read, signed};

const RULES: &str = "deploy/prometheus/rules.yaml";
const DASHBOARD: &str = "deploy/grafana/callback-guard.json";

/// Has promtool check a file of rules, and run their unit tests.
#[track_caller]
pub fn check_rules(rules: &str, tests: &str) {
    let promtool = find("promtool", "prometheus");
    run(Command::new(&promtool)
        .args(["check", "rules"])
        .arg(path(rules)));
    run(Command::new(&promtool)
        .args(["test", "rules"])
        .arg(path(tests)));
}

#[test]
fn the_rules_pass_their_unit_tests() {
    check_rules(RULES, "deploy/prometheus/rules.test.yaml");
}

#[test]
fn every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = &documents("deploy/prometheus/rules.test.yaml")[0]["tests"];
    let mut seen: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    for test in tests.as_array().unwrap() {
        for case in test["promql_expr_test"].as_array().unwrap() {
            let expression = case["expr"].as_str().unwrap();
            // What is recorded has no state of its own: promtool compares its value.
            let Some(name) = expression.split('"').nth(1).map(str::to_owned) else {
                continue;
            };
            let fires = !case["exp_samples"].as_array().unwrap().is_empty();
            seen.entry(name).or_default()[usize::from(fires)] = true;
        }
    }
    let alerts: BTreeSet<_> = rules()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !name.contains(':'))
        .collect();
    let tested: BTreeSet<_> = seen.keys().cloned().collect();
    assert_eq!(tested, alerts);
    for (name, seen) in seen {
        assert_eq!(seen, [true, true], "{name}");
    }
}

#[test]
fn the_kinds_of_the_dashboard_have_each_verdict_once() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let panel = panels
        .iter()
        .find(|panel| panel["title"] == "By kind")
        .unwrap();
    let mut shown: Vec<_> = panel["targets"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|target| {
            let expression = target["expr"].as_str().unwrap();
            let (_, rest) = expression.split_once("verdict=~\"").unwrap();
            let (verdicts, _) = rest.split_once('"').unwrap();
            verdicts.split('|').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut all: Vec<_> = Code::ALL.iter().map(ToString::to_string).collect();
    shown.sort();
    all.sort();
    assert_eq!(shown, all);
}

#[test]
fn the_dashboard_fits_grafanas_schema() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    schemas::assert_dashboard(&dashboard);

    let mut word = dashboard.clone();
    word["panels"][1]["fieldConfig"]["defaults"]["color"]["mode"] = "colourful".into();
    let mut field = dashboard;
    field["panels"][1]["fieldConfig"]["defaults"]["colour"] = "red".into();
    let said = schemas::dashboard_faults(&[word, field]);
    assert!(said.contains("\"colourful\"' is not assignable"), "{said}");
    assert!(said.contains("colour\"' does not exist"), "{said}");
}

#[test]
fn the_panels_of_the_dashboard_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{panel}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{panel}");
            }
        }
    }
}

/// Names and expressions of the alerts and of what is recorded.
fn rules() -> Vec<(String, String)> {
    let document = &documents(RULES)[0];
    let groups = document["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| {
            let name = rule.get("alert").unwrap_or(&rule["record"]);
            (text(name), text(&rule["expr"]))
        })
        .collect()
}

/// What an expression asks of the guard and of Envoy: names with their matchers, without windows.
fn selectors(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest
        .find("callback_guard_")
        .into_iter()
        .chain(rest.find("envoy_"))
        .min()
    {
        let text = &rest[start..];
        let name = text
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len());
        let end = if text[name..].starts_with('{') {
            name + text[name..].find('}').unwrap() + 1
        } else {
            name
        };
        found.push(text[..end].to_owned());
        rest = &text[end..];
    }
    found
}

#[test]
fn selectors_are_found() {
    let expression = r#"rate(callback_guard_a{b="c",d=~"e|f"}[5m]) > sum(envoy_g_callback_guard_h) or callback_guard_i"#;
    assert_eq!(
        selectors(expression),
        [
            r#"callback_guard_a{b="c",d=~"e|f"}"#,
            "envoy_g_callback_guard_h",
            "callback_guard_i"
        ]
    );
}

/// A Prometheus that reads Envoy every half a second.
struct Prometheus {
    address: SocketAddr,
    _process: Running,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes an Envoy, as `scraping` has it.
    fn start(envoy: SocketAddr, scraping: &Value) -> Self {
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("prometheus.yaml");
        let mut text = scraping.clone();
        text["scrape_configs"][0]["static_configs"][0]["targets"] = json!([envoy.to_string()]);
        text["global"] = json!({ "scrape_interval": "500ms", "evaluation_interval": "500ms" });
        text["rule_files"] = json!([path(RULES)]);
        fs::write(&config, text.to_string()).unwrap();
        let program = find("prometheus", "prometheus");
        run(Command::new(find("promtool", "prometheus"))
            .args(["check", "config"])
            .arg(&config));

        let address = upstream::unused_address().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let process = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self {
            address,
            _process: Running(process),
            _directory: directory,
        };
        wait::wait_for("Prometheus to be ready", || prometheus.get("/-/ready").ok()).unwrap();
        prometheus
    }

    fn get(&self, page: &str) -> Result<String> {
        let response = client::send(self.address, &Request::get(page))?;
        ensure!(response.status == 200, "{page}: {}", response.text());
        Ok(response.text())
    }

    /// The values of an expression, now. One that is no number is left out.
    fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let mut page = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(page, "%{byte:02X}")?;
        }
        let answer: Value = serde_json::from_str(&self.get(&page)?)?;
        let result = answer["data"]["result"].as_array().context("no vector")?;
        let values = result
            .iter()
            .filter_map(|one| one["value"][1].as_str()?.parse().ok());
        Ok(values.filter(|value: &f64| !value.is_nan()).collect())
    }
}

/// One callback of each kind that the panels and alerts tell apart.
fn send_traffic(stack: &Stack) {
    let event = body("traffic");
    let status = |request: &Request| stack.send(request).unwrap().status;
    stack
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    assert_eq!(status(&genuine(&event)), 500);
    assert_eq!(status(&genuine(&event)), 200);
    assert_eq!(status(&genuine(&event)), 200);
    assert_eq!(status(&genuine(&event.replace("success", "changed"))), 200);
    assert_eq!(status(&forged(&body("forged"))), 401);
    assert_eq!(
        status(&signed(
            &body("stale"),
            callback_guard_harness::SECRET,
            3600
        )),
        401
    );
    assert_eq!(status(&genuine(&body("malformed")).body("{")), 400);
    assert_eq!(status(&Request::post("/nowhere").json("{}")), 404);
}

/// The labels of an Envoy that uses Redis.
fn redis_tags() -> Vec<Value> {
    let envoy = &documents("deploy/redis/envoy.yaml")[0];
    let tags = &envoy["stats_config"]["stats_tags"];
    tags.as_array().unwrap().clone()
}

/// A Redis that does not answer: its metrics are there, and the guard falls back to its memory store.
fn nobody() -> Value {
    let address = upstream::unused_address().unwrap();
    let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
    let endpoint = json!({ "endpoint": { "address": { "socket_address": socket } } });
    json!({
        "name": "redis_http",
        "connect_timeout": "0.1s",
        "load_assignment": {
            "cluster_name": "redis_http",
            "endpoints": [{ "lb_endpoints": [endpoint] }],
        },
    })
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_the_other_way_round() {
    let document = &documents(RULES)[0];
    let groups = document["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let mut alerts = BTreeSet::new();
    for rule in rules {
        let Some(name) = rule["alert"].as_str() else {
            continue;
        };
        let url = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], url, "{name}");
        alerts.insert(name.to_owned());
    }
    let entries: BTreeSet<String> = read("docs/runbook.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### ").map(str::to_owned))
        .collect();
    assert_eq!(entries, alerts);
}

#[test]
fn every_expression_of_the_dashboard_and_the_rules_returns_data() {
    let stack = Setup::new()
        .render(|render| {
            render
                .edit(|document| {
                    document["stats_flush_interval"] = "0.5s".into();
                    let tags = document["stats_config"]["stats_tags"]
                        .as_array_mut()
                        .unwrap();
                    *tags = redis_tags();
                })
                .add_cluster(nobody())
        })
        .guard(|configuration| {
            configuration["store"] =
                json!({ "kind": "redis", "protocol": "webdis", "cluster": "redis_http" });
        })
        .start()
        .unwrap();
    let scraping = page::block(
        "docs/metrics.md",
        "every_expression_of_the_dashboard_and_the_rules_returns_data",
    );
    let scraping = scraping.unwrap().value().unwrap();
    let prometheus = Prometheus::start(stack.envoy.admin_address(), &scraping);

    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // As Grafana fills them in with all jobs and all sources.
            let expression = target["expr"]
                .as_str()
                .unwrap()
                .replace("$job", ".*")
                .replace("$source", ".*")
                .replace("$cluster", "app")
                .replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "{expression}");
            // What the inbox shows is asked of one in tests/services/inbox.
            if expression.contains("callback_guard_inbox_") {
                continue;
            }
            expressions.push((panel["title"].to_string(), expression));
        }
    }
    assert_eq!(expressions.len(), 42);
    // An alert that does not fire returns nothing, so it is asked for what it looks at.
    for (name, expression) in rules() {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty(), "{name}");
        expressions.extend(selectors.into_iter().map(|it| (name.clone(), it)));
    }

    let limit = Duration::from_secs(60);
    let mut waiting = expressions;
    wait::try_wait_for(limit, "data for every expression", || {
        send_traffic(&stack);
        let mut still = Vec::new();
        for (name, expression) in waiting.drain(..) {
            if prometheus.query(&expression)?.is_empty() {
                still.push((name, expression));
            }
        }
        waiting = still;
        Ok(waiting.is_empty().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {waiting:#?}"));

    // What the traffic is like shows.
    let is = |expression: &str, what: &dyn Fn(f64) -> bool| {
        wait::try_wait_for(limit, expression, || {
            send_traffic(&stack);
            let values = prometheus.query(expression)?;
            Ok((values.len() == 1 && what(values[0])).then_some(()))
        })
        .unwrap();
    };
    let panels = dashboard["panels"].as_array().unwrap();
    let who = panels
        .iter()
        .find(|panel| panel["title"] == "Who is it?")
        .unwrap();
    let answers = who["targets"]
        .as_array()
        .unwrap()
        .iter()
        .zip([1.0, 1.0, 1.0, 0.0]);
    for (target, expected) in answers {
        let expression = target["expr"]
            .as_str()
            .unwrap()
            .replace("$job", ".*")
            .replace("$source", ".*");
        is(&expression, &|value| value == expected);
    }
    // Of two deliveries one is accepted.
    is(
        r#"sum(callback_guard_outcomes_total{outcome="accepted"}) / sum(callback_guard_outcomes_total)"#,
        &|value| (0.4..0.6).contains(&value),
    );
    // The alert that waits for nothing.
    is(
        r#"ALERTS{alertname="CallbackGuardTampering",alertstate="firing"}"#,
        &|value| value == 1.0,
    );

    let page: Value = serde_json::from_str(&prometheus.get("/api/v1/rules").unwrap()).unwrap();
    let groups = page["data"]["groups"].as_array().unwrap();
    let loaded: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert_eq!(loaded.len(), rules().len());
    for rule in loaded {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}
