//! A running Envoy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{self, Request};
use crate::envoy_binary::EnvoyBinary;
use crate::render::Render;
use crate::wait::{DEADLINE, try_wait_for};
use crate::{child, places};

/// Lines of Envoy's log that an error quotes.
const QUOTED_LINES: usize = 30;

/// How Envoy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub workers: u32,
    /// `--log-level`.
    pub log_level: String,
    /// `--component-log-level`.
    pub component_log_level: String,
    /// All of Envoy's environment.
    pub environment: Vec<(String, String)>,
    /// Whether the listener comes from a file of its own, so that it can be changed meanwhile.
    pub dynamic_listener: bool,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Default for Options {
    /// Two workers; the log at `info`, the guard's included; nothing in the environment.
    fn default() -> Self {
        Self {
            workers: 2,
            log_level: "info".to_owned(),
            component_log_level: "wasm:info,dynamic_modules:info".to_owned(),
            environment: Vec::new(),
            dynamic_listener: false,
            arguments: Vec::new(),
        }
    }
}

/// The result of a new listener configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// It is at work on all workers, for new connections.
    Accepted,
    /// Envoy refused it and keeps the old one; with what the log says.
    Rejected(String),
}

/// A running Envoy, which ends with this value.
///
/// Its files are in a directory of their own. It is removed with it, unless the thread is
/// panicking: then it stays, and its name is printed.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    listener: SocketAddr,
    workers: u32,
    release: Option<(u32, u32)>,
    dynamic_listener: bool,
}

