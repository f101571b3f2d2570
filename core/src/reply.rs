//! The guard's own answers. They hold what the configuration and the contract say, never request
//! data; but for what the answer to a challenge echoes ([`challenge`](crate::challenge)).

use core::fmt;
use std::borrow::Cow;

use serde::Serialize;

use crate::verdict::{Code, Rejection};

/// What the guard answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sender has asked before it sends, and this is what it wants to hear.
    Challenge(Box<ChallengeReply>),
    /// 200: the event was delivered before.
    Duplicate,
    /// Refused.
    Refuse(Rejection),
}

impl Answer {
    /// Whether it is that of a challenge, or says why a challenge has none.
    pub(crate) fn is_of_challenge(&self) -> bool {
        match self {
            Answer::Challenge(_) => true,
            Answer::Refuse(rejection) => rejection.code() == Code::ChallengeMalformed,
            Answer::Duplicate => false,
        }
    }
}

impl From<Rejection> for Answer {
    fn from(rejection: Rejection) -> Self {
        Self::Refuse(rejection)
    }
}

/// The answer to a challenge, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ChallengeReply {
    /// The place of its rule in the source's list.
    pub rule: usize,
    /// The HTTP status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body.
    pub body: String,
}

/// Redacted: it holds values of the request.
impl fmt::Debug for ChallengeReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChallengeReply")
            .field("rule", &self.rule)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A reply, ready for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// For `%RESPONSE_CODE_DETAILS%`: `callback_guard:` and the code.
    pub details: Cow<'static, str>,
}

/// Source: RFC 9457, 3.1.
#[derive(Serialize)]
struct Problem<'p> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'p str>,
}

impl Reply {
    /// The reply to a request that is answered here. `expose_reason` if it may say why.
    #[must_use]
    pub fn new(answer: &Answer, expose_reason: bool) -> Self {
        let (code, content_type, body) = match answer {
            Answer::Challenge(reply) => return Self::challenge(reply, expose_reason),
            Answer::Duplicate => {
                let body = String::from("{\"status\":\"duplicate\"}");
                (Code::Duplicate, "application/json", body)
            }
            Answer::Refuse(rejection) => {
                let code = rejection.code();
                let problem = Problem {
                    kind: "about:blank",
                    title: code.title(),
                    status: code.status(),
                    code: expose_reason.then_some(code.as_str()),
                    pointer: rejection.pointer().filter(|_| expose_reason),
                };
                // Fixed words and a configured pointer: this cannot fail.
                let body = serde_json::to_string(&problem).unwrap_or_default();
                (code, "application/problem+json", body)
            }
        };
        let mut headers = vec![("content-type".into(), content_type.into())];
        if expose_reason {
            headers.push(("x-callback-guard".into(), code.as_str().into()));
        }
        if code.is_retryable() {
            headers.push(("retry-after".into(), "1".into()));
        }
        if code == Code::MethodNotAllowed {
            headers.push(("allow".into(), "POST".into()));
        }
        Self {
            status: code.status(),
            headers,
            body: body.into_bytes().into(),
            details: format!("callback_guard:{code}").into(),
        }
    }

    fn challenge(reply: &ChallengeReply, expose_reason: bool) -> Self {
        let code = Code::Challenge;
        let given = reply.headers.iter();
        let mut headers: Vec<_> = given
            .map(|(name, value)| (name.clone(), Cow::Owned(value.clone())))
            .collect();
        if expose_reason {
            headers.push(("x-callback-guard".into(), code.as_str().into()));
        }
        Self {
            status: reply.status,
            headers,
            body: reply.body.clone().into_bytes().into(),
            details: format!("callback_guard:{code}").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_refusal_is_a_problem_document() {
        let answer = Answer::Refuse(Rejection::new(Code::SignatureMismatch));
        let reply = Reply::new(&answer, true);
        assert_eq!(
            *reply.body,
            *br#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"signature_mismatch"}"#
        );
        assert_eq!(
            reply.headers,
            [
                ("content-type".into(), "application/problem+json".into()),
                ("x-callback-guard".into(), "signature_mismatch".into())
            ]
        );
        assert_eq!(reply.details, "callback_guard:signature_mismatch");
    }

    #[test]
    fn a_reason_that_must_not_be_exposed_is_nowhere_in_the_reply() {
        let answer = Answer::Refuse(Rejection::at(Code::PayloadInvalid, "/code", "an integer"));
        let reply = Reply::new(&answer, false);
        assert_eq!(
            *reply.body,
            *br#"{"type":"about:blank","title":"Unprocessable Content","status":422}"#
        );
        assert_eq!(
            reply.headers,
            [("content-type".into(), "application/problem+json".into())]
        );
    }
}
