//! Challenges: what a sender asks before it sends, answered at the proxy.
//!
//! A rule says which request is a challenge, what it has to prove, and what the answer is made of.
//! Such a request never reaches the upstream and claims nothing, so it is answered again as often as
//! the sender asks.
//!
//! Rules are decided in their order, in three steps, each at the first moment at which what it needs
//! is known:
//!
//! | step | rules | before |
//! |---|---|---|
//! | [`Step::Head`] | that read no body, and require nothing, a token or a parameter | method, content type, empty body |
//! | [`Step::Body`] | that read the body, and require nothing or a parameter | signature and token |
//! | [`Step::Verified`] | that require a signature, or a token and read the body | message id, payload, claim |
//!
//! An answer can hold values of the request, so it must not be good for anything else: an echoed value
//! is short, of harmless characters ([`Alphabet`]), and sent as plain text or inside a JSON string with
//! `nosniff`. A value goes under a MAC only where the scheme accepts no message of that form
//! (the crate `config`, `challenge::oracle`).

mod asked;
mod template;

use crate::json::{Document, Kind};
use crate::reply::Answer;
use crate::request::{MediaType, RequestHead};
use crate::scheme::keys::Token;
use crate::scheme::{Proof, Scheme};
use crate::verdict::{Code, Rejection};

pub use crate::reply::ChallengeReply;
pub(crate) use asked::Asked;
use asked::{Field, Values, twice};
pub use asked::{FieldAt, MAX_ECHOED_BYTES, ValueAt};
pub use template::{Alphabet, Part, Template};

/// The challenges of a source.
#[derive(Clone, Debug)]
pub struct Challenges {
    /// The headers and query parameters that the rules read, each once.
    pub fields: Vec<FieldAt>,
    /// The rules, in the order in which they are decided.
    pub rules: Vec<Challenge>,
}

/// One challenge.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Only this method; any if absent.
    pub method: Option<Box<str>>,
    /// What distinguishes the challenge from other requests; only the method if absent.
    pub condition: Option<Condition>,
    /// What the sender has to prove.
    pub requires: Requires,
    /// When the rule is decided.
    pub step: Step,
    /// The answer.
    pub template: Template,
}

/// What distinguishes a challenge from other requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The value that is looked at.
    pub at: ValueAt,
    /// What it has to be.
    pub is: Expected,
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There, and not null.
    Present,
    /// This text; in JSON a string.
    Text(Box<str>),
    /// An integer, written as here.
    Number(Box<str>),
}

/// What a challenge has to prove.
#[derive(Clone, Debug)]
pub enum Requires {
    /// Nothing: anybody may ask.
    Nothing,
    /// The source's token.
    Token,
    /// The source's signature, over the body.
    Signature,
    /// This parameter of the query, by its place in [`Challenges::fields`], is a token of its own.
    Parameter {
        /// Its place.
        field: usize,
        /// The token.
        token: Token,
    },
}

/// When a rule is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// When the head is there, before every other check.
    Head,
    /// When the body is there, before it is authenticated.
    Body,
    /// When the request is authentic.
    Verified,
}

/// The longest body, in bytes, that is read for a challenge in a request that is refused if it is none.
///
/// Without this bound anybody could have the guard hold and parse bodies of any length. It is what
/// Envoy reads at once.
pub(crate) const MAX_UNVERIFIED_BYTES: usize = 16 << 10;

impl Challenges {
    /// Ends a request at its head if that makes it a challenge; `scheme` is its source's.
    ///
    /// # Errors
    ///
    /// The end: the answer, or why there is none.
    pub(crate) fn at_head(&self, scheme: &Scheme, head: &RequestHead<'_>) -> Result<(), Answer> {
        if !self.has(Step::Head, head.method()) {
            return Ok(());
        }
        let asked = Asked::new(&self.fields, head);
        let values = Values {
            asked: &asked,
            document: None,
        };
        let token = || match &scheme.proof {
            Proof::Token(rule) => match rule.check(head)? {
                Some(_) => Ok(()),
                // The configuration is refused if the token is in the body.
                None => Err(Rejection::new(Code::InternalError)),
            },
            Proof::Signature(_) => Err(Rejection::new(Code::InternalError)),
        };
        self.end(Step::Head, &values, scheme, &token)
    }

