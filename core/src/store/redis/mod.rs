//! The Redis store: what is asked of it, and what its replies mean.
//!
//! | | asked by | answers |
//! |---|---|---|
//! | a [`Front`] on an Envoy cluster | `POST` | HTTP, see [`front`] |
//! | the [`Server`] itself, where the host has a connection | `EVAL` the first time on a connection, then `EVALSHA` | a [`Reply`] |
//!
//! A key is `<key_prefix><source>:<64 hexadecimal digits>`, a value `c:<owner>` for a claim and
//! `d:<owner>:<fingerprint>:<signed>` for a delivered event; version 0.1 wrote no `:<signed>`. The live
//! events of a message id are counted in a sorted set, `<key_prefix><source>:id:<32 hexadecimal
//! digits>`, each with its end. Every key has an end, in milliseconds. One script makes a claim: its
//! round trip is one. Scripts, keys and values are the same whatever the way, so that hosts of both kinds
//! share their events.
//!
//! Everything here is a pure function of bytes: who carries them is the business of the filter.
//! What a reply may look like is taken narrowly. Anything else is a [`StoreError`], for a store
//! that is misread loses events or lets them through twice.
//!
//! Source: Redis commands `EVAL`, `SET`, `ZADD` and `ZREMRANGEBYSCORE`.

pub mod front;
pub mod server;

use serde::Deserialize;
use sha1::{Digest as _, Sha1};

use crate::event::{EventKey, IdKey};
use crate::store::bucket::{Fingerprint, OwnerToken};
use crate::store::{ClaimAnswer, ClaimRequest, Settlement};
pub use front::{Front, Protocol, Replies};
pub use server::{Address, Login, Place, Reply, Server};

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

/// A shared store, as configured.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The way to it.
    pub access: Access,
    /// What every key begins with.
    pub key_prefix: Box<str>,
    /// The reply timeout, in milliseconds; at least 1, because Envoy treats 0 as no timeout.
    pub timeout_millis: u64,
    /// What happens to a request when it does not answer.
    pub on_error: OnError,
}

/// The way to a shared store.
#[derive(Clone, Debug)]
pub enum Access {
    /// By HTTP calls to a front of it.
    Front(Front),
    /// By a connection of the host's own.
    Server(Server),
}

/// What the store is asked, in the words of its [`Access`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Have the server run a script.
    Eval(Box<Eval>),
    /// POST this to the front, with [`Front::headers`].
    Post(String),
}

/// A script with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eval {
    /// The script.
    pub script: Script,
    /// `KEYS`.
    pub keys: [String; 2],
    /// `ARGV`.
    pub arguments: Vec<String>,
}

/// What came back from the store, by the way that it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// From a front.
    Http {
        /// The status.
        status: u16,
        /// The body: [`MAX_REPLY_BYTES`] and one more are enough.
        body: &'a [u8],
    },
    /// From the server.
    Redis(Reply<'a>),
}

/// Why the store failed to answer, or sent a malformed reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It was not asked: it has failed too often a moment ago.
    CircuitOpen,
    /// It does not accept the token or the password; a front: or does not allow the command.
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

    /// What an error of Redis means, by its code: the first word of it, such as `NOPERM`.
    ///
    /// Source: redis.io, "ACL".
    #[must_use]
    pub fn of_redis(code: &str) -> Self {
        match code {
            "NOAUTH" | "WRONGPASS" => Self::Denied,
            _ => Self::Redis,
        }
    }

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

/// A script that Redis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Claims an event.
    Claim,
    /// Settles a claim as delivered.
    Deliver,
    /// Releases a claim.
    Release,
}

impl Script {
    /// Its text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Claim => CLAIM,
            Self::Deliver => DELIVER,
            Self::Release => RELEASE,
        }
    }

    /// The name under which `EVALSHA` knows it.
    ///
    /// Source: Redis command `EVALSHA`.
    #[must_use]
    pub fn digest(self) -> String {
        hex::encode(Sha1::digest(self.text()))
    }
}

impl Remote {
    /// Asks for a claim.
    #[must_use]
    pub fn claim(&self, source: &str, request: &ClaimRequest) -> Ask {
        let lease = request.lease_seconds.saturating_mul(1000).to_string();
        let most = request.events_per_id.to_string();
        let value = claimed(request.owner);
        let keys = self.keys(source, request.key, request.id);
        self.ask(Eval {
            script: Script::Claim,
            keys: [keys.event, keys.id],
            arguments: vec![value, lease, most, keys.name],
        })
    }

    /// Settles a claim.
    #[must_use]
    pub fn settle(&self, source: &str, settlement: &Settlement) -> Ask {
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
                self.ask(Eval {
                    script: Script::Deliver,
                    keys: [keys.event, keys.id],
                    arguments: vec![claimed(owner), value, window, keys.name],
                })
            }
            Settlement::Release { key, id, owner } => {
                let keys = self.keys(source, key, id);
                self.ask(Eval {
                    script: Script::Release,
                    keys: [keys.event, keys.id],
                    arguments: vec![claimed(owner), keys.name],
                })
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
        answer: Answer<'_>,
        owner: OwnerToken,
    ) -> Result<ClaimAnswer, StoreError> {
        match self.read(answer)? {
            Said::Null => Ok(ClaimAnswer::Granted),
            Said::Text(value) if value == FULL => Ok(ClaimAnswer::TooMany),
            Said::Text(value) => match Value::parse(&value) {
                Some(Value::Claimed(holder)) if holder == owner => Ok(ClaimAnswer::Granted),
                Some(Value::Claimed(_)) => Ok(ClaimAnswer::ClaimedByAnother),
                Some(Value::Delivered(fingerprint)) => Ok(ClaimAnswer::Delivered(fingerprint)),
                None => Err(StoreError::Malformed),
            },
            Said::Flag(_) => Err(StoreError::Malformed),
        }
    }

    /// Whether the claim was still the owner's, by the reply to [`Remote::settle`].
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::CircuitOpen`].
    pub fn read_settle(&self, answer: Answer<'_>) -> Result<bool, StoreError> {
        match self.read(answer)? {
            Said::Flag(is_settled) => Ok(is_settled),
            Said::Null | Said::Text(_) => Err(StoreError::Malformed),
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

    fn ask(&self, eval: Eval) -> Ask {
        match &self.access {
            Access::Front(front) => Ask::Post(front.body(&eval)),
            Access::Server(_) => Ask::Eval(Box::new(eval)),
        }
    }

    fn read(&self, answer: Answer<'_>) -> Result<Said, StoreError> {
        match (&self.access, answer) {
            (Access::Front(front), Answer::Http { status, body }) => front.read(status, body),
            (Access::Server(_), Answer::Redis(reply)) => reply.read(),
            // Not what was asked: the host's mistake.
            (Access::Front(_), Answer::Redis(_)) | (Access::Server(_), Answer::Http { .. }) => {
                Err(StoreError::Malformed)
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

/// What one event is called in Redis.
struct Keys {
    event: String,
    /// The sorted set of its message id.
    id: String,
    /// The event in that set.
    name: String,
}

/// What Redis said, by whatever way.
#[derive(Debug)]
enum Said {
    Null,
    Flag(bool),
    Text(String),
}
