//! What is in the images.

use std::fs;
use std::path::Path;
use std::process::Command;

use callback_guard_harness::{places, wasm};
use tempfile::TempDir;

use super::engine::{build, docker, file_of, image, in_container};
use crate::deploy::programs::run;
use crate::native;

const MODULE: &str = "/etc/envoy/callback_guard.wasm";
const LIBRARY: &str = "/etc/envoy/libcallback_guard.so";

fn built_here() -> Vec<u8> {
    fs::read(wasm::module(&|_| {}).unwrap()).unwrap()
}

/// What the Dockerfile gets of the repository, in a copy as umask 077 makes it.
fn private_copy() -> TempDir {
    let directory = TempDir::new().unwrap();
    let repository = places::repository();
    let ignore = fs::read_to_string(repository.join(".dockerignore")).unwrap();
    let sent = ignore.lines().filter_map(|line| line.strip_prefix('!'));
    for name in sent.chain(["Dockerfile", ".dockerignore"]) {
        let to = directory.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp")
            .args(["-R", "--preserve=timestamps"])
            .arg(repository.join(name))
            .arg(to));
    }
    let _ = fs::remove_dir_all(directory.path().join("native/target"));
    run(Command::new("chmod")
        .args(["-R", "go="])
        .arg(directory.path()));
    directory
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_change_that_was_undone_is_not_in_the_image() {
    const NAME: &str = "changed_by_a_test";
    let copy = private_copy();
    let source = copy.path().join("src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let change = format!("\n#[unsafe(no_mangle)]\nextern \"C\" fn {NAME}() {{}}\n");
    fs::write(&source, text + &change).unwrap();
    build(copy.path(), "callback-guard:changed");
    assert!(contains(&file_of("callback-guard:changed", MODULE), NAME));

    // The repository's file is older than the changed one: what cargo has built of that is newer.
    let module = file_of(image(), MODULE);
    assert!(!contains(&module, NAME), "the image holds an older module");
    // Not `assert_eq`, which would print both.
    assert!(
        module == built_here(),
        "the image's module is not that of deploy/module.sh"
    );

    // A checkout with umask 077: Envoy can read its files all the same.
    for file in [
        MODULE,
        LIBRARY,
        "/etc/envoy/envoy.yaml",
        "/etc/envoy/envoy-native.yaml",
    ] {
        let read = in_container("callback-guard:changed", &["cat", file]);
        assert!(read.status.success(), "{file}: {read:?}");
    }
    let version = in_container(
        "callback-guard:changed",
        &["/usr/local/lib/callback-guard/run.sh", "envoy", "--version"],
    );
    let said = String::from_utf8_lossy(&version.stdout);
    assert!(said.contains("/1.40.0/"), "{version:?}");
    run(&mut docker(&["rmi", "--force", "callback-guard:changed"]));
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
