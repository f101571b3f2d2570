//! Whether Envoy means by the numbers of its attributes what this module means.
//!
//! An attribute is named by its place in an enum of Envoy's header. Were a place to shift, the module would read
//! something else as the response's status, and remember events that were not delivered. Envoy promises that it
//! never does; this is the check. There is no stream to ask while a configuration is loaded, so the first
//! request of each worker is asked for what it is known to answer.

use crate::abi::Attribute;
use crate::envoy::Filter;

/// What is known of Envoy's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Probe {
    /// No request has come yet.
    #[default]
    Open,
    /// They are as they should be.
    Passed,
    /// They are not: nothing is let through.
    Failed,
}

impl Probe {
    /// Whether the attributes of this request, whose head has just come, are as they should be.
    pub(crate) fn passes(&mut self, filter: &Filter, headers: &[(&[u8], &[u8])]) -> bool {
        if *self == Self::Open {
            *self = if is_right(filter, headers) {
                Self::Passed
            } else {
                Self::Failed
            };
        }
        *self == Self::Passed
    }
}

fn is_right(filter: &Filter, headers: &[(&[u8], &[u8])]) -> bool {
    let header = |name: &[u8]| {
        let found = headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    };
    let texts = [
        (Attribute::RequestPath, &b":path"[..]),
        (Attribute::RequestHost, b":authority"),
        (Attribute::RequestMethod, b":method"),
    ];
    texts
        .into_iter()
        .all(|(attribute, name)| filter.text(attribute) == header(name))
        && filter.number(Attribute::ConnectionId).is_some()
        // Before a response there is no status of it (but perhaps Envoy's own 100), no details, no attempt:
        // these are not the numbers of something else.
        && filter.number(Attribute::ResponseCode).is_none_or(|code| code < 200)
        && filter.text(Attribute::ResponseCodeDetails).is_none_or(<[u8]>::is_empty)
        && filter.number(Attribute::UpstreamRequestAttemptCount).is_none_or(|count| count == 0)
}