/// The process and its files.
#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
    /// The container's name, where there is one.
    container: Option<String>,
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Envoy {
    /// Starts Envoy and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it does not come up, with the end of its log.
    pub fn start(binary: &EnvoyBinary, render: &Render, options: &Options) -> Result<Self> {
        let render = &render.clone().for_release(binary.release());
        let directory = places::run()?;
        let path = directory.path().to_path_buf();
        let config = if options.dynamic_listener {
            render.write_dynamic(&path)?
        } else {
            render.write(&path)?
        };
        let mut run = Run::new(binary, render, options, &path);
        run.command
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(path.join("admin"))
            .args(["--concurrency", &options.workers.to_string()])
            // The access log is written out soon, not when 64 KB are together.
            .args(["--file-flush-interval-msec", "20"])
            .stdin(Stdio::null())
            .stdout(File::create(path.join("access.log"))?)
            .stderr(File::create(path.join("envoy.log"))?);
        let child = child::spawn(run.command).with_context(|| format!("cannot run {binary}"))?;
        let process = Process {
            child: Mutex::new(child),
            container: binary.is_container().then_some(run.name),
            directory: Some(directory),
            path,
        };

        let (admin, listener) = process
            .wait_until_ready(options.workers)
            .with_context(|| format!("Envoy's log ends with:\n{}", tail(&process.log())))?;
        Ok(Self {
            process,
            admin,
            listener,
            workers: options.workers,
            release: binary.release(),
            dynamic_listener: options.dynamic_listener,
        })
    }

    /// Has Envoy check a configuration (`--mode validate`), the guard's included.
    ///
    /// # Errors
    ///
    /// If it cannot be run. Its findings are in the output.
    pub fn validate(binary: &EnvoyBinary, render: &Render, options: &Options) -> Result<Output> {
        let render = &render.clone().for_release(binary.release());
        let directory = places::run()?;
        let config = render.write(directory.path())?;
        let mut run = Run::new(binary, render, options, directory.path());
        run.command
            .args(["--mode", "validate", "--config-path"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = child::spawn(run.command).with_context(|| format!("cannot run {binary}"))?;
        Ok(child.wait_with_output()?)
    }

    /// Where the listener listens.
    pub fn listener_address(&self) -> SocketAddr {
        self.listener
    }

    /// Where the listener of this name listens, once all workers take its connections.
    ///
    /// # Errors
    ///
    /// If there is none in time.
    pub fn listener_named(&self, name: &str) -> Result<SocketAddr> {
        try_wait_for(DEADLINE, "the listener", || {
            let page = listeners(self.admin)?;
            let known = page.get("listener_statuses").and_then(Value::as_array);
            let known = known.context("no list of listeners")?;
            let created = self.stat("listener_manager.listener_create_success")?;
            let workers = usize::try_from(self.workers)?;
            if usize::try_from(created)? < known.len() * workers {
                return Ok(None);
            }
            let named = known
                .iter()
                .find(|status| status.get("name").is_some_and(|own| own == name));
            named.map(socket_address).transpose()
        })
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Gets a page of the admin interface.
    ///
    /// # Errors
    ///
    /// If it does not answer 200.
    pub fn admin_get(&self, path: &str) -> Result<String> {
        admin(self.admin, &Request::get(path))
    }

    /// Has the admin interface do something.
    ///
    /// # Errors
    ///
    /// If it does not answer 200.
    pub fn admin_post(&self, path: &str) -> Result<String> {
        admin(self.admin, &Request::post(path))
    }

    /// All counters and gauges.
    ///
    /// # Errors
    ///
    /// If the admin interface does not answer.
    pub fn stats(&self) -> Result<BTreeMap<String, u64>> {
        stats(self.admin)
    }

    /// A counter or gauge; 0 if there is none, as Envoy makes many only when they first count.
    ///
    /// # Errors
    ///
    /// If the admin interface does not answer.
    pub fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.stats()?.get(name).copied().unwrap_or(0))
    }

    /// The statistics as Prometheus reads them.
    ///
    /// # Errors
    ///
    /// If the admin interface does not answer.
    pub fn prometheus(&self) -> Result<String> {
        self.admin_get("/stats/prometheus")
    }

    /// Envoy's log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The complete lines of the access log so far.
    ///
    /// # Errors
    ///
    /// If one is no JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        let text = read(&self.process.path.join("access.log"));
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect()
    }

    /// Waits until the access log has a line that `expected` likes, and returns it.
    ///
    /// # Errors
    ///
    /// If none comes in time; the message names `what`.
    pub fn wait_for_access(&self, what: &str, expected: impl Fn(&Value) -> bool) -> Result<Value> {
        try_wait_for(DEADLINE, what, || {
            Ok(self.access_log()?.into_iter().find(|line| expected(line)))
        })
    }

    /// Memory in use, in bytes: what Envoy's allocator has given out, and what the process holds
    /// beside that allocator, as the VMs do. Free pages that the allocator keeps are in neither.
    /// Linux only, and not in a container.
    ///
    /// # Errors
    ///
    /// If the admin interface does not answer, or the system does not say.
    pub fn memory_in_use(&self) -> Result<(u64, u64)> {
        let page: Value = serde_json::from_str(&self.admin_get("/memory")?)?;
        let number = |name: &str| -> Result<u64> {
            let text = page.get(name).and_then(Value::as_str);
            let text = text.with_context(|| format!("/memory has no {name}"))?;
            Ok(text.parse()?)
        };
        let beside = self
            .rss_bytes()?
            .saturating_sub(number("total_physical_bytes")?);
        Ok((number("allocated")?, beside))
    }

    /// Memory that the process holds, in bytes. Linux only, and not in a container.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn rss_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that the process has held since it started, in bytes. Linux only, and not in a
    /// container.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Result<u64> {
        ensure!(
            self.process.container.is_none(),
            "Envoy runs in a container"
        );
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.with_context(|| format!("no {name}"))?.parse()?;
        Ok(kilobytes * 1024)
    }

    /// The id of the process.
    pub fn process_id(&self) -> u32 {
        self.process.child().id()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.process.child().try_wait(), Ok(None))
    }

    /// With which code it has ended; `None` while it runs, or if a signal has ended it.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.child().try_wait().ok().flatten()?.code()
    }

    /// Moves a new listener into place and waits for what Envoy says to it.
    ///
    /// Only the listener of `render` counts. [`Options::dynamic_listener`] must be set.
    ///
    /// # Errors
    ///
    /// If Envoy says nothing in time.
    pub fn update_listener(&self, render: &Render) -> Result<Update> {
        ensure!(self.dynamic_listener, "started without `dynamic_listener`");
        let before = self.stats()?;
        let logged = self.log().len();
        let count = |stats: &BTreeMap<String, u64>, name: &str| {
            let name = format!("listener_manager.{name}");
            stats.get(&name).copied().unwrap_or(0)
        };
        let render = render.clone().for_release(self.release);
        render.write_listener(&self.process.path)?;

        try_wait_for(DEADLINE, "an answer to the listener's update", || {
            let now = self.stats()?;
            let grown = |name| count(&now, name).saturating_sub(count(&before, name));
            if grown("lds.update_rejected") > 0 {
                // The counter may be ahead of the log by a moment.
                let log = self.log();
                let new = log.get(logged..).unwrap_or_default();
                let reason = new.find("rejected").and_then(|start| new.get(start..));
                return Ok(reason.map(|reason| Update::Rejected(reason.trim().to_owned())));
            }
            let changed = grown("listener_modified") + grown("listener_in_place_updated") > 0;
            let on_workers = grown("listener_create_success") >= u64::from(self.workers);
            let accepted = grown("lds.update_success") > 0 && (!changed || on_workers);
            Ok(accepted.then_some(Update::Accepted))
        })
    }

    /// Ends it at once, as a crash does. Its files stay readable.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// A command to run Envoy, with what every run has.
