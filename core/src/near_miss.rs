//! Near misses: paths that are not a source's, and that an application could take for it.
//!
//! Applications ignore much about a path: Express the case of letters and a `/` at the end, Tomcat
//! the `;parameters` of a segment, Rails a `.format`, PHP what follows the script, and many things
//! in between decode, resolve or merge once more. With `unmatched: "pass"` such a request would reach
//! the guarded handler unverified. So a path is brought into one canonical form, in which everything
//! of that kind is equal, and is refused if it is a source's path there.
//!
//! Which of two tricks an application applies first is unknown. So a path with escapes is read three
//! times (split before decoding, after decoding once, and after decoding all), and for `..` every
//! order is covered: a path that has it is near if the source's segments are in it, in their order.
//!
//! Not covered: applications that route by the query, or by headers of their own.

use std::borrow::Cow;

use callback_guard_scan::fold;

use crate::path_rule::PathRule;

/// Endings of the names of scripts: what follows such a segment is the script's own affair (CGI's
/// `PATH_INFO`), and a front controller (`/index.php/hook`) is often left out of the path.
const SCRIPTS: [&[u8]; 6] = [b".php", b".cgi", b".pl", b".py", b".aspx", b".ashx"];

/// How many segments at the beginning may be something other than the path: a scheme, a host, a front
/// controller.
const MOST_IGNORED: usize = 4;

/// A source's path in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    canonical: Vec<u8>,
    is_prefix: bool,
}

impl Guarded {
    pub(crate) fn new(path: &PathRule) -> Self {
        let (text, is_prefix) = match path {
            PathRule::Exact(text) => (text, false),
            PathRule::Prefix(text) => (text, true),
        };
        let Form { canonical, .. } = Form::of(text.as_bytes(), false);
        Self {
            canonical,
            is_prefix,
        }
    }

    /// Whether every path that is near `other` is near this one, too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.is_prefix && is_below(&other.canonical, &self.canonical)
    }

    fn is_met_by(&self, form: &Form) -> bool {
        if form.climbs {
            return holds(&form.canonical, &self.canonical);
        }
        let mut rest = Some(&*form.canonical);
        for ignored in 0..=MOST_IGNORED {
            let Some(given) = rest else { break };
            if self.is_path(given) {
                return true;
            }
            rest = form.without_first(given, ignored);
        }
        false
    }

    fn is_path(&self, given: &[u8]) -> bool {
        let Some(rest) = given.strip_prefix(&*self.canonical) else {
            return false;
        };
        let is_script = || SCRIPTS.iter().any(|end| self.canonical.ends_with(end));
        match rest {
            [] => true,
            [b'/', ..] => self.is_prefix || is_script(),
            // A format behind the last segment, as in `/hook.json`; a dot that a file system drops.
            [b'.', format @ ..] => !self.canonical.is_empty() && !format.contains(&b'/'),
            _ => false,
        }
    }
}

/// The readings of one request's path.
pub(crate) struct Readings(Vec<Form>);

impl Readings {
    /// Reads `target`: a path, or a URL of which it is part; a query behind it does not matter.
    pub(crate) fn of(target: &[u8]) -> Self {
        let path = target
            .split(|byte| matches!(byte, b'?' | b'#'))
            .next()
            .unwrap_or_default();
        let is_plain = path
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"%+;\\".contains(byte));
        if is_plain {
            return Self(vec![Form::of(path, false)]);
        }
        let once = percent_decoded(path);
        let whole = decoded(path);
        let mut forms = Vec::new();
        for text in [path, &once, &whole] {
            forms.push(Form::of(text, false));
            if whole.iter().any(|byte| ends_path(*byte)) {
                forms.push(Form::of(text, true));
            }
        }
        Self(forms)
    }

    /// Whether some reader leaves the path's beginning, by a `..`.
    pub(crate) fn climb(&self) -> bool {
        self.0.iter().any(|form| form.climbs)
    }

    /// Whether an application could take the path for `guarded`.
    pub(crate) fn meet(&self, guarded: &Guarded) -> bool {
        self.0.iter().any(|form| guarded.is_met_by(form))
    }
}

/// One reading of a path: its segments, decoded and folded, each behind a `/`.
struct Form {
    canonical: Vec<u8>,
    /// It has a segment `..`, which is left out.
    climbs: bool,
    /// It begins with two slashes: the first segment may be a host.
    names_host: bool,
}

impl Form {
    /// Splits `path` and reads each segment. With `cuts` the path ends at a NUL, `?` or `#` that
    /// comes out of an escape.
    fn of(path: &[u8], cuts: bool) -> Self {
        let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
        let mut form = Self {
            canonical: Vec::with_capacity(path.len()),
            climbs: false,
            names_host: matches!(path, [first, second, ..] if is_slash(first) && is_slash(second)),
        };
        for segment in path.split(is_slash) {
            let segment = decoded(segment);
            let named = segment.split(|byte| *byte == b';').next();
            for part in named.unwrap_or_default().split(is_slash) {
                let end = part.iter().position(|byte| cuts && ends_path(*byte));
                form.push(part.get(..end.unwrap_or(part.len())).unwrap_or_default());
                if end.is_some() {
                    return form;
                }
            }
        }
        form
    }

    fn push(&mut self, segment: &[u8]) {
        let start = self.canonical.len();
        self.canonical.push(b'/');
        // White space is often cut off, a `+` may be a space, and a control character is dropped.
        let is_ignored = |byte: &u8| *byte <= b' ' || matches!(byte, b'+' | 0x7f);
        self.canonical
            .extend(segment.iter().copied().filter(|byte| !is_ignored(byte)));
        match self.canonical.get(start..) {
            Some(b"/..") => self.climbs = true,
            Some(b"/" | b"/.") => {}
            _ => return,
        }
        self.canonical.truncate(start);
    }

