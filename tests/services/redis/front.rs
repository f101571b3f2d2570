//! An HTTP front of Redis that does what a test says: the Upstash REST form over a real Redis, and
//! every way to fail.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use callback_guard_harness::fleet::Redis;
use serde_json::{Value, json};

/// What the front does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// It answers with this status and body.
    Reply(u16, String),
    /// It promises more bytes than it sends, and closes.
    Truncated(String),
    /// It closes without an answer.
    Close,
    /// It never answers.
    Silence,
}

type Script = dyn Fn(&Asked) -> Act + Send + Sync;

/// A request to the front.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// The front.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Arc<Script>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Front {
    pub(crate) fn start(script: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (current, log) = (Arc::clone(&script), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (current, log) = (Arc::clone(&current), Arc::clone(&log));
                thread::spawn(move || serve(stream, &current, &log));
            }
        });
        Self {
            address,
            script,
            asked,
        }
    }

    /// The REST form of Upstash over `redis`, for those who know `token`.
    pub(crate) fn upstash(redis: Redis, token: &'static str) -> Self {
        Self::start(move |asked| upstash(&redis, token, asked))
    }

    pub(crate) fn script(&self, script: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Source: Upstash, "REST API": the command as a JSON array in the body of a POST, the reply as
/// `result` or `error`.
fn upstash(redis: &Redis, token: &str, asked: &Asked) -> Act {
    if asked.authorization != format!("Bearer {token}") {
        return Act::Reply(401, r#"{"error":"Unauthorized"}"#.into());
    }
    let Ok(arguments) = serde_json::from_str::<Vec<String>>(&asked.body) else {
        return Act::Reply(400, r#"{"error":"ERR failed to parse command"}"#.into());
    };
    let borrowed: Vec<_> = arguments.iter().map(String::as_str).collect();
    match redis.command(&borrowed) {
        Ok(reply) => {
            let result = match reply.parse::<i64>() {
                _ if reply.is_empty() => Value::Null,
                Ok(number) => number.into(),
                Err(_) => reply.into(),
            };
            Act::Reply(200, json!({ "result": result }).to_string())
        }
        Err(error) => Act::Reply(400, json!({ "error": error.to_string() }).to_string()),
    }
}

fn serve(stream: TcpStream, script: &Mutex<Arc<Script>>, log: &Mutex<Vec<Asked>>) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        log.lock().unwrap().push(asked.clone());
        let script = Arc::clone(&script.lock().unwrap());
        let written = match script(&asked) {
            Act::Reply(status, body) => write!(
                writer,
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            Act::Truncated(body) => {
                let promised = body.len() + 10;
                let _ = write!(
                    writer,
                    "HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n{body}"
                );
                return;
            }
            Act::Close => return,
            Act::Silence => loop {
                thread::park();
            },
        };
        if written.is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        authorization,
        body: String::from_utf8(body).ok()?,
    })
}