    /// What a head says, if its body can make the request a challenge.
    pub(crate) fn ask(&self, head: &RequestHead<'_>) -> Option<Asked<'static>> {
        let has = |step| self.has(step, head.method());
        (has(Step::Body) || has(Step::Verified))
            .then(|| Asked::new(&self.fields, head).into_owned())
    }

    /// [`Challenges::ask`] for a request that its head refuses: its body may still make it a challenge
    /// that requires nothing, if it is a POST of JSON of at most [`MAX_UNVERIFIED_BYTES`].
    pub(crate) fn ask_refused(
        &self,
        media_types: &[Box<str>],
        head: &RequestHead<'_>,
    ) -> Option<Asked<'static>> {
        let is_json = || head.check_media_type(media_types) == Ok(MediaType::Json);
        let is_short = || {
            let length = head.declared_length().map(usize::try_from);
            length.is_none_or(|length| length.is_ok_and(|length| length <= MAX_UNVERIFIED_BYTES))
        };
        (self.has(Step::Body, head.method())
            && head.check_method().is_ok()
            && head.check_content_encoding().is_ok()
            && is_short()
            && is_json())
        .then(|| Asked::new(&self.fields, head).into_owned())
    }

    /// Ends a request if its body makes it a challenge of `step`; a token has been checked by then.
    ///
    /// # Errors
    ///
    /// The end: the answer, or why there is none.
    pub(crate) fn at_body(
        &self,
        step: Step,
        scheme: &Scheme,
        asked: &Asked<'_>,
        document: Option<&Document<'_, '_>>,
    ) -> Result<(), Answer> {
        self.end(step, &Values { asked, document }, scheme, &|| Ok(()))
    }

    /// Whether a body of at most [`MAX_UNVERIFIED_BYTES`] can make the request a challenge that
    /// requires nothing of it.
    pub(crate) fn may_be_unverified(&self, asked: &Asked<'_>) -> bool {
        self.has(Step::Body, asked.method())
    }

    /// Whether a rule of `step` is for `method`.
    fn has(&self, step: Step, method: &[u8]) -> bool {
        let is_one = |rule: &Challenge| rule.step == step && rule.is_for(method);
        self.rules.iter().any(is_one)
    }

    /// Ends the request by the first rule of `step` that it is a challenge of.
    ///
    /// [`Code::ChallengeMalformed`] if a value is there twice or may not be echoed; what is wrong with
    /// the proof, as [`Code::SignatureMismatch`].
    fn end(
        &self,
        step: Step,
        values: &Values<'_>,
        scheme: &Scheme,
        token: &dyn Fn() -> Result<(), Rejection>,
    ) -> Result<(), Answer> {
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.step != step || !rule.is_for(values.asked.method()) || !rule.is_asked(values)? {
                continue;
            }
            rule.requires.check(values, token)?;
            let reply = rule.template.fill(index, values, scheme)?;
            return Err(Answer::Challenge(Box::new(reply)));
        }
        Ok(())
    }
}

impl Challenge {
    fn is_for(&self, method: &[u8]) -> bool {
        let is_method = |wanted: &str| wanted.as_bytes() == method;
        self.method.as_deref().is_none_or(is_method)
    }

    fn is_asked(&self, values: &Values<'_>) -> Result<bool, Rejection> {
        let Some(Condition { at, is }) = &self.condition else {
            return Ok(true);
        };
        match at {
            ValueAt::Field(index) => match values.asked.field(*index) {
                Field::Missing => Ok(false),
                Field::Several => Err(twice()),
                Field::Once(value) => Ok(match is {
                    Expected::Present => true,
                    Expected::Text(text) | Expected::Number(text) => **value == *text.as_bytes(),
                }),
            },
            ValueAt::Pointer(slot) => {
                let value = values.document.and_then(|document| document.get(*slot));
                Ok(value.is_some_and(|value| match is {
                    Expected::Present => value.kind() != Kind::Null,
                    Expected::Text(text) => value.text().is_some_and(|given| *given == **text),
                    Expected::Number(text) => {
                        matches!(value.kind(), Kind::Number { .. })
                            && value.raw() == text.as_bytes()
                    }
                }))
            }
        }
    }
}

impl Requires {
    fn check(
        &self,
        values: &Values<'_>,
        token: &dyn Fn() -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        match self {
            Requires::Nothing | Requires::Signature => Ok(()),
            Requires::Token => token(),
            Requires::Parameter { field, token } => match values.asked.field(*field) {
                Field::Several => Err(twice()),
                Field::Once(value) if token.matches(value) => Ok(()),
                Field::Once(_) | Field::Missing => Err(Rejection::because(
                    Code::SignatureMismatch,
                    "the challenge does not have the configured verify token",
                )),
            },
        }
    }
}
