//! Where things are: the repository, the build directory, a directory for each run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Age from which the directory of a run that ended without cleaning up is removed.
const LEFTOVER: Duration = Duration::from_hours(1);

/// The root of the repository.
///
/// A released program knows no checkout (`deploy/program.sh` sets the variable): it looks where it is
/// started.
pub fn repository() -> PathBuf {
    if let Some(given) = option_env!("CALLBACK_GUARD_REPOSITORY") {
        return std::path::absolute(given).unwrap_or_else(|_| given.into());
    }
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.ancestors().nth(2).unwrap_or(harness).to_path_buf()
}

/// The build directory: `CARGO_TARGET_DIR`, or `target` in the repository.
pub fn target() -> PathBuf {
    let name = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    repository().join(name) // An absolute name replaces the whole.
}

/// Where what is shipped is built, as `deploy/release.sh` does it: so nothing is built twice, and no
/// build waits for the cargo that runs this program.
pub fn release_files() -> PathBuf {
    target().join("release-files")
}

/// A new directory for one run, removed on drop.
///
/// It lies under the build directory: a run that is killed leaves its logs there and nowhere else.
pub(crate) fn run() -> Result<TempDir> {
    let runs = target().join("envoy-runs");
    fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
    remove_leftovers(&runs);
    tempfile::Builder::new()
        .prefix(&format!("{}-", std::process::id()))
        .tempdir_in(&runs)
        .with_context(|| format!("cannot create a directory in {}", runs.display()))
}

/// Removes the directories of processes that are gone; what cannot be removed stays.
fn remove_leftovers(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_string_lossy().split('-').next().map(str::to_owned);
        let alive = process.is_some_and(|id| Path::new("/proc").join(id).exists());
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFTOVER));
        if old && !alive {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
