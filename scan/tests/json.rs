//! The strict JSON scanner: what it refuses, with which error, and what it picks out.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../../fuzz/tree.rs"]
mod tree;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use callback_guard_scan::json::{
    JsonError, Kind, LINEAR_KEYS, MAX_DEPTH, Pointer, PointerError, Root, Scratch, Selector, scan,
};
use proptest::prelude::*;

// --- What is refused ---------------------------------------------------------------------------

fn verdict(body: impl AsRef<[u8]>) -> Result<(), JsonError> {
    let selector = Selector::new(&[], true);
    scan(body.as_ref(), &selector, &mut Scratch::default()).map(|_| ())
}

fn malformed(offset: usize, expected: &'static str) -> Result<(), JsonError> {
    Err(JsonError::Malformed { offset, expected })
}

fn duplicate(offset: usize) -> Result<(), JsonError> {
    Err(JsonError::DuplicateKey { offset })
}

fn too_deep(offset: usize) -> Result<(), JsonError> {
    Err(JsonError::TooDeep { offset })
}

#[test]
fn accepted() {
    let rows: &[&[u8]] = &[
        b"{}",
        b" \t\r\n{ \t\r\n} \t\r\n",
        br#"{"":""}"#,
        br#"{"a":[],"b":{},"c":[[],{}]}"#,
        br#"{"a" : [ 1 , 2 ] , "b" : { "c" : null } }"#,
        br#"{"a":true,"b":false,"c":null}"#,
        br#"{"a":0,"b":-0,"c":10,"d":-1.50,"e":0e0,"f":1E+02,"g":1.5e-7}"#,
        br#"{"a":1e999,"b":-1e-999,"c":123456789012345678901234567890}"#,
        br#"{"a":"\"\\\/\b\f\n\r\t\u0000\uFfFf"}"#,
        br#"{"a":"\ud834\udd1e","b":"\uDBFF\uDFFF"}"#,
        "{\"a\":\"\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\"}"
            .as_bytes(),
        "{\"\u{fffe}\":\"\u{feff}\"}".as_bytes(),
        // The same key in different objects, and keys that differ in case, end or form only.
        br#"{"a":{"a":[{"a":1},{"a":1}]},"A":1,"a\u0000":1,"aa":1}"#,
        "{\"\u{e9}\":1,\"e\u{301}\":2}".as_bytes(),
    ];
    for row in rows {
        assert_eq!(verdict(row), Ok(()), "{}", String::from_utf8_lossy(row));
    }
}

