//! Several Envoys that share their events through one Redis.
//!
//! ```text
//! client --> Envoy 0 --+                        +--> upstream (one for all)
//!        --> Envoy 1 --+--> relay --> Webdis --> Redis     Way::Front
//!                           relay ------------> Redis     Way::Connection, of the native build
//! ```
//!
//! The relay takes the place of the network: it can stop forwarding, or refuse, and be put right again.
//! Redis and Webdis are real ones of this machine, or are installed by Debian's `apt-get`. They run
//! with the access lists of `deploy/redis`, so that every test proves those, too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{self, Request, Response};
use crate::envoy::{Envoy, Options};
use crate::filter::Filter;
use crate::render::Render;
use crate::stack::{SECRET, SECRET_VARIABLE, with_module};
use crate::upstream::{Upstream, unused_address};
use crate::wait::wait_for;
use crate::{child, envoy_binary, places};

/// The cluster on which the Envoys find the store.
pub const CLUSTER: &str = "redis_http";

/// The credentials that Webdis asks for, as the guard's `token_env` has them.
pub const WEBDIS_TOKEN: &str = "guard:change-me-webdis";

/// The variable that the Envoys read the credentials from.
pub const TOKEN_VARIABLE: &str = "CALLBACK_GUARD_REDIS_TOKEN";

/// The variable that the native build reads the URL of Redis from.
pub const URL_VARIABLE: &str = "CALLBACK_GUARD_REDIS_URL";

/// The variable that names the file with the authorities to trust.
///
/// Source: crate `rustls-native-certs`, and OpenSSL.
pub const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";

/// The ACL user of [`Way::Connection`] and its password, as in a URL.
const LOGIN: &str = "guard:p%40ss%2Fword";

/// How the Envoys reach Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By HTTP through Webdis, or another front, on a cluster of Envoy.
    #[default]
    Front,
    /// By a connection of the native build's own.
    Connection,
}

/// Finds programs of Redis, and installs them where that can be done without a question.
///
/// # Errors
///
/// If they are not there and cannot be installed; the error says what to run.
pub fn find_servers(progress: &dyn Fn(&str)) -> Result<()> {
    static FOUND: Mutex<bool> = Mutex::new(false);

    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = || {
        ["redis-server", "webdis"]
            .into_iter()
            .filter(|name| program(name).is_none())
            .collect::<Vec<_>>()
            .join(" ")
    };
    if *found || missing().is_empty() {
        *found = true;
        return Ok(());
    }
    let names = missing();
    progress(&format!("installing {names}"));
    let install = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(arguments);
        child::run(command, progress)
    };
    let installed = install(&["update", "-qq"])
        .and_then(|()| install(&["install", "-y", "-qq", "redis-server", "webdis"]));
    if !missing().is_empty() {
        let why = installed
            .err()
            .map_or_else(String::new, |error| format!("\n{error:#}"));
        bail!(
            "these programs are needed and not there: {names}. On Debian and Ubuntu: \
             `sudo apt-get install redis-server webdis`. Elsewhere: Redis 7 from redis.io, \
             Webdis from github.com/nicolasff/webdis, both in the PATH.{why}"
        );
    }
    *found = true;
    Ok(())
}

/// The files that users start from.
fn deploy() -> PathBuf {
    places::repository().join("deploy/redis")
}

/// The path of a program in the `PATH`, or where Debian puts servers.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A server that ends with this value.
#[derive(Debug)]
struct Server {
    child: Option<Child>,
    directory: TempDir,
    address: SocketAddr,
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            child: None,
            directory: places::run()?,
            address,
        })
    }

    fn start(&mut self, name: &str, arguments: &[String]) -> Result<()> {
        self.kill();
        let program = program(name).with_context(|| format!("no `{name}`"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.directory.path().join("out.log"))?)
            .stderr(Stdio::null());
        self.child = Some(child::spawn(command).with_context(|| format!("cannot run `{name}`"))?);
        let address = self.address;
        wait_for(&format!("{name} on {address}"), || {
            TcpStream::connect(address).ok()
        })?;
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate for this machine, vouched for by itself.
#[derive(Debug)]
struct Certificate {
    directory: TempDir,
}

impl Certificate {
    fn new() -> Result<Self> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let directory = places::run()?;
        fs::write(directory.path().join("cert.pem"), made.cert.pem())?;
        fs::write(
            directory.path().join("key.pem"),
            made.signing_key.serialize_pem(),
        )?;
        Ok(Self { directory })
    }

    fn file(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_string_lossy().into_owned()
    }
}

