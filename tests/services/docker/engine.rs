//! The engine, its images, and what Compose makes of a file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callback_guard_harness::{
    Request, Response, SECRET, SECRET_VARIABLE, client, envoy_binary, page, places, wait,
};
use tempfile::TempDir;

use crate::deploy::programs::{find, output, run};

/// How long a container may take to be there, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where the engine listens, if not at its usual place; with all images.
static ENGINE: LazyLock<Option<String>> = LazyLock::new(|| {
    find("docker", "docker.io");
    let own = (!answers(None)).then(start);
    assert!(
        answers(own.as_deref()),
        "no Docker engine: none is running, and none could be started; start one, or run this as \
         root on a machine where dockerd can run"
    );
    let envoy = envoy_binary::find(&|_| {}).unwrap();
    find("debootstrap", "debootstrap");
    let mut images = Command::new(script("images.sh"));
    at(&mut images, own.as_deref());
    run(images.arg(
        envoy
            .path()
            .expect("an Envoy that is a file, for the image"),
    ));
    own
});

fn script(name: &str) -> PathBuf {
    places::repository()
        .join("tests/services/docker")
        .join(name)
}

fn at(command: &mut Command, host: Option<&str>) {
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
}

fn answers(host: Option<&str>) -> bool {
    let mut docker = Command::new("docker");
    at(&mut docker, host);
    output(docker.arg("info")).status.success()
}

/// Starts an engine that ends with this process.
fn start() -> String {
    for (program, package) in [
        ("dockerd", "docker.io"),
        ("iptables", "iptables"),
        ("ip", "iproute2"),
    ] {
        find(program, package);
    }
    let directory = places::target().join("docker");
    fs::create_dir_all(&directory).unwrap();
    let mut engine = Command::new(script("engine.sh"))
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C ends the tests; the engine then ends by the end of its standard input, and tidies up.
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = engine.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    if line != "ready\n" {
        let said = engine.wait_with_output().unwrap().stderr;
        panic!(
            "no Docker engine is running, and none could be started:\n{}",
            String::from_utf8_lossy(&said)
        );
    }
    // Never dropped: the system closes its standard input when this process ends.
    std::mem::forget(engine);
    format!("unix://{}", directory.join("docker.sock").display())
}

/// The client of the engine.
pub fn docker(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    at(&mut command, ENGINE.as_deref());
    command.args(arguments);
    command
}

/// The image of the repository's Dockerfile, as Compose names it. Built once, as docs/redis.md has it.
pub fn image() -> &'static str {
    static IMAGE: LazyLock<&str> = LazyLock::new(|| {
        let copy = private_copy_of_the_context();
        let block = page::block("docs/redis.md", "two_envoys_deliver_an_event_once");
        let command = block.unwrap().commands().remove(0);
        run(printed(&command, "docker ").current_dir(copy.path()));
        "callback-guard:latest"
    });
    &IMAGE
}

/// What a page prints for Docker, to be run in the background, with the secret where it has none or `…`.
#[track_caller]
pub fn printed(command: &str, program: &str) -> Command {
    let (before, words) = command.split_once(program).unwrap();
    let mut words: Vec<&str> = words.split(' ').collect();
    if ["run", "up"].contains(&words[0]) {
        words.insert(1, "--detach");
    }
    let mut command = match program {
        "docker " => docker(&words),
        _ => compose(&words),
    };
    command.env(SECRET_VARIABLE, SECRET);
    let variables = before.split(' ').filter_map(|word| word.split_once('='));
    command.envs(variables.map(|(name, value)| (name, value.replace('…', SECRET))));
    command
}

/// `docker compose`, or the older `docker-compose`.
fn compose(arguments: &[&str]) -> Command {
    static PLUGIN: LazyLock<bool> = LazyLock::new(|| {
        let version = output(&mut docker(&["compose", "version"]));
        version.status.success()
    });
    let mut command = if *PLUGIN {
        docker(&["compose"])
    } else {
        let mut command = Command::new(find("docker-compose", "docker-compose"));
        at(&mut command, ENGINE.as_deref());
        command
    };
    command.args(arguments);
    command
}

/// Puts an image that needs no engine to be made into the engine.
pub fn load(layout: &Path, tag: &str) {
    let mut skopeo = Command::new(find("skopeo", "skopeo"));
    skopeo.arg("copy");
    if let Some(host) = ENGINE.as_deref() {
        skopeo.args(["--dest-daemon-host", host]);
    }
    let from = format!("oci:{}:latest", layout.display());
    run(skopeo.args([from, format!("docker-daemon:{tag}")]));
}

/// Builds the Dockerfile in a folder, or one stage of it.
#[track_caller]
pub fn build(folder: &Path, tag: &str, stage: Option<&str>) {
    let mut build = docker(&["build", "--quiet", "--tag", tag]);
    if let Some(stage) = stage {
        build.args(["--target", stage]);
    }
    run(build.arg(".").current_dir(folder));
}

/// What the Dockerfile gets of the repository, in a copy as umask 077 makes it.
pub fn private_copy_of_the_context() -> TempDir {
    let directory = TempDir::new().unwrap();
    let repository = places::repository();
    let ignore = fs::read_to_string(repository.join(".dockerignore")).unwrap();
    let sent = ignore.lines().filter_map(|line| line.strip_prefix('!'));
    for name in sent.chain(["Dockerfile", ".dockerignore"]) {
        let to = directory.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp")
            .args(["-R", "--preserve=timestamps"])
            .arg(repository.join(name))
            .arg(to));
    }
    let _ = fs::remove_dir_all(directory.path().join("native/target"));
    run(Command::new("chmod")
        .args(["-R", "go="])
        .arg(directory.path()));
    directory
}

