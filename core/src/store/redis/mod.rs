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

mod error;
pub mod front;
mod reply;
mod script;
pub mod server;
mod value;

use serde::Deserialize;

use crate::event::{EventKey, IdKey};
use crate::store::bucket::OwnerToken;
use crate::store::{ClaimAnswer, ClaimRequest, Settlement};
pub use error::StoreError;
pub use front::{Front, Protocol, Replies};
pub use reply::MAX_REPLY_BYTES;
use reply::RedisReply;
use script::FULL;
pub use script::{Eval, Script};
pub use server::{Address, Login, Place, Reply, Server};
use value::{Value, claimed, delivered};

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
            RedisReply::Null => Ok(ClaimAnswer::Granted),
            RedisReply::Text(value) if value == FULL => Ok(ClaimAnswer::TooMany),
            RedisReply::Text(value) => match Value::parse(&value) {
                Some(Value::Claimed(holder)) if holder == owner => Ok(ClaimAnswer::Granted),
                Some(Value::Claimed(_)) => Ok(ClaimAnswer::ClaimedByAnother),
                Some(Value::Delivered(fingerprint)) => Ok(ClaimAnswer::Delivered(fingerprint)),
                None => Err(StoreError::Malformed),
            },
            RedisReply::Flag(_) => Err(StoreError::Malformed),
        }
    }

    /// Whether the claim was still the owner's, by the reply to [`Remote::settle`].
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::CircuitOpen`].
    pub fn read_settle(&self, answer: Answer<'_>) -> Result<bool, StoreError> {
        match self.read(answer)? {
            RedisReply::Flag(is_settled) => Ok(is_settled),
            RedisReply::Null | RedisReply::Text(_) => Err(StoreError::Malformed),
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

    fn read(&self, answer: Answer<'_>) -> Result<RedisReply, StoreError> {
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

/// What one event is called in Redis.
struct Keys {
    event: String,
    /// The sorted set of its message id.
    id: String,
    /// The event in that set.
    name: String,
}
