//! The configuration in Envoy: refused at load, reloaded under way.

use callback_guard_harness::Answer;
use serde_json::{Value, json};

use callback_guard_support::{Guarded, event, signed};

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    let output = Guarded::builder().configuration(change).validate();
    assert!(
        !output.is_valid,
        "accepted, expected {expected}\n{}",
        output.log
    );
    assert!(output.log.contains(expected), "{expected}\n{}", output.log);
}

#[test]
fn a_wrong_configuration_is_refused_with_its_path() {
    refused(
        |c| c["sources"][0]["dedupe"] = json!({ "in_fligth": "wait" }),
        "configuration refused: sources[0].dedupe.in_fligth: unknown field `in_fligth`",
    );
    refused(
        |c| c["sources"][0]["secrets"] = json!([{ "env": "SUNO_KEY_OLD" }]),
        "sources[0].secrets[0].env: environment variable `SUNO_KEY_OLD` is not set",
    );
    assert!(Guarded::builder().validate().is_valid);
}

#[test]
fn what_was_delivered_is_known_after_a_reload() {
    let guarded = Guarded::builder().lds().start();
    let request = signed(&event("reload").1);
    assert_eq!(guarded.send(&request).status, 200);
    guarded.reload(|configuration| {
        configuration["sources"][0]["tolerance_seconds"] = json!(200);
    });
    let response = guarded.send(&request);
    assert_eq!(
        response.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    // One that is refused changes nothing.
    guarded.reload_refused(|configuration| configuration["sources"] = json!([]));
    let response = guarded.send(&request);
    assert_eq!(
        response.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    guarded.upstream.answer(Answer::status(200));
    assert_eq!(guarded.send(&signed(&event("after").1)).status, 200);
}
