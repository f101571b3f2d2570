//! What the signature header may be read as.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use callback_guard_core::scheme::keys::{Algorithm, SignatureBytes};
use callback_guard_core::scheme::{Encoding, Form, SignatureRule};

use super::super::case::Case;
use super::variant::Variant;

/// Every signature that the header can be read as.
pub(super) fn all(case: &Case<'_>, rule: &SignatureRule) -> Vec<Variant<SignatureBytes>> {
    let mut found: Vec<Variant<SignatureBytes>> = Vec::new();
    if let Ok(credentials) = rule.read_head(case.head) {
        found.extend(credentials.signatures().iter().cloned().map(Variant::right));
    }
    let configured = rule.value.encoding;
    for text in signature_texts(case, rule) {
        for (name, encoding, bytes) in decodings(&text) {
            if let Some(der) = in_der(rule.algorithm, &bytes) {
                let raw = "the signature is the two numbers one after the other, where this scheme has them in DER";
                let spelled = match encoding == Some(configured) {
                    true => raw.to_owned(),
                    false => format!("{raw}, and it is written in {name}"),
                };
                found.push(Variant::wrong(spelled, der));
            }
            // One of another length may be of another algorithm.
            let lengths = [
                rule.algorithm,
                Algorithm::HmacSha512,
                Algorithm::HmacSha256,
                Algorithm::HmacSha1,
            ];
            let mut lengths = lengths.into_iter();
            let Some(signature) =
                lengths.find_map(|algorithm| SignatureBytes::new(algorithm, &bytes))
            else {
                continue;
            };
            if found.iter().any(|known| known.value == signature) {
                continue;
            }
            let mistake = if encoding == Some(configured) {
                // Well written, but not where the scheme looks; or a torn timestamp hid it.
                let is_elsewhere = match &rule.value.form {
                    Form::Whole { prefix } => !prefix.is_empty(),
                    Form::Fields { key, .. } => field(case, rule, key).as_ref() != Some(&text),
                    _ => true,
                };
                is_elsewhere.then(|| "the signature header is built in another way".to_owned())
            } else {
                Some(format!(
                    "the signature is written in {name}, where this scheme has {}",
                    configured.name()
                ))
            };
            found.push(Variant {
                mistake,
                value: signature,
            });
        }
    }
    found
}

/// A raw ECDSA signature, `r` and `s` of 32 bytes each, as DER has it; `None` where it is none.
///
/// Source: RFC 3279, 2.2.3.
fn in_der(algorithm: Algorithm, raw: &[u8]) -> Option<SignatureBytes> {
    if algorithm != Algorithm::EcdsaP256Sha256 || raw.len() != 64 {
        return None;
    }
    let number = |half: &[u8]| -> Option<Vec<u8>> {
        let start = half.iter().position(|byte| *byte != 0)?;
        let digits = half.get(start..)?;
        // A leading zero, where it would be negative.
        let sign: &[u8] = if digits.first()? & 0x80 == 0 {
            &[]
        } else {
            &[0]
        };
        let digits = [sign, digits].concat();
        Some([&[2, u8::try_from(digits.len()).ok()?], &digits[..]].concat())
    };
    let (r, s) = raw.split_at_checked(32)?;
    let numbers = [number(r)?, number(s)?].concat();
    let der = [&[0x30, u8::try_from(numbers.len()).ok()?], &numbers[..]].concat();
    SignatureBytes::new(algorithm, &der)
}

/// The field `key` of a signature header that cannot be read as a whole.
pub(super) fn field(case: &Case<'_>, rule: &SignatureRule, key: &str) -> Option<Vec<u8>> {
    let header = rule.value.header()?;
    let values = case.head.values(header.as_bytes());
    let mut parts = values.flat_map(|value| value.split(|byte| b" ,;".contains(byte)));
    parts.find_map(|part| {
        let value = part.trim_ascii().strip_prefix(key.as_bytes())?;
        value.strip_prefix(b"=").map(<[u8]>::to_vec)
    })
}

/// How many bytes the texts that may be signatures have.
pub(super) fn lengths(case: &Case<'_>, rule: &SignatureRule) -> Vec<usize> {
    let texts = signature_texts(case, rule);
    texts
        .iter()
        .filter_map(|text| decoded_length(text))
        .collect()
}

/// The texts in the signature header that may be signatures.
fn signature_texts(case: &Case<'_>, rule: &SignatureRule) -> Vec<Vec<u8>> {
    let at = &rule.value;
    let header = at.header().unwrap_or_default();
    let name = match at.form {
        Form::Numbered => format!("{header}1"),
        _ => header.to_owned(),
    };
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for value in case.head.values(name.as_bytes()) {
        let mut add = |text: &[u8]| {
            let text = text.trim_ascii().to_vec();
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        };
        add(value);
        for part in value.split(|byte| b" ,;".contains(byte)) {
            add(part);
            if let Some(at) = part.iter().position(|byte| *byte == b'=') {
                let (_, after) = part
                    .split_at_checked(at.saturating_add(1))
                    .unwrap_or_default();
                add(after);
            }
        }
    }
    texts
}

/// The bytes of a text in every encoding that it is valid in.
fn decodings(text: &[u8]) -> Vec<(&'static str, Option<Encoding>, Vec<u8>)> {
    let mut found = Vec::new();
    if let Ok(bytes) = hex::decode(text) {
        found.push(("hex", Some(Encoding::Hex), bytes));
    }
    if let Ok(bytes) = STANDARD.decode(text) {
        found.push(("base64", Some(Encoding::Base64), bytes));
    }
    if let Ok(bytes) = STANDARD_NO_PAD.decode(text) {
        found.push(("base64 without padding", None, bytes));
    }
    if let Ok(bytes) = URL_SAFE.decode(text) {
        found.push(("URL-safe base64", None, bytes));
    }
    if let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) {
        found.push(("URL-safe base64 without padding", None, bytes));
    }
    found
}

fn decoded_length(text: &[u8]) -> Option<usize> {
    let (_, _, bytes) = decodings(text).into_iter().next()?;
    Some(bytes.len())
}