struct Run {
    command: Command,
    name: String,
}

impl Run {
    fn new(binary: &EnvoyBinary, render: &Render, options: &Options, directory: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("callback-guard-{}-{number}", std::process::id());
        let modules: Vec<_> = render.module_path().into_iter().collect();
        let mut environment = render.process_environment();
        environment.extend(options.environment.iter().cloned());
        let mut command = binary.command(&name, &environment, directory, &modules);
        command
            .arg("--disable-hot-restart")
            .args(["--log-level", &options.log_level])
            .args(["--component-log-level", &options.component_log_level])
            .args(&options.arguments);
        Self { command, name }
    }
}

impl Process {
    /// The addresses of admin and listener, as soon as all workers take connections.
    fn wait_until_ready(&self, workers: u32) -> Result<(SocketAddr, SocketAddr)> {
        // The admin interface may be there before it answers: an error then means "not yet".
        try_wait_for(DEADLINE, "Envoy to be ready", || {
            if let Some(status) = self.child().try_wait()? {
                bail!("Envoy ended ({status})");
            }
            let Ok(address) = read(&self.path.join("admin")).trim().parse::<SocketAddr>() else {
                return Ok(None);
            };
            let Ok(stats) = stats(address) else {
                return Ok(None);
            };
            let stat = |name: &str| stats.get(name).copied().unwrap_or(0);
            if stat("listener_manager.lds.update_rejected") > 0 {
                bail!("Envoy rejects the listener");
            }
            let ready = stat("server.live") == 1
                && stat("listener_manager.workers_started") == 1
                && stat("listener_manager.listener_create_success") >= u64::from(workers);
            if !ready {
                return Ok(None);
            }
            let page = listeners(address)?;
            let first = page.pointer("/listener_statuses/0");
            let listener = socket_address(first.context("Envoy has no listener")?)?;
            Ok(Some((address, listener)))
        })
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> String {
        read(&self.path.join("envoy.log"))
    }

    fn kill(&self) {
        if let Some(name) = &self.container {
            let _ = Command::new("docker")
                .args(["kill", name])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            let path = directory.keep();
            eprintln!("Envoy's configuration and logs: {}", path.display());
        }
    }
}

fn admin(address: SocketAddr, request: &Request) -> Result<String> {
    let deadline = Duration::from_secs(10);
    let response = client::send(address, &request.clone().deadline(deadline))?;
    ensure!(
        response.status == 200,
        "Envoy's admin interface answers {} to {}: {}",
        response.status,
        request.path,
        response.text()
    );
    Ok(response.text())
}

/// What the admin interface says of the listeners.
fn listeners(admin_address: SocketAddr) -> Result<Value> {
    let page = admin(admin_address, &Request::get("/listeners?format=json"))?;
    Ok(serde_json::from_str(&page)?)
}

/// The address in one listener's status.
fn socket_address(status: &Value) -> Result<SocketAddr> {
    let socket = status.pointer("/local_address/socket_address");
    let socket = socket.context("a listener without an address")?;
    let text = |name: &str| socket[name].as_str().unwrap_or_default().to_owned();
    Ok(format!("{}:{}", text("address"), socket["port_value"]).parse()?)
}

fn stats(address: SocketAddr) -> Result<BTreeMap<String, u64>> {
    let page = admin(address, &Request::get("/stats?type=All"))?;
    let lines = page.lines().filter_map(|line| line.rsplit_once(": "));
    // Histograms and texts are left out: they are no numbers.
    let numbers = lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    Ok(numbers.collect())
}

/// The text of a file that another process writes; empty as long as it is not there.
fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of Envoy's log, without its list of everything that was compiled in.
fn tail(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("[info][main]"));
    let lines: Vec<_> = lines.collect();
    let start = lines.len().saturating_sub(QUOTED_LINES);
    lines.get(start..).unwrap_or_default().join("\n")
}
