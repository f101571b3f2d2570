//! Why a request was not taken.

use hyper::StatusCode;

/// Why a request was not taken. Nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// More than 16 MiB.
    BodyTooLarge,
    /// The connection ended before the body.
    BodyUnfinished,
    /// `--max-backlog` or `--max-backlog-bytes` is reached.
    Full,
    /// Not POST.
    MethodNotAllowed,
    /// Without what the guard adds to each verified request.
    NotVerified,
    /// Too many bytes are being received at once.
    Overloaded,
    /// The inbox is being stopped.
    Stopping,
    /// The store has not stored it, or has not said so in time.
    StoreUnavailable,
    /// The bearer token is missing or wrong.
    Unauthorized,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BodyTooLarge,
        Self::BodyUnfinished,
        Self::Full,
        Self::MethodNotAllowed,
        Self::NotVerified,
        Self::Overloaded,
        Self::Stopping,
        Self::StoreUnavailable,
        Self::Unauthorized,
    ];

    /// The code in the reply and the metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body_too_large",
            Self::BodyUnfinished => "body_unfinished",
            Self::Full => "inbox_full",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotVerified => "not_verified",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::StoreUnavailable => "store_unavailable",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// The reply's status: 503 where the sender shall try again.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyUnfinished | Self::NotVerified => StatusCode::BAD_REQUEST,
            Self::Full | Self::Overloaded | Self::Stopping | Self::StoreUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }
}
