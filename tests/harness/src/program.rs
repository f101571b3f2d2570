//! Builds the repository's programs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::{child, places};

/// The path of a package's program, built once per process, optimized or not.
///
/// # Errors
///
/// If the build fails; then with the compiler's last words.
pub fn built(
    package: &str,
    name: &str,
    optimized: bool,
    progress: &dyn Fn(&str),
) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

    let profile = if optimized { "release" } else { "debug" };
    let path = places::target().join(profile).join(name);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(&path) {
        return Ok(path);
    }
    let mut command = Command::new("cargo");
    command.current_dir(places::repository()).args([
        "build",
        "--color",
        "never",
        "--package",
        package,
    ]);
    if optimized {
        command.arg("--release");
    }
    child::run(command, progress).with_context(|| format!("cannot build {name}"))?;
    ensure!(path.is_file(), "the build made no {}", path.display());
    built.insert(path.clone());
    Ok(path)
}
