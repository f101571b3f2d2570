//! From the words of `sources[].challenge` to [`Challenges`], with everything refused that would
//! swallow callbacks or sign them.

pub(super) mod oracle;

use crate::error::{ConfigError, Path, within};
use crate::fields::{Fields, header_name};
use crate::parameters::Parameters;
use crate::raw::challenge::{
    RawChallenge, RawParameterProof, RawPart, RawPlace, RawProof, RawReply, RawRequires, RawScalar,
    RawWhen,
};
use crate::raw::signature::RawEncoding;
use crate::warnings::Warnings;
use callback_guard_core::challenge::{
    Alphabet, Challenge, Challenges, Condition, Expected, FieldAt, MAX_ECHOED_BYTES, Part,
    Requires, Step, Template, ValueAt,
};
use callback_guard_core::request::is_json;
use callback_guard_core::scheme::keys::Token;
use callback_guard_core::scheme::token::TokenAt;
use callback_guard_core::scheme::{Encoding, Proof, Scheme};

/// The most challenges that a source may have.
const MAX_CHALLENGES: usize = 8;
/// The most parts that a header or a body of an answer may have.
const MAX_PARTS: usize = 16;
/// Headers that the proxy or the guard sets itself.
const TAKEN_HEADERS: [&str; 7] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "x-content-type-options",
];

/// What the rules of a source are held against.
pub(super) struct Context<'c> {
    /// Its scheme.
    pub(super) scheme: &'c Scheme,
    /// Whether each body that it accepts is a JSON object or array.
    pub(super) only_containers: bool,
}

/// Compiles and checks the challenges of a source; none if there is no rule.
pub(super) fn compile(
    path: &Path,
    raw: &[RawChallenge],
    context: &Context<'_>,
    parameters: &mut Parameters<'_>,
    fields: &mut Fields,
    warnings: &mut Warnings,
) -> Result<Option<Box<Challenges>>, ConfigError> {
    if raw.len() > MAX_CHALLENGES {
        let problem = format!("there are {}, expected at most {MAX_CHALLENGES}", raw.len());
        return Err(ConfigError::new(path, problem));
    }
    let mut compiler = Compiler {
        context,
        parameters,
        body: fields,
        head: Vec::new(),
        warnings,
    };
    let mut rules = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        rules.push(compiler.challenge(&path.index(index), raw)?);
    }
    let fields = compiler.head;
    Ok((!rules.is_empty()).then(|| Box::new(Challenges { fields, rules })))
}

struct Compiler<'c, 'p> {
    context: &'c Context<'c>,
    parameters: &'c mut Parameters<'p>,
    /// The pointers of the source.
    body: &'c mut Fields,
    /// The headers and query parameters that the rules read.
    head: Vec<FieldAt>,
    warnings: &'c mut Warnings,
}

impl Compiler<'_, '_> {
    fn challenge(&mut self, path: &Path, raw: &RawChallenge) -> Result<Challenge, ConfigError> {
        let when_path = path.field("when");
        let method = method(&when_path, &raw.when)?;
        let condition = self.condition(&when_path, &raw.when)?;
        if condition.is_none() && method.as_deref().is_none_or(|method| method == "POST") {
            return Err(ConfigError::new(
                &when_path,
                "takes every POST for a challenge, so no callback would be let through, expected \
                 `query`, `header` or `pointer`, or another `method`",
            ));
        }
        let requires_path = path.field("requires");
        let requires = self.requires(&requires_path, &raw.requires)?;
        let reply_path = path.field("reply");
        let template = self.template(&reply_path, &raw.reply)?;
        let reads_body = reads_body(condition.as_ref(), &template);
        let step = match &requires {
            Requires::Signature => Step::Verified,
            Requires::Token if reads_body || has_token_in_body(self.context.scheme) => {
                Step::Verified
            }
            _ if reads_body => Step::Body,
            _ => Step::Head,
        };
        let is_post = method.as_deref().is_none_or(|method| method == "POST");
        if step != Step::Head && !is_post {
            return Err(ConfigError::new(
                &when_path.field("method"),
                "is not POST, and the challenge needs a body: its value, its signature or its token \
                 is there; expected `POST`",
            ));
        }
        if requires_signature_of_other(&requires, reads_body, self.context.scheme) {
            return Err(ConfigError::new(
                &requires_path,
                "is `signature`, but the challenge reads the body, which this scheme does not sign",
            ));
        }
        Ok(Challenge {
            method,
            condition,
            requires,
            step,
            template,
        })
    }

