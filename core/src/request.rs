//! The head of a request: raw header pairs, read once into the facts that the checks need.
//!
//! Header values are bytes: a sender may put anything there, UTF-8 or not.

use crate::content_type;
use crate::verdict::{Code, Rejection};

/// The name of the headers that only the guard may set towards the upstream.
const RESERVED_PREFIX: &[u8] = b"x-callback-guard";

/// What the names begin with by which a client tells Envoy's router how often to send a request, and how
/// long to wait for the answer.
///
/// Envoy removes them where it takes the client for external; which one it takes for internal is a matter of
/// `use_remote_address` and `internal_address_config`, and of the proxies in front of it. Source: Envoy 1.40,
/// "Router", HTTP headers (consumed).
const STEERING_PREFIXES: [&[u8]; 6] = [
    b"expected-",
    b"hedge-",
    b"max-retries",
    b"retriable-",
    b"retry-",
    b"upstream-",
];

/// How often a header came, and its value if that was once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence<'a> {
    /// Not at all.
    Missing,
    /// Once, with this value (which may be empty).
    Once(&'a [u8]),
    /// More than once: which one an application would read is anybody's guess.
    Several,
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pairs: &'a [(&'a [u8], &'a [u8])],
    method: &'a [u8],
    target: &'a [u8],
    authority: &'a [u8],
    content_length: Option<&'a [u8]>,
    media_type: Occurrence<'a>,
    encoded: bool,
    has_reserved: bool,
    has_steering: bool,
}

impl<'a> RequestHead<'a> {
    /// Reads pairs of lower-case names and values, pseudo-headers included, in one pass.
    #[must_use]
    pub fn new(pairs: &'a [(&'a [u8], &'a [u8])]) -> Self {
        let mut head = Self {
            pairs,
            method: b"",
            target: b"",
            authority: b"",
            content_length: None,
            media_type: Occurrence::Missing,
            encoded: false,
            has_reserved: false,
            has_steering: false,
        };
        for &(name, value) in pairs {
            match name {
                b":method" => head.method = value,
                b":path" => head.target = value,
                b":authority" => head.authority = value,
                b"content-length" => head.content_length = Some(value),
                b"content-type" => {
                    head.media_type = match head.media_type {
                        Occurrence::Missing => Occurrence::Once(value),
                        _ => Occurrence::Several,
                    };
                }
                b"content-encoding" => {
                    head.encoded |= !value.trim_ascii().eq_ignore_ascii_case(b"identity");
                }
                _ => {
                    head.has_reserved |= is_reserved(name);
                    head.has_steering |= is_steering(name);
                }
            }
        }
        head
    }

