//! No challenge makes an oracle: nobody gets a MAC that is good for a callback.
//!
//! A challenge can put a value that its sender chooses under a MAC, with the secret that callbacks
//! are signed with. Such a value is 1 to 512 bytes of the strict alphabet
//! ([`Alphabet::Strict`]), and no rule can add anything to it. So the answer is a signature of a
//! message that is made of that alphabet alone. It is of no use exactly if every message that the
//! scheme accepts has a byte that is not in the alphabet. Two things are known to make it so:
//!
//! * a literal of the message that holds such a byte, as the `:` of Slack's and Zoom's `v0:`;
//! * the body, where each body that is accepted is a JSON object or array: it begins, after white
//!   space, with `{` or `[`. This is what keeps X and LinkedIn safe, who sign the body alone.
//!
//! Everything else is refused when the configuration is loaded: a body that may be a form (`a=b`) or
//! a bare JSON value (`1`), and messages without the body, as `<id>.<timestamp>`. Other sources
//! with the same secret count too.

use callback_guard_core::challenge::{Alphabet, Challenges, Part};
use callback_guard_core::json::Root;
use callback_guard_core::policy::Source;
use callback_guard_core::request::is_json;
use callback_guard_core::scheme::keys::SignatureBytes;
use callback_guard_core::scheme::{self, Proof, Scheme};

/// Whether a message that `scheme` accepts may be made of the strict alphabet alone, where
/// `only_containers` says that each accepted body is a JSON object or array.
pub(super) fn accepts_strict(scheme: &Scheme, only_containers: bool) -> bool {
    match &scheme.proof {
        // A token is no MAC of anything.
        Proof::Token(_) => false,
        Proof::Signature(rule) => !rule.message.iter().any(|piece| match &piece.part {
            scheme::Part::Literal(bytes) => !bytes.iter().all(|byte| Alphabet::Strict.has(*byte)),
            scheme::Part::Body => only_containers,
            _ => false,
        }),
    }
}

/// Whether each body of these media types, and with this root, is a JSON object or array.
pub(crate) fn only_containers(media_types: &[Box<str>], root: Root) -> bool {
    root != Root::Any && media_types.iter().all(|kind| is_json(kind.as_bytes()))
}

/// Where a rule puts a value under a MAC: its index, if there is one.
fn signing_rule(challenges: &Challenges) -> Option<usize> {
    let signs = |part: &Part| matches!(part, Part::Mac { .. });
    challenges.rules.iter().position(|rule| {
        let headers = rule.template.headers.iter().flat_map(|(_, parts)| parts);
        rule.template.body.iter().chain(headers).any(signs)
    })
}

/// Some message: keys are the same if they make the same MAC of it.
const PROBE: &[&[u8]] = &[b"callback-guard"];

/// Whether one of the keys of `scheme` makes `mac` of [`PROBE`].
fn has_key(scheme: &Scheme, mac: &SignatureBytes) -> bool {
    match &scheme.proof {
        Proof::Signature(rule) => rule
            .keys
            .iter()
            .any(|key| key.mac(PROBE).as_ref() == Some(mac)),
        Proof::Token(_) => false,
    }
}

/// A source whose challenge signs what another source would accept, since they share a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oracle {
    pub(crate) source: usize,
    pub(crate) rule: usize,
    pub(crate) accepts: usize,
}

/// The first such pair of `sources`.
pub(crate) fn between(sources: &[Source]) -> Option<Oracle> {
    for (index, source) in sources.iter().enumerate() {
        let Some(rule) = source.challenges.as_deref().and_then(signing_rule) else {
            continue;
        };
        let Some(mac) = source.scheme.mac(PROBE) else {
            continue;
        };
        let accepts = sources.iter().enumerate().position(|(other, source)| {
            other != index
                && accepts_strict(
                    &source.scheme,
                    only_containers(&source.media_types, source.selector.root()),
                )
                && has_key(&source.scheme, &mac)
        });
        if let Some(accepts) = accepts {
            return Some(Oracle {
                source: index,
                rule,
                accepts,
            });
        }
    }
    None
}