    fn condition(&mut self, path: &Path, raw: &RawWhen) -> Result<Option<Condition>, ConfigError> {
        let RawWhen {
            method: _,
            query,
            header,
            pointer,
            equals,
            present,
        } = raw;
        let place = (query.as_deref(), header.as_deref(), pointer.as_deref());
        if place == (None, None, None) {
            return match (equals, present) {
                (None, false) => Ok(None),
                _ => Err(ConfigError::new(
                    path,
                    "has `equals` or `present`, but no `query`, `header` or `pointer` whose value \
                     that would be",
                )),
            };
        }
        let Some(at) = self.value(path, place)? else {
            let problem = "expected at most one of `query`, `header` and `pointer`";
            return Err(ConfigError::new(path, problem));
        };
        let is = match (equals, present) {
            (None, true) => Expected::Present,
            (Some(RawScalar::Text(text)), false)
                if (1..=MAX_ECHOED_BYTES).contains(&text.len()) =>
            {
                Expected::Text(text.as_str().into())
            }
            (Some(RawScalar::Text(text)), false) => {
                let problem = format!("has {} bytes, expected 1 to {MAX_ECHOED_BYTES}", text.len());
                return Err(ConfigError::new(&path.field("equals"), problem));
            }
            (Some(RawScalar::Number(number)), false) => Expected::Number(number.to_string().into()),
            _ => {
                let problem = "expected `equals` or `present: true`, one of the two";
                return Err(ConfigError::new(path, problem));
            }
        };
        Ok(Some(Condition { at, is }))
    }

    fn requires(&mut self, path: &Path, raw: &RawRequires) -> Result<Requires, ConfigError> {
        let is_signed = matches!(self.context.scheme.proof, Proof::Signature(_));
        match raw {
            RawRequires::Word(RawProof::None) => Ok(Requires::Nothing),
            RawRequires::Word(RawProof::Signature) if is_signed => Ok(Requires::Signature),
            RawRequires::Word(RawProof::Token) if !is_signed => Ok(Requires::Token),
            RawRequires::Word(RawProof::Signature) => {
                let problem = "is `signature`, but the source has a token, expected `token`";
                Err(ConfigError::new(path, problem))
            }
            RawRequires::Word(RawProof::Token) => {
                let problem = "is `token`, but the source is signed, expected `signature`";
                Err(ConfigError::new(path, problem))
            }
            RawRequires::Parameter(RawParameterProof { query, parameter }) => {
                let field = self.query(&path.field("query"), query)?;
                let token = self.parameters.take_token(parameter, self.warnings)?;
                // `take_token` refuses an empty one.
                let token = Token::new(token.as_bytes())
                    .ok_or_else(|| ConfigError::new(path, "names an empty parameter"))?;
                Ok(Requires::Parameter { field, token })
            }
        }
    }

