//! The Redis store: what is sent to a Redis HTTP front, and what its replies mean.
//!
//! | | Webdis | Upstash REST |
//! |---|---|---|
//! | request | `POST /`, `EVAL/<script>/2/<key>/<key>/…`, each part percent-encoded | `POST /`, `["EVAL","<script>","2","<key>","<key>",…]` |
//! | claimed | `{"EVAL":null}` | `{"result":null}` |
//! | there already | `{"EVAL":"<value>"}` | `{"result":"<value>"}` |
//! | its id has too many events | `{"EVAL":"full"}` | `{"result":"full"}` |
//! | settled, not ours | `{"EVAL":1}`, `{"EVAL":0}` | `{"result":1}`, `{"result":0}` |
//! | error of Redis | 200, `{"EVAL":[false,"ERR …"]}` | 400, `{"error":"ERR …"}` |
//! | wrong credentials | 401 or 403 | 401, `{"error":"…"}` |
//!
//! A key is `<key_prefix><source>:<64 hexadecimal digits>`, a value `c:<owner>` for a claim and
//! `d:<owner>:<fingerprint>:<signed>` for a delivered event; version 0.1 wrote no `:<signed>`. The live
//! events of a message id are counted in a sorted set, `<key_prefix><source>:id:<32 hexadecimal
//! digits>`, each with its end. Every key has an end, in milliseconds. One script makes a claim: its
//! round trip is one.
//!
//! Everything here is a pure function of bytes: who carries them is the business of the filter.
//! What a reply may look like is taken narrowly. Anything else is a [`StoreError`], for a store
//! that is misread loses events or lets them through twice.
//!
//! Source: Redis commands `EVAL`, `SET`, `ZADD` and `ZREMRANGEBYSCORE`; Webdis `README.md`; Upstash,
//! "REST API".

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::event::{EventKey, IdKey};
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

/// What happens to a request when the store does not answer.
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
    /// The reply timeout, in milliseconds; at least 1, because Envoy treats 0 as no timeout.
    pub timeout_millis: u64,
    /// What happens to a request when it does not answer.
    pub on_error: OnError,
    /// The location of the fields in its replies: [`Replies::of`] its protocol.
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

/// Why the store failed to answer, or sent a malformed reply.
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

/// The result of a store's reply, or of its failure, for a request that may hold a claim in the local
/// store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The answer for the guard.
    pub answer: ClaimAnswer,
    /// Whether the claim in the local store stays.
    pub keeps_locally: bool,
    /// Whether this claim has to be released in the shared store, which may have granted it.
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

/// The longest `timeout_milliseconds`.
pub const LONGEST_TIMEOUT_MILLIS: u64 = 10_000;

/// The longest reply that is read, in bytes. The longest that the protocol knows has about 120;
/// what is longer is [`StoreError::Malformed`].
pub const MAX_REPLY_BYTES: usize = 4096;

/// Claims an event. `KEYS`: the event, its message id. `ARGV`: the claim, the lease in milliseconds, how
/// many events the id may have, the event's name among them. What is there already comes back.
const CLAIM: &str = "local v=redis.call('GET',KEYS[1]) if v then return v end \
    local t=redis.call('TIME') local n=t[1]*1000+math.floor(t[2]/1000) \
    redis.call('ZREMRANGEBYSCORE',KEYS[2],'-inf',n) \
    if redis.call('ZCARD',KEYS[2])>=tonumber(ARGV[3]) then return 'full' end \
    redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) \
    redis.call('ZADD',KEYS[2],n+ARGV[2],ARGV[4]) \
    if redis.call('PTTL',KEYS[2])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[2],ARGV[2]) end \
    return false";

/// Settles a claim as delivered. `KEYS` as for a claim. `ARGV`: the claim, the delivered event, the
/// window in milliseconds, the event's name. An event that is absent counts as ours: its lease has
/// ended, or Redis has lost it, and nobody has claimed it since. Settled twice is settled.
const DELIVER: &str = "local v=redis.call('GET',KEYS[1]) \
    if v==ARGV[2] then return 1 end \
    if v and v~=ARGV[1] then return 0 end \
    redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) \
    local t=redis.call('TIME') local n=t[1]*1000+math.floor(t[2]/1000) \
    redis.call('ZADD',KEYS[2],n+ARGV[3],ARGV[4]) \
    if redis.call('PTTL',KEYS[2])<tonumber(ARGV[3]) then redis.call('PEXPIRE',KEYS[2],ARGV[3]) end \
    return 1";

