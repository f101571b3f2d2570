//! What a configuration says and hardly means to, and the line of a filter that starts.

use callback_guard_config as config;
use callback_guard_core::log;
use serde_json::{Value, json};

use crate::support::{configuration, policy};

#[track_caller]
fn warned(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let policy = policy(&configuration(change));
    policy.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_configuration_has_none() {
    assert!(warned(|_| {}).is_empty());
}

#[test]
fn exact_paths_where_all_else_passes() {
    let expected = "unmatched: is `pass`, and sources[0] matches one exact path: the guard refuses each \
                    near miss of it that it knows, but not another path that the application's own \
                    rules lead to the same handler; expected `reject`, or `match.path_prefix`";
    assert_eq!(warned(|c| c["unmatched"] = json!("pass")), [expected]);
    let prefix = |c: &mut Value| {
        c["unmatched"] = json!("pass");
        c["sources"][0]["match"] = json!({ "path_prefix": "/callbacks" });
    };
    assert!(warned(prefix).is_empty());
}

#[test]
fn a_key_without_the_id() {
    let key = |key: Value| move |c: &mut Value| c["sources"][0]["dedupe"] = json!({ "key": key });
    let expected = "sources[0].dedupe.key: does not hold the message id: of two events that agree in \
                    the rest, the second is answered as a duplicate and never delivered; expected \
                    every place of the id among its parts";
    assert_eq!(warned(key(json!([{ "pointer": "/code" }]))), [expected]);
    // Suno's id has three places: with one of them left out, the callbacks that use it look alike.
    let two = json!([{ "pointer": "/data/task_id" }, { "pointer": "/data/taskId" }]);
    assert_eq!(warned(key(two)), [expected]);
    let all = json!([
        { "pointer": "/data/task_id" },
        { "pointer": "/data/taskId" },
        { "pointer": "/taskId" },
        { "pointer": "/code" },
    ]);
    assert!(warned(key(all)).is_empty());
}

#[test]
fn a_filter_that_starts_says_what_it_guards_and_no_secret() {
    let configuration = configuration(|c| {
        c["unmatched"] = json!("pass");
        c["sources"][0]["secrets"] = json!([{ "value": "hunter2hunter2hunter2" }]);
        c["sources"].as_array_mut().unwrap().push(json!({
            "name": "spelled",
            "mode": "monitor",
            "match": { "path_prefix": "/b", "host": "B.example" },
            "signature": {
                "message": [{ "body": true }],
                "value": { "header": "x-sig", "encoding": "hex" },
            },
            "secrets": [{ "value": "hunter3hunter3hunter3" }],
        }));
    });
    let line = log::start_line(&policy(&configuration));
    let mut line: Value = serde_json::from_str(&line).unwrap();
    let warnings = line["warnings"].take();
    assert!(warnings[0].as_str().unwrap().starts_with("unmatched: "));
    assert_eq!(
        line,
        json!({
            "event": "start",
            "version": callback_guard_core::VERSION,
            "sources": [
                { "name": "suno", "preset": "suno", "path": "/callbacks/suno" },
                { "name": "spelled", "path_prefix": "/b", "host": "b.example", "monitor": true },
            ],
            "store": "memory",
            "capacity": 100_000,
            "unmatched": "pass",
            "warnings": null,
        })
    );
}

#[test]
fn refusals_per_second_have_a_limit() {
    let limit = |count: Value| {
        let configuration = configuration(|c| c["log"] = json!({ "refusals_per_second": count }));
        config::parse(configuration.to_string().as_bytes(), &|_| None)
            .map(|policy| policy.refusals_per_second)
            .map_err(|error| error.to_string())
    };
    assert_eq!(policy(&configuration(|_| {})).refusals_per_second, 20);
    assert_eq!(limit(json!(0)), Ok(0));
    assert_eq!(limit(json!(1000)), Ok(1000));
    let problem = "log.refusals_per_second: 1001 is out of range, expected 0 to 1000";
    assert_eq!(limit(json!(1001)), Err(problem.to_owned()));
}

fn secrets(secrets: Value) -> impl FnOnce(&mut Value) {
    move |c| c["sources"][0]["secrets"] = secrets
}

#[test]
fn secrets_that_were_pasted_with_something_around_them() {
    let expected = "sources[0].secrets[0].value: the secret begins or ends with white space or a quote, \
                    which is part of it as it is: expected the bare secret";
    for text in [
        " 0123456789abcdef",
        "0123456789abcdef\t",
        "\"0123456789abcdef\"",
        "0123456789abcdef'",
        "`0123456789abcdef",
    ] {
        assert_eq!(
            warned(secrets(json!([{ "value": text }]))),
            [expected],
            "{text}"
        );
    }
    assert!(warned(secrets(json!([{ "value": "0123456789 \"abcdef" }]))).is_empty());
}

#[test]
fn secrets_that_can_be_guessed() {
    let expected = "sources[0].secrets[1].value: the secret has 15 bytes, which can be guessed from one \
                    captured callback: expected at least 16 random ones";
    let short = json!([{ "value": "0123456789abcdef" }, { "value": "0123456789abcde" }]);
    assert_eq!(warned(secrets(short)), [expected]);
    // What counts is what the sender signs with.
    let hex = json!([{ "value": "00112233445566778899aabbccddeeff", "encoding": "hex" }]);
    assert!(warned(secrets(hex)).is_empty());
}

#[test]
fn one_secret_for_two_sources() {
    let two = |second: Value| {
        move |c: &mut Value| {
            let mut other = c["sources"][0].clone();
            other["name"] = json!("other");
            other["match"] = json!({ "path": "/other" });
            other["secrets"] = second;
            c["sources"].as_array_mut().unwrap().push(other);
        }
    };
    let same = json!([{ "value": "0123456789abcdef0" }, { "value": crate::support::SECRET }]);
    let expected = "sources[1].secrets[1].value: is a secret of sources[0] as well: who can send for one \
                    of them can send for both; expected secrets of its own";
    assert_eq!(warned(two(same)), [expected]);
    let twice = json!([{ "value": "0123456789abcdef0" }, { "value": "0123456789abcdef0" }]);
    assert!(
        warned(two(twice)).is_empty(),
        "twice in one source is a rotation that is over"
    );
}

#[test]
fn one_vm_of_a_process_says_that_the_filter_starts() {
    let mut shared = callback_guard_core::testkit::MapShared::default();
    let said: Vec<bool> = (0..4).map(|_| log::is_first(&mut shared, b"{}")).collect();
    assert_eq!(said, [true, false, false, false]);
    // Another configuration is another start, also if it was there before.
    assert!(log::is_first(&mut shared, b"{ }"));
    assert!(!log::is_first(&mut shared, b"{ }"));
    assert!(log::is_first(&mut shared, b"{}"));
}
