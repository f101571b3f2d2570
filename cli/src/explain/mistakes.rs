//! Why a signature does not match: the mistakes that people make, tried one after the other.

mod signatures;
mod urls;
mod variant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use callback_guard_core::policy::Source;
use callback_guard_core::request::Occurrence;
use callback_guard_core::scheme::keys::{self, Algorithm, Key, PublicEncoding, SignatureBytes};
use callback_guard_core::scheme::{Part, SignatureRule, Timestamp, TimestampPlace, Unit};
use serde_json::Value;

use super::case::{Case, Judgement, NamedSecret, rule};
use super::steps::{SignedFacts, judgement_secrets};
use variant::Variant;

/// A key that may have signed, and the secret that it is made of; empty for a public key.
struct Candidate {
    key: Key,
    bytes: Vec<u8>,
}

impl Candidate {
    fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let key = Key::secret(algorithm, bytes).ok()?;
        Some(Self {
            key,
            bytes: bytes.to_vec(),
        })
    }
}

/// What is most likely wrong.
pub(super) fn advice(case: &Case<'_>, judgement: &Judgement) -> String {
    let Some(source) = judgement.report.source.as_deref() else {
        return String::new();
    };
    let Some(rule) = rule(source) else {
        return "most likely: the token belongs to another source, or is from before a rotation\n"
            .to_owned();
    };
    let signatures = signatures::all(case, rule);
    let keys = keys(case, source, rule);
    let messages = messages(case, source, rule);
    let mut best: Vec<Vec<&str>> = Vec::new();
    let mut tried: u64 = 0;
    for key in &keys {
        let candidate = std::slice::from_ref(&key.value.key);
        for message in &messages {
            for signature in &signatures {
                let mistakes: Vec<&str> = [&message.mistake, &key.mistake, &signature.mistake]
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .collect();
                let least = best.first().map_or(3, Vec::len);
                if mistakes.is_empty() || mistakes.len() > least {
                    continue;
                }
                tried = tried.saturating_add(1);
                let parts = [message.value.as_slice()];
                let given = std::slice::from_ref(&signature.value);
                if keys::verify(candidate, &parts, given, case.policy.host_verify).is_ok() {
                    if mistakes.len() < least {
                        best.clear();
                    }
                    if !best.contains(&mistakes) {
                        best.push(mistakes);
                    }
                }
            }
        }
    }
    let mut text = String::new();
    for (index, mistakes) in best.iter().enumerate() {
        let lead = if index == 0 { "most likely" } else { "or" };
        text.push_str(&format!("{lead}: {}\n", mistakes.join(", and ")));
    }
    if best.is_empty() {
        text.push_str(&nothing_fits(case, rule, &signatures, tried));
    }
    text
}

/// What can be said if no mistake of the list explains it.
fn nothing_fits(
    case: &Case<'_>,
    rule: &SignatureRule,
    signatures: &[Variant<SignatureBytes>],
    tried: u64,
) -> String {
    let configured = rule.algorithm;
    let fits = |signature: &Variant<SignatureBytes>| {
        SignatureBytes::new(configured, signature.value.as_slice()).is_some()
    };
    if !signatures.iter().any(fits) {
        let lengths = signatures::lengths(case, rule);
        for (length, names) in [
            (16, "HMAC-MD5"),
            (20, "HMAC-SHA1"),
            (32, "HMAC-SHA256"),
            (48, "HMAC-SHA384"),
            (64, "HMAC-SHA512 and Ed25519"),
            (256, "RSA with 2048 bits"),
        ] {
            if lengths.contains(&length) {
                return format!(
                    "most likely: the signature has {length} bytes, as {names} has; this scheme has {}\n",
                    configured.name()
                );
            }
        }
        return "most likely: the header holds no signature of this scheme; is it the right preset?\n"
            .to_owned();
    }
    let body = if rule.signs_body() {
        "or the body was changed on the way"
    } else {
        "or the id or the timestamp was changed on the way"
    };
    let secret = match configured.is_asymmetric() {
        true => "key than the public one that is configured",
        false => "secret",
    };
    format!(
        "most likely: the sender signs with another {secret}, {body}; {tried} combinations of key, \
         spelling and message were tried\n"
    )
}

