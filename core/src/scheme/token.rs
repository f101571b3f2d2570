//! Shared tokens: senders that sign nothing, and send a secret along instead.
//!
//! A token proves that the sender knows it, and no more: whoever has seen one request can make any
//! other. One that travels in the path or the query is removed from both before anybody else sees
//! the request, the proxy's access log included.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::request::{Occurrence, RequestHead};
use crate::scheme::keys::Token;
use crate::verdict::{Code, Rejection};

/// Which tokens, and where.
#[derive(Clone, Debug)]
pub struct TokenRule {
    /// Where the token is.
    pub at: TokenAt,
    /// The tokens that are accepted; none if the host has yet to deliver them.
    pub tokens: Vec<Token>,
}

/// Where the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAt {
    /// The value of this header; its name in lower case.
    Header(Box<str>),
    /// The last segment of the path, below a prefix of this many bytes.
    PathSegment {
        /// The length of the source's path prefix, in bytes.
        below: usize,
    },
    /// The value of this parameter of the query.
    Query(Box<str>),
    /// `authorization: Basic`: the token is `user:password`. Source: RFC 7617.
    Basic,
    /// The value at a JSON pointer, by its slot.
    Pointer(usize),
}

/// That a request came with a token of its source. Only `TokenRule::check` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenProof(());

impl TokenRule {
    /// Compares the token of a request with every one that is accepted, each in constant time; `None` if
    /// it is inside of the body.
    ///
    /// # Errors
    ///
    /// [`Code::SignatureMissing`], [`Code::SignatureAmbiguous`] if there are several,
    /// [`Code::SignatureMalformed`] if it is empty or its percent-encoding is broken,
    /// [`Code::SignatureMismatch`]; [`Code::InternalError`] if there is no token to compare it with.
    pub(crate) fn check(&self, head: &RequestHead<'_>) -> Result<Option<TokenProof>, Rejection> {
        if matches!(self.at, TokenAt::Pointer(_)) {
            return Ok(None);
        }
        let token = match self.at.find(head) {
            Occurrence::Missing => return Err(Rejection::new(Code::SignatureMissing)),
            Occurrence::Several => return Err(Rejection::new(Code::SignatureAmbiguous)),
            Occurrence::Once(token) => token,
        };
        let token = match self.at {
            TokenAt::Header(_) => Some(Cow::Borrowed(token)),
            TokenAt::PathSegment { .. } | TokenAt::Query(_) => percent_decode(token),
            TokenAt::Basic => basic(token).map(Cow::Owned),
            TokenAt::Pointer(_) => None,
        };
        let token = token.ok_or(Rejection::new(Code::SignatureMalformed))?;
        self.compare(&token).map(Some)
    }

    /// Compares the token in a body; `text` gives the value in a slot.
    ///
    /// # Errors
    ///
    /// As [`TokenRule::check`]; [`Code::InternalError`] if the token is elsewhere.
    pub(crate) fn check_body<T: AsRef<[u8]>>(
        &self,
        text: impl Fn(usize) -> Option<T>,
    ) -> Result<TokenProof, Rejection> {
        let TokenAt::Pointer(slot) = self.at else {
            return Err(Rejection::new(Code::InternalError));
        };
        let token = text(slot).ok_or(Rejection::new(Code::SignatureMissing))?;
        self.compare(token.as_ref())
    }

    /// The target of `head` without tokens, genuine or not; `None` if it contains none. `path` is that
    /// of the source.
    ///
    /// Where the token belongs at the end of the path, and something else is there, the token may be
    /// anywhere: then nothing is left but `path`.
    #[must_use]
    pub(crate) fn clean(&self, head: &RequestHead<'_>, path: &str) -> Option<Vec<u8>> {
        let clean = self.at.clean(head.target());
        if !matches!(self.at, TokenAt::PathSegment { .. }) || head.target() == path.as_bytes() {
            return clean;
        }
        let is_token =
            |segment: &[u8]| percent_decode(segment).is_some_and(|one| self.compare(&one).is_ok());
        let is_clean = |target: &Vec<u8>| {
            let mut segments = target.split(|byte| b"/?".contains(byte));
            !segments.any(is_token)
        };
        match clean.filter(is_clean) {
            Some(target) if self.check(head).is_ok() => Some(target),
            _ => Some(path.as_bytes().to_vec()),
        }
    }

    fn compare(&self, token: &[u8]) -> Result<TokenProof, Rejection> {
        if token.is_empty() {
            return Err(Rejection::new(Code::SignatureMalformed));
        }
        if self.tokens.is_empty() {
            return Err(Rejection::no_secret());
        }
        // All are compared, so that the time does not reveal which one matches.
        let matches = self.tokens.iter().filter(|known| known.matches(token));
        if matches.count() == 0 {
            return Err(Rejection::new(Code::SignatureMismatch));
        }
        Ok(TokenProof(()))
    }
}

