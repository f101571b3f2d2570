//! The configuration, validated: what the guard holds requests against. Everything that can be
//! decided before a request comes is decided here.

use core::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::challenge::Challenges;
use crate::event::KeyBuilder;
use crate::inspector::Inspector;
use crate::json::{Pointer, Selector};
pub use crate::path_rule::PathRule;
pub use crate::payload::{Alone, FieldType, HostPattern, Requirement, UrlRule, is_host};

use crate::near_miss::{Guarded, Readings};
use crate::request::RequestHead;
use crate::scheme::keys::{HostVerify, SigningKeys};
use crate::scheme::token::TokenAt;
use crate::scheme::{Proof, Scheme, Tolerance};
use crate::store::redis::{OnError, Remote};

/// A whole configuration.
#[derive(Debug)]
pub struct Policy {
    /// What a request gets that matches no source.
    pub unmatched: Unmatched,
    /// Whether a reply says why.
    pub expose_reason: bool,
    /// Who holds the headers until the decision.
    pub hold_headers: HoldHeaders,
    /// How many events the memory store has room for.
    pub capacity: u32,
    /// How many bytes of bodies a worker holds at most, beyond 16 KiB for each request.
    pub max_held_bytes: usize,
    /// The store that many proxies share, if there is one.
    pub remote: Option<Arc<Remote>>,
    /// The inspector, if it is on.
    pub inspector: Option<Inspector>,
    /// How the host verifies RSA and ECDSA: what loads the configuration puts it here.
    pub host_verify: HostVerify,
    /// How many refusals a worker logs in a second at most.
    pub refusals_per_second: u32,
    /// The sources, in the order of the configuration.
    pub sources: Vec<Arc<Source>>,
    /// The secrets that the host subscribes to, each once.
    #[cfg(feature = "native")]
    pub subscriptions: Vec<Subscription>,
    /// What the configuration says and hardly means to.
    pub warnings: Vec<Warning>,
}

/// A secret that the host gets from Envoy's secret discovery service (SDS).
#[cfg(feature = "native")]
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its name there.
    pub name: Box<str>,
    /// Where Envoy gets it, in Envoy's own words (`ConfigSource`, as JSON); `None` for one of Envoy's static
    /// secrets.
    pub config_source: Option<Box<str>>,
    /// Where the configuration first names it.
    pub path: Box<str>,
}

#[cfg(feature = "native")]
impl Subscription {
    /// Whether both are one secret, wherever the configuration names it.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.config_source == other.config_source
    }
}

/// Without the source, whose words are not ours to know.
#[cfg(feature = "native")]
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({}: {})", self.path, self.name)
    }
}

/// What a request gets that matches no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Unmatched {
    /// It passes, untouched but for the guard's own headers, unless its path is a near miss of a
    /// source's path.
    Pass,
    /// 404 `no_source`.
    Reject,
}

/// Who holds the headers until the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum HoldHeaders {
    /// Envoy's buffer filter, behind the guard.
    BufferAfter,
    /// The guard itself.
    Filter,
}

/// Whether a verdict is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// Refusals are answered, the rest is forwarded.
    Enforce,
    /// Everything is forwarded; the verdict goes into the metrics, the log and a header.
    Monitor,
}

/// One sender, as configured.
#[derive(Debug)]
pub struct Source {
    /// Its place among the sources: the index of its metrics.
    pub index: usize,
    /// Its name in the metrics, the log and the headers to the upstream.
    pub name: Box<str>,
    /// The preset that it is an instance of, if it is not spelled out.
    pub preset: Option<Box<str>>,
    /// Whether its verdicts are carried out.
    pub mode: Mode,
    /// Which requests are its callbacks.
    pub route: Route,
    /// How its callbacks are authenticated.
    pub scheme: Scheme,
    /// What the sender signs with, as far as the configuration has it: secrets and tokens, in their
    /// order; nothing of a private key.
    pub signing_keys: SigningKeys,
    /// How far a timestamp may be from the proxy's clock.
    pub tolerance: Tolerance,
    /// The largest body, in bytes.
    pub max_body_bytes: usize,
    /// The media types that are accepted.
    pub media_types: Vec<Box<str>>,
    /// What the sender asks before it sends; none for most.
    pub challenges: Option<Box<Challenges>>,
    /// Headers that are needed once the body is there.
    pub headers: Vec<CapturedHeader>,
    /// What the one pass over the body picks out.
    pub selector: Selector,
    /// The pointers of the selector, by slot.
    pub pointers: Vec<Pointer>,
    /// Fields that must be there.
    pub required: Vec<Requirement>,
    /// Items that must not be there, as nothing signs them.
    pub alone: Vec<Alone>,
    /// Where URLs may point, if that is checked.
    pub urls: Option<UrlRule>,
    /// How duplicates are recognised and treated.
    pub dedupe: Dedupe,
    /// Status returned to the sender in place of any 2xx from the upstream.
    pub acknowledge_as: Option<u16>,
}