    fn template(&mut self, path: &Path, raw: &RawReply) -> Result<Template, ConfigError> {
        let status_path = path.field("status");
        within(&status_path, raw.status.into(), 200, 299)?;
        let content_path = path.field("content_type");
        let is_json = is_json_reply(&content_path, &raw.content_type)?;
        let mut headers: Vec<(Box<str>, Vec<Part>)> = Vec::with_capacity(raw.headers.len());
        for (name, parts) in &raw.headers {
            let path = path.field("headers").field(name);
            let name = header_name(&path, name)?;
            if TAKEN_HEADERS.contains(&&*name) || name.starts_with("x-callback-guard") {
                return Err(ConfigError::new(
                    &path,
                    "is a header that the guard sets itself",
                ));
            }
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(ConfigError::new(&path, "is there twice"));
            }
            if parts.is_empty() {
                return Err(ConfigError::new(
                    &path,
                    "is empty, expected at least one part",
                ));
            }
            let parts = self.parts(&path, parts)?;
            let is_visible = |part: &Part| match part {
                Part::Literal(text) => text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                _ => true,
            };
            if let Some(index) = parts.iter().position(|part| !is_visible(part)) {
                let problem = "expected visible ASCII characters and spaces in a header";
                return Err(ConfigError::new(
                    &path.index(index).field("literal"),
                    problem,
                ));
            }
            headers.push((name, parts));
        }
        let body_path = path.field("body");
        let body = self.parts(&body_path, &raw.body)?;
        if matches!(raw.status, 204 | 205) && !body.is_empty() {
            let problem = format!(
                "is there, but an answer with status {} has none",
                raw.status
            );
            return Err(ConfigError::new(&body_path, problem));
        }
        if is_json && !body.is_empty() && !keeps_values_in_strings(&body) {
            return Err(ConfigError::new(
                &body_path,
                "is not JSON with each value inside a string, expected as in [{ \"literal\": \
                 \"{\\\"challenge\\\":\\\"\" }, { \"pointer\": \"/challenge\" }, { \"literal\": \
                 \"\\\"}\" }]",
            ));
        }
        Ok(Template {
            status: raw.status,
            content_type: raw.content_type.as_str().into(),
            headers,
            body,
            alphabet: if is_json {
                Alphabet::Strict
            } else {
                Alphabet::Text
            },
        })
    }

    fn parts(&mut self, path: &Path, raw: &[RawPart]) -> Result<Vec<Part>, ConfigError> {
        if raw.len() > MAX_PARTS {
            let problem = format!(
                "there are {} parts, expected at most {MAX_PARTS}",
                raw.len()
            );
            return Err(ConfigError::new(path, problem));
        }
        raw.iter()
            .enumerate()
            .map(|(index, raw)| self.part(&path.index(index), raw))
            .collect()
    }

    fn part(&mut self, path: &Path, raw: &RawPart) -> Result<Part, ConfigError> {
        let RawPart {
            literal,
            query,
            header,
            pointer,
            hmac,
            encoding,
        } = raw;
        let place = (query.as_deref(), header.as_deref(), pointer.as_deref());
        match (literal, place, hmac, encoding) {
            (Some(text), (None, None, None), None, None) if !text.is_empty() => {
                Ok(Part::Literal(text.as_str().into()))
            }
            (Some(_), (None, None, None), None, None) => {
                Err(ConfigError::new(&path.field("literal"), "is empty"))
            }
            (None, (None, None, None), Some(of), Some(encoding)) => {
                self.mac(&path.field("hmac"), of, encoding_of(*encoding))
            }
            (None, (None, None, None), Some(_), None) => Err(ConfigError::new(
                &path.field("encoding"),
                "is missing, expected how the MAC is written, as `hex`",
            )),
            (None, place, None, None) => match self.value(path, place)? {
                Some(at) => Ok(Part::Value(at)),
                None => Err(ConfigError::new(path, ONE_PART)),
            },
            _ => Err(ConfigError::new(path, ONE_PART)),
        }
    }

    fn mac(&mut self, path: &Path, of: &RawPlace, encoding: Encoding) -> Result<Part, ConfigError> {
        let place = (
            of.query.as_deref(),
            of.header.as_deref(),
            of.pointer.as_deref(),
        );
        let Some(of) = self.value(path, place)? else {
            let problem = "expected one of `query`, `header` and `pointer`";
            return Err(ConfigError::new(path, problem));
        };
        if self.context.scheme.mac(&[]).is_none() {
            let problem = "needs a secret, but this source has public keys, which sign nothing";
            return Err(ConfigError::new(path, problem));
        }
        if oracle::accepts_strict(self.context.scheme, self.context.only_containers) {
            return Err(ConfigError::new(
                path,
                "would sign what this source accepts as a callback: its message need not hold a \
                 character that a challenge cannot have, as the `{` of a JSON body or a `:` in a \
                 literal",
            ));
        }
        Ok(Part::Mac { of, encoding })
    }

    /// The value at one of the three places; none if there is not exactly one.
    fn value(
        &mut self,
        path: &Path,
        place: (Option<&str>, Option<&str>, Option<&str>),
    ) -> Result<Option<ValueAt>, ConfigError> {
        Ok(Some(match place {
            (Some(name), None, None) => ValueAt::Field(self.query(&path.field("query"), name)?),
            (None, Some(name), None) => {
                let name = header_name(&path.field("header"), name)?;
                ValueAt::Field(self.field(FieldAt::Header(name)))
            }
            (None, None, Some(pointer)) => {
                ValueAt::Pointer(self.body.pointer(&path.field("pointer"), pointer)?)
            }
            _ => return Ok(None),
        }))
    }

    fn query(&mut self, path: &Path, name: &str) -> Result<usize, ConfigError> {
        if name.is_empty() {
            let problem = "is empty, expected the name of a parameter";
            return Err(ConfigError::new(path, problem));
        }
        Ok(self.field(FieldAt::Query(name.into())))
    }

    fn field(&mut self, field: FieldAt) -> usize {
        if let Some(index) = self.head.iter().position(|known| *known == field) {
            return index;
        }
        self.head.push(field);
        self.head.len().saturating_sub(1)
    }
}

