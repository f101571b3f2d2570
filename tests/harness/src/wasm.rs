//! Builds the filter's Wasm module.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::{child, places};

/// The path of `callback_guard.wasm`, built by `deploy/module.sh`.
///
/// The build has a target directory of its own, so that it does not wait for the cargo that runs
/// this program. It is made once per process; cargo sees to it that nothing is built twice. With
/// `CALLBACK_GUARD_WASM` in the environment, that module is taken as it is.
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

fn build(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let directory = places::target().join("wasm");
    let mut command = Command::new(places::repository().join("deploy/module.sh"));
    command
        .args(["--color", "never", "--target-dir"])
        .arg(&directory);
    child::run(command, progress).context("cannot build the filter")?;

    let path = directory.join("wasm32-wasip1/release/callback_guard.wasm");
    ensure!(path.is_file(), "the build made no {}", path.display());
    Ok(path)
}
