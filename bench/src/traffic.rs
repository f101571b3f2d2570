//! The requests: signed ahead, each sent once, so that the load generator only copies bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The key of every sender here.
pub(crate) const KEY: &str = "benchmark-webhook-hmac-key";

/// Which requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Genuine events, each new.
    New,
    /// One genuine event, over and over.
    Duplicate,
    /// Signed with another key.
    Forged,
    /// With neither signature nor timestamp.
    Unsigned,
    /// Signed, and broken JSON.
    Malformed,
}

impl Kind {
    /// Whether the guard answers with a status of 400 or above.
    pub(crate) fn is_refused(self) -> bool {
        !matches!(self, Kind::New | Kind::Duplicate)
    }
}

/// Who the sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Signs the id inside the body, and the timestamp.
    Suno,
    /// Signs id, timestamp and body, all named by headers, as Standard Webhooks do.
    BodySigner,
}

/// What is sent in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) kind: Kind,
    pub(crate) sender: Sender,
    /// Bytes of the body.
    pub(crate) size: usize,
    /// Whether each request asks for the end of its connection, as senders do that keep none.
    pub(crate) is_last: bool,
    /// The path, if it is not the sender's own.
    pub(crate) path: Option<&'static str>,
}

/// Numbers events, so that none is made twice in one run of the program.
static NEXT_EVENT: AtomicU64 = AtomicU64::new(0);

impl Traffic {
    /// Writes `count` requests for `bench/send.lua` to `path`.
    pub(crate) fn write(self, path: &Path, count: usize) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut file = BufWriter::new(file);
        let tail = self.tail();
        let first = self.request(&event_id(), &tail);
        writeln!(file, "{count} {} {}", first.len(), tail.len())?;
        let distinct = if self.kind == Kind::Duplicate {
            0
        } else {
            count
        };
        for _ in 0..distinct {
            file.write_all(&self.request(&event_id(), &tail))?;
        }
        for _ in distinct..count {
            file.write_all(&first)?;
        }
        file.write_all(&tail)?;
        file.flush().context("writing requests")
    }

    /// One whole request.
    pub(crate) fn one(self) -> Vec<u8> {
        self.whole(&self.tail())
    }

    /// As many whole requests.
    pub(crate) fn many(self, count: usize) -> Vec<Vec<u8>> {
        let tail = self.tail();
        (0..count).map(|_| self.whole(&tail)).collect()
    }

    fn whole(self, tail: &[u8]) -> Vec<u8> {
        let mut request = self.request(&event_id(), tail);
        request.extend_from_slice(tail);
        request
    }

    /// The head and the part of the body that differs from event to event.
    fn request(self, id: &str, tail: &[u8]) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.map_or(0, |since| since.as_secs()).to_string();
        let key = if self.kind == Kind::Forged {
            "another key"
        } else {
            KEY
        };
        let part = self.part(id);
        let (path, headers) = match self.sender {
            Sender::Suno => {
                let signature = sign(key, &[id.as_bytes(), b".", timestamp.as_bytes()]);
                let headers = format!(
                    "x-webhook-timestamp: {timestamp}\r\nx-webhook-signature: {signature}\r\n"
                );
                ("/callbacks/suno", headers)
            }
            Sender::BodySigner => {
                let signature = sign(
                    key,
                    &[
                        id.as_bytes(),
                        b".",
                        timestamp.as_bytes(),
                        b".",
                        part.as_bytes(),
                        tail,
                    ],
                );
                let headers = format!(
                    "webhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: v1,{signature}\r\n"
                );
                ("/callbacks/signed-body", headers)
            }
        };
        let headers = if self.kind == Kind::Unsigned {
            String::new()
        } else {
            headers
        };
        let length = part.len() + tail.len();
        let path = self.path.unwrap_or(path);
        let connection = if self.is_last {
            "connection: close\r\n"
        } else {
            ""
        };
        format!(
            "POST {path} HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench\r\naccept: */*\r\ncontent-type: application/json\r\n{connection}{headers}content-length: {length}\r\n\r\n{part}"
        )
        .into_bytes()
    }

    /// The beginning of the body.
    fn part(self, id: &str) -> String {
        match self.sender {
            Sender::Suno => format!(
                r#"{{"code":200,"msg":"All generated successfully.","data":{{"callbackType":"complete","task_id":"{id}","data":["#
            ),
            Sender::BodySigner => {
                format!(r#"{{"type":"track.completed","data":{{"task_id":"{id}","data":["#)
            }
        }
    }

    /// The rest of the body, the same in every event: tracks as the sender describes them.
    fn tail(self) -> Vec<u8> {
        let start = self.part(&event_id()).len();
        let end: &[u8] = if self.kind == Kind::Malformed {
            b"]}]"
        } else {
            b"]}}"
        };
        let track = r#"{"id":"8551662c-fb26-4ba2-a1a1-9a2bd7a1e1a1","audio_url":"https://cdn.example.com/audio/8551662c.mp3","image_url":"https://cdn.example.com/image/8551662c.jpeg","prompt":"[Verse] Night city lights shining bright\nwe run \"together\"","model_name":"chirp-v3-5","title":"Iron Man","tags":"electrifying, rock","createTime":1736139430000,"duration":198.44}"#;
        let mut tail = Vec::with_capacity(self.size);
        while start + tail.len() + track.len() + end.len() < self.size {
            if !tail.is_empty() {
                tail.push(b',');
            }
            tail.extend_from_slice(track.as_bytes());
        }
        tail.extend_from_slice(end);
        // Spaces are JSON too: they make up the size exactly.
        tail.resize(tail.len().max(self.size.saturating_sub(start)), b' ');
        tail
    }
}

fn event_id() -> String {
    let number = NEXT_EVENT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("{process:016x}{number:016x}")
}

fn sign(key: &str, parts: &[&[u8]]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    for part in parts {
        mac.update(part);
    }
    STANDARD.encode(mac.finalize().into_bytes())
}
