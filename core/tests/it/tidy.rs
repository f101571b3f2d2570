//! The invariants of the layout, as tests.

use std::path::{Path, PathBuf};

/// The Rust files below these folders of the repository.
fn sources_below(folders: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut found);
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources() -> Vec<(PathBuf, String)> {
    let found = sources_below(&["src", "core/src", "config/src", "scan/src"]);
    assert!(found.len() > 10);
    found
}

#[test]
fn the_core_reads_no_clock() {
    for (path, text) in sources() {
        for clock in ["SystemTime", "Instant::"] {
            assert!(!text.contains(clock), "{}: {clock}", path.display());
        }
    }
}

/// `config/Cargo.toml` says `test = false`.
#[test]
fn no_test_stands_where_it_would_not_be_run() {
    for (path, text) in sources_below(&["config/src"]) {
        assert!(!text.contains("#[test]"), "{}", path.display());
    }
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn the_contract_has_every_code_with_its_status() {
    use callback_guard_core::verdict::Code;

    let contract = document("docs/contract.md");
    for code in Code::ALL {
        let row = format!("| {} | `{code}` |", code.status());
        let is_there = contract.contains(&row) || *code == Code::Forwarded;
        assert!(
            is_there,
            "docs/contract.md has no row that begins with {row}"
        );
    }
    let rows = contract.lines().filter(|line| {
        line.split('|')
            .nth(1)
            .is_some_and(|cell| cell.trim().parse::<u16>().is_ok())
    });
    assert_eq!(rows.count(), Code::ALL.len() - 1, "rows without a code");
}

#[test]
fn the_configuration_of_envoy_yaml_is_accepted() {
    let yaml = document("envoy.yaml");
    let start = yaml.find("value: |\n").unwrap() + "value: |\n".len();
    let indent = yaml[start..]
        .chars()
        .take_while(|char| *char == ' ')
        .count();
    let text: String = yaml[start..]
        .lines()
        .take_while(|line| line.len() >= indent && line[..indent].trim().is_empty())
        .collect();
    let environment = |name: &str| (name == "SUNO_WEBHOOK_KEY").then(|| b"key".to_vec());
    let policy = callback_guard_config::parse(text.as_bytes(), &environment).unwrap();
    assert_eq!(policy.sources.len(), 1);
}