/// A real `redis-server` on a free port, which allows what `deploy/redis/users.acl` allows. It writes every change to a file, so that what it had
/// acknowledged is there again after [`Redis::restart`].
#[derive(Debug)]
pub struct Redis {
    server: Server,
    tls: Option<(Certificate, SocketAddr)>,
}

impl Redis {
    /// Starts one, empty.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    fn start_with(tls: Option<(Certificate, SocketAddr)>) -> Result<Self> {
        let server = Server::new(unused_address()?)?;
        let mut redis = Self { server, tls };
        redis.restart()?;
        Ok(redis)
    }

    /// Starts it again on the same port, with what it has in its file.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let port = self.server.address.port().to_string();
        let acl = self.server.directory.path().join("users.acl");
        let users = fs::read_to_string(deploy().join("users.acl"))?;
        // What Webdis may do a connection may do under another name.
        let connection = users.replace(
            "user default on >change-me-redis",
            "user guard on >p@ss/word",
        );
        let harness = "user harness on nopass ~* &* +@all\n";
        fs::write(&acl, format!("{users}{connection}{harness}"))?;
        let acl = acl.to_string_lossy().into_owned();
        let mut arguments = [
            "--aclfile",
            &acl,
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some((certificate, address)) = &self.tls {
            let (cert, key) = (certificate.file("cert.pem"), certificate.file("key.pem"));
            let port = address.port().to_string();
            for (name, value) in [
                ("--tls-port", &*port),
                ("--tls-cert-file", &cert),
                ("--tls-key-file", &key),
                ("--tls-ca-cert-file", &cert),
                ("--tls-auth-clients", "no"),
            ] {
                arguments.extend([name.to_owned(), value.to_owned()]);
            }
        }
        self.server.start("redis-server", &arguments)?;
        wait_for("Redis to have read its file", || {
            self.command(&["PING"]).ok().filter(|reply| reply == "PONG")
        })?;
        Ok(())
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it in its tracks: it keeps its connections and says nothing, until [`Redis::goes_on`].
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn hangs(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Ends what [`Redis::hangs`] began.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn goes_on(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let child = self.server.child.as_ref().context("Redis does not run")?;
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "kill {signal}: {sent}");
        Ok(())
    }

    /// How often a command was called, by Redis' own count.
    ///
    /// # Errors
    ///
    /// If Redis does not answer.
    pub fn calls(&self, command: &str) -> Result<usize> {
        let stats = self.command(&["INFO", "commandstats"])?;
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&*name));
        let count = line.and_then(|line| line.split(',').next());
        Ok(count.map_or(Ok(0), str::parse)?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Runs one command, with all rights, and returns its reply as text: strings and numbers as they are, an array as
    /// lines, nil as nothing.
    ///
    /// # Errors
    ///
    /// If Redis does not answer, or answers with an error.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        command(self.server.address, arguments)
    }

    /// Has it follow `master`, and waits until it has what that has.
    ///
    /// # Errors
    ///
    /// If one of them does not answer.
    pub fn follow(&self, master: &Self) -> Result<()> {
        let port = master.address().port().to_string();
        // Whichever of them leads later, the other may log in to it.
        for redis in [self, master] {
            redis.command(&["CONFIG", "SET", "masteruser", "harness"])?;
            redis.command(&["CONFIG", "SET", "masterauth", "-"])?;
        }
        self.command(&["REPLICAOF", "127.0.0.1", &port])?;
        wait_for("the replica to follow", || {
            let said = self.command(&["INFO", "replication"]).ok()?;
            said.contains("master_link_status:up").then_some(())
        })
    }
}

