//! The senders' own libraries: installed once, asked over stdin and stdout.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use callback_guard_harness::places;
use serde::Serialize;
use serde_json::Value;

/// What a library is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    JavaScript,
    Python,
}

/// Something that a library is to do; see `senders.py`.
#[derive(Debug, Serialize)]
pub(crate) struct Task {
    library: String,
    r#do: &'static str,
    secret: String,
    id: String,
    timestamp: u64,
    pub(crate) body: String,
    headers: serde_json::Map<String, Value>,
    notification_url: String,
}

impl Task {
    pub(crate) fn sign(library: &str, secret: &str, timestamp: u64, body: String) -> Self {
        Self {
            library: library.to_owned(),
            r#do: "sign",
            secret: secret.to_owned(),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            timestamp,
            body,
            headers: serde_json::Map::new(),
            notification_url: String::new(),
        }
    }

    pub(crate) fn verify(
        library: &str,
        secret: &str,
        timestamp: u64,
        body: String,
        headers: &[(String, String)],
        notification_url: &str,
    ) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.clone())))
            .collect();
        Self {
            r#do: "verify",
            headers,
            notification_url: notification_url.to_owned(),
            ..Self::sign(library, secret, timestamp, body)
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
        let _one = INSTALLING.lock().unwrap();
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
                command.current_dir(&directory);
                command
            }
            Language::Python => {
                let mut command = Command::new("python3");
                command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]);
                command.args(["--disable-pip-version-check", "--only-binary", ":all:"]);
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
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answers.len(), tasks.len());
        answers
    }
}
