//! What the applications in `bench/peers` need, pinned there, installed under `target/bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where these files are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The folder with Express.
pub(crate) fn express(folder: &Path) -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json"];
    let installed = install(&folder.join("node"), &files, |_| {
        let mut command = Command::new("npm");
        command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        command
    })?;
    Ok(installed.join("node_modules"))
}

/// The folder with FastAPI and uvicorn.
pub(crate) fn fastapi(folder: &Path) -> Result<PathBuf> {
    install(&folder.join("python"), &["requirements.txt"], |folder| {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]);
        command.args(["--disable-pip-version-check", "--only-binary", ":all:"]);
        command.args(["-r", "requirements.txt", "--target"]);
        command.arg(folder);
        command
    })
}

/// Runs the command in `folder`, with copies of `files`, unless it has been run for just these before.
fn install(
    folder: &Path,
    files: &[&str],
    command: impl FnOnce(&Path) -> Command,
) -> Result<PathBuf> {
    let wanted: Result<String, _> = files
        .iter()
        .map(|name| fs::read_to_string(sources().join(name)))
        .collect();
    let wanted = wanted.context("reading bench/peers")?;
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(folder.to_owned());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder)?;
    for name in files {
        fs::copy(sources().join(name), folder.join(name))?;
    }
    eprintln!("installing what {} names", files.join(" and "));
    let mut command = command(folder);
    command.current_dir(folder);
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(stamp, wanted)?;
    Ok(folder.to_owned())
}
