//! The applications: installed once, started for a test, stopped with it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use callback_guard_harness::{Request, client, places, upstream, wait};

/// What an application is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    Django,
    Express4,
    Express5,
    FastApi,
    Go,
}

impl Framework {
    pub(crate) const ALL: [Self; 5] = [
        Self::Django,
        Self::Express4,
        Self::Express5,
        Self::FastApi,
        Self::Go,
    ];
}

/// A running application.
pub(crate) struct Application {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Application {
    #[track_caller]
    pub(crate) fn start(framework: Framework) -> Self {
        let address = upstream::unused_address().unwrap();
        let port = address.port().to_string();
        let mut command = match framework {
            Framework::Express4 | Framework::Express5 => {
                let name = match framework {
                    Framework::Express4 => "express4",
                    _ => "express5",
                };
                let mut command = Command::new("node");
                command.arg(sources().join("application.mjs"));
                command.arg(javascript()).args([name, &port]);
                command
            }
            Framework::Django | Framework::FastApi => {
                let name = match framework {
                    Framework::Django => "django",
                    _ => "fastapi",
                };
                let mut command = Command::new("python3");
                command.arg(sources().join("application.py"));
                command.args([name, &port]);
                command.env("PYTHONPATH", python());
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Framework::Go => {
                let mut command = Command::new(go());
                command.arg(&port);
                command
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let application = Self { child, address };
        wait::wait_for(&format!("{framework:?}"), || {
            client::send(address, &Request::get("/runs")).ok()
        })
        .unwrap();
        application
    }

    /// How often its handler has run.
    #[track_caller]
    pub(crate) fn runs(&self) -> u64 {
        let response = client::send(self.address, &Request::get("/runs")).unwrap();
        response.json().unwrap()["runs"].as_u64().unwrap()
    }
}

/// Tests run at the same time, installations do not.
static INSTALLING: Mutex<()> = Mutex::new(());

fn sources() -> PathBuf {
    places::repository().join("tests/services/applications")
}

/// A directory under the build directory that is made by `install` of these files of ours, unless it
/// was made of just these before.
#[track_caller]
fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path) -> Command) -> PathBuf {
    let _one = INSTALLING.lock().unwrap();
    let directory = places::target().join("applications").join(name);
    let wanted: String = files
        .iter()
        .map(|file| fs::read_to_string(sources().join(file)).unwrap())
        .collect();
    let stamp = directory.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return directory;
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir_all(&directory).unwrap();
    for file in files {
        fs::copy(sources().join(file), directory.join(file)).unwrap();
    }
    let mut command = install(&directory);
    let output = command.current_dir(&directory).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    fs::write(stamp, wanted).unwrap();
    directory
}

#[track_caller]
fn javascript() -> PathBuf {
    installed("javascript", &["package.json", "package-lock.json"], |_| {
        let mut command = Command::new("npm");
        command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        command
    })
}

#[track_caller]
fn python() -> PathBuf {
    installed("python", &["requirements.txt"], |directory| {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]);
        command.args(["--disable-pip-version-check", "--only-binary", ":all:"]);
        command.arg("--target").arg(directory);
        command.args(["-r", "requirements.txt"]);
        command
    })
}

/// The application in Go, built.
#[track_caller]
fn go() -> PathBuf {
    if Command::new("go").arg("version").output().is_err() {
        let mut command = Command::new("apt-get");
        command.args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "golang-go",
        ]);
        let is_installed = command.output().is_ok_and(|output| output.status.success());
        assert!(
            is_installed,
            "`go` is not on the PATH and could not be installed: apt-get install golang-go"
        );
    }
    let directory = installed("go", &["application.go"], |directory| {
        let mut command = Command::new("go");
        command.args(["build", "-o", "application", "application.go"]);
        command.env("GOCACHE", directory.join("cache"));
        command.env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off");
        command
    });
    directory.join("application")
}
