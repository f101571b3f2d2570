//! The Redis store: what is sent to a Redis HTTP front, and what its replies mean.
//!
//! | | Webdis | Upstash REST |
//! |---|---|---|
//! | request | `POST /`, `SET/<key>/<value>/NX/GET/PX/<ms>`, each part percent-encoded | `POST /`, `["SET","<key>","<value>","NX","GET","PX","<ms>"]` |
//! | claimed | `{"SET":null}` | `{"result":null}` |
//! | there already | `{"SET":"<value>"}` | `{"result":"<value>"}` |
//! | settled, not ours | `{"EVAL":1}`, `{"EVAL":0}` | `{"result":1}`, `{"result":0}` |
//! | error of Redis | 200, `{"SET":[false,"ERR …"]}` | 400, `{"error":"ERR …"}` |
//! | wrong credentials | 401 or 403 | 401, `{"error":"…"}` |
//!
//! A key is `<key_prefix><source>:<64 hexadecimal digits>`, a value `c:<owner>` for a claim and
//! `d:<owner>:<fingerprint>` for a delivered event. Every key is set with an end, in milliseconds.
//!
//! Everything here is a pure function of bytes: who carries them is the business of the filter.
//! What a reply may look like is taken narrowly. Anything else is a [`StoreError`], for a store
//! that is misread loses events or lets them through twice.
//!
//! Source: Redis commands `SET` (`NX` with `GET` since 7.0) and `EVAL`; Webdis `README.md`; Upstash,
//! "REST API".

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::event::EventKey;
use crate::json::{self, Kind, Pointer, Scratch, Selector};
use crate::store::bucket::{Fingerprint, OwnerToken};
use crate::store::{ClaimAnswer, ClaimRequest, Settlement};

/// What the HTTP front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Protocol {
    /// The REST form of Upstash, also of serverless-redis-http.
    Upstash,
    /// Webdis.
    Webdis,
}

/// What becomes of a request when the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnError {
    /// The local store decides.
    Memory,
    /// It is forwarded unclaimed.
    Pass,
    /// 503 `store_unavailable`.
    Reject,
}

/// A Redis HTTP front, as configured.
#[derive(Clone)]
pub struct Remote {
    /// What it speaks.
    pub protocol: Protocol,
    /// The Envoy cluster on which it is.
    pub cluster: Box<str>,
    /// The `:authority` of the requests to it.
    pub authority: Box<str>,
    /// The `authorization` header of the requests to it.
    pub authorization: Option<Box<str>>,
    /// What every key begins with.
    pub key_prefix: Box<str>,
    /// How long an answer is waited for, in milliseconds; at least 1, for Envoy takes 0 for ever.
    pub timeout_millis: u64,
    /// What becomes of a request when it does not answer.
    pub on_error: OnError,
    /// Where its replies have what: [`Replies::of`] its protocol.
    pub replies: Replies,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("protocol", &self.protocol)
            .field("cluster", &self.cluster)
            .field("authority", &self.authority)
            .field("key_prefix", &self.key_prefix)
            .field("timeout_millis", &self.timeout_millis)
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}

/// Why the store did not answer, or not so that it can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It was not asked: it has failed too often a moment ago.
    CircuitOpen,
    /// 401 or 403: it does not accept the token, or does not allow the command.
    Denied,
    /// Its reply is not one that the protocol knows: no JSON, cut short, or of another shape.
    Malformed,
    /// Redis itself refused the command.
    Redis,
    /// It answered with a status that the protocol does not know.
    Status,
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, the connection broke, or the front does not reach Redis.
    Unreachable,
}

impl StoreError {
    /// Every kind, in the order of [`StoreError::index`].
    pub const ALL: [Self; 7] = [
        Self::CircuitOpen,
        Self::Denied,
        Self::Malformed,
        Self::Redis,
        Self::Status,
        Self::Timeout,
        Self::Unreachable,
    ];

    /// The stable word for it, as in the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Redis => "redis",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }

    /// The position in [`StoreError::ALL`].
    #[must_use]
    #[allow(
        clippy::as_conversions,
        reason = "the discriminant of a field-less enum"
    )]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What comes of a store's answer, or of its silence, for a request that may hold a claim in the
/// local store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the guard is told.
    pub answer: ClaimAnswer,
    /// Whether the claim in the local store stays.
    pub keeps_locally: bool,
    /// Whether the shared store has to be told that this claim is void: it may have heard of it.
    pub releases_remotely: bool,
}

