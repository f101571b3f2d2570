//! What the guard can say about a request, and why it refuses one.
//!
//! A [`Code`] is the contract: it is in the reply, the metrics, the log and the access log, and
//! it never changes its meaning. A [`Rejection`] is a code with the numbers an operator needs; its
//! text is for the log alone and never holds a secret, a signature or a payload.

use core::fmt;

use crate::words::words;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)+) => {
        words! {
            /// The stable word for a verdict, one per row of the contract.
            pub enum Code {
                $(
                    $(#[$doc])*
                    #[doc = concat!("\n\nStatus ", stringify!($status), ", code `", $text, "`.")]
                    $variant = $text,
                )+
            }
        }

        impl Code {
            /// The HTTP status of the guard's own answer; 200 for verdicts that are no refusal.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }
        }
    };
}

codes! {
    /// The request was let through.
    Forwarded = "forwarded", 200;
    /// The event was delivered before; the sender need not send it again.
    Duplicate = "duplicate", 200;
    /// The sender has asked before it sends, and got its answer from the guard; the status is the
    /// one that the challenge is configured with.
    Challenge = "challenge", 200;
    /// A challenge has a value twice, or one that may not be echoed.
    ChallengeMalformed = "challenge_malformed", 400;
    /// The event was delivered before with another body, and `on_body_change` is `reject`.
    BodyChanged = "body_changed", 409;
    /// There is no body.
    BodyEmpty = "body_empty", 400;
    /// The body is longer than `max_body_bytes`.
    BodyTooLarge = "body_too_large", 413;
    /// Two places of the message id disagree, or its header came more than once.
    IdAmbiguous = "id_ambiguous", 422;
    /// The message id is not a string that this scheme allows.
    IdMalformed = "id_malformed", 422;
    /// There is no message id.
    IdMissing = "id_missing", 422;
    /// Another request holds the claim on this event.
    InFlight = "in_flight", 409;
    /// The guard could not read the request or its own state; nothing was forwarded.
    InternalError = "internal_error", 503;
    /// A JSON key is one that the source reads, but for case.
    JsonAmbiguousKey = "json_ambiguous_key", 400;
    /// A JSON object has the same key twice.
    JsonDuplicateKey = "json_duplicate_key", 400;
    /// The body is not one JSON value in valid UTF-8, or its root is of a kind that the source refuses.
    JsonMalformed = "json_malformed", 400;
    /// The JSON is nested deeper than 64.
    JsonTooDeep = "json_too_deep", 400;
    /// The method is not POST.
    MethodNotAllowed = "method_not_allowed", 405;
    /// No source matches host and path.
    NoSource = "no_source", 404;
    /// The worker holds as many bytes of bodies as it may.
    Overloaded = "overloaded", 503;
    /// A field that the source requires is missing or of another type.
    PayloadInvalid = "payload_invalid", 422;
    /// The signature header came more than once.
    SignatureAmbiguous = "signature_ambiguous", 401;
    /// The signature header does not decode to 32 bytes.
    SignatureMalformed = "signature_malformed", 401;
    /// The MAC matches under none of the secrets.
    SignatureMismatch = "signature_mismatch", 401;
    /// There is no signature header.
    SignatureMissing = "signature_missing", 401;
    /// The store has no room: every entry that could hold this event is a live claim.
    StoreFull = "store_full", 503;
    /// The store did not answer.
    StoreUnavailable = "store_unavailable", 503;
    /// The timestamp came more than once.
    TimestampAmbiguous = "timestamp_ambiguous", 401;
    /// The timestamp lies further ahead than `future_tolerance_seconds`.
    TimestampInFuture = "timestamp_in_future", 401;
    /// The timestamp is not made of the digits that the scheme wants.
    TimestampMalformed = "timestamp_malformed", 401;
    /// There is no timestamp.
    TimestampMissing = "timestamp_missing", 401;
    /// The timestamp is older than `tolerance_seconds`.
    TimestampTooOld = "timestamp_too_old", 401;
    /// The body is compressed.
    UnsupportedContentEncoding = "unsupported_content_encoding", 415;
    /// The message id has made as many events as one may.
    TooManyEvents = "too_many_events", 429;
    /// The content type is not one that the source accepts.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// A URL in the payload points elsewhere than `payload.allowed_url_hosts`.
    UrlNotAllowed = "url_not_allowed", 422;
}