    /// The method.
    #[must_use]
    pub(crate) fn method(&self) -> &'a [u8] {
        self.method
    }

    /// Path and query as they came.
    #[must_use]
    pub fn target(&self) -> &'a [u8] {
        self.target
    }

    /// The path as it came, up to the query.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default()
    }

    /// The query as it came, without its `?`; none if there is no `?`.
    #[must_use]
    pub(crate) fn query(&self) -> Option<&'a [u8]> {
        let question = self.target.iter().position(|byte| *byte == b'?')?;
        self.target.get(question.saturating_add(1)..)
    }

    /// The host without its port.
    ///
    /// Source: RFC 3986, 3.2.3; an IPv6 literal keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        let port = self
            .authority
            .iter()
            .rposition(|byte| *byte == b':')
            .and_then(|colon| self.authority.split_at_checked(colon))
            .filter(|(_, port)| port.iter().skip(1).all(u8::is_ascii_digit));
        port.map_or(self.authority, |(host, _)| host)
    }

    /// How often `name` (lower case) came.
    #[must_use]
    pub fn occurrence(&self, name: &[u8]) -> Occurrence<'a> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (None, _) => Occurrence::Missing,
            (Some(value), None) if !self.has_twin(name) => Occurrence::Once(value),
            (Some(_), _) => Occurrence::Several,
        }
    }

    /// Whether a header is there whose name differs from `name` by `_` for `-` alone: CGI and its
    /// heirs hand both to the application as one.
    fn has_twin(&self, name: &[u8]) -> bool {
        let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
        let is_same = |(a, b): (&u8, &u8)| plain(*a) == plain(*b);
        self.pairs.iter().any(|(given, _)| {
            given.len() == name.len() && *given != name && given.iter().zip(name).all(is_same)
        })
    }

    /// Names in lower case and values, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.pairs.iter().copied()
    }

    /// Every value of `name` (lower case), in order.
    pub fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.pairs
            .iter()
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| *value)
    }

    /// The names that only the guard may set, as the sender sent them: to be removed.
    pub fn reserved_headers(&self) -> impl Iterator<Item = &'a [u8]> {
        let pairs = if self.has_reserved { self.pairs } else { &[] };
        pairs
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| is_reserved(name))
    }

    /// The names by which the sender would have Envoy's router deliver the request several times, or give
    /// it up early: to be removed from what the guard judges.
    pub fn steering_headers(&self) -> impl Iterator<Item = &'a [u8]> {
        let pairs = if self.has_steering { self.pairs } else { &[] };
        pairs
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| is_steering(name))
    }

    /// Checks the method.
    ///
    /// # Errors
    ///
    /// [`Code::MethodNotAllowed`] for anything but POST.
    pub(crate) fn check_method(&self) -> Result<(), Rejection> {
        match self.method {
            b"POST" => Ok(()),
            _ => Err(Rejection::new(Code::MethodNotAllowed)),
        }
    }

    /// Checks the content type, in any case, against `accepted` media types; a `+json` type counts as
    /// `application/json`. Of its parameters only `charset` matters, for JSON and forms: given once at
    /// most, and UTF-8.
    ///
    /// # Errors
    ///
    /// [`Code::UnsupportedMediaType`] if it is missing, another, there are several, or some reader may
    /// take its text for another than UTF-8.
    ///
    /// Source: RFC 9110, 8.3; RFC 6839, 3.1 (`+json`).
    pub fn check_media_type(&self, accepted: &[Box<str>]) -> Result<MediaType, Rejection> {
        let refused = Rejection::new(Code::UnsupportedMediaType);
        let Occurrence::Once(value) = self.media_type else {
            return Err(refused);
        };
        let end = value.iter().position(|byte| *byte == b';');
        let (essence, parameters) = value
            .split_at_checked(end.unwrap_or(value.len()))
            .unwrap_or_default();
        let essence = essence.trim_ascii();
        if is_grpc(essence) {
            return Err(refused);
        }
        let kind = if is_json(essence) {
            MediaType::Json
        } else {
            MediaType::Other
        };
        let is_accepted = accepted.iter().any(|accepted| match (kind, &**accepted) {
            (MediaType::Json, JSON) => true,
            (_, accepted) => essence.eq_ignore_ascii_case(accepted.as_bytes()),
        });
        if !is_accepted {
            return Err(refused);
        }
        let is_text = kind == MediaType::Json || essence.eq_ignore_ascii_case(FORM);
        if is_text && !content_type::are_utf8(parameters) {
            let why = "its parameters may name another character set than UTF-8";
            return Err(Rejection::because(Code::UnsupportedMediaType, why));
        }
        Ok(kind)
    }

    /// Checks that the body is not compressed: what is signed and checked is what is forwarded.
    ///
    /// # Errors
    ///
    /// [`Code::UnsupportedContentEncoding`] for anything but `identity`.
    pub(crate) fn check_content_encoding(&self) -> Result<(), Rejection> {
        if self.encoded {
            return Err(Rejection::new(Code::UnsupportedContentEncoding));
        }
        Ok(())
    }

    /// Checks the declared length against `limit`, in bytes. A body with no declared length is
    /// measured as it comes.
    ///
    /// # Errors
    ///
    /// [`Code::BodyTooLarge`], also for a number that does not fit.
    pub(crate) fn check_declared_length(&self, limit: u64) -> Result<(), Rejection> {
        match self.declared_length() {
            Some(length) if length > limit => Err(Rejection::too_large(limit)),
            _ => Ok(()),
        }
    }

    /// The length of the body as the head declares it, in bytes; the largest number for one that
    /// cannot be read.
    #[must_use]
    pub(crate) fn declared_length(&self) -> Option<u64> {
        let digits = core::str::from_utf8(self.content_length?);
        Some(
            digits
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(u64::MAX),
        )
    }
}

/// What kind of body the content type announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// JSON: it is parsed and its rules are checked.
    Json,
    /// Another type that the source accepts: only header and body parts can be used.
    Other,
}

/// What the subtype of forms begins with.
const FORM_SUBTYPE: &[u8] = b"x-www-form-urlencoded";

/// The media type of forms.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// The media type that every source accepts unless it says otherwise.
pub const JSON: &str = "application/json";

/// Whether an application could take `name` for one of the headers that only the guard may set: in
/// any case, and with `_` for `-`, which CGI and its heirs read alike.
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    let plain = |byte: u8| {
        if byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    name.len() >= RESERVED_PREFIX.len()
        && name
            .iter()
            .zip(RESERVED_PREFIX)
            .all(|(a, b)| plain(*a) == *b)
}

/// Whether a header steers Envoy's router.
fn is_steering(name: &[u8]) -> bool {
    name.strip_prefix(b"x-envoy-").is_some_and(|rest| {
        STEERING_PREFIXES
            .iter()
            .any(|prefix| rest.starts_with(prefix))
    })
}

/// Whether Envoy answers a request of this media type as gRPC: with 200 whatever went wrong, so that a
/// sender would take a refusal for a delivery.
fn is_grpc(essence: &[u8]) -> bool {
    let grpc = b"application/grpc";
    let start = essence.split_at_checked(grpc.len());
    start.is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(grpc) && matches!(rest.first(), None | Some(b'+'))
    })
}