impl TokenAt {
    fn find<'a>(&self, head: &RequestHead<'a>) -> Occurrence<'a> {
        match self {
            TokenAt::Header(name) => head.occurrence(name.as_bytes()),
            TokenAt::Basic => head.occurrence(b"authorization"),
            TokenAt::Pointer(_) => Occurrence::Missing,
            TokenAt::PathSegment { below } => {
                let path = head.path();
                match path.get(segment_start(path)..) {
                    Some(segment) if segment_start(path) >= *below && !segment.is_empty() => {
                        Occurrence::Once(segment)
                    }
                    _ => Occurrence::Missing,
                }
            }
            TokenAt::Query(name) => {
                let (_, query) = split_target(head.target());
                let mut values = query
                    .into_iter()
                    .flat_map(parameters)
                    .filter(|parameter| is_named(parameter, name))
                    .map(|parameter| split_at(parameter, b'=').1.unwrap_or_default());
                match (values.next(), values.next()) {
                    (None, _) => Occurrence::Missing,
                    (Some(value), None) => Occurrence::Once(value),
                    (Some(_), Some(_)) => Occurrence::Several,
                }
            }
        }
    }

    /// `target` (path and query) without its tokens, genuine or not; `None` if it contains none.
    fn clean(&self, target: &[u8]) -> Option<Vec<u8>> {
        let (path, query) = split_target(target);
        match self {
            TokenAt::Basic | TokenAt::Header(_) | TokenAt::Pointer(_) => None,
            TokenAt::PathSegment { below } => {
                let start = segment_start(path);
                if start < *below || start == path.len() {
                    return None;
                }
                // The slash before it goes too, unless it belongs to the prefix.
                let end = start.saturating_sub(1).max(*below);
                let mut clean = path.get(..end)?.to_vec();
                if let Some(query) = query {
                    clean.push(b'?');
                    clean.extend_from_slice(query);
                }
                Some(clean)
            }
            TokenAt::Query(name) => {
                let query = query?;
                if !parameters(query).any(|parameter| is_named(parameter, name)) {
                    return None;
                }
                let mut clean = path.to_vec();
                let mut separator = b'?';
                for parameter in parameters(query).filter(|one| !is_named(one, name)) {
                    clean.push(separator);
                    clean.extend_from_slice(parameter);
                    separator = b'&';
                }
                Some(clean)
            }
        }
    }

    /// `target` with `token` put where it belongs; as it is where that is a header.
    #[must_use]
    pub fn put(&self, target: &str, token: &[u8]) -> String {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let token = percent_encode(token);
        match self {
            TokenAt::Basic | TokenAt::Header(_) | TokenAt::Pointer(_) => target.to_owned(),
            TokenAt::PathSegment { .. } => {
                let slash = if path.ends_with('/') { "" } else { "/" };
                let query = query.map_or(String::new(), |query| format!("?{query}"));
                format!("{path}{slash}{token}{query}")
            }
            TokenAt::Query(name) => {
                let before = query.map_or(String::new(), |query| format!("{query}&"));
                format!("{path}?{before}{name}={token}")
            }
        }
    }
}

/// `user:password` out of the value of `authorization`; the scheme in any case.
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let start = rest.iter().position(|byte| *byte != b' ')?;
    STANDARD.decode(rest.get(start..)?).ok()
}

/// Where the last segment of a path begins.
fn segment_start(path: &[u8]) -> usize {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash.saturating_add(1))
}

fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    split_at(target, b'?')
}

fn split_at(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = bytes.splitn(2, |byte| *byte == separator);
    (parts.next().unwrap_or_default(), parts.next())
}

fn parameters(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&')
}

/// Whether a parameter has this name, however it is spelled: an application that decodes names
/// would find the token under each spelling.
fn is_named(parameter: &[u8], name: &str) -> bool {
    let (given, _) = split_at(parameter, b'=');
    percent_decode(given).is_some_and(|given| *given == *name.as_bytes())
}

/// Source: RFC 3986, 2.1. A `+` is a `+`, so that base64 can be used as it is.
fn percent_decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.contains(&b'%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digits = [*rest.next()?, *rest.next()?];
        let mut one = [0];
        hex::decode_to_slice(digits, &mut one).ok()?;
        decoded.extend_from_slice(&one);
    }
    Some(Cow::Owned(decoded))
}