/// A header whose value is kept from the head until the body is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedHeader {
    /// Its name in lower case.
    pub name: Box<str>,
    /// What it is for.
    pub role: HeaderRole,
}

/// What a captured header is for, and so what it means if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRole {
    /// A part of the dedupe key: it may be missing.
    Key,
    /// The message id.
    Id,
    /// A part of the signed message.
    Signed,
}

/// How duplicates are recognised and treated.
#[derive(Clone, Debug)]
pub struct Dedupe {
    /// The source's own part of what makes an event.
    pub key_of_source: KeyBuilder,
    /// The other parts.
    pub key: Vec<KeyPart>,
    /// How long a delivered event is remembered, in seconds.
    pub window_seconds: u64,
    /// How long a claim lives with no outcome, in seconds.
    pub lease_seconds: u64,
    /// What a request gets whose event another request has claimed.
    pub in_flight: InFlight,
    /// Treatment of a claim whose outcome is unknown.
    pub on_unknown: OnUnknown,
    /// What a duplicate with another body gets.
    pub on_body_change: OnBodyChange,
    /// How many events one message id may make within the window.
    pub events_per_id: u16,
    /// Whether events are remembered at all; if not, each request is one of its own.
    pub is_on: bool,
}

/// One part of the dedupe key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The SHA-256 of the body.
    Body,
    /// The host, in lower case, without port.
    Host,
    /// The path, without query.
    Path,
    /// A captured header, by its place in the source's list.
    Header(usize),
    /// The message id.
    Id,
    /// A JSON pointer, by its slot.
    Pointer(usize),
}

/// What a request gets whose event another request has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// 409 `in_flight` at once.
    Reject,
    /// It is held, at the longest for this many seconds; then 409 `in_flight`.
    Wait {
        /// The longest wait, in seconds.
        seconds: u64,
    },
}

/// Treatment of a claim whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnUnknown {
    /// It stays until its lease ends.
    Hold,
    /// The event is absent again at once.
    Release,
}

/// What a duplicate with another body gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnBodyChange {
    /// By what the signature says: a message that was signed at another time is new.
    Auto,
    /// 200 `duplicate`, like any duplicate.
    Acknowledge,
    /// It is forwarded.
    Forward,
    /// 409 `body_changed`.
    Reject,
}

/// Which requests are a source's callbacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Only this host, in lower case, without port; any if absent.
    pub host: Option<Box<str>>,
    /// Only this path.
    pub path: PathRule,
    /// What counts as a near miss of it.
    guarded: Guarded,
}

/// Where a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the source with this index.
    Source(usize),
    /// To no source, but an application could take its path for the one of this source.
    NearMiss(usize),
    /// To no source.
    Elsewhere,
}

impl Source {
    /// What a duplicate with another body is, where that is [`OnBodyChange::Auto`].
    #[must_use]
    pub(crate) fn body_change(&self) -> BodyChange {
        match &self.scheme.proof {
            // A token has no time: a replay cannot be distinguished from a new message.
            Proof::Token(_) => BodyChange::NewMessage,
            Proof::Signature(rule) if rule.signs_body() => BodyChange::Duplicate,
            Proof::Signature(_) => BodyChange::NewIfSignedApart,
        }
    }
}

/// What a duplicate with another body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyChange {
    /// A duplicate.
    Duplicate,
    /// A new message if both were signed, and at different times.
    NewIfSignedApart,
    /// A new message.
    NewMessage,
}

impl Route {
    /// A route; `host` is in lower case.
    #[must_use]
    pub fn new(host: Option<Box<str>>, path: PathRule) -> Self {
        let guarded = Guarded::new(&path);
        Self {
            host,
            path,
            guarded,
        }
    }

    fn matches(&self, head: &RequestHead<'_>) -> bool {
        let is_host = |host: &str| head.host().eq_ignore_ascii_case(host.as_bytes());
        self.path.matches(head.path()) && self.host.as_deref().is_none_or(is_host)
    }

    /// Whether a path below the prefix leads out of it again to an application that resolves `..`.
    fn leaves(&self, head: &RequestHead<'_>) -> bool {
        let may_climb = |byte: &u8| matches!(byte, b'.' | b'%' | 0x80..);
        matches!(self.path, PathRule::Prefix(_))
            && head.path().iter().any(may_climb)
            && Readings::of(head.target()).climb()
    }