/// What a new container of this image prints and how it ends.
pub fn in_container(image: &str, arguments: &[&str]) -> Output {
    let mut command = docker(&["run", "--rm", "--entrypoint", arguments[0], image]);
    output(command.args(&arguments[1..]))
}

/// A file of an image.
#[track_caller]
pub fn file_of(image: &str, path: &str) -> Vec<u8> {
    let container = run(&mut docker(&["create", image, "nothing"]));
    let container = container.trim();
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("copy");
    run(docker(&["cp", &format!("{container}:{path}")]).arg(&copy));
    run(&mut docker(&["rm", container]));
    fs::read(copy).unwrap()
}

/// Services of a Compose file, removed with this value. One at a time: the ports are fixed.
pub struct Services {
    folder: PathBuf,
    _copy: Option<TempDir>,
    profile: &'static str,
    _alone: MutexGuard<'static, ()>,
}

/// What a checkout with umask 077 makes of a folder's files.
fn private_copy(from: &Path) -> TempDir {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("callback-guard-test");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_file() && name != ".env" {
            fs::copy(entry.path(), copy.join(name)).unwrap();
        }
    }
    run(Command::new("chmod").args(["-R", "go="]).arg(&copy));
    directory
}

impl Services {
    /// The Compose file of a folder of the repository, in a copy as umask 077 makes it; `more` are
    /// further files of the copy.
    pub fn of(folder: &str, more: &[(&str, &str)]) -> Self {
        let copy = private_copy(&places::repository().join(folder));
        let folder = copy.path().join("callback-guard-test");
        for (name, content) in more {
            fs::write(folder.join(name), content).unwrap();
        }
        Self::alone(folder, Some(copy))
    }

    /// The repository's Compose file with all that an image is built of: in the copy that [`image`] is built
    /// of, so that nothing is built again.
    pub fn of_checkout() -> Self {
        let copy = private_copy_of_the_context();
        let file = "compose.yaml";
        fs::copy(places::repository().join(file), copy.path().join(file)).unwrap();
        Self::alone(copy.path().to_owned(), Some(copy))
    }

    fn alone(folder: PathBuf, copy: Option<TempDir>) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());

        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        image();
        Self {
            folder,
            _copy: copy,
            profile: "",
            _alone: alone,
        }
    }

    /// With the services of a profile.
    pub fn profile(mut self, profile: &'static str) -> Self {
        self.profile = profile;
        self
    }

    /// Compose without a secret in its environment.
    pub fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = compose(arguments);
        self.here(&mut command).env_remove(SECRET_VARIABLE);
        command
    }

    fn here<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .current_dir(&self.folder)
            .env("COMPOSE_PROJECT_NAME", "callback-guard-test")
            .env("COMPOSE_PROFILES", self.profile)
    }

    /// Runs what a page prints for Compose.
    #[track_caller]
    pub fn up_as_printed(&self, command: &str) {
        run(self.here(&mut printed(command, "docker compose ")));
    }

    #[track_caller]
    pub fn up(&self) {
        run(&mut self.compose(&["up", "--detach", "--no-build"]));
    }

    /// The container of a service.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let id = run(&mut self.compose(&["ps", "--all", "--quiet", service]));
        assert_eq!(id.lines().count(), 1, "{service}: {id}");
        id.trim().to_owned()
    }

    #[track_caller]
    pub fn inspect(&self, service: &str, format: &str) -> String {
        let container = self.container(service);
        let said = run(&mut docker(&["inspect", "--format", format, &container]));
        said.trim().to_owned()
    }

    #[track_caller]
    pub fn wait_until_healthy(&self, services: &[&str]) {
        for service in services {
            wait::wait_for_within(PATIENCE, &format!("{service} to be healthy"), || {
                let health = self.inspect(service, "{{.State.Health.Status}}");
                (health == "healthy").then_some(())
            })
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log(service)));
        }
    }

    /// What a service has written so far.
    #[track_caller]
    pub fn log(&self, service: &str) -> String {
        let container = self.container(service);
        let output = output(&mut docker(&["logs", &container]));
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    #[track_caller]
    pub fn wait_for_log(&self, service: &str, text: &str) -> String {
        wait::wait_for_within(PATIENCE, &format!("{text} in the log of {service}"), || {
            Some(self.log(service)).filter(|log| log.contains(text))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log(service)))
    }

    /// How often the application has got the event with this id.
    #[track_caller]
    pub fn deliveries(&self, id: &str) -> usize {
        let header = r#""x-callback-guard-id":"#;
        let log = self.log("app").replace(": ", ":");
        log.matches(&format!("{header}\"{id}\"")).count()
    }

    /// What a command in the container of a service prints.
    pub fn exec(&self, service: &str, arguments: &[&str]) -> Output {
        let container = self.container(service);
        output(docker(&["exec", &container]).args(arguments))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self
            .compose(&["down", "--volumes", "--timeout", "0"])
            .output();
    }
}

/// Sends a request to the port that a Compose file publishes.
#[track_caller]
pub fn send(port: u16, request: &Request) -> Response {
    client::send(SocketAddr::from(([127, 0, 0, 1], port)), request).unwrap()
}

/// The id of a body that `support::body` made.
pub fn id_of(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    json["data"]["task_id"].as_str().unwrap().to_owned()
}

/// The same, which the application answers after so many milliseconds.
pub fn slow(mut request: Request, milliseconds: u64) -> Request {
    let delay = format!("?x-set-response-delay-ms={milliseconds}");
    request.path.push_str(&delay);
    request
}
