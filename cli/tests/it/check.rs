//! `check`.

use crate::support::{SECRET, file, run, run_with};

const GUARD: &str = r#"{"sources":[{"name":"suno","match":{"path":"/callbacks/suno"},"preset":"suno",
  "secrets":[{"env":"SUNO_WEBHOOK_KEY"}]}]}"#;

#[test]
fn the_configuration_in_envoy_yaml_is_found_and_described() {
    let run = run(&["check", "envoy.yaml"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        run.out,
        "envoy.yaml: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.config.configuration
ok: 1 source, memory store for 100000 events, unmatched requests are rejected
  suno: /callbacks/suno on any host, preset suno, enforce
    secrets: SUNO_WEBHOOK_KEY (set), SUNO_WEBHOOK_KEY_PREVIOUS (unset, optional)
    timestamp up to 300 s old or 60 s ahead, body up to 1048576 bytes
    events remembered for 86400 s, lease 30 s, a second one in flight waits up to 10 s
"
    );
}

#[test]
fn a_secret_that_is_not_set_is_an_error_unless_assumed() {
    let guard = file("guard.json", GUARD);
    let refused = run_with(&["check", &guard.path], &[], "");
    assert_eq!(refused.code, 1);
    assert_eq!(
        refused.err,
        format!(
            "{}\nerror: sources[0].secrets[0].env: environment variable `SUNO_WEBHOOK_KEY` is not set\n",
            guard.path
        )
    );
    let assumed = run_with(&["check", "--assume-env", &guard.path], &[], "");
    assert_eq!(assumed.code, 0, "{}", assumed.err);
    assert!(
        assumed.out.contains("SUNO_WEBHOOK_KEY (unset)"),
        "{}",
        assumed.out
    );
}

#[test]
fn errors_name_the_path_and_never_the_secret() {
    let wrong = GUARD.replace(
        r#"{"env":"SUNO_WEBHOOK_KEY"}"#,
        &format!(r#"{{"value":"{SECRET}","encoding":"hex"}}"#),
    );
    let guard = file("guard.json", &wrong);
    let run = run(&["check", &guard.path]);
    assert_eq!(run.code, 1);
    assert!(
        run.err
            .contains("sources[0].secrets[0].value: the secret is not valid hex"),
        "{}",
        run.err
    );
    assert!(!format!("{run:?}").contains(SECRET));
}

#[test]
fn torn_json_says_where() {
    let guard = file("guard.json", r#"{"sources": [}"#);
    let run = run(&["check", &guard.path]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("at line 1, column 14"), "{}", run.err);
}

#[test]
fn a_file_without_a_configuration_is_a_no() {
    let other = file("other.yaml", "admin: {}\n");
    let run = run(&["check", &other.path]);
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("holds no configuration of the guard"),
        "{}",
        run.err
    );
}