/// Releases a claim. `KEYS` as for a claim. `ARGV`: the claim, the event's name. An event that is absent
/// is released.
const RELEASE: &str = "local v=redis.call('GET',KEYS[1]) \
    if v and v~=ARGV[1] then return 0 end \
    redis.call('ZREM',KEYS[2],ARGV[2]) \
    if v then redis.call('DEL',KEYS[1]) end \
    return 1";

/// What [`CLAIM`] answers where the message id has too many events.
const FULL: &str = "full";

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
        let most = request.events_per_id.to_string();
        let value = claimed(request.owner);
        let keys = self.keys(source, request.key, request.id);
        let [event, id] = [&*keys.event, &*keys.id];
        let arguments = [&value, &lease, &most, &keys.name];
        self.eval(CLAIM, [event, id], &arguments.map(|text| &**text))
    }

    /// The body of the request that settles a claim.
    #[must_use]
    pub fn settle(&self, source: &str, settlement: &Settlement) -> String {
        match *settlement {
            Settlement::Deliver {
                key,
                id,
                owner,
                fingerprint,
                window_seconds,
            } => {
                let window = window_seconds.saturating_mul(1000).to_string();
                let keys = self.keys(source, key, id);
                let value = delivered(owner, fingerprint);
                let claim = claimed(owner);
                let arguments = [&*claim, &value, &window, &keys.name];
                self.eval(DELIVER, [&keys.event, &keys.id], &arguments)
            }
            Settlement::Release { key, id, owner } => {
                let keys = self.keys(source, key, id);
                let claim = claimed(owner);
                self.eval(RELEASE, [&keys.event, &keys.id], &[&claim, &keys.name])
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
        match self.read(status, body)? {
            Reply::Null => Ok(ClaimAnswer::Granted),
            Reply::Text(value) if value == FULL => Ok(ClaimAnswer::TooMany),
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
        match self.read(status, body)? {
            Reply::Flag(is_settled) => Ok(is_settled),
            Reply::Null | Reply::Text(_) => Err(StoreError::Malformed),
        }
    }

    fn keys(&self, source: &str, key: EventKey, id: IdKey) -> Keys {
        let prefix = &self.key_prefix;
        let hex = key.to_hex();
        Keys {
            event: format!("{prefix}{source}:{hex}"),
            id: format!("{prefix}{source}:id:{}", hex::encode(id.shared)),
            name: hex.get(..32).unwrap_or_default().to_owned(),
        }
    }

    fn eval(&self, script: &str, keys: [&str; 2], arguments: &[&str]) -> String {
        let [event, id] = keys;
        let mut all = vec!["EVAL", script, "2", event, id];
        all.extend_from_slice(arguments);
        self.command(&all)
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

    fn read(&self, status: u16, body: &[u8]) -> Result<Reply, StoreError> {
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
                let result = reply.get(Replies::RESULT).ok_or(StoreError::Malformed)?;
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
    let (body, signed) = (fingerprint.as_u64(), fingerprint.signed());
    format!("d:{:016x}:{body:016x}:{signed:08x}", owner.as_u64())
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
        let (owner, rest) = value.strip_prefix("d:")?.split_once(':')?;
        number(owner)?;
        // Version 0.1 kept no time.
        let (body, signed) = match rest.split_once(':') {
            Some((body, signed)) => (body, u32::try_from(digits(signed, 8)?).ok()?),
            None => (rest, 0),
        };
        let fingerprint = Fingerprint::new(number(body)?).with_signed(signed);
        Some(Self::Delivered(fingerprint))
    }
}

/// 16 lower-case hexadecimal digits.
fn number(text: &str) -> Option<u64> {
    digits(text, 16)
}

/// So many lower-case hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != count || !text.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Where a reply has what.
#[derive(Clone, Debug)]
pub struct Replies(Selector);

impl Replies {
    const RESULT: usize = 0;
    const ERROR: usize = 1;

    /// As `protocol` has it.
    #[must_use]
    pub fn of(protocol: Protocol) -> Self {
        let names = match protocol {
            Protocol::Upstash => ["/result", "/error"],
            Protocol::Webdis => ["/EVAL", "/error"],
        };
        let pointers: Vec<_> = names
            .iter()
            .filter_map(|name| Pointer::parse(name).ok())
            .collect();
        Self(Selector::new(&pointers, false))
    }
}

/// What one event is called in Redis.
struct Keys {
    event: String,
    /// The sorted set of its message id.
    id: String,
    /// The event in that set.
    name: String,
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
