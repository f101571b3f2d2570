//! What the guard hands over: the head of a verified callback.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName};

use crate::refusal::Refusal;

/// The largest body, in bytes: that of the guard's largest `max_body_bytes`.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The longest message id, in bytes: four times the guard's, as it may be escaped.
const MAX_ID_BYTES: usize = 1024;

const KEY: &str = "x-callback-guard-key";
const SOURCE: &str = "x-callback-guard-source";
const ID: &str = "x-callback-guard-id";
const VERDICT: &str = "x-callback-guard-verdict";

/// Headers of one connection, which mean nothing on the next (RFC 9110, section 7.6.1), and what
/// the delivery makes anew.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that are credentials: never stored.
const CREDENTIALS: [&str; 2] = ["authorization", "cookie"];

/// A callback that the guard has verified, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The event's key: 64 hexadecimal digits, lower case.
    pub key: String,
    /// The guard's name of the sender.
    pub source: String,
    /// The verified message id.
    pub id: String,
    /// Path and query as they came.
    pub target: String,
    /// The headers that are stored, each as `name: value` with CRLF, as HTTP/1.1 writes them.
    pub headers: Vec<u8>,
}

impl Callback {
    /// Reads the head of a request. `drop` names headers that are not stored, in lower case.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotVerified`] if it does not carry, once each, what the guard adds to a verified
    /// request, or carries the verdict of one that is not.
    pub fn parse(target: &str, headers: &HeaderMap, drop: &[HeaderName]) -> Result<Self, Refusal> {
        let key = once(headers, KEY)?;
        let source = once(headers, SOURCE)?;
        let id = once(headers, ID)?;
        let is_key = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_source = (1..=32).contains(&source.len())
            && source
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let is_id = (1..=MAX_ID_BYTES).contains(&id.len());
        // In monitor mode the guard forwards what it would have refused, and says so.
        let verdicts = headers.get_all(VERDICT);
        let is_verified = verdicts.iter().all(|verdict| {
            matches!(
                verdict.as_bytes(),
                b"forwarded" | b"duplicate" | b"in_flight"
            )
        });
        if !(is_key && is_source && is_id && is_verified) {
            return Err(Refusal::NotVerified);
        }
        Ok(Self {
            key: key.to_ascii_lowercase(),
            source: source.to_owned(),
            id: id.to_owned(),
            target: target.to_owned(),
            headers: stored(headers, drop),
        })
    }
}

fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Refusal::NotVerified),
        _ => Err(Refusal::NotVerified),
    }
}

fn stored(headers: &HeaderMap, drop: &[HeaderName]) -> Vec<u8> {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut lines = Vec::with_capacity(512);
    for (name, value) in headers {
        let text = name.as_str();
        if HOP_BY_HOP.contains(&text)
            || CREDENTIALS.contains(&text)
            || drop.contains(name)
            // The guard's own are never another header's to drop.
            || (named.iter().any(|other| other == text) && !text.starts_with("x-callback-guard"))
        {
            continue;
        }
        lines.extend_from_slice(text.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// The stored headers, one by one.
pub fn lines(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 2..)?))
    })
}
