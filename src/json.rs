//! interim
#![allow(missing_docs, clippy::missing_errors_doc)]
use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeSet;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);
#[derive(Debug)]
pub struct PointerError;
impl fmt::Display for PointerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a JSON pointer such as `/data/id`")
    }
}
impl Pointer {
    pub fn parse(s: &str) -> Result<Self, PointerError> {
        if s.starts_with('/') {
            Ok(Self(s.into()))
        } else {
            Err(PointerError)
        }
    }
}
#[derive(Debug)]
pub struct Selector(Vec<String>, bool);
impl Selector {
    pub fn new(p: &[Pointer], urls: bool) -> Self {
        Self(p.iter().map(|p| p.0.clone()).collect(), urls)
    }
}
#[derive(Debug, Default)]
pub struct Scratch;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    Number { integer: bool },
    String,
    Array,
    Object,
}
#[derive(Clone)]
pub struct Value<'a> {
    kind: Kind,
    raw: &'a [u8],
    text: Cow<'a, str>,
}
impl<'a> Value<'a> {
    pub fn kind(&self) -> Kind {
        self.kind
    }
    pub fn text(&self) -> Cow<'a, str> {
        self.text.clone()
    }
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self.kind {
            Kind::String => Cow::Owned(self.text.as_bytes().to_vec()),
            _ => Cow::Borrowed(self.raw),
        }
    }
}
pub struct Document<'a> {
    slots: Vec<Option<Value<'a>>>,
    urls: Vec<(usize, Cow<'a, str>)>,
}
impl<'a> Document<'a> {
    pub fn get(&self, slot: usize) -> Option<Value<'a>> {
        self.slots.get(slot).cloned().flatten()
    }
    pub fn urls(&self) -> impl Iterator<Item = (usize, Cow<'a, str>)> + '_ {
        self.urls.iter().cloned()
    }
}
#[derive(Debug)]
pub enum JsonError {
    Malformed {
        offset: usize,
        expected: &'static str,
    },
    DuplicateKey {
        offset: usize,
    },
    TooDeep {
        offset: usize,
    },
}
struct P<'a, 's> {
    b: &'a [u8],
    i: usize,
    sel: &'s Selector,
    doc: Document<'a>,
}
pub fn scan<'a>(
    b: &'a [u8],
    sel: &Selector,
    _: &'a mut Scratch,
) -> Result<Document<'a>, JsonError> {
    if let Err(e) = core::str::from_utf8(b) {
        return Err(JsonError::Malformed {
            offset: e.valid_up_to(),
            expected: "UTF-8",
        });
    }
    let mut p = P {
        b,
        i: 0,
        sel,
        doc: Document {
            slots: vec![None; sel.0.len()],
            urls: vec![],
        },
    };
    p.ws();
    if p.peek() != Some(b'{') {
        return p.err("an object");
    }
    p.value(String::new(), 1, false)?;
    p.ws();
    if p.i != b.len() {
        return p.err("the end");
    }
    Ok(p.doc)
}
impl<'a> P<'a, '_> {
    fn err<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError::Malformed {
            offset: self.i,
            expected,
        })
    }
    fn peek(&self) -> Option<u8> {
        self.b.get(self.i).copied()
    }
    fn ws(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.i += 1;
        }
    }
    fn value(&mut self, path: String, depth: usize, url: bool) -> Result<(), JsonError> {
        let start = self.i;
        let mut text = Cow::Borrowed("");
        let kind = match self.peek() {
            Some(b'{') => {
                if depth > 64 {
                    return Err(JsonError::TooDeep { offset: self.i });
                }
                self.i += 1;
                let mut keys = BTreeSet::new();
                self.ws();
                if self.peek() == Some(b'}') {
                    self.i += 1;
                } else {
                    loop {
                        self.ws();
                        let at = self.i;
                        if self.peek() != Some(b'"') {
                            return self.err("a key");
                        }
                        let key = self.string()?.into_owned();
                        if !keys.insert(key.clone()) {
                            return Err(JsonError::DuplicateKey { offset: at });
                        }
                        self.ws();
                        if self.peek() != Some(b':') {
                            return self.err("`:`");
                        }
                        self.i += 1;
                        self.ws();
                        let low = key.to_ascii_lowercase();
                        let u = low.ends_with("url") || low.ends_with("urls") || key == "images";
                        self.value(
                            format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
                            depth + 1,
                            u,
                        )?;
                        self.ws();
                        match self.peek() {
                            Some(b',') => self.i += 1,
                            Some(b'}') => {
                                self.i += 1;
                                break;
                            }
                            _ => return self.err("`,` or `}`"),
                        }
                    }
                }
                Kind::Object
            }
            Some(b'[') => {
                if depth > 64 {
                    return Err(JsonError::TooDeep { offset: self.i });
                }
                self.i += 1;
                let mut n = 0;
                self.ws();
                if self.peek() == Some(b']') {
                    self.i += 1;
                } else {
                    loop {
                        self.ws();
                        self.value(format!("{path}/{n}"), depth + 1, url)?;
                        n += 1;
                        self.ws();
                        match self.peek() {
                            Some(b',') => self.i += 1,
                            Some(b']') => {
                                self.i += 1;
                                break;
                            }
                            _ => return self.err("`,` or `]`"),
                        }
                    }
                }
                Kind::Array
            }
            Some(b'"') => {
                text = self.string()?;
                if url && self.sel.1 && !text.is_empty() {
                    self.doc.urls.push((start, text.clone()));
                }
                Kind::String
            }
            _ => {
                while self.peek().is_some_and(|b| !b" \t\r\n,]}".contains(&b)) {
                    self.i += 1;
                }
                let t = self.b.get(start..self.i).unwrap_or_default();
                match t {
                    b"null" => Kind::Null,
                    b"true" | b"false" => Kind::Boolean,
                    _ => {
                        if serde_json::from_slice::<serde::de::IgnoredAny>(t).is_err()
                            || !t.first().is_some_and(|b| *b == b'-' || b.is_ascii_digit())
                        {
                            self.i = start;
                            return self.err("a value");
                        }
                        Kind::Number {
                            integer: !t.iter().any(|b| b".eE".contains(b)),
                        }
                    }
                }
            }
        };
        let raw = self.b.get(start..self.i).unwrap_or_default();
        for (s, p) in self.sel.0.iter().enumerate() {
            if *p == path
                && let Some(slot) = self.doc.slots.get_mut(s)
            {
                *slot = Some(Value {
                    kind,
                    raw,
                    text: text.clone(),
                });
            }
        }
        Ok(())
    }
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.i;
        self.i += 1;
        loop {
            match self.peek() {
                None => return self.err("`\"`"),
                Some(b'\\') => self.i += 2,
                Some(b'"') => {
                    self.i += 1;
                    break;
                }
                _ => self.i += 1,
            }
        }
        let raw = self.b.get(start..self.i).unwrap_or_default();
        match serde_json::from_slice::<String>(raw) {
            Ok(s) => Ok(Cow::Owned(s)),
            Err(_) => {
                self.i = start;
                self.err("a string")
            }
        }
    }
}