impl OnError {
    /// Resolves an answer of the shared store. `holds_locally` if the local store has granted
    /// the claim before.
    #[must_use]
    pub fn resolve(self, result: Result<ClaimAnswer, StoreError>, holds_locally: bool) -> Resolved {
        match (result, self) {
            (Ok(answer), _) => Resolved {
                answer,
                keeps_locally: holds_locally && answer == ClaimAnswer::Granted,
                releases_remotely: false,
            },
            (Err(_), Self::Memory) if holds_locally => Resolved {
                answer: ClaimAnswer::GrantedLocally,
                keeps_locally: true,
                releases_remotely: false,
            },
            (Err(error), _) => Resolved {
                answer: ClaimAnswer::Unavailable,
                keeps_locally: false,
                releases_remotely: error != StoreError::CircuitOpen,
            },
        }
    }

    /// The word for it, as in the configuration and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pass => "pass",
            Self::Reject => "reject",
        }
    }
}

/// The longest reply that is read, in bytes. The longest that the protocol knows has about 120;
/// what is longer is [`StoreError::Malformed`].
pub const MAX_REPLY_BYTES: usize = 4096;

/// Settles a claim as delivered. `ARGV`: the claim, the delivered event, the window in
/// milliseconds. An event that is absent counts as ours: its lease has ended, or Redis has lost it,
/// and nobody has claimed it since. Settled twice is settled.
const DELIVER: &str = "local v=redis.call('GET',KEYS[1]) \
    if v==ARGV[2] then return 1 end \
    if v==ARGV[1] or not v then redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 end \
    return 0";

/// Releases a claim. `ARGV`: the claim. An event that is absent is released.
const RELEASE: &str = "local v=redis.call('GET',KEYS[1]) \
    if v==ARGV[1] then return redis.call('DEL',KEYS[1]) end \
    if not v then return 1 end \
    return 0";

