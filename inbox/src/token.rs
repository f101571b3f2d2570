//! The bearer token that Envoy sends.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

/// The shortest token, in bytes.
pub const SHORTEST: usize = 16;

/// The token that each request must carry.
#[derive(Clone)]
pub struct BearerToken(Box<[u8]>);

impl fmt::Debug for BearerToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BearerToken([redacted])")
    }
}

impl BearerToken {
    /// A token of at least [`SHORTEST`] visible ASCII characters.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let is_accepted =
            token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_accepted.then(|| Self(token.as_bytes().into()))
    }

    /// Whether the request has exactly one `authorization`, with this token.
    ///
    /// The comparison takes the same time wherever the difference is; the length is no secret.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(self.0.ct_eq(token))
    }
}
