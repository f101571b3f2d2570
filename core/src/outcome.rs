//! The outcome of a forwarded request, read off what Envoy says of its response.

use crate::words::words;

words! {
    /// The outcome of a forwarded request.
    pub enum Outcome {
        /// The upstream itself answered 2xx.
        Accepted = "accepted",
        /// The upstream itself answered something else.
        Refused = "refused",
        /// Envoy answered before any upstream was reached.
        NotReached = "not_reached",
        /// It cannot be known: the client left, time ran out, the connection broke after the request
        /// was sent.
        Unknown = "unknown",
    }
}

/// Envoy's word for a response that the upstream itself gave.
///
/// Source: Envoy, `StreamInfo::ResponseCodeDetailValues`.
const VIA_UPSTREAM: &[u8] = b"via_upstream";

/// Envoy's words for a reply of its own before any upstream was reached, as they begin.
///
/// Source: Envoy, `StreamInfo::ResponseCodeDetailValues` and the router filter. What is not in
/// this list counts as unknown.
const NOT_REACHED: &[&[u8]] = &[
    b"cluster_not_found",
    b"direct_response",
    b"maintenance_mode",
    b"no_healthy_upstream",
    b"overload",
    b"route_not_found",
    b"upstream_reset_before_response_started{local_connection_failure",
    b"upstream_reset_before_response_started{overflow",
    b"upstream_reset_before_response_started{remote_connection_failure",
];

impl Outcome {
    /// From `response.code_details`, `response.code` and the number of tries of the router, which is asked
    /// for only where it matters.
    ///
    /// With more than one try an earlier one may have reached the upstream, regardless of the
    /// last.
    #[must_use]
    pub fn new(details: &[u8], status: u64, attempts: impl FnOnce() -> u64) -> Self {
        if details == VIA_UPSTREAM {
            return if (200..300).contains(&status) {
                Self::Accepted
            } else {
                Self::Refused
            };
        }
        if NOT_REACHED.iter().any(|start| details.starts_with(start)) && attempts() <= 1 {
            return Self::NotReached;
        }
        Self::Unknown
    }
}
