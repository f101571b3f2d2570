//! Where a signature is in a request, and how it is written there.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::form;
use super::keys::{Algorithm, SignatureBytes};
use crate::request::{Occurrence, RequestHead};
use crate::verdict::{Code, Rejection};

/// The most signatures that are tried for one request. DocuSign, who sends most, sends up to 100.
pub const MAX_SIGNATURES: usize = 100;

/// Where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAt {
    /// The place.
    pub place: SignaturePlace,
    /// How the value is built.
    pub form: Form,
    /// How the bytes are written.
    pub encoding: Encoding,
}

/// The place of the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignaturePlace {
    /// Headers, of which each may be there once, and one must; names in lower case. With
    /// [`Form::Numbered`] what is before the number.
    Headers(Vec<Box<str>>),
    /// A JSON pointer, by its slot.
    Pointer(usize),
    /// A parameter of the query.
    Query(Box<str>),
}

/// How a value with signatures is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole value, after a fixed prefix (which may be empty).
    Whole {
        /// As in `sha256=`.
        prefix: Box<str>,
    },
    /// A list of entries, of which those with this prefix are signatures; others are skipped.
    Entries {
        /// Between entries: a space or a comma.
        separator: u8,
        /// As in `v1,`.
        prefix: Box<str>,
        /// Whether entries without a prefix, behind a signature, are signatures as well.
        continued: bool,
    },
    /// A list of `key=value` fields, of which those with this key are signatures.
    Fields {
        /// Between fields: a comma or a semicolon.
        separator: u8,
        /// As in `v1`.
        key: Box<str>,
        /// Whether fields without a key, behind a signature, are signatures as well.
        continued: bool,
    },
    /// Headers with the numbers 1, 2, … at the end of their name, one signature each.
    Numbered,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Standard alphabet, padded, canonical. Source: RFC 4648, 4 and 3.5.
    Base64,
    /// Standard alphabet, canonical; the padding may be left out.
    Base64Unpadded,
    /// URL-safe alphabet, canonical; the padding may be left out. Source: RFC 4648, 5.
    Base64Url,
    /// Two hexadecimal digits a byte, in either case.
    Hex,
}

const INDIFFERENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const UNPADDED: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, INDIFFERENT);
const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, INDIFFERENT);

/// The signatures of a request; nearly always one, for which nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// They are inside of the body, which is still to come.
    InBody,
    One(SignatureBytes),
    Several(Vec<SignatureBytes>),
}

impl Offered {
    pub(super) fn as_slice(&self) -> &[SignatureBytes] {
        match self {
            Offered::InBody => &[],
            Offered::One(signature) => core::slice::from_ref(signature),
            Offered::Several(signatures) => signatures,
        }
    }
}