/// Runs one command as the user of the harness.
fn command(address: SocketAddr, arguments: &[&str]) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = "AUTH harness -\r\n".to_owned();
    text.push_str(&format!("*{}\r\n", arguments.len()));
    for argument in arguments {
        text.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
    }
    stream.write_all(text.as_bytes())?;
    let mut reader = std::io::BufReader::new(stream);
    read_reply(&mut reader)?;
    read_reply(&mut reader)
}

/// A real Sentinel on a free port, which calls its master `mymaster`. Two that agree are enough for a fail-over.
/// `watcher:w%40tch`, as in a URL, may ask where the master is, and nothing else.
#[derive(Debug)]
pub struct Sentinel {
    server: Server,
}

impl Sentinel {
    /// Starts one for `master`.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn start(master: &Redis) -> Result<Self> {
        let mut server = Server::new(unused_address()?)?;
        let config = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n\
             user harness on nopass ~* &* +@all\n\
             user watcher on >w@tch resetchannels -@all +sentinel|get-master-addr-by-name\n\
             sentinel monitor mymaster 127.0.0.1 {} 2\n\
             sentinel auth-user mymaster harness\nsentinel auth-pass mymaster -\n\
             sentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n",
            server.address.port(),
            server.directory.path().display(),
            master.address().port(),
        );
        let path = server.directory.path().join("sentinel.conf");
        fs::write(&path, config)?;
        let path = path.to_string_lossy().into_owned();
        server.start("redis-server", &[path, "--sentinel".to_owned()])?;
        Ok(Self { server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Waits until it knows so many others, and a replica to promote.
    ///
    /// # Errors
    ///
    /// If it does not learn of them.
    pub fn knows(&self, others: usize) -> Result<()> {
        wait_for("the Sentinels to know each other and the replica", || {
            let said = command(self.server.address, &["SENTINEL", "MASTER", "mymaster"]).ok()?;
            let lines: Vec<&str> = said.lines().collect();
            let is = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
            let is_ready = is("num-other-sentinels", &others.to_string())
                && is("num-slaves", "1")
                && is("flags", "master");
            is_ready.then_some(())
        })
    }
}

/// One value of the protocol of Redis.
///
/// Source: redis.io, "Redis serialization protocol specification", version 2.
fn read_reply(reader: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).context("Redis closed")?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "$" if rest == "-1" => Ok(String::new()),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()?.saturating_add(2)];
            reader.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes)
                .trim_end_matches("\r\n")
                .to_owned())
        }
        "*" => {
            let count: usize = rest.parse().unwrap_or(0);
            let items: Result<Vec<_>> = (0..count).map(|_| read_reply(reader)).collect();
            Ok(items?.join("\n"))
        }
        _ => bail!("Redis: {rest}"),
    }
}

/// A real `webdis` on a free port, with `deploy/redis/webdis.json` but for the addresses.
#[derive(Debug)]
pub struct Webdis {
    server: Server,
    redis: SocketAddr,
}

impl Webdis {
    /// Starts one before `redis`.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn start(redis: SocketAddr) -> Result<Self> {
        let mut webdis = Self {
            server: Server::new(unused_address()?)?,
            redis,
        };
        webdis.restart()?;
        Ok(webdis)
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let directory = self.server.directory.path().to_path_buf();
        let text = fs::read_to_string(deploy().join("webdis.json"))?;
        let mut config: Value = serde_json::from_str(&text)?;
        let local = json!({
            "redis_host": "127.0.0.1",
            "redis_port": self.redis.port(),
            "http_host": "127.0.0.1",
            "http_port": self.server.address.port(),
            "logfile": directory.join("webdis.log"),
        });
        if let (Some(config), Value::Object(local)) = (config.as_object_mut(), local) {
            config.extend(local);
        }
        let path = directory.join("webdis.json");
        fs::write(&path, config.to_string())?;
        let path = path.to_string_lossy().into_owned();
        self.server.start("webdis", &[path])
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }
}

