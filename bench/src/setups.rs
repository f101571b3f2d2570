//! What is measured: proxies and applications, each with the processes around it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::envoy::{self, Ports, Store};
use crate::port::{free_port, wait_until_open};
use crate::process::{Process, Usage};
use crate::traffic::KEY;
use crate::{peers, stores};

/// Names of rows that the report compares.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const FLOOR: &str = "floor";
pub(crate) const GUARD: &str = "guard";
/// The same module once more: how it differs from the first is noise.
pub(crate) const AGAIN: &str = "guard again (A/A)";
/// The module of 0.1, if it is given by `--also`.
pub(crate) const BEFORE: &str = "guard v01";
pub(crate) const NATIVE: &str = "guard, native";
pub(crate) const LUA: &str = "Envoy Lua filter";
pub(crate) const WEBDIS: &str = "guard, Redis through Webdis";
pub(crate) const NATIVE_REDIS: &str = "guard, native, Redis";

/// One thing to send requests to.
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Envoy's, or nginx's.
    pub(crate) workers: usize,
    /// The proxy, or the application, and what it needs for itself.
    pub(crate) processes: Vec<Process>,
    /// Whether requests that are not genuine are refused.
    pub(crate) refuses: bool,
}

/// Where everything is.
#[derive(Clone)]
pub(crate) struct Workshop {
    /// For configurations, logs and requests.
    pub(crate) folder: PathBuf,
    /// Where Envoy looks for the native build.
    pub(crate) dynamic_modules: PathBuf,
    pub(crate) upstream_port: u16,
    pub(crate) workers: usize,
    /// The capacity of the guard's store, in events.
    pub(crate) capacity: u32,
}

/// Starts this program again, in another role.
pub(crate) fn start_own(role: &'static str, port: u16, folder: &Path) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([role, &port.to_string()]);
    let process = Process::start(role, command, &folder.join(format!("{role}.log")))?;
    wait_until_open(port)?;
    Ok(process)
}

impl Setup {
    /// What each of its processes has used up to now.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        self.processes.iter().map(Process::usage).collect()
    }

    /// Sends one request and returns the status of the answer.
    pub(crate) fn probe(&self, request: &[u8]) -> Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request)?;
        let mut answer = [0; 256];
        let count = stream.read(&mut answer)?;
        let text = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.with_context(|| format!("{}: no status in {text:?}", self.name))
    }
}

impl Workshop {
    /// Envoy with `filters` before the router.
    fn envoy(&self, name: &str, refuses: bool, filters: &[Value]) -> Result<Setup> {
        self.envoy_beside(name, refuses, filters, Vec::new(), |_| {}, &[])
    }

    /// Envoy with `filters` before the router, the processes that these need, a change to the ports and
    /// more variables in its environment.
    fn envoy_beside(
        &self,
        name: &str,
        refuses: bool,
        filters: &[Value],
        beside: Vec<Process>,
        edit: impl FnOnce(&mut Ports),
        environment: &[(&str, &str)],
    ) -> Result<Setup> {
        let mut ports = self.ports()?;
        edit(&mut ports);
        let bootstrap = envoy::bootstrap(ports, filters);
        let mut setup = self.start(name, refuses, ports.listener, &bootstrap, environment)?;
        setup.processes.extend(beside);
        Ok(setup)
    }

    fn ports(&self) -> Result<Ports> {
        Ok(Ports {
            listener: free_port()?,
            upstream: self.upstream_port,
            authorization: 9,
            webdis: 9,
        })
    }

    /// The name of a file for this row.
    fn file(&self, name: &str) -> String {
        let name = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
        format!("{name}-{}", self.workers)
    }

    fn start(
        &self,
        name: &str,
        refuses: bool,
        port: u16,
        bootstrap: &Value,
        environment: &[(&str, &str)],
    ) -> Result<Setup> {
        let file = self.file(name);
        let config = self.folder.join(format!("{file}.json"));
        fs::write(&config, bootstrap.to_string())?;
        let mut command =
            Command::new(std::env::var_os("ENVOY_BIN").unwrap_or_else(|| "envoy".into()));
        command.arg("-c").arg(&config);
        command.args([
            "--concurrency",
            &self.workers.to_string(),
            "--disable-hot-restart",
        ]);
        command.args(["--log-level", "warning"]);
        command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", &self.dynamic_modules);
        command.envs(environment.iter().copied());
        let process = Process::start("Envoy", command, &self.folder.join(format!("{file}.log")))?;
        wait_until_open(port).with_context(|| format!("starting Envoy for {name}"))?;
        Ok(Setup {
            name: name.to_owned(),
            port,
            workers: self.workers,
            processes: vec![process],
            refuses,
        })
    }

    /// Envoy alone.
    pub(crate) fn plain(&self) -> Result<Setup> {
        self.envoy(PLAIN, false, &[])
    }

    /// Envoy that answers 401 by its route table: the least that a refusal by the head costs.
    pub(crate) fn direct_response(&self) -> Result<Setup> {
        let ports = self.ports()?;
        let bootstrap = envoy::direct_response(ports);
        self.start(
            "Envoy direct_response",
            true,
            ports.listener,
            &bootstrap,
            &[],
        )
    }

    /// Envoy with its own buffer filter.
    pub(crate) fn buffer(&self) -> Result<Setup> {
        self.envoy("buffer filter", false, &[envoy::buffer()])
    }

