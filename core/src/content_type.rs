//! The parameters of a content type: what they say of the character set, to any reader.
//!
//! The body is read as UTF-8. Express, aiohttp and Django decode it as `charset` says, so that one in
//! UTF-7 would have another meaning to them. Parsers do not agree on odd syntax either: what one of
//! them may take for a `charset` is refused.

/// Whether every reader of `parameters`, which begin at the first `;`, takes the text for UTF-8.
///
/// Source: RFC 9110, 5.6.6 and 8.3.1; RFC 8259, 8.1 (JSON is UTF-8).
pub(crate) fn are_utf8(parameters: &[u8]) -> bool {
    if !parameters
        .iter()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    {
        return false;
    }
    let mentions = parameters
        .windows(CHARSET.len())
        .filter(|window| window.eq_ignore_ascii_case(CHARSET))
        .count();
    let mut rest = parameters;
    let mut charsets: usize = 0;
    while !rest.is_empty() {
        match parameter(rest) {
            Some((Some((name, value)), after)) => {
                if name.eq_ignore_ascii_case(CHARSET) {
                    charsets = charsets.saturating_add(1);
                    if !is_utf8(value) {
                        return false;
                    }
                }
                rest = after;
            }
            Some((None, after)) => rest = after,
            // Broken, but nothing that could name a character set or another type.
            None => return mentions == 0 && !parameters.contains(&b','),
        }
    }
    // A mention elsewhere is in a value, where a reader that knows no quotes would find it, or in a
    // name such as `charset*`.
    charsets <= 1 && mentions == charsets
}

const CHARSET: &[u8] = b"charset";

fn is_utf8(value: &[u8]) -> bool {
    let value = match value {
        [b'"', inside @ .., b'"'] => inside,
        value => value,
    };
    value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"utf8")
}

/// A name and its value, with the quotes.
type Parameter<'a> = (&'a [u8], &'a [u8]);

/// The parameter at the beginning of `text` (none between two semicolons), and what follows it.
fn parameter(text: &[u8]) -> Option<(Option<Parameter<'_>>, &[u8])> {
    let text = text.strip_prefix(b";")?.trim_ascii_start();
    let (name, rest) = token(text);
    if name.is_empty() {
        return (rest.is_empty() || rest.starts_with(b";")).then_some((None, rest));
    }
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest) = match rest {
        [b'"', inside @ ..] => {
            let end = quoted_end(inside)?;
            rest.split_at_checked(end.saturating_add(2))?
        }
        _ => token(rest),
    };
    let rest = rest.trim_ascii_start();
    let is_complete = !value.is_empty() && (rest.is_empty() || rest.starts_with(b";"));
    is_complete.then_some((Some((name, value)), rest))
}

/// Where the closing quote is.
fn quoted_end(inside: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    inside.iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })
}

fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().position(|byte| !is_token(byte));
    text.split_at_checked(length.unwrap_or(text.len()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_reader_takes_for_utf8() {
        for parameters in [
            "",
            ";charset=utf-8",
            "; charset=UTF-8",
            " ; Charset=Utf8",
            "; charset=\"utf-8\"",
            ";\tcharset=\"UTF8\" ; x=y",
            "; charset=utf-8;",
            ";; ; charset=utf-8;;",
            "; version=1; profile=\"a;b,c\\\"d\"",
            "; odata.metadata=minimal",
            "; x",
            "; x y",
            "; x=",
            "; =x",
            "; x=\"open",
            "; boundary=charse",
        ] {
            assert!(are_utf8(parameters.trim_start().as_bytes()), "{parameters}");
        }
    }

    #[test]
    fn what_some_reader_may_take_for_another_character_set() {
        for parameters in [
            "; charset=utf-7",
            "; charset=utf-16",
            "; charset=latin1",
            "; charset=us-ascii",
            "; charset=",
            "; charset=\"\"",
            "; charset",
            "; charset =utf-8",
            "; charset= utf-8",
            "; charset=utf-8 x",
            "; charset=utf-8, charset=utf-7",
            "; charset=utf-8,utf-7",
            "; charset=utf-8; charset=utf-8",
            "; charset=utf-8; CHARSET=utf-7",
            "; charset=utf-7; charset=utf-8",
            "; charset*=utf-8''utf-7",
            "; charset*0=utf-; charset*1=7",
            "; charset=utf-8; charset*=''utf-7",
            "; charset='utf-8'",
            "; charset=\"utf-8",
            "; charset=utf-8\"",
            "; charset=\"utf\\-8\"",
            "; charset=\" utf-8\"",
            "; charset=utf-8; x=\"; charset=utf-7\"",
            "; x=\"; charset=utf-7\"",
            "; x=\"\\\"; charset=utf-8",
            "; x=charset",
            "; x-charset=utf-7",
            "; charset=utf-8; x y",
            "; x=1, text/plain",
            "; x=\u{e9}",
            "; char\u{17f}et=utf-7",
            "; x=\u{1}",
            ";charset=utf_8",
        ] {
            assert!(!are_utf8(parameters.as_bytes()), "{parameters}");
        }
    }
}
