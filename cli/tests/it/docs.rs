//! The documentation keeps up with the code.

use callback_guard_core::verdict::Code;
use serde_json::Value;

use crate::support::repository;

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

#[test]
fn commands_in_the_documentation_exist() {
    for name in [
        "envoy.md",
        "migrating.md",
        "native.md",
        "rotation.md",
        "runbook.md",
        "troubleshooting.md",
        "upgrading.md",
    ] {
        let text = doc(name);
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("callback-guard "));
        let commands = lines.filter(|(before, _)| {
            before.trim().is_empty() || before.ends_with("one ") || before.ends_with('`')
        });
        let mut count = 0;
        for (_, rest) in commands {
            let command = rest.split('`').next().unwrap();
            let words: Vec<&str> = command.split_whitespace().collect();
            let help = crate::support::run(&[words[0], "--help"]);
            assert_eq!(help.code, 0, "{name}: {rest}");
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.out.contains(flag), "{name}: {rest}: {flag}");
            }
            count += 1;
        }
        assert!(count > 0, "{name}");
    }
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