    /// Whether a more specific path of `sources` lies in this one.
    fn shadows(&self, sources: &[Arc<Source>]) -> bool {
        sources.iter().any(|other| {
            other.route.path.specificity() > self.path.specificity()
                && self.guarded.covers(&other.route.guarded)
        })
    }

    /// The order among routes that match one request: a named host before any, then by path.
    fn specificity(&self) -> (bool, (bool, usize)) {
        (self.host.is_some(), self.path.specificity())
    }
}

impl Source {
    /// Path and query that may go on from here, if they are not those of `head`: they held a token,
    /// which neither the upstream nor the access log may see, whatever happens to the request.
    #[must_use]
    pub(crate) fn clean_target(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        match &self.scheme.proof {
            Proof::Token(rule) => rule.clean(head, self.route.path.text()),
            Proof::Signature(_) => None,
        }
    }
}

impl Policy {
    /// The text that replaces the target in the access log for refused requests of no source, if any
    /// source has its token in the path: a misspelt path contains the token as well.
    #[must_use]
    pub fn hidden_target(&self) -> Option<Vec<u8>> {
        let hides = |source: &Arc<Source>| match &source.scheme.proof {
            Proof::Token(rule) => matches!(rule.at, TokenAt::PathSegment { .. }),
            Proof::Signature(_) => false,
        };
        self.sources.iter().any(hides).then(|| b"/".to_vec())
    }

    /// Whether a source of it needs [`Policy::host_verify`].
    #[must_use]
    pub fn needs_host_verify(&self) -> bool {
        self.sources
            .iter()
            .any(|source| match &source.scheme.proof {
                Proof::Signature(rule) => rule.algorithm.is_hosts(),
                Proof::Token(_) => false,
            })
    }

    /// How many events one message id of any source may make.
    #[must_use]
    pub(crate) fn events_per_id(&self) -> u16 {
        let each = self
            .sources
            .iter()
            .map(|source| source.dedupe.events_per_id);
        each.max().unwrap_or(0)
    }

    /// Whether a request is forwarded unclaimed when the store does not answer.
    #[must_use]
    pub(crate) fn passes_unclaimed(&self) -> bool {
        self.remote
            .as_ref()
            .is_some_and(|remote| remote.on_error == OnError::Pass)
    }

    /// Where `head` belongs: of the sources that match, to the most specific, unless the path is a
    /// near miss of a more specific one.
    ///
    /// Near misses count where a request that matches no source would pass, and where it would pass
    /// under the rules of another source. The host is no part of them: a guarded path is one under
    /// any host.
    #[must_use]
    pub fn destination(&self, head: &RequestHead<'_>) -> Destination {
        let matched = self
            .sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source.route.matches(head))
            .max_by_key(|(_, source)| source.route.specificity());
        match matched {
            Some((index, source)) if source.route.leaves(head) => Destination::NearMiss(index),
            Some((index, source)) if !source.route.shadows(&self.sources) => {
                Destination::Source(index)
            }
            Some((index, source)) => {
                let own = source.route.path.specificity();
                // A source with this very path is another host's.
                let is_stricter = |other: &Source| {
                    other.mode == Mode::Enforce
                        && other.route.path.specificity() > own
                        && !other.route.path.matches(head.path())
                };
                match self.near_miss(head, is_stricter) {
                    Some(other) => Destination::NearMiss(other),
                    None => Destination::Source(index),
                }
            }
            None if self.unmatched == Unmatched::Reject => Destination::Elsewhere,
            None => match self.near_miss(head, |_| true) {
                Some(index) => Destination::NearMiss(index),
                None => Destination::Elsewhere,
            },
        }
    }

    /// The source that `head` belongs to.
    #[must_use]
    pub fn source_of(&self, head: &RequestHead<'_>) -> Option<&Arc<Source>> {
        match self.destination(head) {
            Destination::Source(index) => self.sources.get(index),
            Destination::NearMiss(_) | Destination::Elsewhere => None,
        }
    }

    /// The source among the candidates that the path nearly is; one that is enforced before others.
    fn near_miss(
        &self,
        head: &RequestHead<'_>,
        is_candidate: impl Fn(&Source) -> bool,
    ) -> Option<usize> {
        let readings = Readings::of(head.target());
        self.sources
            .iter()
            .enumerate()
            .filter(|(_, source)| is_candidate(source) && readings.meet(&source.route.guarded))
            .min_by_key(|(_, source)| source.mode == Mode::Monitor)
            .map(|(index, _)| index)
    }
}

/// Something in a configuration that is accepted and probably a mistake. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    path: Box<str>,
    problem: Box<str>,
}

impl Warning {
    /// What is probably wrong at `path`.
    #[cold]
    pub fn new(path: &str, problem: impl Into<Box<str>>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }

    /// The path of the field, as in `sources[0].secrets[1].env`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}
