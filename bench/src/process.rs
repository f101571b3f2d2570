//! Child processes that are watched by the kernel's own accounts and end with the benchmark.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A process and its children.
pub(crate) struct Process {
    child: Child,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of all threads, user and system, in nanoseconds.
    pub(crate) cpu_nanos: u64,
    /// Resident memory in KiB.
    pub(crate) resident_kib: u64,
}

impl Process {
    /// Starts `command`; what it prints goes to `log`.
    pub(crate) fn start(role: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let out = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().context("sharing the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {role}: {command:?}"))?;
        Ok(Self { child })
    }

    /// What the process and its children have used up to now.
    pub(crate) fn usage(&self) -> Usage {
        let mut total = Usage::default();
        let mut open = vec![self.child.id()];
        while let Some(id) = open.pop() {
            let read =
                |name: &str| fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
            total.cpu_nanos += cpu_nanos(&read("stat"));
            // Children belong to the thread that has started them; here that is the first.
            let children = read(&format!("task/{id}/children"));
            open.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
            let status = read("status");
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            total.resident_kib += resident.map_or(0, first_number);
        }
        total
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The worst that a failure leaves is a process that has ended by itself.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.child.wait();
    }
}

/// CPU time out of `/proc/PID/stat`, threads that have ended included, in ticks of 10 ms: fields 14
/// and 15, counted behind the name in parentheses, which is the second.
///
/// Source: proc_pid_stat(5).
fn cpu_nanos(stat: &str) -> u64 {
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * 10_000_000
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