/// The secrets in every way that they may have been meant, first as they are configured.
fn keys(case: &Case<'_>, source: &Source, rule: &SignatureRule) -> Vec<Variant<Candidate>> {
    let algorithm = rule.algorithm;
    let own = judgement_secrets(case, source);
    let bytes = source.signing_keys.iter().map(|key| key.reveal().to_vec());
    let bytes = bytes.chain(std::iter::repeat(Vec::new()));
    let configured = rule.keys.iter().cloned().zip(bytes);
    let mut keys: Vec<Variant<Candidate>> = configured
        .map(|(key, bytes)| Variant::right(Candidate { key, bytes }))
        .collect();
    if algorithm.is_asymmetric() {
        public_keys(case, source, algorithm, &mut keys);
        return keys;
    }
    for secret in own {
        spellings(algorithm, secret, None, &mut keys);
    }
    let others = [
        Algorithm::HmacSha256,
        Algorithm::HmacSha1,
        Algorithm::HmacSha512,
    ];
    for other in others.into_iter().filter(|other| *other != algorithm) {
        let mistake = format!(
            "it is signed with {}, where this scheme has {}",
            other.name(),
            algorithm.name()
        );
        let keys_of_other = source.signing_keys.iter();
        keys.extend(keys_of_other.filter_map(|key| {
            let candidate = Candidate::new(other, key.reveal())?;
            Some(Variant::wrong(mistake.clone(), candidate))
        }));
    }
    let sources = case.policy.sources.iter().zip(case.secrets);
    for (other, secrets) in sources.filter(|(other, _)| other.index != source.index) {
        for (secret, other_key) in secrets.iter().zip(other.signing_keys.iter()) {
            let mistake = format!(
                "it is signed with {}, of source {}",
                secret.name, other.name
            );
            if let Some(candidate) = Candidate::new(algorithm, other_key.reveal()) {
                keys.push(Variant::wrong(mistake, candidate));
            }
        }
    }
    for secret in case.others {
        let mistake = format!(
            "it is signed with {}, which the source does not have",
            secret.name
        );
        if let Some(candidate) = Candidate::new(algorithm, &secret.text) {
            keys.push(Variant::wrong(mistake.clone(), candidate));
        }
        spellings(algorithm, secret, Some(&mistake), &mut keys);
    }
    keys
}

/// Adds the public keys that the sender may have meant: those of other sources, and of `--try-env`.
fn public_keys(
    case: &Case<'_>,
    source: &Source,
    algorithm: Algorithm,
    keys: &mut Vec<Variant<Candidate>>,
) {
    let mut add = |mistake: String, key: Key| {
        let bytes = Vec::new();
        keys.push(Variant::wrong(mistake, Candidate { key, bytes }));
    };
    let sources = case.policy.sources.iter().zip(case.secrets);
    for (other, names) in sources.filter(|(other, _)| other.index != source.index) {
        let of_kind = rule(other).filter(|rule| rule.algorithm == algorithm);
        for (key, named) in of_kind.into_iter().flat_map(|rule| &rule.keys).zip(names) {
            let mistake = format!("its key is {}, of source {}", named.name, other.name);
            add(mistake, key.clone());
        }
    }
    for named in case.others {
        for encoding in [
            PublicEncoding::Spki,
            PublicEncoding::Base64,
            PublicEncoding::Hex,
        ] {
            if let Ok(key) = Key::public(algorithm, &named.text, encoding) {
                let mistake = format!("its key is {}, which the source does not have", named.name);
                add(mistake, key);
            }
        }
    }
}

/// Adds a secret, decoded and trimmed in all ways; what `keys` has already is left out.
fn spellings(
    algorithm: Algorithm,
    secret: &NamedSecret,
    prefix: Option<&str>,
    keys: &mut Vec<Variant<Candidate>>,
) {
    let text = &secret.text;
    let name = &secret.name;
    let bare = text.strip_prefix(b"whsec_").unwrap_or(text);
    let mut add = |mistake: String, key: Option<Vec<u8>>| {
        let Some(key) = key.filter(|key| keys.iter().all(|known| known.value.bytes != *key)) else {
            return;
        };
        if let Some(candidate) = Candidate::new(algorithm, &key) {
            let mistake = match prefix {
                None => mistake,
                Some(prefix) => format!("{prefix}, and {mistake}"),
            };
            keys.push(Variant::wrong(mistake, candidate));
        }
    };
    let reading = |how: &str, encoding: &str| {
        format!("the key is {name} {how}: give the secret `\"encoding\": \"{encoding}\"`")
    };
    add(reading("as it is", "utf8"), Some(text.clone()));
    let decoded = STANDARD_NO_PAD.decode(unpadded(bare)).ok();
    add(reading("decoded from base64", "base64"), decoded);
    add(reading("decoded from hex", "hex"), hex::decode(bare).ok());
    let without = format!("the key is {name} without its `whsec_`");
    add(without, Some(bare.to_vec()));
    let trimmed = format!("{name} has white space or a line break around the key: remove it");
    add(trimmed, Some(text.trim_ascii().to_vec()));
    let unquoted = format!("{name} has quotation marks around the key: remove them");
    let inside = [&b"\""[..], b"'"].into_iter().find_map(|mark| {
        text.strip_prefix(mark)
            .and_then(|text| text.strip_suffix(mark))
    });
    add(unquoted, inside.map(<[u8]>::to_vec));
    for (end, what) in [
        (&b"\n"[..], "a line break"),
        (b"\r\n", "a line break (CR LF)"),
        (b" ", "a space"),
    ] {
        let longer =
            format!("the sender's key is {name} with {what} at its end: set it anew there");
        add(longer, Some([text.as_slice(), end].concat()));
    }
}

