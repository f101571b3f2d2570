//! The native build as it is shipped: by `deploy/native.sh`, for both architectures.

use std::fs;
use std::process::Command;
use std::sync::Once;

use callback_guard_harness::places;
use callback_guard_support::elf;

use super::deploy::release::with_zig;

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// The script, with what it asks for.
fn script() -> Command {
    static TARGETS: Once = Once::new();
    TARGETS.call_once(|| {
        for architecture in ARCHITECTURES {
            let target = format!("{architecture}-unknown-linux-gnu");
            run(Command::new("rustup").args(["target", "add", &target]));
        }
    });
    with_zig("deploy/native.sh")
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The module as the script builds it.
pub fn built(architecture: &str) -> Vec<u8> {
    let target = places::release_files();
    run(script().args([architecture, "--target-dir"]).arg(&target));
    let file = format!("{architecture}-unknown-linux-gnu/release/libcallback_guard.so");
    fs::read(target.join(file)).unwrap()
}

/// `GLIBC_2.31` as (2, 31); others have no numbers that matter.
fn release(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.strip_prefix("GLIBC_")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn it_runs_where_the_c_library_is_that_of_debian_11() {
    for architecture in ARCHITECTURES {
        let module = built(architecture);
        for version in elf::versions(&module) {
            let release = release(&version);
            assert!(
                release.is_some_and(|release| release <= (2, 31)),
                "{version}"
            );
        }
        for library in elf::libraries(&module) {
            assert!(!library.contains("gcc"), "{library}");
        }
        assert!(elf::is_bound_when_loaded(&module));
    }
}

#[test]
fn it_tells_nothing_of_the_machine_that_built_it() {
    let module = built(std::env::consts::ARCH);
    let text = String::from_utf8_lossy(&module);
    let home = std::env::var("HOME").unwrap();
    for place in [
        places::repository().to_str().unwrap(),
        &home,
        "registry/src",
    ] {
        assert!(!text.contains(place), "{place}");
    }
}
