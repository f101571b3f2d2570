//! What is in the images.

use std::fs;
use std::path::Path;
use std::process::Command;

use callback_guard_harness::{places, wasm};
use tempfile::TempDir;

use super::engine::{build, docker, file_of, image, in_container, private_copy_of_the_context};
use crate::deploy::programs::run;
use crate::native;

const MODULE: &str = "/etc/envoy/callback_guard.wasm";
const LIBRARY: &str = "/etc/envoy/libcallback_guard.so";

fn built_here() -> Vec<u8> {
    fs::read(wasm::module(&|_| {}).unwrap()).unwrap()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_change_that_was_undone_is_not_in_the_image() {
    const NAME: &str = "changed_by_a_test";
    // Of a stage, so that nothing else is built a second time.
    const CHANGED: &str = "callback-guard:changed";
    let copy = private_copy_of_the_context();
    let source = copy.path().join("src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let change = format!("\n#[unsafe(no_mangle)]\nextern \"C\" fn {NAME}() {{}}\n");
    fs::write(&source, text + &change).unwrap();
    build(copy.path(), CHANGED, Some("filter"));
    let changed = file_of(CHANGED, "/image/callback_guard.wasm");
    assert!(contains(&changed, NAME));

    // The repository's file is older than the changed one: what cargo has built of that is newer.
    let module = file_of(image(), MODULE);
    assert!(!contains(&module, NAME), "the image holds an older module");
    // Not `assert_eq`, which would print both.
    assert!(
        module == built_here(),
        "the image's module is not that of deploy/module.sh"
    );
    run(&mut docker(&["rmi", "--force", CHANGED]));
}

#[test]
fn envoy_can_read_what_an_image_of_a_private_checkout_holds() {
    for file in [
        MODULE,
        LIBRARY,
        "/etc/envoy/envoy.yaml",
        "/etc/envoy/envoy-native.yaml",
    ] {
        let read = in_container(image(), &["cat", file]);
        assert!(read.status.success(), "{file}: {read:?}");
    }
    let version = in_container(
        image(),
        &["/usr/local/lib/callback-guard/run.sh", "envoy", "--version"],
    );
    let said = String::from_utf8_lossy(&version.stdout);
    assert!(said.contains("/1.40.0/"), "{version:?}");
}

#[test]
fn the_dynamic_module_in_the_image_is_that_of_a_release() {
    let built = native::built(std::env::consts::ARCH);
    assert!(file_of(image(), LIBRARY) == built);
}

#[test]
fn the_image_of_the_filter_holds_the_module_alone() {
    let context = TempDir::new().unwrap();
    let module = built_here();
    fs::write(context.path().join("plugin.wasm"), &module).unwrap();
    let dockerfile = places::repository().join("deploy/docker/Dockerfile");
    run(
        docker(&["build", "--quiet", "--tag", "callback-guard:filter"])
            .arg("--file")
            .arg(dockerfile)
            .arg(context.path()),
    );
    assert!(file_of("callback-guard:filter", "/plugin.wasm") == module);
    let layers = run(&mut docker(&[
        "inspect",
        "--format",
        "{{len .RootFS.Layers}}",
        "callback-guard:filter",
    ]));
    assert_eq!(layers, "1\n");
    run(&mut docker(&["rmi", "--force", "callback-guard:filter"]));
}

/// So that no image is left out of these tests: the files that name one.
#[test]
fn every_docker_and_compose_file_is_run_here() {
    let listed = run(Command::new("git")
        .args(["ls-files"])
        .current_dir(places::repository()));
    let found: Vec<&str> = listed
        .lines()
        .filter(|name| {
            let name = Path::new(name).file_name().unwrap().to_str().unwrap();
            name.starts_with("Dockerfile") || name == "compose.yaml"
        })
        .filter(|name| !name.starts_with("bench/"))
        .collect();
    assert_eq!(
        found,
        [
            "Dockerfile",
            "compose.yaml",
            "deploy/docker/Dockerfile",
            "deploy/redis/compose.yaml"
        ]
    );
}
