//! Replays what the fuzz targets have found, through the checks that they run.

#[path = "../../../fuzz/checks.rs"]
mod checks;

use std::path::Path;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // A panic says which check; this says which file.
        println!("{}", path.display());
        check(&bytes);
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn bucket() {
    replay("bucket", checks::bucket);
}

#[test]
fn challenge() {
    replay("challenge", checks::challenge);
}

#[test]
fn configuration() {
    replay("configuration", checks::configuration);
}

#[test]
fn head() {
    replay("head", checks::head);
}

#[test]
fn json() {
    replay("json", checks::json);
}

#[test]
fn scheme() {
    replay("scheme", checks::scheme);
}

#[test]
fn request() {
    replay("request", checks::request);
}

#[test]
fn redis() {
    replay("redis", checks::redis);
}
