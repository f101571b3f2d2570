//! Standard output. A reader that has seen enough, such as `head`, is no error.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

/// `text` with what a terminal acts on made visible: control characters other than the line's end, and
/// those that turn the direction of writing. A captured request is somebody else's text.
pub(crate) fn harmless(text: &str) -> String {
    let turns = |one: char| matches!(one, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut harmless = String::with_capacity(text.len());
    for one in text.chars() {
        if one != '\n' && one.is_control() || turns(one) {
            harmless.extend(one.escape_unicode());
        } else {
            harmless.push(one);
        }
    }
    harmless
}

/// Prints `text`.
///
/// # Errors
///
/// Standard output cannot be written to.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
