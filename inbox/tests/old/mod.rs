//! Stores as older versions have left them, for both kinds of database.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// What has made each version of the schema of the one before, as it was published.
pub const STEPS: [&str; 2] = [
    include_str!("../../src/store/schema-1.sql"),
    include_str!("../../src/store/schema-2.sql"),
];

/// The rows of an old store: an event in each state, and two that wait behind one of their id.
///
/// State, id, and how many milliseconds they are due after the present moment: the last two had
/// been put off with the first of `b`, as version 1 did.
const EVENTS: [(i64, &str, i64); 6] = [
    (2, "a", 0),
    (3, "a", 0),
    (1, "a", 0),
    (0, "b", 700),
    (0, "b", 700),
    (0, "b", 700),
];

/// The statements that make a store of `version` with [`EVENTS`] in it.
pub fn statements(version: usize, is_postgres: bool) -> Vec<String> {
    let (integer, bytes, sequence) = match is_postgres {
        true => ("BIGINT", "BYTEA", "CREATE SEQUENCE inbox_turn;\n"),
        false => ("INTEGER", "BLOB", ""),
    };
    let mut all: Vec<String> = STEPS[..version]
        .iter()
        .flat_map(|step| {
            let step = step
                .replace("{integer}", integer)
                .replace("{bytes}", bytes)
                .replace("{sequence}", sequence);
            let parts = step.split(";\n").map(str::trim);
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    all.push(format!(
        "UPDATE inbox_meta SET value = {version} WHERE name = 'version'"
    ));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    for (number, (state, id, pause)) in (1..).zip(EVENTS) {
        let due = now + pause;
        // Of a claim that nobody holds any more, as of an inbox that was killed.
        let claim = if state == 1 { 7 } else { 0 };
        all.push(format!(
            "INSERT INTO inbox_events (event, turn, key, source, id, state, attempts, tries, due, \
             claim, claimed_at, lost_at, received_at, changed_at, bytes) VALUES ({number}, {number}, \
             '{number:064}', 'suno', '{id}', {state}, 0, 0, {due}, {claim}, {claim}, 0, {now}, {now}, 100)"
        ));
        let body = match is_postgres {
            true => format!("decode('3{number}', 'hex')"),
            false => format!("x'3{number}'"),
        };
        all.push(format!(
            "INSERT INTO inbox_payloads (event, target, headers, body) \
             VALUES ({number}, '/', {body}, {body})"
        ));
    }
    let turn = EVENTS.len();
    all.push(match is_postgres {
        true => format!("SELECT setval('inbox_turn', {turn})"),
        false => format!("UPDATE inbox_meta SET value = {turn} WHERE name = 'turn'"),
    });
    all
}

/// Asserts that what was to be delivered was: each event once, those of one id in order, and the others as
/// they were.
#[track_caller]
pub fn assert_delivered(stats: &Value, bodies: &[String]) {
    assert_eq!(stats["delivered"], 5);
    assert_eq!(stats["dead"], 1);
    let (a, b): (Vec<&str>, Vec<&str>) = bodies
        .iter()
        .map(String::as_str)
        .partition(|one| *one == "3");
    assert_eq!(a, ["3"]);
    assert_eq!(b, ["4", "5", "6"]);
}