/// What a [`Relay`] does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It forwards.
    Up,
    /// It accepts and forwards nothing more, in both directions: packets vanish.
    Stalled,
    /// It closes connections as soon as they come.
    Refusing,
    /// It forwards what goes to the server; what comes back vanishes.
    Deaf,
    /// It forwards everything 100 ms late.
    Slow,
}

/// A TCP relay to one address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<RelayState>,
}

#[derive(Debug)]
struct RelayState {
    mode: AtomicU8,
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Relay {
    /// Starts one, forwarding to `target`.
    ///
    /// # Errors
    ///
    /// If the system has no port or no thread to give.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(RelayState {
            mode: AtomicU8::new(0),
            connections: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::Builder::new().name("relay".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                if shared.mode() == Network::Refusing {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                let there = Arc::clone(&shared);
                let back = Arc::clone(&shared);
                thread::spawn(move || copy(from, server, &there, true));
                thread::spawn(move || copy(to, client, &back, false));
            }
        })?;
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from here on.
    pub fn set(&self, network: Network) {
        let mode = match network {
            Network::Up => 0,
            Network::Stalled => 1,
            Network::Refusing => 2,
            Network::Deaf => 3,
            Network::Slow => 4,
        };
        self.state.mode.store(mode, Ordering::Relaxed);
    }

    /// Connections that were made to it so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Bytes that went towards the server so far.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }
}

impl RelayState {
    fn mode(&self) -> Network {
        match self.mode.load(Ordering::Relaxed) {
            1 => Network::Stalled,
            2 => Network::Refusing,
            3 => Network::Deaf,
            4 => Network::Slow,
            _ => Network::Up,
        }
    }
}

/// Copies one direction; bytes that come while the network is down vanish, and so does the rest of
/// their connection.
fn copy(mut from: TcpStream, mut to: TcpStream, state: &RelayState, forth: bool) {
    let mut buffer = [0; 16 << 10];
    let mut is_lost = false;
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        is_lost |= match state.mode() {
            Network::Up => false,
            Network::Slow => {
                thread::sleep(Duration::from_millis(100));
                false
            }
            Network::Stalled => true,
            Network::Deaf => !forth,
            Network::Refusing => break,
        };
        if is_lost {
            continue;
        }
        if forth {
            let size = u64::try_from(size).unwrap_or(0);
            state.bytes.fetch_add(size, Ordering::Relaxed);
        }
        let Some(piece) = buffer.get(..size) else {
            break;
        };
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What is to be started.
#[must_use]
pub struct FleetSetup<'a> {
    envoys: usize,
    render: Render,
    options: Options,
    store: Option<(Value, SocketAddr)>,
    way: Way,
    login: String,
    has_tls: bool,
    progress: &'a dyn Fn(&str),
}

impl<'a> FleetSetup<'a> {
    /// The repository's `envoy.yaml`, this many times, with two workers each and a Redis for all.
    pub fn new(envoys: usize) -> Self {
        let environment = [(SECRET_VARIABLE, SECRET), (TOKEN_VARIABLE, WEBDIS_TOKEN)];
        let options = Options {
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Options::default()
        };
        Self {
            envoys,
            render: Render::repository()
                .on_free_ports()
                .chosen_filter()
                .host_environment(&[SECRET_VARIABLE, TOKEN_VARIABLE]),
            options,
            store: None,
            way: Way::Front,
            login: LOGIN.to_owned(),
            has_tls: false,
            progress: &|_| {},
        }
    }

    /// The same by this way to Redis. A connection is the native build's.
    pub fn by(way: Way, envoys: usize) -> Self {
        let mut setup = Self::new(envoys);
        setup.way = way;
        if way == Way::Connection {
            setup.render = setup.render.filter(Filter::Native);
        }
        setup
    }

