//! Why a shared store is of no use to a request.

use crate::words::words;

words! {
    /// Why the store failed to answer, or sent a malformed reply.
    pub enum StoreError {
        /// It was not asked: it has failed too often a moment ago.
        CircuitOpen = "circuit_open",
        /// It does not accept the token or the password; a front: or does not allow the command.
        Denied = "denied",
        /// Its reply is not one that the protocol knows: no JSON, cut short, or of another shape.
        Malformed = "malformed",
        /// Redis itself refused the command.
        Redis = "redis",
        /// It answered with a status that the protocol does not know.
        Status = "status",
        /// It did not answer in time.
        Timeout = "timeout",
        /// It could not be reached, the connection broke, or the front does not reach Redis.
        Unreachable = "unreachable",
    }
}

impl StoreError {
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
}
