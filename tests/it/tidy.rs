//! The invariants of the layout, as tests.

use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 10);
    found
}

#[test]
fn only_the_filter_names_the_sdk() {
    for (path, text) in sources() {
        let names = text
            .lines()
            .any(|line| !line.trim_start().starts_with("//") && line.contains("proxy_wasm"));
        assert_eq!(names, path.ends_with("src/filter.rs"), "{}", path.display());
    }
}

#[test]
fn only_the_border_is_unsafe() {
    for (path, text) in sources() {
        let is_unsafe = text
            .lines()
            .any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe "));
        assert_eq!(
            is_unsafe,
            path.ends_with("src/filter/host.rs"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_core_reads_no_clock() {
    for (path, text) in sources() {
        for clock in ["SystemTime", "Instant::"] {
            assert!(!text.contains(clock), "{}: {clock}", path.display());
        }
    }
}
