//! Rules for the payload of an authentic callback: fields that must be there, hosts that URLs may
//! point to.

use crate::json::{Document, Kind};
use crate::verdict::{Code, Rejection};

/// A field that must be there, with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Its slot.
    pub slot: usize,
    /// Its pointer, as configured: what a refusal says.
    pub pointer: Box<str>,
    /// Its type.
    pub kind: FieldType,
    /// Whether it may be absent or null.
    pub optional: bool,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FieldType {
    /// `true` or `false`.
    Boolean,
    /// A number written without fraction and exponent.
    Integer,
    /// Any number.
    Number,
    /// An array.
    Array,
    /// An object.
    Object,
    /// A string.
    String,
}

impl FieldType {
    fn admits(self, kind: Kind) -> bool {
        match self {
            FieldType::Array => kind == Kind::Array,
            FieldType::Boolean => kind == Kind::Boolean,
            FieldType::Integer => kind == Kind::Number { integer: true },
            FieldType::Number => matches!(kind, Kind::Number { .. }),
            FieldType::Object => kind == Kind::Object,
            FieldType::String => kind == Kind::String,
        }
    }

    const fn article_and_name(self) -> &'static str {
        match self {
            FieldType::Array => "an array",
            FieldType::Boolean => "a boolean",
            FieldType::Integer => "an integer",
            FieldType::Number => "a number",
            FieldType::Object => "an object",
            FieldType::String => "a string",
        }
    }
}

impl Requirement {
    /// Checks the field in `document`.
    ///
    /// # Errors
    ///
    /// [`Code::PayloadInvalid`] with the configured pointer, never with the value.
    pub(crate) fn check(&self, document: &Document<'_, '_>) -> Result<(), Rejection> {
        let kind = document.get(self.slot).map(|value| value.kind());
        let fine = match kind {
            None | Some(Kind::Null) => self.optional,
            Some(kind) => self.kind.admits(kind),
        };
        if fine {
            return Ok(());
        }
        Err(Rejection::at(
            Code::PayloadInvalid,
            &self.pointer,
            self.kind.article_and_name(),
        ))
    }
}

/// The second item of an array of which the sender signs the first alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// Its slot.
    pub slot: usize,
    /// Its pointer: what a refusal says.
    pub pointer: Box<str>,
}

impl Alone {
    /// Checks that it is not in `document`.
    ///
    /// # Errors
    ///
    /// [`Code::PayloadInvalid`].
    pub(crate) fn check(&self, document: &Document<'_, '_>) -> Result<(), Rejection> {
        match document.get(self.slot) {
            None => Ok(()),
            Some(_) => Err(Rejection::at(
                Code::PayloadInvalid,
                &self.pointer,
                "one item, as no other is signed",
            )),
        }
    }
}

/// Where the URLs of a payload may point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlRule {
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The place of this rule in the configuration, as a JSON pointer: what a refusal says, for the
    /// place of the URL is made of the request's own keys.
    pub pointer: Box<str>,
}

impl UrlRule {
    /// Checks every URL that `document` has.
    ///
    /// # Errors
    ///
    /// [`Code::UrlNotAllowed`].
    pub(crate) fn check(&self, document: &Document<'_, '_>) -> Result<(), Rejection> {
        let allowed = |url: &str| host_of(url).is_some_and(|host| self.allows(host));
        if document.urls().all(|(_, url)| allowed(&url)) {
            return Ok(());
        }
        let expected = "an allowed host for every URL of the payload";
        Err(Rejection::at(Code::UrlNotAllowed, &self.pointer, expected))
    }

    fn allows(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// A host, or `*.` and a host for any number of labels before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    host: Box<str>,
    below: bool,
}

impl HostPattern {
    /// Reads `example.com` or `*.example.com`.
    ///
    /// # Errors
    ///
    /// What is accepted, if it is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, below) = match text.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (text, false),
        };
        if !is_host(host) {
            return Err(
                "expected a host name, or `*.` and a host name, without scheme, port or path",
            );
        }
        Ok(Self {
            host: host.to_ascii_lowercase().into(),
            below,
        })
    }

    fn matches(&self, host: &str) -> bool {
        if !self.below {
            return host.eq_ignore_ascii_case(&self.host);
        }
        let split = host.len().checked_sub(self.host.len());
        let Some((labels, end)) = split.and_then(|at| host.split_at_checked(at)) else {
            return false;
        };
        end.eq_ignore_ascii_case(&self.host) && labels.len() > 1 && labels.ends_with('.')
    }
}

/// Whether `host` is made of non-empty labels of letters, digits and hyphens.
///
/// Source: RFC 1123, 2.1; the underscore is what some hosting services use.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

/// The host of an absolute `https` URL on the default port, or nothing.
///
/// Narrower than any URL parser on purpose: no user, no backslash, no control character, no space,
/// nothing percent-encoded or beyond ASCII before the path. What two parsers could read differently
/// is not allowed.
fn host_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_at_checked(8)?;
    if !scheme.eq_ignore_ascii_case("https://") {
        return None;
    }
    if rest
        .chars()
        .any(|char| char.is_control() || char.is_whitespace() || char == '\\')
    {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.strip_suffix(":443").unwrap_or(authority);
    is_host(host).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_have_a_host() {
        for (url, host) in [
            ("https://example.com/a", Some("example.com")),
            ("HTTPS://Example.com", Some("Example.com")),
            ("https://example.com:443/a?b#c", Some("example.com")),
            ("https://example.com?x=/", Some("example.com")),
            ("http://example.com/a", None),
            ("https://example.com:8443/a", None),
            ("https://user@example.com/", None),
            ("https://evil.com\\@example.com/", None),
            ("https://example.com\\.evil.com/", None),
            ("https://evil.com /example.com", None),
            ("https://exa%6dple.com/", None),
            ("https://ex\u{e4}mple.com/", None),
            ("https:///example.com", None),
            ("https://", None),
            ("//example.com/", None),
            ("video_url_847715e66259", None),
            ("https://example.com.", None),
            ("https://[::1]/", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        for (host, matches) in [
            ("a.example.com", true),
            ("a.b.EXAMPLE.com", true),
            ("example.com", false),
            (".example.com", false),
            ("aexample.com", false),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(pattern.matches(host), matches, "{host}");
        }
        for wrong in [
            "*",
            "*.",
            "",
            "https://a.b",
            "a..b",
            "a.b:443",
            "*.*.a",
            "a/b",
        ] {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