    /// `given` without its first segment, if that may be no part of the path; `ignored` segments
    /// before it have been left out already.
    fn without_first<'a>(&self, given: &'a [u8], ignored: usize) -> Option<&'a [u8]> {
        let inside = given.strip_prefix(b"/")?;
        let length = inside
            .iter()
            .position(|byte| *byte == b'/')
            .unwrap_or(inside.len());
        let (first, rest) = inside.split_at_checked(length)?;
        let left_out = self.canonical.len().checked_sub(given.len());
        let before = left_out.and_then(|end| self.canonical.get(..end))?;
        let is_scheme = first.ends_with(b":");
        let is_host = ignored == 0 && self.names_host || before.ends_with(b":");
        let is_script = SCRIPTS.iter().any(|end| first.ends_with(end));
        (is_scheme || is_host || is_script).then_some(rest)
    }
}

/// Whether `path` is `prefix`, or below it.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether the segments of `wanted` are in `given`, in their order; a format behind each is ignored.
fn holds(given: &[u8], wanted: &[u8]) -> bool {
    let mut given = given.split(|byte| *byte == b'/').skip(1);
    let mut wanted = wanted.split(|byte| *byte == b'/').skip(1);
    wanted.all(|segment| {
        given.any(|one| {
            one.strip_prefix(segment)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
        })
    })
}

/// What may end a path that somebody decodes too early, or hands to C.
fn ends_path(byte: u8) -> bool {
    matches!(byte, 0 | b'?' | b'#')
}

/// `text` with all that escapes and encodings can hide of ASCII, and in lower case.
///
/// Percent-encoding is undone until none is left. Overlong UTF-8, full-width forms and letters that
/// fold to ASCII count as the ASCII they fold to.
///
/// Source: RFC 3986, 2.1; `%uXXXX` is what IIS reads; CaseFolding.txt of Unicode.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| byte.is_ascii() && *byte != b'%' && !byte.is_ascii_uppercase();
    if text.iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let unescaped = fully_percent_decoded(text);
    let (folded, has_escape) = folded(&unescaped);
    if has_escape {
        // A full-width or overlong `%` may begin one more escape.
        return Cow::Owned(folded_all(&fully_percent_decoded(&folded)));
    }
    Cow::Owned(folded)
}

fn folded_all(text: &[u8]) -> Vec<u8> {
    folded(text).0
}

/// In lower case, with look-alikes of ASCII replaced by ASCII; and whether a `%` is among those.
fn folded(text: &[u8]) -> (Vec<u8>, bool) {
    let mut folded = Vec::with_capacity(text.len());
    let mut has_escape = false;
    let mut rest = text;
    while let Some(first) = rest.first() {
        let (code, length) = lenient(rest).unwrap_or((u32::from(*first), 1));
        let code = match code {
            0xff01..=0xff5e => code.saturating_sub(0xfee0),
            code => code,
        };
        let is_text = length > 1 || first.is_ascii();
        match char::from_u32(code)
            .filter(|_| is_text)
            .map(fold::character)
        {
            Some(character) if character.is_whitespace() => folded.push(b' '),
            Some(character) => {
                has_escape |= length > 1 && character == '%';
                folded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => folded.extend_from_slice(rest.get(..length).unwrap_or_default()),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    (folded, has_escape)
}

/// The first character of `text` as a careless decoder of UTF-8 reads it, overlong or not, and its
/// length.
fn lenient(text: &[u8]) -> Option<(u32, usize)> {
    let first = *text.first()?;
    let (mut code, length) = match first {
        0..0x80 => (u32::from(first), 1),
        0xc0..0xe0 => (u32::from(first & 0x1f), 2),
        0xe0..0xf0 => (u32::from(first & 0x0f), 3),
        0xf0..0xf8 => (u32::from(first & 0x07), 4),
        _ => return None,
    };
    for byte in text.get(1..length)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    Some((code, length))
}

/// `text` with its escapes decoded, once.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| hex_byte(after)).flatten();
        decoded.push(escaped.unwrap_or(*first));
        rest = match escaped {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    decoded
}

/// `text` with its escapes decoded until none is left, in one pass: a byte that comes out of an escape
/// may complete another.
fn fully_percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    for byte in text {
        decoded.push(*byte);
        while let Some((start, character)) = escape_at_end(&decoded) {
            decoded.truncate(start);
            decoded.extend_from_slice(&character);
        }
    }
    decoded
}

/// The escape that `text` ends with: where it begins, and the bytes it encodes.
fn escape_at_end(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    if let Some([b'%', digits @ ..]) = text.last_chunk::<3>()
        && let Some(byte) = hex_byte(digits)
    {
        return Some((text.len().checked_sub(3)?, vec![byte]));
    }
    let [b'%', b'u' | b'U', a, b, c, d] = text.last_chunk::<6>()? else {
        return None;
    };
    let code = u32::from_be_bytes([0, 0, hex_byte(&[*a, *b])?, hex_byte(&[*c, *d])?]);
    let character = char::from_u32(code)?;
    let bytes = character.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
    Some((text.len().checked_sub(6)?, bytes))
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digits: [u8; 2] = *digits.first_chunk()?;
    let mut byte = [0];
    hex::decode_to_slice(digits, &mut byte).ok()?;
    let [byte] = byte;
    Some(byte)
}