impl Remote {
    /// The headers of every request.
    #[must_use]
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let content_type = match self.protocol {
            Protocol::Upstash => "application/json",
            Protocol::Webdis => "application/x-www-form-urlencoded",
        };
        let mut headers = vec![
            (":method", "POST"),
            (":path", "/"),
            (":authority", &*self.authority),
            ("content-type", content_type),
        ];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        headers
    }

    /// The `authorization` header that carries `token`.
    ///
    /// Source: Webdis, `acl` with `http_basic_auth` (`user:password`); Upstash, "REST API".
    #[must_use]
    pub fn authorization(protocol: Protocol, token: &str) -> Box<str> {
        match protocol {
            Protocol::Upstash => format!("Bearer {token}").into(),
            Protocol::Webdis => format!("Basic {}", STANDARD.encode(token)).into(),
        }
    }

    /// The body of the request that asks for a claim.
    #[must_use]
    pub fn claim(&self, source: &str, request: &ClaimRequest) -> String {
        let lease = request.lease_seconds.saturating_mul(1000).to_string();
        let value = claimed(request.owner);
        let key = self.key(source, request.key);
        self.command(&["SET", &key, &value, "NX", "GET", "PX", &lease])
    }

    /// The body of the request that settles a claim.
    #[must_use]
    pub fn settle(&self, source: &str, settlement: &Settlement) -> String {
        match *settlement {
            Settlement::Deliver {
                key,
                owner,
                fingerprint,
                window_seconds,
            } => {
                let window = window_seconds.saturating_mul(1000).to_string();
                let key = self.key(source, key);
                let value = delivered(owner, fingerprint);
                self.command(&["EVAL", DELIVER, "1", &key, &claimed(owner), &value, &window])
            }
            Settlement::Release { key, owner } => {
                let key = self.key(source, key);
                self.command(&["EVAL", RELEASE, "1", &key, &claimed(owner)])
            }
        }
    }

    /// What the reply to [`Remote::claim`] says to `owner`.
    ///
    /// A claim that is the asker's own already is granted: its first answer was lost.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::CircuitOpen`].
    pub fn read_claim(
        &self,
        status: u16,
        body: &[u8],
        owner: OwnerToken,
    ) -> Result<ClaimAnswer, StoreError> {
        match self.read(status, body, Command::Set)? {
            Reply::Null => Ok(ClaimAnswer::Granted),
            Reply::Text(value) => match Value::parse(&value) {
                Some(Value::Claimed(holder)) if holder == owner => Ok(ClaimAnswer::Granted),
                Some(Value::Claimed(_)) => Ok(ClaimAnswer::ClaimedByAnother),
                Some(Value::Delivered(fingerprint)) => Ok(ClaimAnswer::Delivered(fingerprint)),
                None => Err(StoreError::Malformed),
            },
            Reply::Flag(_) => Err(StoreError::Malformed),
        }
    }

    /// Whether the claim was still the owner's, by the reply to [`Remote::settle`].
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::CircuitOpen`].
    pub fn read_settle(&self, status: u16, body: &[u8]) -> Result<bool, StoreError> {
        match self.read(status, body, Command::Eval)? {
            Reply::Flag(is_settled) => Ok(is_settled),
            Reply::Null | Reply::Text(_) => Err(StoreError::Malformed),
        }
    }

    fn key(&self, source: &str, key: EventKey) -> String {
        format!("{}{source}:{}", self.key_prefix, key.to_hex())
    }

    fn command(&self, arguments: &[&str]) -> String {
        let mut text = String::with_capacity(512);
        match self.protocol {
            Protocol::Webdis => {
                for (index, argument) in arguments.iter().enumerate() {
                    if index > 0 {
                        text.push('/');
                    }
                    percent_encode(&mut text, argument);
                }
            }
            Protocol::Upstash => {
                // Strings as JSON: this cannot fail.
                text = serde_json::to_string(arguments).unwrap_or_default();
            }
        }
        text
    }

    fn read(&self, status: u16, body: &[u8], command: Command) -> Result<Reply, StoreError> {
        match (status, self.protocol) {
            (200, _) | (400 | 500, Protocol::Upstash) => {}
            (401 | 403, _) => return Err(StoreError::Denied),
            (503, _) => return Err(StoreError::Unreachable),
            (504, _) => return Err(StoreError::Timeout),
            _ => return Err(StoreError::Status),
        }
        if body.len() > MAX_REPLY_BYTES {
            return Err(StoreError::Malformed);
        }
        let mut scratch = Scratch::default();
        let reply =
            json::scan(body, &self.replies.0, &mut scratch).map_err(|_| StoreError::Malformed)?;
        match self.protocol {
            Protocol::Upstash => match (reply.get(Replies::RESULT), reply.get(Replies::ERROR)) {
                (None, Some(error)) if error.kind() == Kind::String => Err(StoreError::Redis),
                (Some(result), None) if status == 200 => Reply::new(result),
                _ => Err(StoreError::Malformed),
            },
            Protocol::Webdis => {
                let slot = match command {
                    Command::Eval => Replies::EVAL,
                    Command::Set => Replies::SET,
                };
                let result = reply.get(slot).ok_or(StoreError::Malformed)?;
                // The text of an error is not kept: it may quote a value.
                if result.raw().starts_with(b"[false,") {
                    return Err(StoreError::Redis);
                }
                Reply::new(result)
            }
        }
    }
}

fn claimed(owner: OwnerToken) -> String {
    format!("c:{:016x}", owner.as_u64())
}

fn delivered(owner: OwnerToken, fingerprint: Fingerprint) -> String {
    format!("d:{:016x}:{:016x}", owner.as_u64(), fingerprint.as_u64())
}

/// Webdis takes the parts of a path apart at `/` and reads a `.` as the start of a format.
fn percent_encode(text: &mut String, argument: &str) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    for byte in argument.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Claimed(OwnerToken),
    Delivered(Fingerprint),
}

impl Value {
    fn parse(value: &str) -> Option<Self> {
        if let Some(owner) = value.strip_prefix("c:") {
            return number(owner).map(|owner| Self::Claimed(OwnerToken::new(owner)));
        }
        let (owner, fingerprint) = value.strip_prefix("d:")?.split_once(':')?;
        number(owner)?;
        number(fingerprint).map(|value| Self::Delivered(Fingerprint::new(value)))
    }
}

/// 16 lower-case hexadecimal digits.
fn number(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 16 || !text.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Where a reply has what.
#[derive(Clone, Debug)]
pub struct Replies(Selector);

impl Replies {
    const EVAL: usize = 0;
    const SET: usize = 1;
    const RESULT: usize = 0;
    const ERROR: usize = 1;

    /// As `protocol` has it.
    #[must_use]
    pub fn of(protocol: Protocol) -> Self {
        let names = match protocol {
            Protocol::Upstash => ["/result", "/error"],
            Protocol::Webdis => ["/EVAL", "/SET"],
        };
        let pointers: Vec<_> = names
            .iter()
            .filter_map(|name| Pointer::parse(name).ok())
            .collect();
        Self(Selector::new(&pointers, false))
    }
}

/// The two commands that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Eval,
    Set,
}

/// What Redis said.
#[derive(Debug)]
enum Reply {
    Null,
    /// 0 and 1, told apart by their text: no script answers anything else.
    Flag(bool),
    Text(String),
}

impl Reply {
    fn new(value: json::Value<'_>) -> Result<Self, StoreError> {
        match (value.kind(), value.raw(), value.text()) {
            (Kind::Null, ..) => Ok(Self::Null),
            (Kind::String, _, Some(text)) => Ok(Self::Text(text.into_owned())),
            (_, b"0", _) => Ok(Self::Flag(false)),
            (_, b"1", _) => Ok(Self::Flag(true)),
            _ => Err(StoreError::Malformed),
        }
    }
}
