//! Child processes that are watched by the kernel's own accounts and end with the benchmark.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A process and its children.
pub(crate) struct Process {
    /// What the report calls it.
    pub(crate) role: &'static str,
    child: Child,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of all threads, of those that have ended, too.
    pub(crate) cpu: Duration,
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
            let read =
                |name: &str| fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
            total.cpu += cpu_of(id);
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

/// By the process' own clock: `/proc/PID/stat` counts in ticks of 10 ms, which is more than a part of a
/// hundred of a run of one second.
fn cpu_of(id: u32) -> Duration {
    let process = Pid::from_raw(i32::try_from(id).unwrap_or(0));
    clock_getcpuclockid(process)
        .and_then(clock_gettime)
        .map_or(Duration::ZERO, Duration::from)
}

/// What this thread has used up to now.
pub(crate) fn cpu_of_this_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
