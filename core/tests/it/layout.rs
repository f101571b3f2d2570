//! The direction of the crates, and of the modules in each of them: what the architecture says, read
//! off the sources.

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

/// The sources of our crates.
const CRATES: [&str; 9] = [
    "bench/src",
    "cli/src",
    "config/src",
    "core/src",
    "inbox/src",
    "native/src",
    "scan/src",
    "src",
    "tests/harness/src",
];

/// Every file of a folder, by its module; that of the crate itself is the empty one.
fn modules(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module = match (prefix, name) {
            (prefix, "mod" | "lib" | "main") => prefix.to_owned(),
            ("", name) => name.to_owned(),
            (prefix, name) => format!("{prefix}::{name}"),
        };
        if path.is_dir() {
            modules(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // A crate can be a library and a program.
            let text = std::fs::read_to_string(&path).unwrap();
            found.entry(module).or_default().push_str(&text);
        }
    }
}

/// The paths of a `use` tree, or of any path, each as its names; returns what comes behind.
fn paths<'t>(text: &'t str, before: &[&'t str], found: &mut Vec<Vec<&'t str>>) -> &'t str {
    let mut path = before.to_vec();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        path.push(name);
        let Some(next) = after.strip_prefix("::") else {
            found.push(path);
            return after;
        };
        let Some(mut list) = next.strip_prefix('{') else {
            rest = next;
            continue;
        };
        loop {
            list = list.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if !list.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                return list;
            }
            list = paths(list, &path, found).trim_start();
            if let Some(alias) = list.strip_prefix("as ") {
                list = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            }
        }
    }
}

/// The other modules that a module names; its tests and comments left out. A folder and its parts are
/// modules like others.
fn named(module: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = known[module].split("#[cfg(test)]\nmod tests").next();
    let mut is_inline = false;
    let mut code = String::new();
    for line in text.unwrap_or_default().lines() {
        let line = line.split("//").next().unwrap_or_default();
        // What is above a module inside of the file is the file.
        is_inline = line.starts_with("mod ") && line.ends_with('{') || is_inline && line != "}";
        let above = if is_inline { "self::" } else { "super::" };
        code.extend([&line.replace("super::", above), "\n"]);
    }
    let own: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    let is_below =
        |name: &str| known.contains_key([&own[..], &[name][..]].concat().join("::").as_str());
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("::") {
        let begin = code[..at].rfind(|c: char| !(c.is_alphanumeric() || c == '_'));
        let begin = begin.map_or(0, |before| before + 1);
        let first = &code[begin..at];
        let is_first = !code[..begin].ends_with([':', '$']);
        if !is_first || !(matches!(first, "crate" | "self" | "super") || is_below(first)) {
            continue;
        }
        let mut all = Vec::new();
        paths(&code[begin..], &[], &mut all);
        for mut path in all {
            let mut from = own.clone();
            match first {
                "crate" => from.clear(),
                "super" => {
                    while path.len() > 1 && path[1] == "super" {
                        path.remove(0);
                        from.pop();
                    }
                    from.pop();
                }
                "self" => {}
                _ => path.insert(0, "self"),
            }
            let whole = [&from[..], &path[1..]].concat();
            let module = (0..=whole.len()).rev().map(|end| whole[..end].join("::"));
            found.extend(module.into_iter().find(|module| known.contains_key(module)));
        }
    }
    found.remove(module);
    found
}

/// The modules that are in circles, or lead to one, with those that they name.
fn circles(known: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let names = |module: &String| (module.clone(), named(module, known));
    let mut ahead: BTreeMap<_, _> = known.keys().map(names).collect();
    // What names nobody that is left goes, until none is left, or only circles.
    loop {
        let left: BTreeSet<String> = ahead.keys().cloned().collect();
        ahead.retain(|_, names| !names.is_disjoint(&left));
        if ahead.len() == left.len() {
            return ahead;
        }
    }
}

#[test]
fn no_module_is_in_a_circle() {
    for sources in CRATES {
        let mut known = BTreeMap::new();
        modules(&root().join(sources), "", &mut known);
        assert!(known.len() > 3, "{sources}");
        assert_eq!(circles(&known), BTreeMap::new(), "{sources}");
    }
}

#[test]
fn a_circle_is_seen_however_its_modules_are_named() {
    let sources = |all: &[(&str, &str)]| -> Vec<String> {
        let all = all
            .iter()
            .map(|(module, text)| ((*module).into(), (*text).into()));
        circles(&all.collect()).into_keys().collect()
    };
    assert_eq!(
        sources(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "")]),
        [""; 0]
    );
    for (a, b) in [
        ("use crate::b::B;", "fn f(_: super::a::A) {}"),
        (
            "use crate::{\n    x, b::{self, B as C},\n};",
            "use crate::a;",
        ),
    ] {
        let all = [("", "mod a; mod b;"), ("a", a), ("b", b)];
        assert_eq!(sources(&all), ["a", "b"], "{a} {b}");
    }
    // A part, and the file of its folder; a constant of the crate itself.
    assert_eq!(
        sources(&[("a", "use b::B;"), ("a::b", "use super::A;")]),
        ["a", "a::b"]
    );
    assert_eq!(
        sources(&[("", "use a::A;"), ("a", "use crate::ONE;")]),
        ["", "a"]
    );
    // What is above a module inside of a file is the file, up to the module's end.
    let inline = "mod b;\nmod inner {\n    use super::A;\n}";
    assert_eq!(sources(&[("a", inline), ("", "use a::A;")]), [""; 0]);
    let behind = "mod inner {\n}\nfn f() -> super::A {}";
    assert_eq!(sources(&[("a", behind), ("", "use a::A;")]), ["", "a"]);
    // Comments and tests do not count.
    let tests = "// crate::b\n#[cfg(test)]\nmod tests { use crate::b::B; }";
    assert_eq!(sources(&[("a", tests), ("b", "use crate::a;")]), [""; 0]);
}
