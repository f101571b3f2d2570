//! Builds the guard as Envoy's dynamic module.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::{child, places};

/// What `dynamic_module_config.name` says: the file is `lib<name>.so`.
pub const NAME: &str = "callback_guard";

/// The variable that tells Envoy in which directory modules are.
pub const SEARCH_PATH_VARIABLE: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";

/// The path of `libcallback_guard.so`, built for this machine.
///
/// It is made once per process, in a target directory of its own. With `CALLBACK_GUARD_NATIVE` in the
/// environment, that module is taken as it is.
///
/// # Errors
///
/// If the build fails; then with the compiler's last words.
pub fn module(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);

    if let Some(ready) = env::var_os("CALLBACK_GUARD_NATIVE") {
        return std::path::absolute(PathBuf::from(&ready))
            .ok()
            .filter(|path| path.is_file())
            .with_context(|| format!("CALLBACK_GUARD_NATIVE: no file {}", ready.display()));
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let path = build(progress)?;
    Ok(built.insert(path).clone())
}

fn build(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let directory = places::target().join("native");
    let mut command = Command::new("cargo");
    command
        .current_dir(places::repository())
        .args(["build", "--color", "never", "--release", "--locked"])
        .args(["--manifest-path", "native/Cargo.toml", "--target-dir"])
        .arg(&directory);
    child::run(command, progress).context("cannot build the native module")?;

    let path = directory.join("release/libcallback_guard.so");
    ensure!(path.is_file(), "the build made no {}", path.display());
    Ok(path)
}
