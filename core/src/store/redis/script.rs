//! The scripts that Redis runs. One of them makes a claim: its round trip is one.
//!
//! Source: Redis commands `EVAL`, `SET`, `ZADD` and `ZREMRANGEBYSCORE`.

use sha1::{Digest as _, Sha1};

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
pub(super) const FULL: &str = "full";

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
