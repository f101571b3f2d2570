//! The words of `sources[].challenge`.

use core::fmt;
use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::raw::signature::RawEncoding;

/// What a sender asks before it sends, and the answer.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawChallenge {
    /// Which requests are challenges.
    pub(crate) when: RawWhen,
    /// What the sender has to prove.
    pub(crate) requires: RawRequires,
    /// The answer.
    pub(crate) reply: RawReply,
}

/// Which requests are challenges: a method, and at most one of `query`, `header` and `pointer`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawWhen {
    /// This method, as `GET`. Default: any.
    pub(crate) method: Option<String>,
    /// This parameter of the query, decoded as forms are.
    pub(crate) query: Option<String>,
    /// This header.
    pub(crate) header: Option<String>,
    /// The value at this JSON pointer of the body.
    pub(crate) pointer: Option<String>,
    /// The value is this string or integer.
    pub(crate) equals: Option<RawScalar>,
    /// The value is there, whatever it is.
    #[serde(default)]
    pub(crate) present: bool,
}

/// A string or an integer.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(untagged))]
pub(crate) enum RawScalar {
    Text(String),
    Number(i64),
}

impl<'de> Deserialize<'de> for RawScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;

        impl Visitor<'_> for Scalar {
            type Value = RawScalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an integer")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawScalar, E> {
                Ok(RawScalar::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<RawScalar, E> {
                Ok(RawScalar::Number(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<RawScalar, E> {
                i64::try_from(number)
                    .map(RawScalar::Number)
                    .map_err(|_| E::custom("expected a string or an integer of at most 64 bits"))
            }
        }

        deserializer.deserialize_any(Scalar)
    }
}

/// What a sender has to prove: a word, or a parameter of the query.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(untagged))]
pub(crate) enum RawRequires {
    Word(RawProof),
    Parameter(RawParameterProof),
}

/// A proof, in a word.
#[derive(Debug)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "lowercase")
)]
pub(crate) enum RawProof {
    /// Nothing: anybody may ask.
    None,
    /// The source's token.
    Token,
    /// The source's signature.
    Signature,
}

/// A token of the challenge's own.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawParameterProof {
    /// The token is in this parameter of the query.
    pub(crate) query: String,
    /// It must be this value of `parameters`.
    pub(crate) parameter: String,
}

impl<'de> Deserialize<'de> for RawRequires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Requires;

        impl<'de> Visitor<'de> for Requires {
            type Value = RawRequires;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, `token`, `signature` or an object of `query` and `parameter`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawRequires, E> {
                Ok(RawRequires::Word(match text {
                    "none" => RawProof::None,
                    "token" => RawProof::Token,
                    "signature" => RawProof::Signature,
                    _ => return Err(E::unknown_variant(text, &["none", "token", "signature"])),
                }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRequires, A::Error> {
                RawParameterProof::deserialize(MapAccessDeserializer::new(map))
                    .map(RawRequires::Parameter)
            }
        }

        deserializer.deserialize_any(Requires)
    }
}

/// The answer to a challenge.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawReply {
    /// The HTTP status.
    #[cfg_attr(feature = "schema", schemars(range(min = 200, max = 299)))]
    pub(crate) status: u16,
    /// `text/plain` or a JSON media type.
    pub(crate) content_type: String,
    /// Headers, each made of parts. Default: none.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Vec<RawPart>>,
    /// The body, made of parts. Default: empty.
    #[serde(default)]
    pub(crate) body: Vec<RawPart>,
}

/// A part of the answer: `literal`, `query`, `header`, `pointer`, or `hmac` with `encoding`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawPart {
    /// This text.
    pub(crate) literal: Option<String>,
    /// The value of this parameter of the query.
    pub(crate) query: Option<String>,
    /// The value of this header.
    pub(crate) header: Option<String>,
    /// The value at this JSON pointer.
    pub(crate) pointer: Option<String>,
    /// The MAC of this value, with the source's algorithm, under its first secret.
    pub(crate) hmac: Option<RawPlace>,
    /// How the MAC is written.
    pub(crate) encoding: Option<RawEncoding>,
}

/// A value of the request: `query`, `header` or `pointer`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RawPlace {
    /// This parameter of the query, decoded as forms are.
    pub(crate) query: Option<String>,
    /// This header.
    pub(crate) header: Option<String>,
    /// The value at this JSON pointer of the body.
    pub(crate) pointer: Option<String>,
}
