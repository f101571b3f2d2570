//! What is measured: proxies and applications, each with the processes around it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::envoy::{self, Ports};
use crate::process::Process;
use crate::traffic::KEY;

/// One thing to send requests to.
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// The proxy, or the application, and what it needs for itself.
    pub(crate) processes: Vec<Process>,
    /// Whether requests that are not genuine are refused.
    pub(crate) refuses: bool,
}

/// Where everything is.
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

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until somebody listens on `port`.
pub(crate) fn wait_until_open(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(
            Instant::now() < deadline,
            "nothing listens on port {port} after 20 s"
        );
        sleep(Duration::from_millis(20));
    }
    Ok(())
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
    fn envoy(
        &self,
        name: &str,
        refuses: bool,
        filters: &[Value],
        authorization: u16,
    ) -> Result<Setup> {
        let ports = Ports {
            listener: free_port()?,
            upstream: self.upstream_port,
            authorization,
        };
        self.envoy_with(
            name,
            refuses,
            ports.listener,
            &envoy::bootstrap(ports, filters),
        )
    }

    fn envoy_with(&self, name: &str, refuses: bool, port: u16, bootstrap: &Value) -> Result<Setup> {
        let file = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
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
        let process = Process::start("envoy", command, &self.folder.join(format!("{file}.log")))?;
        wait_until_open(port).with_context(|| format!("starting Envoy for {name}"))?;
        Ok(Setup {
            name: name.to_owned(),
            port,
            processes: vec![process],
            refuses,
        })
    }

    /// Envoy alone.
    pub(crate) fn plain(&self) -> Result<Setup> {
        self.envoy("plain", false, &[], 9)
    }

    /// Envoy that answers 401 by its route table: the least that a refusal by the head costs.
    pub(crate) fn direct_response(&self) -> Result<Setup> {
        let port = free_port()?;
        let ports = Ports {
            listener: port,
            upstream: self.upstream_port,
            authorization: 9,
        };
        let bootstrap = envoy::direct_response(ports);
        self.envoy_with("Envoy direct_response", true, port, &bootstrap)
    }

    /// Envoy with its own buffer filter.
    pub(crate) fn buffer(&self) -> Result<Setup> {
        self.envoy("buffer filter", false, &[envoy::buffer()], 9)
    }

    /// The filter that only holds the body; with `work` it also `reads` or `hashes` it in the VM.
    pub(crate) fn floor(&self, module: &Path, work: Option<&str>) -> Result<Setup> {
        let name = match work {
            Some("reads") => "floor, reading",
            Some("hashes") => "floor, hashing",
            _ => "floor",
        };
        let mut filter = envoy::wasm("floor", module, &json!(work));
        if work.is_none()
            && let Some(config) = filter.pointer_mut("/typed_config/config")
        {
            config
                .as_object_mut()
                .map(|config| config.remove("configuration"));
        }
        self.envoy(name, false, &[filter], 9)
    }

    /// The guard.
    pub(crate) fn guard(&self, name: &str, module: &Path) -> Result<Setup> {
        let configuration = envoy::guard(self.capacity);
        self.envoy(
            name,
            true,
            &[envoy::wasm("callback-guard", module, &configuration)],
            9,
        )
    }

    /// The native build of the guard.
    pub(crate) fn native(&self) -> Result<Setup> {
        let filter = envoy::dynamic_module(&envoy::guard(self.capacity));
        self.envoy("guard, native", true, &[filter], 9)
    }

    /// The check as Lua in Envoy.
    pub(crate) fn lua(&self) -> Result<Setup> {
        self.envoy("Envoy Lua filter", true, &[envoy::lua()], 9)
    }

    /// The check in a Rust service beside Envoy.
    pub(crate) fn external_authorization(&self) -> Result<Setup> {
        let port = free_port()?;
        let service = start_own("authorize", port, &self.folder)?;
        let filter = envoy::external_authorization(port);
        let mut setup = self.envoy("Envoy ext_authz + Rust service", true, &[filter], port)?;
        setup.processes.push(service);
        Ok(setup)
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

    /// The check in an application with Express. Needs `npm install --prefix target/bench/node express`.
    pub(crate) fn express(&self) -> Result<Setup> {
        let modules = Path::new("target/bench/node/node_modules");
        ensure!(
            modules.is_dir(),
            "npm install --prefix target/bench/node express"
        );
        let port = free_port()?;
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/app.js"));
        command
            .env("NODE_PATH", fs::canonicalize(modules)?)
            .env("NODE_ENV", "production");
        command.env("KEY", KEY).env("PORT", port.to_string());
        self.application("Node + Express", command, port)
    }

    /// The check in an application with FastAPI. Needs a virtual environment in `target/bench/python`.
    pub(crate) fn fastapi(&self) -> Result<Setup> {
        let program = Path::new("target/bench/python/bin/uvicorn");
        ensure!(
            program.is_file(),
            "python3 -m venv target/bench/python && target/bench/python/bin/pip install fastapi 'uvicorn[standard]'"
        );
        let port = free_port()?;
        let mut command = Command::new(fs::canonicalize(program)?);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--no-access-log", "--log-level", "warning", "app:app"]);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"));
        command.env("KEY", KEY).env("PYTHONDONTWRITEBYTECODE", "1");
        self.application("Python + FastAPI", command, port)
    }

    fn application(&self, name: &str, command: Command, port: u16) -> Result<Setup> {
        let file = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
        let process = Process::start("service", command, &self.folder.join(format!("{file}.log")))?;
        let mut setup = Setup {
            name: name.to_owned(),
            port,
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
