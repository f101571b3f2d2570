//! Runs the program, and receives what it sends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// The secret of the known answers.
pub(crate) const SECRET: &str = "test-webhook-hmac-key";

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program in an environment that has the secret and nothing else of ours.
#[track_caller]
pub(crate) fn run(arguments: &[&str]) -> Run {
    run_with(arguments, &[("SUNO_WEBHOOK_KEY", SECRET)], "")
}

/// Runs the program with these variables and this standard input.
#[track_caller]
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_callback-guard"))
        .args(arguments)
        .current_dir(repository())
        .env_remove("SUNO_WEBHOOK_KEY")
        .env_remove("SUNO_WEBHOOK_KEY_PREVIOUS")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may have gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder that goes when it is dropped, with one file in it.
pub(crate) struct OneFile {
    _folder: tempfile::TempDir,
    pub(crate) path: String,
}

/// Writes a file.
#[track_caller]
pub(crate) fn file(name: &str, text: &str) -> OneFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    OneFile {
        path: path.to_str().unwrap().to_owned(),
        _folder: folder,
    }
}

/// A request as the upstream received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    /// The value of a header, which must be there once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.head.lines().filter_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values
            .next()
            .unwrap_or_else(|| panic!("no {name} in {}", self.head));
        assert_eq!(values.next(), None, "{name}");
        value
    }
}

/// An upstream that answers with these statuses in turn, the last one for ever, and keeps what it
/// received.
pub(crate) struct Upstream {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    pub(crate) fn answering(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "http://{}/callbacks/suno?a=1",
            listener.local_addr().unwrap()
        );
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream.unwrap(), statuses, &kept));
            }
        });
        Self { url, received }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, statuses: &[u16], kept: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let request = Received {
            head: head.replace("\r\n", "\n"),
            body: String::new(),
        };
        let mut body = vec![0; request.header("content-length").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let index = {
            let mut kept = kept.lock().unwrap();
            kept.push(Received { body, ..request });
            (kept.len() - 1).min(statuses.len() - 1)
        };
        let reply = format!(
            "HTTP/1.1 {} X\r\nx-callback-guard: seen\r\ncontent-length: 3\r\n\r\nhi\n",
            statuses[index]
        );
        (&stream).write_all(reply.as_bytes()).unwrap();
    }
}