/// The messages that may have been signed.
fn messages(case: &Case<'_>, source: &Source, rule: &SignatureRule) -> Vec<Variant<Vec<u8>>> {
    let facts = SignedFacts::of(case, source);
    let stamps = timestamps(case, rule);
    let mut found = Vec::new();
    for stamp in &stamps {
        let parts = facts.parts(rule, stamp.value.clone());
        if let Some(parts) = parts {
            found.push(Variant {
                mistake: stamp.mistake.clone(),
                value: parts.concat(),
            });
        }
    }
    let stamp = stamps.first().and_then(|stamp| stamp.value.clone());
    if rule.holds(&Part::Id) {
        for (pointer, id) in scalars(case.body) {
            let facts = SignedFacts {
                id: Some(id),
                ..SignedFacts::of(case, source)
            };
            let parts = facts.parts(rule, stamp.clone());
            if let Some(parts) = parts {
                let mistake =
                    format!("the signed id is the value at {pointer}, not the message id");
                found.push(Variant::wrong(mistake, parts.concat()));
            }
        }
    }
    if rule.signs_body() {
        for (mistake, body) in bodies(case.body) {
            let facts = SignedFacts {
                body,
                ..SignedFacts::of(case, source)
            };
            if let Some(parts) = facts.parts(rule, stamp.clone()) {
                found.push(Variant::wrong(mistake, parts.concat()));
            }
        }
    }
    if let Some(parts) = facts.parts(rule, stamp.clone()) {
        for (mistake, message) in urls::in_message(case, rule, &parts) {
            found.push(Variant::wrong(mistake, message));
        }
    }
    found.extend(layouts(case, &facts, stamp.as_deref()));
    found
}

/// The timestamp as it came, and in other units.
fn timestamps(case: &Case<'_>, rule: &SignatureRule) -> Vec<Variant<Option<Vec<u8>>>> {
    let Some(at) = &rule.timestamp else {
        return vec![Variant::right(None)];
    };
    let given = match (rule.read_head(case.head), &at.place) {
        (Ok(signed), _) => signed.timestamp().map(|stamp| stamp.as_bytes().to_vec()),
        (Err(_), TimestampPlace::Header(name)) => match case.head.occurrence(name.as_bytes()) {
            Occurrence::Once(value) => Some(value.to_vec()),
            _ => None,
        },
        (Err(_), TimestampPlace::Field(key)) => signatures::field(case, rule, key),
        (Err(_), TimestampPlace::Pointer(_)) => None,
    };
    let Some(text) = given else {
        return vec![Variant::right(None)];
    };
    let is = |unit: Unit| Timestamp::parse(&text, unit).is_ok();
    let units = [Unit::Seconds, Unit::Milliseconds, Unit::Rfc3339];
    let other = units.into_iter().find(|unit| *unit != at.unit && is(*unit));
    let mut found = vec![match other {
        Some(other) if !is(at.unit) => Variant::wrong(
            format!(
                "the timestamp is in {}, where this scheme has {}",
                unit_words(other),
                unit_words(at.unit)
            ),
            Some(text.clone()),
        ),
        _ => Variant::right(Some(text.clone())),
    }];
    if is(Unit::Milliseconds) {
        let seconds = text.get(..10).map(<[u8]>::to_vec);
        let mistake = "the signed timestamp is in seconds, the one sent in milliseconds";
        found.push(Variant::wrong(mistake, seconds));
    }
    if is(Unit::Seconds) {
        for millis in 0..1000 {
            let longer = [&text[..], format!("{millis:03}").as_bytes()].concat();
            let mistake = "the signed timestamp is in milliseconds, the one sent in seconds";
            found.push(Variant::wrong(mistake, Some(longer)));
        }
    }
    found
}

fn unit_words(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Milliseconds => "milliseconds",
        Unit::Rfc3339 => "RFC 3339",
    }
}

