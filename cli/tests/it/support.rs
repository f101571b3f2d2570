//! Runs the program, and receives what it sends.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The secret of the known answers.
pub(crate) const SECRET: &str = "test-webhook-hmac-key";

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program in an environment that has the secret and nothing else of ours.
#[track_caller]
pub(crate) fn run(arguments: &[&str]) -> Run {
    run_with(arguments, &[("SUNO_WEBHOOK_KEY", SECRET)], "")
}

/// Runs the program with these variables and this standard input.
#[track_caller]
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_callback-guard"))
        .args(arguments)
        .current_dir(repository())
        .env_remove("SUNO_WEBHOOK_KEY")
        .env_remove("SUNO_WEBHOOK_KEY_PREVIOUS")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may have gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder that goes when it is dropped, with one file in it.
pub(crate) struct OneFile {
    _folder: tempfile::TempDir,
    pub(crate) path: String,
}

/// Writes a file.
#[track_caller]
pub(crate) fn file(name: &str, text: &str) -> OneFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    OneFile {
        path: path.to_str().unwrap().to_owned(),
        _folder: folder,
    }
}