    /// Has Redis speak TLS, and the Envoys trust it.
    pub fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    /// Waits long for answers of the store, so that a busy machine makes no call time out.
    pub fn patient(self) -> Self {
        self.guard(|config| {
            if let Some(timeout) = config.pointer_mut("/store/timeout_milliseconds") {
                *timeout = 10_000.into();
            }
        })
    }

    /// Has the URL of a connection begin with `user:password`.
    pub fn login(mut self, login: &str) -> Self {
        login.clone_into(&mut self.login);
        self
    }

    /// Reports what takes long: downloads and builds.
    pub fn progress(mut self, progress: &'a dyn Fn(&str)) -> Self {
        self.progress = progress;
        self
    }

    /// Changes the guard's configuration, `store` included.
    pub fn guard(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        let way = self.way;
        self.render = self.render.guard(|config| {
            if config["store"].is_null() {
                config["store"] = store_by(way);
            }
            edit(config);
        });
        self
    }

    /// Changes the Envoy configuration.
    pub fn render(mut self, edit: impl FnOnce(Render) -> Render) -> Self {
        self.render = edit(self.render);
        self
    }

    /// Sets the number of worker threads of each Envoy.
    pub fn workers(mut self, workers: u32) -> Self {
        self.options.workers = workers;
        self
    }

    /// Puts another HTTP front behind the relay than Webdis: what `store` it is, and its address.
    pub fn front(mut self, store: Value, address: SocketAddr) -> Self {
        self.store = Some((store, address));
        self
    }

    /// Sets a variable of the Envoys' environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.options.environment.retain(|(key, _)| key != name);
        let variable = (name.to_owned(), value.to_owned());
        self.options.environment.push(variable);
        self
    }

    /// Starts everything.
    ///
    /// # Errors
    ///
    /// If there is no Envoy, no Redis, no Webdis, or one of them does not come up.
    pub fn start(mut self) -> Result<Fleet> {
        find_servers(self.progress)?;
        let tls = match self.has_tls {
            true => Some((Certificate::new()?, unused_address()?)),
            false => None,
        };
        let redis = Redis::start_with(tls)?;
        let webdis = match self.way {
            Way::Front => Some(Webdis::start(redis.address())?),
            Way::Connection => None,
        };
        let (edit, target) = match (self.store, &webdis, &redis.tls) {
            (Some((store, address)), ..) => (Some(store), address),
            (None, Some(webdis), _) => (None, webdis.address()),
            (None, None, Some((_, address))) => (None, *address),
            (None, None, None) => (None, redis.address()),
        };
        let relay = Relay::start(target)?;
        let upstream = Upstream::start()?;
        let render = self.render.guard(|config| {
            if let Some(edit) = edit {
                config["store"] = edit;
            } else if config["store"].is_null() {
                config["store"] = store_by(self.way);
            }
        });
        let mut render = with_module(render, self.progress)?.upstream(upstream.address());
        match self.way {
            Way::Front => render = render.add_cluster(cluster(relay.address())),
            Way::Connection => {
                let scheme = if self.has_tls { "rediss" } else { "redis" };
                let url = format!("{scheme}://{}@{}/0", self.login, relay.address());
                let environment = &mut self.options.environment;
                if !environment.iter().any(|(name, _)| name == URL_VARIABLE) {
                    environment.push((URL_VARIABLE.to_owned(), url));
                }
                let trusts = |(name, _): &(String, String)| name == AUTHORITIES_VARIABLE;
                if let Some((certificate, _)) = &redis.tls
                    && !environment.iter().any(trusts)
                {
                    let file = certificate.file("cert.pem");
                    environment.push((AUTHORITIES_VARIABLE.to_owned(), file));
                }
            }
        }
        let binary = envoy_binary::find(self.progress)?;
        let envoys: Result<Vec<_>> = (0..self.envoys)
            .map(|_| Envoy::start(&binary, &render, &self.options))
            .collect();
        let envoys = envoys?;
        if self.way == Way::Connection {
            for envoy in &envoys {
                wait_for("Envoy to have tried to connect", || {
                    let log = envoy.log();
                    let is_told = log.contains("connected to Redis")
                        || log.contains("no connection to Redis");
                    is_told.then_some(())
                })?;
            }
        }
        Ok(Fleet {
            envoys,
            upstream,
            relay,
            webdis,
            redis,
            render,
            options: self.options,
        })
    }
}