/// The body as other programs would have written it.
fn bodies(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let rewritten =
        |how: &str| format!("the body was written anew on the way: the signed one {how}");
    let mut found = Vec::new();
    let mut add = |how: &str, bytes: Vec<u8>| {
        if bytes != body && !found.iter().any(|(_, known)| *known == bytes) {
            found.push((rewritten(how), bytes));
        }
    };
    if let Ok(text) = std::str::from_utf8(body)
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    {
        add("has no white space", respaced(text, ",", ":").into_bytes());
        add(
            "has a space after each comma and colon",
            respaced(text, ", ", ": ").into_bytes(),
        );
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            // serde_json's own map is sorted by key.
            add("has its keys sorted", value.to_string().into_bytes());
            if let Ok(pretty) = serde_json::to_string_pretty(&value) {
                add("is indented, its keys sorted", pretty.into_bytes());
            }
        }
    }
    add(
        "has no line break at its end",
        body.trim_ascii_end().to_vec(),
    );
    add("ends with a line break", [body, b"\n"].concat());
    let text = String::from_utf8_lossy(body);
    add(
        "has CR LF line ends",
        text.replace('\n', "\r\n").into_bytes(),
    );
    add("has LF line ends", text.replace("\r\n", "\n").into_bytes());
    found
}

/// JSON with its tokens and their order kept, and white space only in these two places.
fn respaced(text: &str, comma: &str, colon: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut is_inside, mut is_escaped) = (false, false);
    for char in text.chars() {
        if is_inside {
            result.push(char);
            (is_inside, is_escaped) = match char {
                _ if is_escaped => (true, false),
                '\\' => (true, true),
                '"' => (false, false),
                _ => (true, false),
            };
            continue;
        }
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            ',' => result.push_str(comma),
            ':' => result.push_str(colon),
            other => {
                is_inside = other == '"';
                result.push(other);
            }
        }
    }
    result
}

/// What other schemes make of the same facts.
fn layouts(case: &Case<'_>, facts: &SignedFacts, stamp: Option<&[u8]>) -> Vec<Variant<Vec<u8>>> {
    let body = case.body;
    let id = facts.id.as_deref();
    let mut found = Vec::new();
    let mut add = |what: &str, parts: &[Option<&[u8]>]| {
        let parts: Option<Vec<&[u8]>> = parts.iter().copied().collect();
        if let Some(parts) = parts {
            let mistake = format!(
                "the signed message is {what}, as in another scheme: is it the right preset?"
            );
            found.push(Variant::wrong(mistake, parts.concat()));
        }
    };
    let dot = Some(&b"."[..]);
    add("the body alone", &[Some(body)]);
    add("<timestamp>.<body>", &[stamp, dot, Some(body)]);
    add("<timestamp><body>", &[stamp, Some(body)]);
    add("<timestamp>:<body>", &[stamp, Some(b":"), Some(body)]);
    add(
        "v0:<timestamp>:<body>",
        &[Some(b"v0:"), stamp, Some(b":"), Some(body)],
    );
    add(
        "<id>.<timestamp>.<body>",
        &[id, dot, stamp, dot, Some(body)],
    );
    add("<id>.<timestamp>", &[id, dot, stamp]);
    add("<timestamp>.<id>", &[stamp, dot, id]);
    add("<id><timestamp>", &[id, stamp]);
    add("<id>.<body>", &[id, dot, Some(body)]);
    add("the id alone", &[id]);
    found
}

/// Short strings and numbers of the body, with their pointers.
fn scalars(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    const MOST: usize = 200;
    fn walk(value: &Value, pointer: &str, found: &mut Vec<(String, Vec<u8>)>) {
        if found.len() >= MOST {
            return;
        }
        match value {
            Value::String(text) if text.len() <= 128 => {
                found.push((pointer.to_owned(), text.clone().into_bytes()));
            }
            Value::Number(number) => {
                found.push((pointer.to_owned(), number.to_string().into_bytes()));
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{pointer}/{index}"), found);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    walk(field, &format!("{pointer}/{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_slice(body) {
        walk(&value, "", &mut found);
    }
    found
}

fn unpadded(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b'=');
    let length = end.map_or(0, |end| end.saturating_add(1));
    text.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_moves_and_strings_stay() {
        let text = " { \"a b\" : [ 1 , \"c, \\\" d : \" ] } ";
        assert_eq!(respaced(text, ",", ":"), r#"{"a b":[1,"c, \" d : "]}"#);
        assert_eq!(respaced(text, ", ", ": "), r#"{"a b": [1, "c, \" d : "]}"#);
    }
}
