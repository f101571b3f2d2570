//! The published schemas: npm packages that are generated from the CRDs of Istio, Envoy Gateway and
//! the Gateway API and from the OpenAPI of Kubernetes, and Grafana's own, pinned in
//! `schemas/package-lock.json`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::programs::{find, npm_packages, output};

/// Where the packages are installed.
fn installed() -> PathBuf {
    npm_packages("schemas", &["check.mjs"])
}

fn check(entries: Vec<Value>) -> Output {
    // One at a time: they share a directory.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);

    let directory = installed();
    fs::write(
        directory.join("manifests.json"),
        Value::from(entries).to_string(),
    )
    .unwrap();
    output(
        Command::new(find("node", "nodejs"))
            .current_dir(&directory)
            .args(["check.mjs", "manifests.json"]),
    )
}

fn entry((file, manifest): &(String, Value)) -> Value {
    json!({ "file": file, "manifest": manifest })
}

#[track_caller]
fn assert_no_faults(entries: Vec<Value>) {
    let output = check(entries);
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
}

#[track_caller]
fn faults_of(entries: Vec<Value>) -> String {
    let output = check(entries);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Fails with what the schemas say against these manifests.
#[track_caller]
pub fn assert_fit(manifests: &[(String, Value)]) {
    assert_no_faults(manifests.iter().map(entry).collect());
}

/// What the schemas say against these manifests.
#[track_caller]
pub fn faults(manifests: &[(String, Value)]) -> String {
    faults_of(manifests.iter().map(entry).collect())
}

/// Fails with what Grafana's schema says against this dashboard.
#[track_caller]
pub fn assert_dashboard(dashboard: &Value) {
    assert_no_faults(vec![json!({ "file": "it", "dashboard": dashboard })]);
}

/// What Grafana's schema says against these dashboards.
#[track_caller]
pub fn dashboard_faults(dashboards: &[Value]) -> String {
    let entry = |dashboard| json!({ "file": "it", "dashboard": dashboard });
    faults_of(dashboards.iter().map(entry).collect())
}
