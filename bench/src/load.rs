//! The load at saturation: wrk sends as fast as the answers come.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What the load generator saw.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) requests: u32,
    pub(crate) microseconds: u32,
    pub(crate) refused: u32,
    pub(crate) failed: u32,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.requests) * 1e6 / f64::from(self.microseconds.max(1))
    }
}

/// Sends the requests of `records` to `port` for `seconds`.
pub(crate) fn run(port: u16, connections: usize, seconds: u64, records: &Path) -> Result<Seen> {
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--timeout", "10s"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(send_script());
    let output = command
        .arg(format!("http://127.0.0.1:{port}/"))
        .arg("--")
        .arg(records)
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    ensure!(
        output.status.success(),
        "{command:?} failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = result.with_context(|| format!("{command:?} printed no result: {text}"))?;
    serde_json::from_str(result).with_context(|| format!("reading {result}"))
}

fn send_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("send.lua")
}
