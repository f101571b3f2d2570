//! The senders' own libraries: installed once, asked over stdin and stdout.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use callback_guard_harness::places;
use serde::Serialize;
use serde_json::Value;

use super::callback::{Callback, Case};

/// What a library is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    JavaScript,
    Python,
}

/// Something that a library is to do; see `senders.py`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Task {
    r#do: &'static str,
    preset: String,
    secret: String,
    id: &'static str,
    timestamp: u64,
    url: String,
    body: String,
    headers: serde_json::Map<String, Value>,
}

impl Task {
    /// Say what the libraries can do.
    pub(crate) fn list() -> Self {
        Self {
            r#do: "list",
            ..Self::default()
        }
    }

    /// Sign the body of `case`.
    pub(crate) fn sign(case: &Case, timestamp: u64) -> Self {
        Self {
            r#do: "sign",
            preset: case.preset.clone(),
            secret: case.secret.clone(),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp,
            url: case.url(),
            body: case.body.clone(),
            headers: serde_json::Map::new(),
        }
    }

    /// Say whether `callback` is genuine.
    pub(crate) fn verify(case: &Case, timestamp: u64, callback: &Callback) -> Self {
        let headers = callback.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), Value::from(value.clone())));
        Self {
            r#do: "verify",
            url: callback.url(),
            body: callback.body.clone(),
            headers: headers.collect(),
            ..Self::sign(case, timestamp)
        }
    }
}

/// Tests run at the same time, installations do not.
static INSTALLING: Mutex<()> = Mutex::new(());

impl Language {
    fn sources() -> PathBuf {
        places::repository().join("tests/services/senders")
    }

    fn directory(self) -> PathBuf {
        places::target().join("senders").join(match self {
            Language::JavaScript => "javascript",
            Language::Python => "python",
        })
    }

    /// Where its packages come from, for people.
    pub(crate) fn registry(self) -> &'static str {
        match self {
            Language::JavaScript => "npm",
            Language::Python => "PyPI",
        }
    }

    /// The files that say what to install.
    fn manifests(self) -> &'static [&'static str] {
        match self {
            Language::JavaScript => &["package.json", "package-lock.json"],
            Language::Python => &["requirements.txt"],
        }
    }

    /// Installs the libraries, unless just these are there.
    #[track_caller]
    pub(crate) fn install(self) {
        let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.directory();
        let wanted: Vec<(&str, String)> = self
            .manifests()
            .iter()
            .map(|name| {
                (
                    *name,
                    fs::read_to_string(Self::sources().join(name)).unwrap(),
                )
            })
            .collect();
        let is_there = |(name, text): &(&str, String)| {
            fs::read_to_string(directory.join(format!("{name}.installed")))
                .is_ok_and(|installed| installed == *text)
        };
        if wanted.iter().all(is_there) {
            return;
        }
        if directory.exists() {
            fs::remove_dir_all(&directory).unwrap();
        }
        fs::create_dir_all(&directory).unwrap();
        let mut command = match self {
            Language::JavaScript => {
                for (name, text) in &wanted {
                    fs::write(directory.join(name), text).unwrap();
                }
                let mut command = Command::new("npm");
                command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
                // Nor what their other halves would need, which are not called.
                command.args(["--legacy-peer-deps", "--omit=optional"]);
                command.current_dir(&directory);
                command
            }
            Language::Python => {
                let mut command = Command::new("python3");
                command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]);
                command.args(["--disable-pip-version-check", "--no-compile"]);
                command.args(["--only-binary", ":all:"]);
                command.arg("--target").arg(&directory);
                command
                    .arg("-r")
                    .arg(Self::sources().join("requirements.txt"));
                command
            }
        };
        let output = command.output().unwrap_or_else(|error| {
            panic!("{command:?} cannot be started ({error}); these tests need python3 with pip, node and npm")
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        for (name, text) in &wanted {
            fs::write(directory.join(format!("{name}.installed")), text).unwrap();
        }
    }

    /// Has the libraries do `tasks`; one answer each.
    #[track_caller]
    pub(crate) fn run(self, tasks: &[Task]) -> Vec<Value> {
        let mut command = match self {
            Language::JavaScript => {
                let mut command = Command::new("node");
                command
                    .arg(Self::sources().join("senders.mjs"))
                    .arg(self.directory());
                command
            }
            Language::Python => {
                let mut command = Command::new("python3");
                command.arg(Self::sources().join("senders.py"));
                command.env("PYTHONPATH", self.directory());
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = serde_json::to_string(tasks).unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        if !said.is_empty() {
            eprintln!("{said}");
        }
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answers.len(), tasks.len());
        answers
    }
}
