//! The documentation keeps up with the code.

use callback_guard_core::verdict::Code;
use callback_guard_harness::page::{self, Block};
use serde_json::{Value, json};

use crate::support::{repository, run_with};

fn doc(name: &str) -> String {
    std::fs::read_to_string(repository().join("docs").join(name)).unwrap()
}

#[test]
fn troubleshooting_has_every_code_once_with_its_status() {
    let text = doc("troubleshooting.md");
    for code in Code::ALL {
        let heading = format!("\n### `{code}`\n{}", code.status());
        assert_eq!(text.matches(&heading).count(), 1, "{code}");
    }
    assert_eq!(text.matches("\n### ").count(), Code::ALL.len());
}

/// What a block shows, as a configuration: it may be one, or a part of one, with or without braces.
fn configuration(block: &Block) -> Value {
    let shown = block.value().ok().filter(Value::is_object);
    let shown = shown.unwrap_or_else(|| {
        let text = format!("{{{}}}", block.text);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{block:?}: {error}"))
    });
    let has = |name: &str| shown.get(name).is_some();
    let mut source = json!({
        "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "suno",
        "parameters": {}, "secrets": [{ "env": "SUNO_WEBHOOK_KEY" }],
    });
    if has("name") {
        return json!({ "sources": [shown] });
    }
    if has("when") {
        source["parameters"] = json!({ "verify_token": "a token that nobody can guess" });
        source["challenge"] = json!([shown]);
        return json!({ "sources": [source] });
    }
    let is_of_source = ["match", "secrets", "dedupe"].into_iter().any(has);
    let mut whole = json!({ "sources": [source] });
    let place = if is_of_source {
        &mut whole["sources"][0]
    } else {
        &mut whole
    };
    let fields = shown.as_object().unwrap().clone();
    place.as_object_mut().unwrap().extend(fields);
    whole
}

/// All of them, but those that another test takes.
#[test]
fn every_configuration_that_is_shown_is_accepted() {
    let mut count = 0;
    for (page, text) in page::all().unwrap() {
        for block in page::blocks(&text) {
            if block.language != "json" || block.run_by.is_some() {
                continue;
            }
            let configuration = configuration(&block).to_string();
            let check = run_with(&["check", "--assume-env", "-"], &[], &configuration);
            assert_eq!(check.code, 0, "{page}:{}: {}", block.line, check.err);
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// The paths of all fields in a JSON schema, but for those inside of a signature scheme, which
/// presets.md describes.
fn fields(schema: &Value, part: &Value, path: &str, found: &mut Vec<String>) {
    let reference = part.get("$ref").and_then(Value::as_str);
    if let Some(name) = reference.and_then(|text| text.rsplit('/').next()) {
        return fields(schema, &schema["$defs"][name], path, found);
    }
    for choice in ["anyOf", "allOf", "oneOf"] {
        let parts = part.get(choice).and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            fields(schema, part, path, found);
        }
    }
    if let Some(items) = part.get("items").filter(|_| !path.is_empty()) {
        fields(schema, items, &format!("{path}[]"), found);
    }
    let properties = part.get("properties").and_then(Value::as_object);
    for (name, part) in properties.into_iter().flatten() {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        if !found.contains(&path) {
            found.push(path.clone());
        }
        if !["signature", "token", "challenge"].contains(&name.as_str()) {
            fields(schema, part, &path, found);
        }
    }
}

#[test]
fn the_table_of_the_configuration_has_a_row_for_each_field_of_the_schema() {
    let schema: Value = serde_json::from_str(&doc("config.schema.json")).unwrap();
    let mut expected = Vec::new();
    fields(&schema, &schema, "", &mut expected);
    expected.sort();
    let text = doc("configuration.md");
    let mut rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, expected);
}