impl SignatureAt {
    /// The header of the first signature, where it has one.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        match &self.place {
            SignaturePlace::Headers(names) => names.first().map(|name| &**name),
            SignaturePlace::Pointer(_) | SignaturePlace::Query(_) => None,
        }
    }

    /// How often there is a value; of several headers, the first one's.
    pub(super) fn occurrence<'a>(&self, head: &RequestHead<'a>) -> Occurrence<'a> {
        let names = match &self.place {
            SignaturePlace::Headers(names) => names,
            SignaturePlace::Pointer(_) => return Occurrence::Once(b""),
            SignaturePlace::Query(name) => {
                let query = form::query(head.target());
                return form::occurrence(query, name);
            }
        };
        if self.form == Form::Numbered {
            return self.numbered_occurrence(head);
        }
        let mut found = Occurrence::Missing;
        for name in names {
            match (head.occurrence(name.as_bytes()), found) {
                (Occurrence::Several, _) => return Occurrence::Several,
                (once, Occurrence::Missing) => found = once,
                _ => {}
            }
        }
        found
    }

    fn numbered_occurrence<'a>(&self, head: &RequestHead<'a>) -> Occurrence<'a> {
        let (mut found, mut numbers) = (Occurrence::Missing, 0_u128);
        for (number, value) in self.numbered(head) {
            let bit = 1_u128.checked_shl(number).unwrap_or_default();
            if numbers & bit != 0 {
                return Occurrence::Several;
            }
            numbers |= bit;
            if found == Occurrence::Missing {
                found = Occurrence::Once(value);
            }
        }
        found
    }

    /// The headers with a number from 1 to [`MAX_SIGNATURES`] at the end of their name.
    fn numbered<'a>(&self, head: &RequestHead<'a>) -> impl Iterator<Item = (u32, &'a [u8])> {
        let before = self.header().unwrap_or_default().as_bytes();
        head.pairs().filter_map(move |(name, value)| {
            let digits = name.strip_prefix(before)?;
            // One spelling for each number.
            if !digits.iter().all(u8::is_ascii_digit) || digits.starts_with(b"0") {
                return None;
            }
            let number = core::str::from_utf8(digits).ok()?.parse().ok()?;
            let is_one = usize::try_from(number).is_ok_and(|number| number <= MAX_SIGNATURES);
            is_one.then_some((number, value))
        })
    }

    /// The signatures of a head in which there is a value.
    pub(super) fn decode(
        &self,
        head: &RequestHead<'_>,
        algorithm: Algorithm,
    ) -> Result<Offered, Rejection> {
        let found = match &self.place {
            SignaturePlace::Pointer(_) => return Ok(Offered::InBody),
            SignaturePlace::Headers(_) if self.form == Form::Numbered => {
                let values = self.numbered(head).map(|(_, value)| value);
                self.collect(algorithm, values)
            }
            SignaturePlace::Headers(names) => self.collect(
                algorithm,
                names
                    .iter()
                    .filter_map(|name| head.values(name.as_bytes()).next())
                    .flat_map(|value| self.texts(value)),
            ),
            SignaturePlace::Query(name) => match form::value(form::query(head.target()), name) {
                form::Value::Once(value) => self.collect(algorithm, self.texts(&value)),
                _ => None,
            },
        };
        found.ok_or(Rejection::new(Code::SignatureMalformed))
    }

    /// The signatures in a value of the body.
    pub(super) fn decode_text(
        &self,
        text: &[u8],
        algorithm: Algorithm,
    ) -> Result<Offered, Rejection> {
        self.collect(algorithm, self.texts(text))
            .ok_or(Rejection::new(Code::SignatureMalformed))
    }

    /// The texts of a value that may be signatures.
    fn texts<'v>(&self, value: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
        let (separator, prefix, ending, continued) = match &self.form {
            Form::Whole { prefix } => (None, &**prefix, "", false),
            Form::Entries {
                separator,
                prefix,
                continued,
            } => (Some(*separator), &**prefix, "", *continued),
            Form::Fields {
                separator,
                key,
                continued,
            } => (Some(*separator), &**key, "=", *continued),
            Form::Numbered => (None, "", "", false),
        };
        let mark = ending.bytes().chain(prefix.bytes().rev()).next();
        let (mut rest, mut is_behind) = (Some(value), false);
        let prefix = prefix.as_bytes().to_vec();
        core::iter::from_fn(move || {
            loop {
                let value = rest?;
                let end = separator.and_then(|separator| {
                    let at = value.iter().position(|byte| *byte == separator)?;
                    Some((at, at.checked_add(1)?))
                });
                let text = match end {
                    Some((at, next)) => {
                        rest = value.get(next..);
                        value.get(..at)?.trim_ascii()
                    }
                    None => {
                        rest = None;
                        if separator.is_some() {
                            value.trim_ascii()
                        } else {
                            value
                        }
                    }
                };
                let found = text
                    .strip_prefix(prefix.as_slice())
                    .and_then(|text| text.strip_prefix(ending.as_bytes()));
                if let Some(found) = found {
                    is_behind = true;
                    return Some(found);
                }
                if continued && is_behind && is_bare(text, mark) {
                    return Some(text);
                }
            }
        })
    }

    /// Decodes the entries that decode; `None` if there are none. Entries that do not decode are
    /// skipped, because senders put signatures of other versions in the same header.
    fn collect<'a>(
        &self,
        algorithm: Algorithm,
        texts: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Offered> {
        let mut found = texts
            .filter_map(|text| self.encoding.decode(text, algorithm))
            .take(MAX_SIGNATURES);
        let first = found.next()?;
        Some(match found.next() {
            None => Offered::One(first),
            Some(second) => Offered::Several([first, second].into_iter().chain(found).collect()),
        })
    }

    /// The field with this key in the list that the signature header is.
    pub(super) fn field<'a>(&self, value: &'a [u8], key: &str) -> Occurrence<'a> {
        let Form::Fields { separator, .. } = self.form else {
            return Occurrence::Missing;
        };
        let mut values = value
            .split(|byte| *byte == separator)
            .map(<[u8]>::trim_ascii)
            .filter_map(|field| {
                field
                    .strip_prefix(key.as_bytes())
                    .and_then(|rest| rest.strip_prefix(b"="))
            });
        match (values.next(), values.next()) {
            (None, _) => Occurrence::Missing,
            (Some(value), None) => Occurrence::Once(value),
            (Some(_), Some(_)) => Occurrence::Several,
        }
    }
}

/// Whether an entry has neither key nor prefix: no `=` but as padding, and not the byte that ends a
/// prefix.
fn is_bare(text: &[u8], mark: Option<u8>) -> bool {
    let end = text.iter().rposition(|byte| *byte != b'=');
    let text = end.and_then(|end| text.get(..=end)).unwrap_or_default();
    !text.contains(&b'=') && mark.is_none_or(|mark| !text.contains(&mark))
}

impl Encoding {
    /// Decodes a signature of `algorithm`, in the one spelling that each byte sequence has (hex: two;
    /// with optional padding: two).
    #[must_use]
    pub fn decode(self, text: &[u8], algorithm: Algorithm) -> Option<SignatureBytes> {
        SignatureBytes::decode(algorithm, text, |buffer| match self {
            Encoding::Base64 => STANDARD.decode_slice(text, buffer).ok(),
            Encoding::Base64Unpadded => UNPADDED.decode_slice(text, buffer).ok(),
            Encoding::Base64Url => URL.decode_slice(text, buffer).ok(),
            Encoding::Hex => {
                let length = text.len().checked_div(2)?;
                hex::decode_to_slice(text, buffer.get_mut(..length)?).ok()?;
                Some(length)
            }
        })
    }

    /// Writes a signature as the sender does.
    #[must_use]
    pub fn encode(self, signature: &SignatureBytes) -> String {
        let bytes = signature.as_slice();
        match self {
            Encoding::Base64 | Encoding::Base64Unpadded => STANDARD.encode(bytes),
            Encoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
            Encoding::Hex => hex::encode(bytes),
        }
    }

    /// What a configuration calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Base64 => "padded standard base64",
            Encoding::Base64Unpadded => "standard base64",
            Encoding::Base64Url => "URL-safe base64",
            Encoding::Hex => "hex",
        }
    }
}
