//! The inbox as a process of its own, and a PostgreSQL for it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{self, Request};
use crate::clock::Clock;
use crate::upstream::unused_address;
use crate::wait::{try_wait_for, wait_for};
use crate::{child, places, program};

/// How long an inbox may take to come up: a killed one's store may have much to read again.
const START: Duration = Duration::from_secs(180);

/// The path of `callback-guard-inbox`, built once per process, optimized or not.
///
/// # Errors
///
/// If the build fails; then with the compiler's last words.
pub fn program(optimized: bool, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    program::built(
        "callback-guard-inbox",
        "callback-guard-inbox",
        optimized,
        progress,
    )
}

/// How an inbox is to be run.
#[derive(Clone, Debug)]
#[must_use]
pub struct InboxSetup {
    program: PathBuf,
    directory: Arc<TempDir>,
    store: String,
    to: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl InboxSetup {
    /// An inbox on a new SQLite file that delivers to `to`.
    ///
    /// # Errors
    ///
    /// If there is no free port, or no directory can be made.
    pub fn new(program: &Path, to: &str) -> Result<Self> {
        let directory = Arc::new(places::run()?);
        let file = directory.path().join("inbox.db");
        Ok(Self {
            program: program.to_owned(),
            store: format!("sqlite:{}", file.display()),
            directory,
            to: to.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            listen: unused_address()?,
            admin: unused_address()?,
        })
    }

    /// The same on other ports, for one more inbox on the same store.
    ///
    /// # Errors
    ///
    /// If there is no free port.
    pub fn another(&self) -> Result<Self> {
        Ok(Self {
            listen: unused_address()?,
            admin: unused_address()?,
            ..self.clone()
        })
    }

    /// Another store.
    pub fn store(mut self, store: &str) -> Self {
        self.store = store.to_owned();
        self
    }

    /// More flags.
    pub fn arguments<T: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        let more = arguments.into_iter().map(|text| text.as_ref().to_owned());
        self.arguments.extend(more);
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the inbox a wall clock of its own.
    pub fn clock(self, clock: &Clock) -> Self {
        let [(library, clock), (ahead, file)] = clock.environment();
        self.env(library, &clock).env(ahead, &file)
    }

    /// A command that runs the program, which follows it.
    pub fn wrapper(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Where the store's file is, with SQLite, and what else the inbox has.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The store, as the flag has it.
    pub fn store_flag(&self) -> &str {
        &self.store
    }

    fn command(&self, first: &str) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg(first).envs(self.environment.iter().cloned());
        command.args(["--store", &self.store]);
        command
    }

    /// Runs one of the commands beside the inbox to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn tool(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let mut tool = self.command(command);
        tool.args(arguments);
        Ok(tool.stdin(Stdio::null()).output()?)
    }