/// Whether `part` is a valid type or subtype of a media type.
///
/// Source: RFC 6838, 4.2.
#[must_use]
pub fn is_media_type_part(part: &[u8]) -> bool {
    !part.is_empty()
        && part
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(byte))
}

/// Whether a media type, without parameters, is JSON.
#[must_use]
pub fn is_json(essence: &[u8]) -> bool {
    if essence.eq_ignore_ascii_case(JSON.as_bytes()) {
        return true;
    }
    let mut parts = essence.splitn(2, |byte| *byte == b'/');
    let (kind, subtype) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let suffix = subtype
        .len()
        .checked_sub(5)
        .and_then(|at| subtype.split_at_checked(at));
    // Some parsers look at the beginning alone, and would take such a body for a form.
    let is_form = |base: &[u8]| {
        kind.eq_ignore_ascii_case(b"multipart")
            || base
                .get(..FORM_SUBTYPE.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(FORM_SUBTYPE))
    };
    suffix.is_some_and(|(base, suffix)| {
        is_media_type_part(kind)
            && !is_form(base)
            && is_media_type_part(base)
            && suffix.eq_ignore_ascii_case(b"+json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn media_type(value: &str, accepted: bool) {
        let pairs: &[(&[u8], &[u8])] = &[(b"content-type", value.as_bytes())];
        let head = RequestHead::new(pairs);
        assert_eq!(
            head.check_media_type(&[JSON.into()]).is_ok(),
            accepted,
            "{value:?}"
        );
    }

    #[test]
    fn json_media_types_in_any_case_with_any_parameter_are_accepted() {
        media_type("application/json", true);
        media_type("Application/JSON; charset=utf-8", true);
        media_type("application/json;charset=latin1;x=y", false);
        media_type("application/json;x=y", true);
        media_type("application/json ; charset=utf-8", true);
        media_type("application/cloudevents+json", true);
        media_type("application/+json", false);
        media_type("application/grpc+json", false);
        media_type("Application/GRPC+JSON; charset=utf-8", false);
        media_type("application/grpc-web+json", true);
        media_type("application/x-www-form-urlencoded+json", false);
        media_type("multipart/form-data+json; boundary=x", false);
        media_type("application/json, text/plain", false);
        media_type("application/jsonp", false);
        media_type("text/plain", false);
        media_type("", false);
    }

    #[test]
    fn the_guards_reserved_headers_are_found_in_every_spelling() {
        let names: &[&[u8]] = &[
            b"x-callback-guard",
            b"X-Callback-Guard-Id",
            b"x_callback_guard_id",
            b"x-callback-guarded",
            b"x-callback",
            b"callback-guard",
            b"",
        ];
        let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|name| (*name, &b""[..])).collect();
        let own: Vec<&[u8]> = RequestHead::new(&pairs).reserved_headers().collect();
        assert_eq!(own, names[..4]);
    }

    #[test]
    fn headers_that_steer_the_router_are_found_and_no_other() {
        let names: &[&[u8]] = &[
            b"x-envoy-expected-rq-timeout-ms",
            b"x-envoy-hedge-on-per-try-timeout",
            b"x-envoy-max-retries",
            b"x-envoy-retriable-header-names",
            b"x-envoy-retriable-status-codes",
            b"x-envoy-retry-grpc-on",
            b"x-envoy-retry-on",
            b"x-envoy-upstream-alt-stat-name",
            b"x-envoy-upstream-rq-per-try-timeout-ms",
            b"x-envoy-upstream-rq-timeout-alt-response",
            b"x-envoy-upstream-rq-timeout-ms",
            b"x-envoy-external-address",
            b"x-envoy-internal",
            b"x-retry-on",
        ];
        let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|name| (*name, &b""[..])).collect();
        let steering: Vec<&[u8]> = RequestHead::new(&pairs).steering_headers().collect();
        assert_eq!(steering, names[..11]);
    }

    #[test]
    fn a_name_with_underscores_counts_as_the_one_with_hyphens() {
        let once: &[(&[u8], &[u8])] = &[(b"webhook-id", b"a"), (b"webhook-idx", b"b")];
        let twice: &[(&[u8], &[u8])] = &[(b"webhook_id", b"b"), (b"webhook-id", b"a")];
        let head = RequestHead::new(once);
        assert_eq!(head.occurrence(b"webhook-id"), Occurrence::Once(b"a"));
        assert_eq!(head.occurrence(b"webhook_id"), Occurrence::Missing);
        let head = RequestHead::new(twice);
        assert_eq!(head.occurrence(b"webhook-id"), Occurrence::Several);
    }

    #[track_caller]
    fn host(authority: &str, expected: &str) {
        let pairs: &[(&[u8], &[u8])] = &[(b":authority", authority.as_bytes())];
        assert_eq!(RequestHead::new(pairs).host(), expected.as_bytes());
    }

    #[test]
    fn the_host_has_no_port() {
        host("example.com", "example.com");
        host("example.com:8443", "example.com");
        host("[::1]:80", "[::1]");
        host("[::1]", "[::1]");
        host("", "");
    }
}
