//! Strict JSON in one pass: refuses what two parsers could read in two ways, and picks out the few
//! values that the guard needs.
//!
//! ```text
//! body   = ws root ws                       RFC 8259; UTF-8 without a byte order mark
//! root   = object                           or what the selector allows
//! object = "{" [ member *( "," member ) ] "}"    no two members with the same decoded key
//! string = DQUOTE *char DQUOTE              no raw control character, no lone surrogate escape
//! number = [ "-" ] int [ frac ] [ exp ]     by grammar only: 1e999 passes
//! depth  <= 64, the root being depth 1
//! ```
//!
//! Errors are reported in document order, with one exception: in an object of more than
//! [`LINEAR_KEYS`] keys a duplicate is found when the object closes, so that another error further
//! inside the same object comes before it.
//!
//! Time is linear in the body, but for the keys of objects larger than that, which are sorted:
//! `n log n` whatever the keys are, since nothing is hashed. On wasm a key of an open object takes
//! 16 bytes and a URL string 8, and keys that are spelled with escapes are copied: at the worst,
//! while a buffer is moved to grow, seven times the body, and next to nothing for honest ones.
//!
//! It builds no tree, does not convert numbers (an integer is recognised by its text), and does not
//! resume in the middle of a body.

mod buffer;
mod document;
mod error;
mod keys;
mod lanes;
mod pointer;
mod scanner;
mod scratch;
mod text;

pub use document::{Document, Kind, Value};
pub use error::{JsonError, MAX_DEPTH};
pub use keys::LINEAR_KEYS;
pub use pointer::{Pointer, PointerError, Root, Selector};
use scanner::Scanner;
pub use scratch::Scratch;

/// Checks the whole `body` and picks out what `selector` names.
///
/// `scratch` is only memory that is used again from body to body; no body influences the next.
///
/// # Errors
///
/// - [`JsonError::Malformed`]: anything that is not one RFC 8259 value in valid UTF-8 without a
///   byte order mark, another root than the selector allows, an escape of half a surrogate pair, or
///   bytes after the root.
/// - [`JsonError::AmbiguousKey`]: a key is one of the selector's but for case, if the selector
///   refuses that.
/// - [`JsonError::DuplicateKey`]: two keys of one object are the same after decoding.
/// - [`JsonError::TooDeep`]: more than [`MAX_DEPTH`] containers are open.
///
/// ```
/// use callback_guard_scan::json::{JsonError, Pointer, Scratch, Selector, scan};
///
/// let id = Pointer::parse("/data/task_id").unwrap();
/// let (selector, mut scratch) = (Selector::new(&[id], false), Scratch::default());
///
/// let body = br#"{ "code": 200, "data": { "task_id": "t\u0031" } }"#;
/// let document = scan(body, &selector, &mut scratch).unwrap();
/// assert_eq!(document.get(0).unwrap().text().as_deref(), Some("t1"));
///
/// // Two parsers could read two ids here.
/// let body = br#"{ "data": { "task_id": "t1", "task\u005fid": "t2" } }"#;
/// let error = scan(body, &selector, &mut scratch).unwrap_err();
/// assert_eq!(error, JsonError::DuplicateKey { offset: 29 });
/// ```
///
/// Source: RFC 8259.
pub fn scan<'body, 'scratch>(
    body: &'body [u8],
    selector: &Selector,
    scratch: &'scratch mut Scratch,
) -> Result<Document<'body, 'scratch>, JsonError> {
    scratch.start(selector.slots());
    let outcome = Scanner::new(body, selector, scratch).document();
    scratch.trim();
    outcome?;
    Ok(Document {
        body,
        found: &scratch.found,
        urls: &scratch.urls,
    })
}
