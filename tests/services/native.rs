//! The native build as it is shipped: by `deploy/native.sh`, for both architectures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use callback_guard_harness::places;

#[path = "../support/elf.rs"]
#[allow(dead_code, reason = "the rest is for `tests/envoy`")]
mod elf;

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// What `deploy/native.sh` asks for, in a folder of its own.
fn zig() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = fs::read_to_string(script()).unwrap();
        let (_, packages) = script.split_once("`pip install ").unwrap();
        let packages: Vec<_> = packages.split('`').next().unwrap().split(' ').collect();
        let folder = places::target().join("zig").join(packages.join("-"));
        let programs = folder.join("bin");
        if !programs.join("cargo-zigbuild").is_file() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            run(Command::new(programs.join("pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(packages));
        }
        for architecture in ARCHITECTURES {
            let target = format!("{architecture}-unknown-linux-gnu");
            run(Command::new("rustup").args(["target", "add", &target]));
        }
        programs
    })
}

fn script() -> PathBuf {
    places::repository().join("deploy/native.sh")
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The module as the script builds it.
fn built(architecture: &str) -> Vec<u8> {
    let target = places::target().join("zig-built");
    let path = std::env::var("PATH").unwrap();
    run(Command::new(script())
        .args([architecture, "--target-dir"])
        .arg(&target)
        .env("PATH", format!("{}:{path}", zig().display())));
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
        assert_ne!(elf::flags(&module) & u64::from(object::elf::DF_BIND_NOW), 0);
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
