//! Why a shared store is of no use to a request.

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
