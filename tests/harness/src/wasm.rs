//! Builds the filter's Wasm module.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::{child, places};

/// The path of `callback_guard.wasm`, built by `deploy/module.sh`.
///
/// It is made once per process, in [`places::release_files`]. With `CALLBACK_GUARD_WASM` in the
/// environment, that module is taken as it is.
///
/// # Errors
///
/// If the build fails; then with the compiler's last words.
pub fn module(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);

    if let Some(ready) = env::var_os("CALLBACK_GUARD_WASM") {
        return std::path::absolute(PathBuf::from(&ready))
            .ok()
            .filter(|path| path.is_file())
            .with_context(|| format!("CALLBACK_GUARD_WASM: no file {}", ready.display()));
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let path = build(progress)?;
    Ok(built.insert(path).clone())
}

const TARGET: &str = "wasm32-wasip1";

/// Installs the target's standard library where it is not there: the toolchain file names it, and
/// rustup heeds that only while it may install by itself.
fn install_target(progress: &dyn Fn(&str)) -> Result<()> {
    let output = Command::new("rustc")
        .current_dir(places::repository())
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    command
        .current_dir(places::repository())
        .args(["target", "add", TARGET]);
    child::run(command, progress)
        .with_context(|| format!("the target {TARGET} is missing: `rustup target add {TARGET}`"))
}

fn build(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    install_target(progress)?;
    let directory = places::release_files();
    let mut command = Command::new(places::repository().join("deploy/module.sh"));
    command
        .args(["--color", "never", "--target-dir"])
        .arg(&directory);
    child::run(command, progress).context("cannot build the filter")?;

    let path = directory.join("wasm32-wasip1/release/callback_guard.wasm");
    ensure!(path.is_file(), "the build made no {}", path.display());
    Ok(path)
}
