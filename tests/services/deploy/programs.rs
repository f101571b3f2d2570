//! Programs that tests run, installed where they are missing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use callback_guard_harness::places;

/// Where `program` is. Debian's `package` has it.
///
/// # Panics
///
/// If it is not there and cannot be installed; the message says how to get it.
#[track_caller]
pub fn find(program: &str, package: &str) -> PathBuf {
    static TRIED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

    if let Some(found) = on_path(program) {
        return found;
    }
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if tried.insert(package.to_owned()) {
        install(package);
    }
    drop(tried);
    on_path(program).unwrap_or_else(|| {
        panic!("`{program}` is not on the PATH and could not be installed: apt-get install -y {package}")
    })
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Fails quietly: whoever looks for the program then says what is missing.
fn install(package: &str) {
    for arguments in [
        vec!["update", "-qq"],
        vec!["install", "-y", "-qq", "--no-install-recommends", package],
    ] {
        let _ = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output();
    }
}

/// Where npm has installed the packages that are pinned in a folder beside this file, with more files of that
/// folder.
#[track_caller]
pub fn npm_packages(folder: &str, files: &[&str]) -> PathBuf {
    let from = places::repository()
        .join("tests/services/deploy")
        .join(folder);
    let directory = places::target().join(folder);
    fs::create_dir_all(&directory).unwrap();
    for name in ["package.json", "package-lock.json"].iter().chain(files) {
        fs::copy(from.join(name), directory.join(name)).unwrap();
    }
    let lock = fs::read(from.join("package-lock.json")).unwrap();
    let stamp = directory.join("installed");
    if fs::read(&stamp).ok().as_ref() != Some(&lock) {
        run(Command::new(find("npm", "npm"))
            .current_dir(&directory)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .args(["--loglevel", "error"]));
        fs::write(stamp, lock).unwrap();
    }
    directory
}

/// What a program that must succeed writes.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A program that ends with this value.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