const ONE_PART: &str =
    "expected one of `literal`, `query`, `header`, `pointer`, and `hmac` with `encoding`";

fn method(path: &Path, raw: &RawWhen) -> Result<Option<Box<str>>, ConfigError> {
    let Some(method) = &raw.method else {
        return Ok(None);
    };
    let is_method = (1..=16).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
        && method != "CONNECT";
    if !is_method {
        let problem = "expected a method in capital letters, as `GET`, `HEAD`, `OPTIONS` or `POST`";
        return Err(ConfigError::new(&path.field("method"), problem));
    }
    Ok(Some(method.as_str().into()))
}

/// Whether the answer is JSON; it is plain text else. Nothing else may hold values of a request: a
/// script or a style sheet can do harm with letters alone.
fn is_json_reply(path: &Path, text: &str) -> Result<bool, ConfigError> {
    let (essence, parameter) = match text.split_once(';') {
        Some((essence, parameter)) => (essence.trim_end(), Some(parameter.trim_start())),
        None => (text, None),
    };
    let is_utf8 = |parameter: &str| parameter.eq_ignore_ascii_case("charset=utf-8");
    let is_json = is_json(essence.as_bytes());
    if (is_json || essence.eq_ignore_ascii_case("text/plain")) && parameter.is_none_or(is_utf8) {
        return Ok(is_json);
    }
    let problem = "expected `text/plain` or a JSON media type, as `application/json`, with no \
                   parameter but `charset=utf-8`";
    Err(ConfigError::new(path, problem))
}

/// Whether a JSON answer stays JSON whatever its values are. `~` is a value that JSON has inside
/// strings alone, and there no value of the strict alphabet means anything.
fn keeps_values_in_strings(body: &[Part]) -> bool {
    let text: String = body
        .iter()
        .map(|part| match part {
            Part::Literal(text) => text,
            Part::Value(_) | Part::Mac { .. } => "~",
        })
        .collect();
    serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
}

fn reads_body(condition: Option<&Condition>, template: &Template) -> bool {
    let is_pointer = |at: &ValueAt| matches!(at, ValueAt::Pointer(_));
    let headers = template.headers.iter().flat_map(|(_, parts)| parts);
    condition.is_some_and(|condition| is_pointer(&condition.at))
        || template.body.iter().chain(headers).any(|part| match part {
            Part::Literal(_) => false,
            Part::Value(at) | Part::Mac { of: at, .. } => is_pointer(at),
        })
}

/// Whether a signature is required that says nothing of the body that the challenge reads.
fn requires_signature_of_other(requires: &Requires, reads_body: bool, scheme: &Scheme) -> bool {
    match (requires, &scheme.proof) {
        (Requires::Signature, Proof::Signature(rule)) => reads_body && !rule.signs_body(),
        _ => false,
    }
}

fn has_token_in_body(scheme: &Scheme) -> bool {
    matches!(&scheme.proof, Proof::Token(rule) if matches!(rule.at, TokenAt::Pointer(_)))
}

fn encoding_of(raw: RawEncoding) -> Encoding {
    match raw {
        RawEncoding::Base64 => Encoding::Base64,
        RawEncoding::Base64Url => Encoding::Base64Url,
        RawEncoding::Hex => Encoding::Hex,
    }
}