    /// The filter that only holds the body; with `work` it also `reads` or `hashes` it in the VM.
    pub(crate) fn floor(&self, module: &Path, work: Option<&str>) -> Result<Setup> {
        let name = match work {
            Some("reads") => "floor, reading",
            Some("hashes") => "floor, hashing",
            _ => FLOOR,
        };
        let mut filter = envoy::wasm("floor", module, &json!(work));
        if work.is_none()
            && let Some(config) = filter.pointer_mut("/typed_config/config")
        {
            config
                .as_object_mut()
                .map(|config| config.remove("configuration"));
        }
        self.envoy(name, false, &[filter])
    }

    /// The guard.
    pub(crate) fn guard(&self, name: &str, module: &Path) -> Result<Setup> {
        let configuration = envoy::guard(self.capacity, Store::Memory);
        let filter = envoy::wasm("callback-guard", module, &configuration);
        self.envoy(name, true, &[filter])
    }

    /// The guard with its events in Redis, which it reaches through Webdis.
    pub(crate) fn webdis(&self, module: &Path) -> Result<Setup> {
        let file = self.file(WEBDIS);
        let (redis, redis_port) = stores::redis(&self.folder, &file)?;
        let (webdis, port) = stores::webdis(&self.folder, &file, redis_port)?;
        let configuration = envoy::guard(self.capacity, Store::Webdis);
        let filter = envoy::wasm("callback-guard", module, &configuration);
        self.envoy_beside(
            WEBDIS,
            true,
            &[filter],
            vec![webdis, redis],
            |ports| ports.webdis = port,
            &[stores::TOKEN],
        )
    }

    /// The native build of the guard.
    pub(crate) fn native(&self) -> Result<Setup> {
        let filter = envoy::dynamic_module(&envoy::guard(self.capacity, Store::Memory));
        self.envoy(NATIVE, true, &[filter])
    }

    /// The native build with its events in Redis, by a connection of its own.
    pub(crate) fn native_redis(&self) -> Result<Setup> {
        let (redis, port) = stores::redis(&self.folder, &self.file(NATIVE_REDIS))?;
        let filter = envoy::dynamic_module(&envoy::guard(self.capacity, Store::Connection));
        let url = stores::url(port);
        self.envoy_beside(
            NATIVE_REDIS,
            true,
            &[filter],
            vec![redis],
            |_| {},
            &[(stores::URL, &url)],
        )
    }

    /// The check as Lua in Envoy.
    pub(crate) fn lua(&self) -> Result<Setup> {
        self.envoy(LUA, true, &[envoy::lua()])
    }

    /// The check in a Rust service beside Envoy.
    pub(crate) fn external_authorization(&self) -> Result<Setup> {
        let port = free_port()?;
        let service = start_own("authorize", port, &self.folder)?;
        let filter = envoy::external_authorization(port);
        self.envoy_beside(
            "Envoy ext_authz + Rust service",
            true,
            &[filter],
            vec![service],
            |ports| ports.authorization = port,
            &[],
        )
    }

    /// The check in nginx with njs, in front of the same upstream.
    pub(crate) fn nginx(&self) -> Result<Setup> {
        let port = free_port()?;
        let folder = self
            .folder
            .to_str()
            .context("the folder's name is not UTF-8")?;
        let config = include_str!("../peers/nginx.conf")
            .replace("@FOLDER@", folder)
            .replace("@PORT@", &port.to_string())
            .replace("@UPSTREAM@", &self.upstream_port.to_string())
            .replace("@WORKERS@", &self.workers.to_string());
        fs::write(
            self.folder.join("guard.js"),
            include_str!("../peers/guard.js").replace("@KEY@", KEY),
        )?;
        let file = self.folder.join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).args(["-e", "stderr"]);
        self.application("nginx + njs", command, port)
    }

    /// The check in an application with Express.
    pub(crate) fn express(&self) -> Result<Setup> {
        let modules = peers::express(&self.folder)?;
        let port = free_port()?;
        let mut command = Command::new("node");
        command.arg(peers::sources().join("app.js"));
        command
            .env("NODE_PATH", modules)
            .env("NODE_ENV", "production");
        command.env("KEY", KEY).env("PORT", port.to_string());
        self.application("Node + Express", command, port)
    }

    /// The check in an application with FastAPI.
    pub(crate) fn fastapi(&self) -> Result<Setup> {
        let modules = peers::fastapi(&self.folder)?;
        let port = free_port()?;
        let mut command = Command::new("python3");
        command.args(["-m", "uvicorn", "--host", "127.0.0.1"]);
        command.args(["--port", &port.to_string()]);
        command.args(["--no-access-log", "--log-level", "warning", "app:app"]);
        command.current_dir(peers::sources());
        command.env("PYTHONPATH", modules);
        command.env("KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1");
        self.application("Python + FastAPI", command, port)
    }

    fn application(&self, name: &str, command: Command, port: u16) -> Result<Setup> {
        let log = self.folder.join(format!("{}.log", self.file(name)));
        let process = Process::start("application", command, &log)?;
        let mut setup = Setup {
            name: name.to_owned(),
            port,
            workers: self.workers,
            processes: vec![process],
            refuses: true,
        };
        if let Err(error) = wait_until_open(port) {
            let [process] = setup.processes.as_mut_slice() else {
                bail!(error)
            };
            let state = if process.is_alive() {
                "it runs"
            } else {
                "it has ended"
            };
            return Err(error.context(format!("starting {name}: {state}")));
        }
        Ok(setup)
    }
}