impl Code {
    /// Whether the sender does well to come again soon: the reply carries `retry-after`.
    #[must_use]
    pub(crate) const fn is_retryable(self) -> bool {
        matches!(self.status(), 409 | 503)
    }

    /// The reason phrase of [`Code::status`], the `title` of the reply. Source: RFC 9110, 15.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self.status() {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            422 => "Unprocessable Content",
            429 => "Too Many Requests",
            _ => "Service Unavailable",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request was refused: the code, and the numbers behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    code: Code,
    detail: Detail,
}

/// What an operator needs in addition to the code. Boxed text only where a refusal names a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Detail {
    None,
    Limit {
        limit: u64,
    },
    Json {
        offset: usize,
        expected: &'static str,
    },
    Pointer {
        pointer: Box<str>,
        expected: &'static str,
    },
    Seconds {
        off_by: u64,
        accepted: u64,
    },
    Text(&'static str),
}

impl Rejection {
    /// A refusal that its code explains in full.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            detail: Detail::None,
        }
    }

    /// A refusal with a fixed explanation.
    #[must_use]
    pub(crate) const fn because(code: Code, why: &'static str) -> Self {
        Self {
            code,
            detail: Detail::Text(why),
        }
    }

    /// [`Code::BodyTooLarge`] against a limit in bytes.
    #[must_use]
    pub(crate) const fn too_large(limit: u64) -> Self {
        Self {
            code: Code::BodyTooLarge,
            detail: Detail::Limit { limit },
        }
    }

    /// A source whose secrets have yet to come, from where the host gets them: nothing can be verified,
    /// and nothing called a forgery. The sender is to try again.
    #[cold]
    #[must_use]
    pub(crate) const fn no_secret() -> Self {
        Self::because(
            Code::InternalError,
            "no secret of the source has been delivered",
        )
    }

    /// A refusal of the JSON text at `offset`, in bytes from the start of the body.
    #[must_use]
    pub(crate) const fn json(code: Code, offset: usize, expected: &'static str) -> Self {
        Self {
            code,
            detail: Detail::Json { offset, expected },
        }
    }

    /// A refusal by the rule that the configuration keeps at `pointer`.
    #[must_use]
    pub(crate) fn at(code: Code, pointer: &str, expected: &'static str) -> Self {
        Self {
            code,
            detail: Detail::Pointer {
                pointer: pointer.into(),
                expected,
            },
        }
    }

    /// A timestamp that is `off_by` seconds away where `accepted` are.
    #[must_use]
    pub(crate) const fn stale(code: Code, off_by: u64, accepted: u64) -> Self {
        Self {
            code,
            detail: Detail::Seconds { off_by, accepted },
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The configured JSON pointer of the refused field, if the refusal has one.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        match &self.detail {
            Detail::Pointer { pointer, .. } => Some(pointer),
            _ => None,
        }
    }
}

/// For the operator: lower case, with units, without a full stop; never request data.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())?;
        match &self.detail {
            Detail::None => Ok(()),
            Detail::Limit { limit } => write!(f, ": more than {limit} bytes"),
            Detail::Json { offset, expected } => {
                write!(f, ": at byte {offset}, expected {expected}")
            }
            Detail::Pointer { pointer, expected } => write!(f, ": `{pointer}` must be {expected}"),
            Detail::Seconds { off_by, accepted } => {
                write!(f, ": off by {off_by} s, {accepted} s accepted")
            }
            Detail::Text(why) => write!(f, ": {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_its_position_in_all() {
        for (position, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.index(), position, "{code}");
        }
    }

    #[test]
    fn every_status_has_its_own_title() {
        for code in Code::ALL {
            assert_eq!(
                code.title() == "Service Unavailable",
                code.status() == 503,
                "{code}"
            );
        }
    }
}
