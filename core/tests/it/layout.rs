//! The direction of the crates, and of the core's modules: what the architecture says, read off the
//! sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a manifest depends on, tests left out.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(manifest)).unwrap();
    let mut found = BTreeSet::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if is_inside && let Some((name, _)) = line.split_once(['=', '.']) {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

#[test]
fn nobody_depends_on_a_shell_and_the_rules_on_no_sdk() {
    let ours = |names: BTreeSet<String>| -> Vec<String> {
        names
            .into_iter()
            .filter(|name| name.starts_with("callback-guard"))
            .collect()
    };
    assert_eq!(ours(dependencies("scan/Cargo.toml")), [""; 0]);
    assert_eq!(
        ours(dependencies("core/Cargo.toml")),
        ["callback-guard-scan"]
    );
    assert_eq!(
        ours(dependencies("config/Cargo.toml")),
        ["callback-guard-core"]
    );
    let shells = ["callback-guard", "callback-guard-native"];
    for manifest in [
        "Cargo.toml",
        "cli/Cargo.toml",
        "inbox/Cargo.toml",
        "bench/Cargo.toml",
    ] {
        let names = dependencies(manifest);
        assert!(!names.is_empty(), "{manifest}");
        for shell in shells {
            assert!(!names.contains(shell), "{manifest} depends on {shell}");
        }
    }
    for manifest in ["scan/Cargo.toml", "core/Cargo.toml", "config/Cargo.toml"] {
        let names = dependencies(manifest);
        for sdk in ["proxy-wasm", "tokio", "libc", "hyper"] {
            assert!(!names.contains(sdk), "{manifest} depends on {sdk}");
        }
    }
}

/// Every file of the core, by its module.
fn modules(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module = match (prefix, name) {
            (prefix, "mod" | "lib") => prefix.to_owned(),
            ("", name) => name.to_owned(),
            (prefix, name) => format!("{prefix}::{name}"),
        };
        if path.is_dir() {
            modules(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !module.is_empty()
        {
            found.insert(module, std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The modules that a file names by `crate::`; its tests and comments left out.
fn named(text: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let end = after.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        let path = after[..end.unwrap_or(after.len())].trim_end_matches(':');
        let list = after[path.len()..].strip_prefix("::{");
        let list = list.and_then(|list| list.split('}').next()).unwrap_or("");
        for item in list.split(',') {
            let item = item.trim().split([':', ' ']).next().unwrap_or_default();
            let whole = format!("{path}::{item}");
            let parts: Vec<&str> = whole.split("::").collect();
            let module = (1..=parts.len()).rev().map(|end| parts[..end].join("::"));
            found.extend(module.into_iter().find(|module| known.contains_key(module)));
        }
    }
    found
}

/// Types of one module that another only holds: the configured challenges in the policy, and the answer
/// to one among the answers.
const HELD_ONLY: [(&str, &str); 2] = [("policy", "challenge"), ("reply", "challenge")];

#[test]
fn no_module_of_the_core_is_in_a_circle() {
    let mut files = BTreeMap::new();
    modules(&root().join("core/src"), "", &mut files);
    assert!(files.len() > 20);
    let folder = |module: &str| module.split("::").next().unwrap().to_owned();
    let mut ahead: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &files {
        let mut names = named(text, &files);
        // Inside a folder a file and its parts may know each other.
        names.retain(|name| {
            let is_part = name.starts_with(module.as_str()) || module.starts_with(name.as_str());
            let is_held = HELD_ONLY.contains(&(module.as_str(), name.as_str()));
            name != module && !(folder(name) == folder(module) && is_part) && !is_held
        });
        ahead.insert(module.clone(), names);
    }
    // What names nobody that is left goes, until none is left, or only circles.
    while !ahead.is_empty() {
        let free: Vec<String> = ahead
            .iter()
            .filter(|(_, names)| names.iter().all(|name| !ahead.contains_key(name)))
            .map(|(module, _)| module.clone())
            .collect();
        assert!(!free.is_empty(), "circles among {ahead:#?}");
        for module in free {
            ahead.remove(&module);
        }
    }
}