#[test]
fn refused() {
    let closing_quote = "a closing quote";
    let control = "no control character in a string";
    let end = "the end of the body";
    let escape = "one of `\"\\/bfnrtu` after a backslash";
    let hex = "four hexadecimal digits";
    let object = "an object";
    let pairs = "surrogate escapes in pairs";
    let utf8 = "valid UTF-8";
    let value = "a value";
    let rows: &[(&[u8], Result<(), JsonError>)] = &[
        // The root.
        (b"", malformed(0, object)),
        (b" \n", malformed(2, object)),
        (b"[]", malformed(0, object)),
        (b"\"a\"", malformed(0, object)),
        (b"1", malformed(0, object)),
        (b" null", malformed(1, object)),
        (b"\xef\xbb\xbf{}", malformed(0, object)),
        (b"\xff\xfe{\0}\0", malformed(0, object)),
        (b"\0{}", malformed(0, object)),
        (b"\x0b{}", malformed(0, object)),
        (b"\xc2\xa0{}", malformed(0, object)),
        // What comes behind it.
        (b"{}{}", malformed(2, end)),
        (b"{} x", malformed(3, end)),
        (b"{}}", malformed(2, end)),
        (b"{},", malformed(2, end)),
        (b"{}\0", malformed(2, end)),
        (b"{}//", malformed(2, end)),
        (b"{}\xff", malformed(2, end)),
        // Objects.
        (b"{", malformed(1, "a key or `}`")),
        (b"{,", malformed(1, "a key or `}`")),
        (b"{a:1}", malformed(1, "a key or `}`")),
        (b"{'a':1}", malformed(1, "a key or `}`")),
        (b"{1:1}", malformed(1, "a key or `}`")),
        (b"{]", malformed(1, "a key or `}`")),
        (b"{\"a\"", malformed(4, "`:`")),
        (b"{\"a\" 1}", malformed(5, "`:`")),
        (b"{\"a\",1}", malformed(4, "`:`")),
        (b"{\"a\":", malformed(5, value)),
        (b"{\"a\":}", malformed(5, value)),
        (b"{\"a\"::1}", malformed(5, value)),
        (b"{\"a\":,\"b\":1}", malformed(5, value)),
        (b"{\"a\":1", malformed(6, "`,` or `}`")),
        (b"{\"a\":1 \"b\":1}", malformed(7, "`,` or `}`")),
        (b"{\"a\":1;\"b\":1}", malformed(6, "`,` or `}`")),
        (b"{\"a\":1]", malformed(6, "`,` or `}`")),
        (b"{\"a\":1,}", malformed(7, "a key")),
        (b"{\"a\":1,,\"b\":1}", malformed(7, "a key")),
        (b"{\"a\":1,", malformed(7, "a key")),
        // Arrays.
        (b"{\"a\":[", malformed(6, value)),
        (b"{\"a\":[,1]}", malformed(6, value)),
        (b"{\"a\":[1,]}", malformed(8, value)),
        (b"{\"a\":[1,,2]}", malformed(8, value)),
        (b"{\"a\":[1", malformed(7, "`,` or `]`")),
        (b"{\"a\":[1 2]}", malformed(8, "`,` or `]`")),
        (b"{\"a\":[1}", malformed(7, "`,` or `]`")),
        (b"{\"a\":[\"b\":1]}", malformed(9, "`,` or `]`")),
        // Literals.
        (b"{\"a\":nul}", malformed(8, "`null`")),
        (b"{\"a\":truE}", malformed(8, "`true`")),
        (b"{\"a\":fals", malformed(9, "`false`")),
        (b"{\"a\":nullx}", malformed(9, "`,` or `}`")),
        (b"{\"a\":True}", malformed(5, value)),
        (b"{\"a\":NaN}", malformed(5, value)),
        (b"{\"a\":undefined}", malformed(5, value)),
        // Numbers.
        (b"{\"a\":01}", malformed(6, "`,` or `}`")),
        (b"{\"a\":-01}", malformed(7, "`,` or `}`")),
        (b"{\"a\":+1}", malformed(5, value)),
        (b"{\"a\":-}", malformed(6, "a digit")),
        (b"{\"a\":--1}", malformed(6, "a digit")),
        (b"{\"a\":-Infinity}", malformed(6, "a digit")),
        (b"{\"a\":.5}", malformed(5, value)),
        (b"{\"a\":5.}", malformed(7, "a digit")),
        (b"{\"a\":5.e1}", malformed(7, "a digit")),
        (b"{\"a\":1e}", malformed(7, "a digit")),
        (b"{\"a\":1e+}", malformed(8, "a digit")),
        (b"{\"a\":1.5e-", malformed(10, "a digit")),
        (b"{\"a\":1e1.5}", malformed(8, "`,` or `}`")),
        (b"{\"a\":0x1}", malformed(6, "`,` or `}`")),
        (b"{\"a\":1_000}", malformed(6, "`,` or `}`")),
        (b"{\"a\":1f}", malformed(6, "`,` or `}`")),
        // Strings.
        (b"{\"a\":\"", malformed(6, closing_quote)),
        (b"{\"a\":\"b", malformed(7, closing_quote)),
        (b"{\"a\":\"0123456789", malformed(16, closing_quote)),
        (b"{\"a", malformed(3, closing_quote)),
        (b"{\"a\":\"\\\"}", malformed(9, closing_quote)),
        (b"{\"a\":\"\n\"}", malformed(6, control)),
        (b"{\"a\":\"b\0\"}", malformed(7, control)),
        (b"{\"a\":\"\x1f\"}", malformed(6, control)),
        (b"{\"a\tb\":1}", malformed(3, control)),
        (b"{\"a\":\"\\\n\"}", malformed(7, escape)),
        (b"{\"a\":\"\\x41\"}", malformed(7, escape)),
        (b"{\"a\":\"\\'\"}", malformed(7, escape)),
        (b"{\"a\":\"\\U0041\"}", malformed(7, escape)),
        (b"{\"a\":\"\\0\"}", malformed(7, escape)),
        (b"{\"a\":\"\\\xc3\xa9\"}", malformed(7, escape)),
        (b"{\"a\":\"\\", malformed(7, escape)),
        (b"{\"a\":\"\\u\"}", malformed(8, hex)),
        (b"{\"a\":\"\\u004\"}", malformed(11, hex)),
        (b"{\"a\":\"\\u004g\"}", malformed(11, hex)),
        (b"{\"a\":\"\\u+041\"}", malformed(8, hex)),
        (b"{\"a\":\"\\u{41}\"}", malformed(8, hex)),
        (b"{\"\\u00\":1}", malformed(6, hex)),
        // Surrogates.
        (b"{\"a\":\"\\ud800\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\udbff\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\udc00\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\udfff\"}", malformed(6, pairs)),
        (b"{\"a\":\"x\\ud800x\"}", malformed(7, pairs)),
        (b"{\"a\":\"\\ud800\\n\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\ud800\\ud800\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\ud800\\ue000\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\ud800\\u0041\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\udc00\\ud800\"}", malformed(6, pairs)),
        (b"{\"a\":\"\\ud834\\udd1\"}", malformed(17, hex)),
        (b"{\"\\ud800\":1}", malformed(2, pairs)),
        // UTF-8, in strings and out of them.
        (b"{\"a\":\"\x80\"}", malformed(6, utf8)),
        (b"{\"a\":\"b\xbf\"}", malformed(7, utf8)),
        (b"{\"a\":\"\xc0\x80\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xc1\xbf\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xc2\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xe0\x9f\xbf\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xe2\x82\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xed\xa0\x80\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xed\xbf\xbf\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xf0\x8f\xbf\xbf\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xf0\x9f\x98\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xf4\x90\x80\x80\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xf5\x80\x80\x80\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xff\"}", malformed(6, utf8)),
        (b"{\"a\":\"\xc3\xa9\xe9\"}", malformed(8, utf8)),
        (b"{\"a\":\"\xe2\x82", malformed(6, utf8)),
        (b"{\"a\":\"\xc3\xa9", malformed(8, closing_quote)),
        (b"{\"\xe9\":1}", malformed(2, utf8)),
        (b"{\"a\":\xe9}", malformed(5, value)),
        (b"{\"a\":1\xc2\xa0}", malformed(6, "`,` or `}`")),
        (b"{\"a\":1\x0c}", malformed(6, "`,` or `}`")),
        // Duplicates.
        (br#"{"a":1,"a":2}"#, duplicate(7)),
        (br#"{"a":1,"b":2, "a" :3}"#, duplicate(14)),
        (br#"{"a":1,"\u0061":2}"#, duplicate(7)),
        (br#"{"\u0061":1,"a":2}"#, duplicate(12)),
        (br#"{"\u0061":1,"\u0061":2}"#, duplicate(12)),
        (br#"{"":1,"":2}"#, duplicate(6)),
        (br#"{"/":1,"\/":2}"#, duplicate(7)),
        (br#"{"\ud83d\ude00":1,"\uD83D\uDE00":2}"#, duplicate(18)),
        (
            "{\"\\ud83d\\ude00\":1,\"\u{1f600}\":2}".as_bytes(),
            duplicate(18),
        ),
        ("{\"\u{e9}\":1,\"\\u00E9\":2}".as_bytes(), duplicate(8)),
        (
            br#"{"longer than eight":1,"longer than eight":2}"#,
            duplicate(23),
        ),
        (
            br#"{"longer than eight":1,"longer tha\u006e eight":2}"#,
            duplicate(23),
        ),
        (br#"{"a":{"b":1,"b":2}}"#, duplicate(12)),
        (br#"{"a":[{"b":1,"c":{},"b":2}]}"#, duplicate(20)),
        (br#"{"a":1,"b":{"a":{"a":1}},"a":1}"#, duplicate(25)),
        (br#"{"\u0061":{"\u0062":1},"\u0061":1}"#, duplicate(23)),
        (
            br#"{"\u0061bcdefghij":{"\u0062":1},"abcdefghij":1}"#,
            duplicate(32),
        ),
        // The first error in document order.
        (br#"{"a":1,"a":x}"#, duplicate(7)),
        (br#"{"a":1,"a"}"#, duplicate(7)),
        (br#"{"a":x,"a":1}"#, malformed(5, value)),
    ];
    for (body, expected) in rows {
        assert_eq!(
            verdict(body),
            *expected,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[test]
fn depth_64_and_65() {
    let arrays = |depth: usize| {
        format!(
            "{{\"a\":{}{}}}",
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    let objects = |depth: usize| {
        let parents = depth - 1;
        format!("{}{{}}{}", "{\"a\":".repeat(parents), "}".repeat(parents))
    };
    assert_eq!(verdict(arrays(MAX_DEPTH)), Ok(()));
    assert_eq!(verdict(arrays(MAX_DEPTH + 1)), too_deep(5 + 63));
    assert_eq!(verdict(objects(MAX_DEPTH)), Ok(()));
    assert_eq!(verdict(objects(MAX_DEPTH + 1)), too_deep(5 * 64));
    // Side by side is not deep.
    assert_eq!(
        verdict(format!("{{\"a\":[{}[]]}}", "[],".repeat(1000))),
        Ok(())
    );
    // Neither is it a matter of the stack.
    assert_eq!(verdict("{\"a\":".repeat(1 << 20)), too_deep(5 * 64));
    assert_eq!(
        verdict(format!("{{\"a\":{}", "[".repeat(1 << 20))),
        too_deep(5 + 63)
    );
}

#[test]
fn error_texts() {
    let rows = [
        (
            JsonError::Malformed {
                offset: 7,
                expected: "a key",
            },
            "malformed JSON at byte 7, expected a key",
        ),
        (
            JsonError::DuplicateKey { offset: 7 },
            "duplicate key at byte 7",
        ),
        (
            JsonError::TooDeep { offset: 7 },
            "more than 64 nested levels at byte 7",
        ),
    ];
    for (error, text) in rows {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn debug_shows_nothing_of_the_body() {
    let body = br#"{"secret\u0021":"secret","url":"secret"}"#;
    let selector = Selector::new(&pointers(&["/url"]), true);
    let mut scratch = Scratch::default();
    let document = scan(body, &selector, &mut scratch).unwrap();
    let debug = format!("{document:?} {:?}", document.get(0));
    assert!(!debug.contains("secret"), "{debug}");
    assert_eq!(format!("{scratch:?}"), "Scratch { .. }");
}

/// The special bytes at every place of the eight that are read at once.
#[test]
fn every_alignment_of_what_ends_plain_text() {
    for before in 0..24 {
        let plain = "~".repeat(before);
        let at = 6 + before;
        for after in 0..12 {
            let rest = " ".repeat(after);
            let body = |middle: &str| format!("{{\"a\":\"{plain}{middle}{rest}\"}}");
            assert_eq!(verdict(body("")), Ok(()));
            assert_eq!(verdict(body("!#[]\u{7f}\\\\")), Ok(()));
            assert_eq!(verdict(body("\u{e9}")), Ok(()));
            assert_eq!(verdict(body("\u{20ac}\u{1f600}")), Ok(()));
            assert_eq!(
                verdict(body("\u{1f}")),
                malformed(at, "no control character in a string")
            );
            assert_eq!(
                verdict(body("\0")),
                malformed(at, "no control character in a string")
            );
            let bad_escape = malformed(at + 1, "one of `\"\\/bfnrtu` after a backslash");
            assert_eq!(verdict(body("\\!")), bad_escape);
            assert_eq!(verdict(body("\"!")), malformed(at + 1, "`,` or `}`"));
            let mut invalid = body("!").into_bytes();
            invalid[at] = 0x80;
            assert_eq!(verdict(invalid), malformed(at, "valid UTF-8"));
        }
    }
}

#[test]
fn every_ascii_character_between_others() {
    for character in '\0'..='\u{7f}' {
        for text in [
            format!("\u{e9}{character}\u{e9}"),
            format!("\u{20ac}{character}x"),
        ] {
            let body = format!("{{\"a\":\"{text}\"}}");
            tree::check(body.as_bytes());
        }
    }
}

#[test]
fn utf8_is_what_core_says() {
    let bytes = [
        b'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
        0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
    ];
    let selector = Selector::new(&[], false);
    let mut scratch = Scratch::default();
    for one in bytes {
        for two in bytes {
            for three in bytes {
                for four in bytes {
                    let body = [b'{', b'"', one, two, three, four, b'"', b':', b'1', b'}'];
                    let expected = match core::str::from_utf8(&body) {
                        Ok(_) => Ok(()),
                        Err(error) => malformed(error.valid_up_to(), "valid UTF-8"),
                    };
                    let seen = scan(&body, &selector, &mut scratch).map(|_| ());
                    assert_eq!(seen, expected, "{body:x?}");
                }
            }
        }
    }
}

/// Every text of up to five characters that numbers are made of.
#[test]
fn numbers_are_what_the_reference_says() {
    let alphabet = ["-", "+", ".", "e", "E", "0", "1", "9", " "];
    let mut texts = vec![String::new()];
    let mut length = 0..texts.len();
    for _ in 0..5 {
        let next = texts.len();
        for at in length {
            for character in alphabet {
                texts.push(format!("{}{character}", texts[at]));
            }
        }
        length = next..texts.len();
    }
    let selector = Selector::new(&pointers(&["/v"]), false);
    let mut scratch = Scratch::default();
    for text in texts {
        let body = format!("{{\"v\":{text}}}");
        let Some(expected) = tree::reference(body.as_bytes()) else {
            continue;
        };
        let seen = scan(body.as_bytes(), &selector, &mut scratch);
        assert_eq!(seen.is_ok(), expected.is_ok(), "{body}");
        if let Ok(document) = seen {
            let integer = !text.contains(['.', 'e', 'E']);
            assert_eq!(
                document.get(0).unwrap().kind(),
                Kind::Number { integer },
                "{body}"
            );
            assert_eq!(document.get(0).unwrap().raw(), text.trim().as_bytes());
        }
    }
}

// --- Duplicate keys ----------------------------------------------------------------------------

/// An object with these keys, as they are spelled, and the offset of each key.
fn object_of(keys: &[String]) -> (String, Vec<usize>) {
    let mut body = "{".to_owned();
    let mut offsets = Vec::new();
    for key in keys {
        if body.len() > 1 {
            body.push(',');
        }
        offsets.push(body.len());
        write!(body, "\"{key}\":0").unwrap();
    }
    body.push('}');
    (body, offsets)
}

#[test]
fn duplicates_at_every_place_around_16_and_17_keys() {
    for count in LINEAR_KEYS - 1..LINEAR_KEYS + 3 {
        for first in 0..count {
            for second in first + 1..count {
                for (name, again) in [
                    ("k", "k"),
                    ("k", "\\u006b"),
                    ("longer than a piece ", "longer than a\\u0020piece "),
                ] {
                    let mut keys: Vec<_> = (0..count).map(|at| format!("{name}{at}")).collect();
                    keys[second] = format!("{again}{first}");
                    let (body, offsets) = object_of(&keys);
                    assert_eq!(verdict(&body), duplicate(offsets[second]), "{body}");
                }
            }
        }
        let keys: Vec<_> = (0..count).map(|at| format!("k{at}")).collect();
        assert_eq!(verdict(object_of(&keys).0), Ok(()));
    }
}

/// With up to 16 keys before it a duplicate is found where it stands, with more when the object
/// closes.
#[test]
fn an_error_behind_a_duplicate_in_a_large_object_comes_first() {
    let body = |count: usize| {
        let keys: Vec<_> = (0..count - 1)
            .map(|at| format!("k{at}"))
            .chain(["k0".to_owned()])
            .collect();
        let (body, offsets) = object_of(&keys);
        (body.replace('}', ",}"), offsets[count - 1])
    };
    let (small, offset) = body(LINEAR_KEYS);
    assert_eq!(verdict(small), duplicate(offset));
    let (large, _) = body(LINEAR_KEYS + 1);
    assert_eq!(verdict(&large), malformed(large.len() - 1, "a key"));
}

#[test]
fn an_object_inside_a_large_one_does_not_lose_its_keys() {
    let mut keys: Vec<_> = (0..40).map(|at| format!("k\\u0030{at}")).collect();
    let (inner, _) = object_of(&keys);
    keys.insert(20, format!("o\\u0030\":{inner},\"x"));
    let (body, offsets) = object_of(&keys);
    assert_eq!(verdict(&body), Ok(()));
    keys.push("k0\\u003319".to_owned());
    keys[3] = "k0319".to_owned();
    let (body, offsets_again) = object_of(&keys);
    assert_eq!(offsets_again[..3], offsets[..3]);
    assert_eq!(verdict(&body), duplicate(offsets_again[41]));
}

fn spelled(text: &str, escapes: u64) -> String {
    let mut spelled = String::new();
    for (at, character) in text.chars().enumerate() {
        if escapes >> (at % 64) & 1 == 1 {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(spelled, "\\u{unit:04X}").unwrap();
            }
        } else {
            spelled.push(character);
        }
    }
    spelled
}

/// Texts that match: a pattern that stands by itself is read again for each of them.
fn texts(pattern: &str) -> impl Strategy<Value = String> + use<> {
    proptest::string::string_regex(pattern).unwrap()
}

proptest! {
    /// Keys that share long beginnings, spelled with and without escapes.
    #[test]
    fn duplicates_are_what_a_set_says(
        keys in prop::collection::vec((texts("(|.|[ab]{1,9}|(abcdefg){0,3}[abz\u{e9}]{0,8})"), prop_oneof![Just(0), any::<u64>()]), 0..120),
        shift in 0..200_usize,
    ) {
        let keys: Vec<_> = keys
            .into_iter()
            .map(|(key, escapes)| (key.replace(['"', '\\'], "").replace(|c: char| c < ' ', ""), escapes))
            .enumerate()
            // Some runs without duplicates, so that the larger ones do not all fail early.
            .map(|(at, (key, escapes))| if shift < 100 { (format!("{key}{at}"), escapes) } else { (key, escapes) })
            .collect();
        let spellings: Vec<_> = keys.iter().map(|(key, escapes)| spelled(key, *escapes)).collect();
        let (body, offsets) = object_of(&spellings);
        let mut seen = HashSet::new();
        let second = keys.iter().position(|(key, _)| !seen.insert(key));
        let expected = second.map_or(Ok(()), |at| duplicate(offsets[at]));
        prop_assert_eq!(verdict(&body), expected, "{}", body);
        // The same in an array in an object, behind another large object.
        let behind = format!("{{\"a\":{{{}\"\":0}},\"b\":[{body}]}}", (0..20).map(|at| format!("\"{at}\":0,")).collect::<String>());
        let moved = behind.len() - body.len() - 2;
        let expected = second.map_or(Ok(()), |at| duplicate(offsets[at] + moved));
        prop_assert_eq!(verdict(&behind), expected, "{}", behind);
    }
}

// --- What is picked out ------------------------------------------------------------------------

fn pointers(texts: &[&str]) -> Vec<Pointer> {
    texts
        .iter()
        .map(|text| Pointer::parse(text).unwrap())
        .collect()
}

/// The raw values at the pointers.
fn picked<'a>(body: &'a str, texts: &[&str]) -> Vec<Option<&'a str>> {
    let selector = Selector::new(&pointers(texts), false);
    let mut scratch = Scratch::default();
    let document = scan(body.as_bytes(), &selector, &mut scratch).unwrap();
    (0..texts.len())
        .map(|slot| {
            document
                .get(slot)
                .map(|value| core::str::from_utf8(value.raw()).unwrap())
        })
        .collect()
}

/// Where a body is refused because a key is one of the pointers' but for case.
fn other_case(body: &str, texts: &[&str]) -> Option<usize> {
    let selector = Selector::new(&pointers(texts), false).refusing_other_case();
    match scan(body.as_bytes(), &selector, &mut Scratch::default()) {
        Ok(_) => None,
        Err(JsonError::AmbiguousKey { offset }) => Some(offset),
        Err(error) => panic!("{body}: {error}"),
    }
}

#[test]
fn a_key_that_a_reader_without_case_takes_for_another_is_refused() {
    let texts = ["/data/task_id", "/taskId", "/data/0/images", "/ünï"];
    for (body, expected) in [
        (r#"{"data":{"task_id":"a"},"taskId":"b","other":1}"#, None),
        (r#"{"data":{"task_id":"A","Task_ID":"B"}}"#, Some(23)),
        (r#"{"Task_Id":"A"}"#, None),
        (r#"{"TaskID":"A"}"#, Some(1)),
        ("{\"data\":{\"ta\u{17f}k_id\":\"B\"}}", Some(9)),
        ("{\"data\":{\"tas\u{212a}_id\":\"B\"}}", Some(9)),
        ("{\"data\":{\"tas\u{212a}_\u{131}d\":\"B\"}}", Some(9)),
        (r#"{"data":{"ta\u017Fk_id":"B"}}"#, Some(9)),
        (r#"{"data":{"\u0054ask_id":"B"}}"#, Some(9)),
        (r#"{"data":{"\u0074ask_id":"B"}}"#, None),
        (r#"{"Data":{}}"#, Some(1)),
        (r#"{"DATA":1}"#, Some(1)),
        (r#"{"data":[{"Images":1}]}"#, Some(10)),
        (r#"{"data":[{"images":1}, {"Images":1}]}"#, None),
        (r#"{"data":[{"\u0130mages":1}]}"#, Some(10)),
        (
            r#"{"taskId":"a","data":{"__proto__":{"task_id":"b"}}}"#,
            Some(22),
        ),
        (r#"{"\u005f_proto__":{}}"#, Some(1)),
        (r#"{"other":{"__proto__":{}},"__PROTO__":1}"#, None),
        // Elsewhere names may be what they are.
        (
            r#"{"other":{"Data":{"Task_ID":1}},"x":[{"TASKID":2}]}"#,
            None,
        ),
        (r#"{"data":{"data":1,"Data":2}}"#, None),
        ("{\"ÜNÏ\":1}", Some(1)),
        ("{\"ünï\":1}", None),
        (r#"{"datas":1,"dat":2,"":3,"task-Id":4,"datA ":5}"#, None),
    ] {
        assert_eq!(other_case(body, &texts), expected, "{body}");
    }
    // Only where it is asked for.
    assert_eq!(picked(r#"{"Data":1}"#, &["/data"]), [None]);
}

#[test]
fn a_key_in_another_case_is_found_at_every_length_and_among_many() {
    for length in 1..40 {
        let token = "a".repeat(length);
        let pointer = format!("/{token}");
        let before: String = (0..40).map(|n| format!(r#""k{n}":0,"#)).collect();
        for at in 0..length {
            let mut key = token.clone();
            key.replace_range(at..=at, "A");
            let body = format!(r#"{{{before}"{key}":1}}"#);
            assert_eq!(
                other_case(&body, &[&pointer]),
                Some(before.len() + 1),
                "{body}"
            );
        }
    }
}

#[test]
fn the_root_is_what_the_selector_allows() {
    for (root, body, expected) in [
        (Root::Object, "{}", Ok(())),
        (Root::Object, " []", malformed(1, "an object")),
        (Root::Array, "[]", Ok(())),
        (Root::Array, " [ {} , 1 ] ", Ok(())),
        (Root::Array, "{}", malformed(0, "an array")),
        (Root::Array, "", malformed(0, "an array")),
        (Root::Array, "\"[]\"", malformed(0, "an array")),
        (Root::Array, "[] []", malformed(3, "the end of the body")),
        (Root::Array, "[", malformed(1, "a value")),
        (Root::Any, "{}", Ok(())),
        (Root::Any, "[]", Ok(())),
        (Root::Any, " null ", Ok(())),
        (Root::Any, "\"a\"", Ok(())),
        (Root::Any, "-1.5e3", Ok(())),
        (Root::Any, "1 2", malformed(2, "the end of the body")),
        (Root::Any, "", malformed(0, "a value")),
        (Root::Any, "\u{feff}1", malformed(0, "a value")),
        (Root::Any, "nul", malformed(3, "`null`")),
    ] {
        let selector = Selector::new(&pointers(&["/0/id"]), true).with_root(root);
        let seen = scan(body.as_bytes(), &selector, &mut Scratch::default()).map(|_| ());
        assert_eq!(seen, expected, "{root:?} {body}");
    }
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let selector = Selector::new(&[], false).with_root(Root::Array);
    let seen = scan(deep.as_bytes(), &selector, &mut Scratch::default()).map(|_| ());
    assert_eq!(seen, too_deep(64));
    // What is in an array at the root is picked out, and duplicates are found in it.
    let selector = Selector::new(&pointers(&["/0/id", "/1"]), true).with_root(Root::Any);
    let mut scratch = Scratch::default();
    let body = br#"[{"id":"a","url":"b"},{"id":"c"}]"#;
    let document = scan(body, &selector, &mut scratch).unwrap();
    assert_eq!(document.get(0).unwrap().raw(), br#""a""#);
    assert_eq!(document.get(1).unwrap().raw(), br#"{"id":"c"}"#);
    assert_eq!(document.urls().count(), 1);
    let seen = scan(br#"[{"a":1,"a":2}]"#, &selector, &mut scratch).map(|_| ());
    assert_eq!(seen, duplicate(8));
}

/// The document of RFC 6901, section 5.
#[test]
fn pointers_of_the_rfc() {
    let body = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
    let rows = [
        ("/foo", r#"["bar","baz"]"#),
        ("/foo/0", r#""bar""#),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ("/k\"l", "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
    ];
    for (pointer, expected) in rows {
        assert_eq!(picked(body, &[pointer]), [Some(expected)], "{pointer}");
    }
}

#[test]
fn values_at_pointers() {
    let body = r#" { "code" : 200 , "d\u0061ta" : { "id" : "x" , "list" : [ [ ] , { "0" : true , "1" : null } , -1.5 ] } , "01" : "" , "-" : { } } "#;
    let rows: &[(&str, Option<&str>)] = &[
        ("/code", Some("200")),
        (
            "/data",
            Some(r#"{ "id" : "x" , "list" : [ [ ] , { "0" : true , "1" : null } , -1.5 ] }"#),
        ),
        ("/data/id", Some(r#""x""#)),
        (
            "/data/list",
            Some(r#"[ [ ] , { "0" : true , "1" : null } , -1.5 ]"#),
        ),
        ("/data/list/0", Some("[ ]")),
        ("/data/list/1", Some(r#"{ "0" : true , "1" : null }"#)),
        ("/data/list/1/0", Some("true")),
        ("/data/list/1/1", Some("null")),
        ("/data/list/2", Some("-1.5")),
        ("/01", Some(r#""""#)),
        ("/-", Some("{ }")),
        ("/data/list/3", None),
        ("/data/list/00", None),
        ("/data/list/01", None),
        ("/data/list/-", None),
        ("/data/list/+0", None),
        ("/data/list/18446744073709551616", None),
        ("/data/list/", None),
        ("/data/list/0/0", None),
        ("/data/0", None),
        ("/code/0", None),
        ("/id", None),
        ("/Code", None),
        ("/d\\u0061ta", None),
        ("/data/", None),
        ("/", None),
    ];
    for (pointer, expected) in rows {
        assert_eq!(picked(body, &[pointer]), [*expected], "{pointer}");
    }
    // All at once, and each twice.
    let texts: Vec<_> = rows
        .iter()
        .chain(rows)
        .map(|(pointer, _)| *pointer)
        .collect();
    let expected: Vec<_> = rows
        .iter()
        .chain(rows)
        .map(|(_, expected)| *expected)
        .collect();
    assert_eq!(picked(body, &texts), expected);
}

#[test]
fn kinds_offsets_and_texts() {
    let rows: &[(&str, Kind, Option<&str>)] = &[
        ("[1]", Kind::Array, None),
        ("true", Kind::Boolean, None),
        ("false", Kind::Boolean, None),
        ("null", Kind::Null, None),
        ("-12", Kind::Number { integer: true }, None),
        ("1.0", Kind::Number { integer: false }, None),
        ("1e2", Kind::Number { integer: false }, None),
        ("{\"a\":1}", Kind::Object, None),
        ("\"\"", Kind::String, Some("")),
        ("\"a\u{e9}\"", Kind::String, Some("a\u{e9}")),
        (
            r#""\"\\\/\b\f\n\r\t""#,
            Kind::String,
            Some("\"\\/\u{8}\u{c}\n\r\t"),
        ),
        (
            r#""a\u00e9\u20AC\ud83d\ude00b""#,
            Kind::String,
            Some("a\u{e9}\u{20ac}\u{1f600}b"),
        ),
        (
            r#""\u0000\uffff\udbff\udfff""#,
            Kind::String,
            Some("\0\u{ffff}\u{10ffff}"),
        ),
    ];
    let selector = Selector::new(&pointers(&["/v"]), false);
    let mut scratch = Scratch::default();
    for (text, kind, decoded) in rows {
        let body = format!("{{\"v\": {text} }}");
        let document = scan(body.as_bytes(), &selector, &mut scratch).unwrap();
        let value = document.get(0).unwrap();
        assert_eq!((value.kind(), value.offset()), (*kind, 6), "{text}");
        assert_eq!(value.text().as_deref(), *decoded, "{text}");
        assert_eq!(document.get(1).map(|_| ()), None);
    }
}

#[test]
fn urls_by_their_keys() {
    let body = r#"{
        "url": "1", "URL": "2", "audioUrl": "3", "image_urls": ["4", ["5", []], "", {"x": "no", "URLs": ["6"]}],
        "images": ["7"], "imagesUrl": "8", "curl": "9", "source\u0055rl": "\u0031\u0030", "ur\u006c\u0073": [["11"]],
        "imag": "no", "image": "no", "urlx": "no", "myimages": "no", "ur": "no", "": "no", "rls": ["no"],
        "x_url": {"a": "no", "b": ["no"], "deep": [{"my_url": "12"}]}, "a_url": 1, "b_url": null, "c_url": "",
        "d_url": [1, true, {"e": "no"}, "13"], "Images": "14", "resultUrl\u017f": ["15"], "\u0130MAGES": "16",
        "urſ": "no", "last": "no"
    }"#;
    let mut scratch = Scratch::default();
    let selector = Selector::new(&[], true);
    let document = scan(body.as_bytes(), &selector, &mut scratch).unwrap();
    let urls: Vec<_> = document.urls().map(|(_, text)| text.into_owned()).collect();
    let expected: Vec<_> = (1..=16).map(|number| number.to_string()).collect();
    assert_eq!(urls, expected);
    for (offset, _) in document.urls() {
        assert_eq!(body.as_bytes()[offset], b'"');
    }
    let selector = Selector::new(&[], false);
    let document = scan(body.as_bytes(), &selector, &mut scratch).unwrap();
    assert_eq!(document.urls().count(), 0);
}

#[test]
fn pointer_errors() {
    let rows = [
        (
            "",
            "the JSON pointer is empty, expected one that names a part of the body, such as `/data/task_id`",
        ),
        (
            "data/id",
            "the JSON pointer `data/id` does not start with `/`, expected one such as `/data/task_id`",
        ),
        (
            "#/data",
            "the JSON pointer `#/data` does not start with `/`, expected one such as `/data/task_id`",
        ),
        (
            "/a~",
            "the JSON pointer `/a~` has a `~` at byte 2 that is no escape, expected `~0` for `~` or `~1` for `/`",
        ),
        (
            "/a~0~2",
            "the JSON pointer `/a~0~2` has a `~` at byte 4 that is no escape, expected `~0` for `~` or `~1` for `/`",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(Pointer::parse(text).unwrap_err().to_string(), expected);
    }
    assert_eq!(Pointer::parse(""), Err(PointerError::Empty));
    for text in ["/", "/a", "//", "/~0~1", "/~01", "/\u{e9}/0"] {
        let pointer = Pointer::parse(text).unwrap();
        assert_eq!(
            (pointer.as_str(), pointer.to_string().as_str()),
            (text, text)
        );
    }
    // `~01` is `~1`, not `/`.
    assert_eq!(
        picked(r#"{"~1":1,"/":2}"#, &["/~01", "/~1"]),
        [Some("1"), Some("2")]
    );
}

#[test]
fn a_scratch_carries_nothing_over() {
    let selector = Selector::new(&pointers(&["/a", "/b/0"]), true);
    let mut scratch = Scratch::default();
    let large = format!(
        "{{\"a\":1,\"b\":[2],\"url\":[{}\"u\"]}}",
        "\"u\",".repeat(1 << 18)
    );
    let document = scan(large.as_bytes(), &selector, &mut scratch).unwrap();
    assert_eq!(document.urls().count(), (1 << 18) + 1);
    for broken in [
        "{\"a\":1,\"b\":[3,{\"url\":\"x\"},",
        "{\"a\":1,\"\\u0061\":2}",
        "",
    ] {
        assert!(scan(broken.as_bytes(), &selector, &mut scratch).is_err());
        let document = scan(b"{}", &selector, &mut scratch).unwrap();
        assert!(document.get(0).is_none() && document.get(1).is_none());
        assert_eq!(document.urls().count(), 0);
    }
    // Another selector, with more slots.
    let selector = Selector::new(&pointers(&["/a", "/b/0", "/c"]), false);
    let document = scan(b"{\"c\":3}", &selector, &mut scratch).unwrap();
    assert_eq!(document.get(2).unwrap().raw(), b"3");
}

// --- Against a slow reference ------------------------------------------------------------------

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t        ")]
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("url".to_owned()),
        Just("\u{e9}\u{20ac}".to_owned()),
        Just("\u{1f600}".to_owned()),
        Just(r#"\n\"\\"#.to_owned()),
        Just(r"\u0061".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just("~/".to_owned()),
        texts("[ !#-\\[\\]-~]{0,20}"),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "url", "~", "a/b", "images", r"\u0061", r"\u0075rl", r"\u0062", "my_URLs"])
            .prop_map(|key| format!("\"{key}\"")),
        1 => string(),
        1 => texts("\"key[0-9]{1,3}\""),
    ]
}

/// Texts of JSON values, with spaces, duplicates and escapes.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null", "true", "false", "0", "-1", "1.25", "1e3", "-0.5E-2", "[]", "{}", "[ ]"
        ])
        .prop_map(str::to_owned),
        string(),
    ];
    leaf.prop_recursive(6, 80, 24, |inner| {
        let element = (space(), inner.clone(), space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let member = (space(), key(), space(), inner, space())
            .prop_map(|(a, key, b, value, c)| format!("{a}{key}{b}:{value}{c}"));
        prop_oneof![
            1 => prop::collection::vec(element, 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            3 => prop::collection::vec(member, 0..24).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A change to a text: where, how many bytes are taken out, what is put in.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let put = prop_oneof![
        prop::sample::select(vec![
            "",
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "-",
            ".",
            "e",
            "0",
            "\\u",
            "\\ud800",
            "null",
            "\u{feff}",
            "\u{e9}",
            "\n",
            "\0",
            "\"a\":",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..3),
    ];
    (any::<prop::sample::Index>(), 0..3_usize, put)
}

fn changed(mut text: Vec<u8>, changes: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    for (at, taken, put) in changes {
        let at = at.index(text.len() + 1);
        let end = (at + taken).min(text.len());
        text.splice(at..end, put.iter().copied());
    }
    text
}

proptest! {
    #[test]
    fn agrees_with_the_reference(text in json()) {
        tree::check(text.as_bytes());
        tree::check(format!("{{\"a\":{text}}}").as_bytes());
        tree::check(format!("{{\"b\":[0,{text}],\"url\":[{text}]}}").as_bytes());
    }

    #[test]
    fn agrees_with_the_reference_on_broken_texts(text in json(), changes in prop::collection::vec(change(), 1..4)) {
        let text = format!("{{\"a\":{text}}}").into_bytes();
        tree::check(&changed(text, &changes));
    }

    #[test]
    fn agrees_with_the_reference_on_tokens(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"", "\\", "1", "-", ".", "e", "0", "true", "null", " ", "\n",
        ]), 0..12),
    ) {
        tree::check(tokens.concat().as_bytes());
        tree::check(format!("{{\"a\":{}}}", tokens.concat()).as_bytes());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        tree::check(&bytes);
        tree::check(&[b"{\"a\":\"", bytes.as_slice(), b"\"}"].concat());
    }
}

// --- Bodies from files -------------------------------------------------------------------------

/// The files of a folder of test data, with their names.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn samples_are_accepted_and_their_prefixes_refused() {
    let samples = files("samples");
    assert!(samples.len() > 40);
    for (name, body) in samples.iter().filter(|(name, _)| name != "index.json") {
        tree::check(body);
        assert_eq!(verdict(body), Ok(()), "{name}");
        let body = body.trim_ascii_end();
        for end in 0..body.len() {
            let Err(JsonError::Malformed { offset, .. }) = verdict(&body[..end]) else {
                panic!("{name}: accepted, or refused for another reason, when cut at byte {end}");
            };
            assert!(offset <= end, "{name}: {offset} of {end}");
        }
    }
}

proptest! {
    #[test]
    fn changed_samples_are_survived(
        sample in prop::sample::select(files("samples")),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        tree::check(&changed(sample.1, &changes));
    }
}

/// The files of the suite that leave the verdict to the parser, each inside of `{"v":...}`.
const IMPLEMENTATION_DEFINED: &[(&str, Option<&str>)] = &[
    // Numbers are checked by grammar, not range.
    ("i_number_double_huge_neg_exp.json", None),
    ("i_number_huge_exp.json", None),
    ("i_number_neg_int_huge_exp.json", None),
    ("i_number_pos_double_huge_exp.json", None),
    ("i_number_real_neg_overflow.json", None),
    ("i_number_real_pos_overflow.json", None),
    ("i_number_real_underflow.json", None),
    ("i_number_too_big_neg_int.json", None),
    ("i_number_too_big_pos_int.json", None),
    ("i_number_very_big_negative_int.json", None),
    // A surrogate is escaped, and paired with its other half.
    (
        "i_object_key_lone_2nd_surrogate.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_1st_surrogate_but_2nd_missing.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_1st_valid_surrogate_2nd_invalid.json",
        Some("surrogate escapes in pairs"),
    ),
    ("i_string_UTF8_surrogate_U+D800.json", Some("valid UTF-8")),
    (
        "i_string_incomplete_surrogate_and_escape_valid.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_incomplete_surrogate_pair.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_incomplete_surrogates_escape_valid.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_invalid_lonely_surrogate.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_invalid_surrogate.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_inverted_surrogates_U+1D11E.json",
        Some("surrogate escapes in pairs"),
    ),
    (
        "i_string_lone_second_surrogate.json",
        Some("surrogate escapes in pairs"),
    ),
    // The text is UTF-8.
    ("i_string_UTF-8_invalid_sequence.json", Some("valid UTF-8")),
    ("i_string_invalid_utf-8.json", Some("valid UTF-8")),
    ("i_string_iso_latin_1.json", Some("valid UTF-8")),
    (
        "i_string_lone_utf8_continuation_byte.json",
        Some("valid UTF-8"),
    ),
    ("i_string_not_in_unicode_range.json", Some("valid UTF-8")),
    (
        "i_string_overlong_sequence_2_bytes.json",
        Some("valid UTF-8"),
    ),
    (
        "i_string_overlong_sequence_6_bytes.json",
        Some("valid UTF-8"),
    ),
    (
        "i_string_overlong_sequence_6_bytes_null.json",
        Some("valid UTF-8"),
    ),
    ("i_string_truncated-utf-8.json", Some("valid UTF-8")),
    ("i_string_UTF-16LE_with_BOM.json", Some("a value")),
    ("i_string_utf16BE_no_BOM.json", Some("a value")),
    ("i_string_utf16LE_no_BOM.json", Some("a value")),
    // No byte order mark.
    ("i_structure_UTF-8_BOM_empty_object.json", Some("a value")),
];

/// Accepted by the suite, which allows duplicate keys; the guard does not.
const DUPLICATES: &[&str] = &[
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
];

#[test]
fn json_test_suite() {
    let files = files("json-test-suite/test_parsing");
    assert_eq!(files.len(), 318);
    let mut decided = 0;
    for (name, text) in &files {
        let inside = [b"{\"v\":", text.as_slice(), b"}"].concat();
        let alone = verdict(text);
        let wrapped = verdict(inside);
        let is_object = text.trim_ascii_start().starts_with(b"{");
        if !is_object {
            let start = text
                .iter()
                .take_while(|byte| b" \t\r\n".contains(byte))
                .count();
            assert_eq!(alone, malformed(start, "an object"), "{name}");
        }
        if DUPLICATES.contains(&name.as_str()) {
            assert_eq!((alone, wrapped), (duplicate(9), duplicate(14)), "{name}");
        } else if name == "i_structure_500_nested_arrays.json" {
            assert_eq!(wrapped, too_deep(5 + 63), "{name}");
        } else if name.starts_with("y_") {
            assert_eq!(wrapped, Ok(()), "{name}");
            assert!(!is_object || alone == Ok(()), "{name}");
        } else if name.starts_with("n_") {
            assert!(alone.is_err(), "{name}");
            assert!(wrapped.is_err(), "{name}");
        } else {
            let (_, expected) = IMPLEMENTATION_DEFINED
                .iter()
                .find(|(file, _)| file == name)
                .unwrap_or_else(|| panic!("{name} is not decided"));
            let seen = match wrapped {
                Ok(()) => None,
                Err(JsonError::Malformed { expected, .. }) => Some(expected),
                Err(error) => panic!("{name}: {error}"),
            };
            assert_eq!(seen, *expected, "{name}");
            decided += 1;
        }
    }
    assert_eq!(decided, IMPLEMENTATION_DEFINED.len());
}
