//! Child processes that are watched by the kernel's own accounts and end with the benchmark.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A process and its children.
pub(crate) struct Process {
    pub(crate) role: &'static str,
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
        Ok(Self { role, child })
    }

    /// What the process and its children have used up to now.
    pub(crate) fn usage(&self) -> Usage {
        let mut total = Usage::default();
        let mut open = vec![self.child.id()];
        while let Some(id) = open.pop() {
            let task_folder = format!("/proc/{id}/task");
            let Ok(tasks) = fs::read_dir(&task_folder) else {
                continue;
            };
            for task in tasks.flatten() {
                let read =
                    |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                total.cpu_nanos += first_number(&read("schedstat"));
                let children = read("children");
                open.extend(
                    children
                        .split_whitespace()
                        .filter_map(|id| id.parse::<u32>().ok()),
                );
            }
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
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

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