/// The guard's `store`, by this way.
fn store_by(way: Way) -> Value {
    match way {
        Way::Front => store("webdis"),
        Way::Connection => json!({
            "kind": "redis",
            "url_env": URL_VARIABLE,
            "timeout_milliseconds": 250,
            "on_error": "memory",
        }),
    }
}

/// The guard's `store` for a front that speaks `protocol`.
pub fn store(protocol: &str) -> Value {
    json!({
        "kind": "redis",
        "protocol": protocol,
        "cluster": CLUSTER,
        "authority": "redis.internal",
        "token_env": TOKEN_VARIABLE,
        "timeout_milliseconds": 250,
        "on_error": "memory",
    })
}

/// The cluster on which the Envoys find the store.
fn cluster(address: SocketAddr) -> Value {
    let socket = json!({ "address": address.ip(), "port_value": address.port() });
    json!({
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }]
        }
    })
}

/// Envoys, and the Redis that they share. All end with this value.
#[derive(Debug)]
pub struct Fleet {
    /// The Envoys.
    pub envoys: Vec<Envoy>,
    /// The application behind all of them.
    pub upstream: Upstream,
    /// The network between the Envoys and the store.
    pub relay: Relay,
    /// The HTTP front of Redis, unless the Envoys have connections of their own.
    pub webdis: Option<Webdis>,
    /// Redis.
    pub redis: Redis,
    render: Render,
    options: Options,
}

impl Fleet {
    /// Sends a request to one of the Envoys, over a connection of its own.
    ///
    /// # Errors
    ///
    /// If there is no such Envoy, or no complete response.
    pub fn send(&self, envoy: usize, request: &Request) -> Result<Response> {
        let envoy = self.envoys.get(envoy).context("no such Envoy")?;
        client::send(envoy.listener_address(), request)
    }

    /// The sum of a counter or gauge of the guard over all Envoys that run.
    ///
    /// # Errors
    ///
    /// If an admin interface does not answer.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let name = format!("wasmcustom.callback_guard.{name}");
        let running = self.envoys.iter().filter(|envoy| envoy.is_running());
        running.map(|envoy| envoy.stat(&name)).sum()
    }

    /// How often the Envoys have asked Redis to claim or to settle, by Redis' own count.
    ///
    /// # Errors
    ///
    /// If Redis does not answer.
    pub fn calls(&self) -> Result<usize> {
        Ok(self.redis.calls("eval")? + self.redis.calls("evalsha")?)
    }

    /// Kills one of the Envoys and starts another in its place, on another port.
    ///
    /// # Errors
    ///
    /// If there is no such Envoy, or the other does not come up.
    pub fn replace(&mut self, envoy: usize) -> Result<()> {
        let place = self.envoys.get_mut(envoy).context("no such Envoy")?;
        place.kill();
        let binary = envoy_binary::find(&|_| {})?;
        *place = Envoy::start(&binary, &self.render, &self.options)?;
        Ok(())
    }

    /// As [`Fleet::replace`], with another configuration of the guard from here on.
    ///
    /// # Errors
    ///
    /// If there is no such Envoy, or the other does not come up.
    pub fn reconfigure(&mut self, envoy: usize, edit: impl FnOnce(&mut Value)) -> Result<()> {
        self.render = self.render.clone().guard(edit);
        self.replace(envoy)
    }

    /// The keys in Redis.
    ///
    /// # Errors
    ///
    /// If Redis does not answer.
    pub fn keys(&self) -> Result<Vec<String>> {
        let keys = self.redis.command(&["KEYS", "*"])?;
        // Those in which the events of an id are counted are left out.
        let is_event = |key: &&str| !key.contains(":id:");
        Ok(keys.lines().filter(is_event).map(str::to_owned).collect())
    }
}