    /// What a command prints as JSON.
    ///
    /// # Errors
    ///
    /// If it fails, with what it says.
    pub fn json(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--json"];
        all.extend_from_slice(arguments);
        let output = self.tool(command, &all)?;
        if !output.status.success() {
            bail!("{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it ends instead, with what it says.
    pub fn start(&self) -> Result<Inbox> {
        let log = self
            .directory
            .path()
            .join(format!("inbox-{}.log", self.listen.port()));
        let mut command = self.command("run");
        command
            .args(["--to", &self.to])
            .args(["--listen", &self.listen.to_string()])
            .args(["--admin", &self.admin.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(&log)?);
        let mut child = child::spawn(command).context("cannot run the inbox")?;
        let up = try_wait_for(START, "the inbox", || {
            if let Some(status) = child.try_wait()? {
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("the inbox ended ({status}):\n{text}");
            }
            Ok(TcpStream::connect(self.admin).ok())
        });
        let inbox = Inbox {
            setup: self.clone(),
            child: Some(child),
            log,
        };
        up.map(|_| inbox)
    }
}

/// A running inbox; it is killed with this value.
#[derive(Debug)]
pub struct Inbox {
    /// How it was started.
    pub setup: InboxSetup,
    child: Option<Child>,
    log: PathBuf,
}

impl Inbox {
    /// Where callbacks go.
    pub fn address(&self) -> SocketAddr {
        self.setup.listen
    }

    /// Where metrics and health are.
    pub fn admin_address(&self) -> SocketAddr {
        self.setup.admin
    }

    /// The process.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Hands over a callback as the guard would.
    ///
    /// # Errors
    ///
    /// If there is no complete response.
    pub fn send(&self, key: &str, id: &str, body: &[u8]) -> Result<client::Response> {
        client::send(self.address(), &callback(key, id, body))
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, on the same ports.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        *self = self.setup.start()?;
        Ok(())
    }

    /// Sends SIGTERM, and does not wait.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub fn terminate(&self) -> Result<()> {
        let id = self.process_id().context("the inbox is not running")?;
        let sent = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()?;
        ensure!(sent.success(), "the inbox cannot be told to stop");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the inbox is not running")?;
        let ended = wait_for("the inbox to end", || child.try_wait().ok().flatten());
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended
    }

    /// What it has logged.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The value of a metric, by its whole name with labels; 0 if it is not there.
    ///
    /// # Errors
    ///
    /// If the inbox does not answer.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = client::send(self.admin_address(), &Request::get("/metrics"))?.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0.0), str::parse)?)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A callback as the guard hands it over.
pub fn callback(key: &str, id: &str, body: &[u8]) -> Request {
    Request::post("/callbacks/suno")
        .header("x-callback-guard-key", key)
        .header("x-callback-guard-source", "suno")
        .header("x-callback-guard-id", id)
        .json(client::Body::one_piece(body.to_vec()))
}

/// A PostgreSQL of its own, with its data under the build directory.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Postgres {
    /// Finds PostgreSQL's programs, installs them where that can be done without a question, and
    /// starts a new, empty server.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not come up.
    pub fn start() -> Result<Self> {
        let programs = postgres_programs()?;
        let mut directory = places::run()?;
        if is_root() {
            // The server refuses to run as root, and its user must reach its folder.
            let own = |directory: &Path| {
                let mut owner = Command::new("chown");
                owner.arg("postgres").arg(directory);
                child::run(owner, &|_| {})?;
                let mut reach = as_server(Path::new("ls"));
                reach.arg(directory);
                child::run(reach, &|_| {})
            };
            if own(directory.path()).is_err() {
                directory = tempfile::tempdir()?;
                own(directory.path())?;
            }
        }
        let data = directory.path().join("data");
        let mut init = as_server(&programs.join("initdb"));
        init.args([
            "--auth",
            "trust",
            "--username",
            "inbox",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ])
        .arg("--pgdata")
        .arg(&data)
        .current_dir(directory.path());
        child::run(init, &|_| {}).context("cannot make a PostgreSQL cluster")?;
        let mut postgres = Self {
            programs,
            directory,
            address: unused_address()?,
            child: None,
        };
        postgres.restart()?;
        Ok(postgres)
    }

    /// Starts it again on the same port, with what it has on disk.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let up = try_wait_for(START, "PostgreSQL to take queries", || {
            // Processes of a killed server may live a moment longer, and keep a new one out.
            let is_running = match &mut self.child {
                Some(child) => child.try_wait()?.is_none(),
                None => false,
            };
            if !is_running {
                self.child = Some(self.spawn()?);
            }
            Ok(self.query("SELECT 1").ok())
        });
        up.map(drop)
    }

    fn spawn(&self) -> Result<Child> {
        let data = self.directory.path().join("data");
        let mut command = as_server(&self.programs.join("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.address.port().to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=500"])
            .current_dir(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(
                self.directory.path().join("postgres.log"),
            )?);
        child::spawn(command).context("cannot run postgres")
    }

    /// Ends all of it at once, as a power cut does for the processes.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // A new server does not start beside the children of a killed one, and those need not end at
        // once: all of it ends here, the first process stopped so that it makes no more.
        let id = child.id().to_string();
        let _ = Command::new("kill").args(["-STOP", &id]).status();
        let _ = Command::new("pkill").args(["-KILL", "-P", &id]).status();
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(self.directory.path().join("data/postmaster.pid"));
    }

    /// Its URL, as `--store` takes it.
    pub fn url(&self) -> String {
        format!("postgres://inbox@{}/postgres", self.address)
    }

    /// Runs one statement.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses it.
    pub fn query(&self, statement: &str) -> Result<String> {
        let output = Command::new("psql")
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.url(),
                "-c",
                statement,
            ])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// `program` as the user that PostgreSQL's package has made, where this one is root.
fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
        "--clear-groups",
    ]);
    command.arg(program);
    command
}

fn postgres_programs() -> Result<PathBuf> {
    static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);

    let find = || {
        let versions = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten();
        let mut all: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        all.extend(std::env::split_paths(&path));
        all.into_iter()
            .find(|folder| folder.join("initdb").is_file())
    };
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = found.clone().or_else(find) {
        return Ok(found.insert(folder).clone());
    }
    let mut why = String::new();
    for arguments in [
        &["update", "-qq"][..],
        &["install", "-y", "-qq", "postgresql", "postgresql-client"],
    ] {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        if let Err(error) = child::run(command, &|_| {}) {
            why = format!("\n{error:#}");
        }
    }
    let folder = find().with_context(|| {
        format!(
            "PostgreSQL is needed and not there. On Debian and Ubuntu: \
             `sudo apt-get install postgresql`{why}"
        )
    })?;
    Ok(found.insert(folder).clone())
}