/// Source: RFC 3986, 2.3 (what needs no encoding).
fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn clean(at: &TokenAt, target: &str, expected: Option<&str>) {
        let clean = at.clean(target.as_bytes());
        assert_eq!(
            clean.as_deref().map(String::from_utf8_lossy).as_deref(),
            expected,
            "{at:?} {target}"
        );
    }

    #[test]
    fn a_token_in_the_query_is_removed_wherever_it_stands() {
        let at = TokenAt::Query("token".into());
        clean(&at, "/a", None);
        clean(&at, "/a?", None);
        clean(&at, "/a?b=token", None);
        clean(&at, "/a?Token=x", None);
        clean(&at, "/a?token=x", Some("/a"));
        clean(&at, "/a?token", Some("/a"));
        clean(&at, "/a?token=", Some("/a"));
        clean(&at, "/a?b=1&token=x&c=2", Some("/a?b=1&c=2"));
        clean(&at, "/a?token=x&b=1&token=y", Some("/a?b=1"));
        clean(&at, "/a?t%6Fken=x&b", Some("/a?b"));
        clean(&at, "/a?x?token=1", None);
        clean(&at, "/a?token=x?y=z", Some("/a"));
    }

    #[test]
    fn a_token_in_the_path_is_its_last_segment_below_the_prefix() {
        for (prefix, target, expected) in [
            ("/a", "/a", None),
            ("/a", "/a/", None),
            ("/a", "/a/x", Some("/a")),
            ("/a", "/a/x?y=/z", Some("/a?y=/z")),
            ("/a", "/a/b/x", Some("/a/b")),
            ("/a", "/a//x", Some("/a/")),
            ("/a/", "/a/", None),
            ("/a/", "/a/x", Some("/a/")),
            ("/", "/x", Some("/")),
            ("/a/b", "/a/b", None),
        ] {
            let at = TokenAt::PathSegment {
                below: prefix.len(),
            };
            clean(&at, target, expected);
        }
    }

    #[test]
    fn what_is_put_in_is_what_is_found_and_removed() {
        let secret = "a b/c+d=&%?é";
        let tokens = vec![Token::new(secret.as_bytes()).unwrap()];
        for (at, target, clean) in [
            (TokenAt::Query("t".into()), "/a", "/a"),
            (TokenAt::Query("t".into()), "/a?b=c", "/a?b=c"),
            (TokenAt::PathSegment { below: 2 }, "/a", "/a"),
            (TokenAt::PathSegment { below: 2 }, "/a?b=c", "/a?b=c"),
        ] {
            let full = at.put(target, secret.as_bytes());
            let pairs: &[(&[u8], &[u8])] = &[(b":path", full.as_bytes())];
            let head = RequestHead::new(pairs);
            let tokens = tokens.clone();
            let rule = TokenRule { at, tokens };
            assert!(rule.check(&head).is_ok(), "{full}");
            assert_eq!(rule.at.clean(full.as_bytes()).unwrap(), clean.as_bytes());
            assert_eq!(rule.clean(&head, "/a").unwrap(), clean.as_bytes());
        }
    }

    #[test]
    fn a_token_that_is_not_where_it_belongs_is_not_left_in_the_path() {
        let rule = TokenRule {
            at: TokenAt::PathSegment { below: 2 },
            tokens: vec![Token::new(b"to/ken").unwrap()],
        };
        for (target, expected) in [
            ("/a/to%2Fken", Some("/a")),
            ("/a/b/to%2fken?c=d", Some("/a/b?c=d")),
            ("/a", None),
            ("/a/to%2Fken/", Some("/a")),
            ("/a/to%2Fken/x?c=d", Some("/a")),
            ("/a/to%2Fken/to%2Fken", Some("/a")),
            ("/a/x", Some("/a")),
            ("/a/%zz", Some("/a")),
            // Near misses.
            ("/A/to%2Fken", Some("/A")),
            ("//a/to%2Fken/x", Some("/a")),
            ("/%2561%2Fto%2Fken", Some("/a")),
        ] {
            let pairs: &[(&[u8], &[u8])] = &[(b":path", target.as_bytes())];
            let clean = rule.clean(&RequestHead::new(pairs), "/a");
            let clean = clean.as_deref().map(String::from_utf8_lossy);
            assert_eq!(clean.as_deref(), expected, "{target}");
        }
    }

    #[track_caller]
    fn refused(at: &TokenAt, target: &str, code: Code) {
        let pairs: &[(&[u8], &[u8])] = &[(b":path", target.as_bytes())];
        let rule = TokenRule {
            at: at.clone(),
            tokens: vec![Token::new(b"right").unwrap()],
        };
        let refusal = rule.check(&RequestHead::new(pairs)).unwrap_err();
        assert_eq!(refusal.code(), code, "{target}");
    }

    #[test]
    fn every_other_token_is_refused() {
        let query = TokenAt::Query("t".into());
        refused(&query, "/a", Code::SignatureMissing);
        refused(&query, "/a?x=right", Code::SignatureMissing);
        refused(&query, "/a?t=right&t=right", Code::SignatureAmbiguous);
        refused(&query, "/a?t=", Code::SignatureMalformed);
        refused(&query, "/a?t", Code::SignatureMalformed);
        refused(&query, "/a?t=%4", Code::SignatureMalformed);
        refused(&query, "/a?t=%zz", Code::SignatureMalformed);
        refused(&query, "/a?t=righ", Code::SignatureMismatch);
        refused(&query, "/a?t=right0", Code::SignatureMismatch);
        refused(&query, "/a?t=right%00", Code::SignatureMismatch);
        refused(&query, "/a?t=Right", Code::SignatureMismatch);
        let path = TokenAt::PathSegment { below: 2 };
        refused(&path, "/a", Code::SignatureMissing);
        refused(&path, "/a/", Code::SignatureMissing);
        refused(&path, "/a/right/", Code::SignatureMissing);
        refused(&path, "/a/wrong", Code::SignatureMismatch);
    }
}
