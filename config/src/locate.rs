//! The place where the parser gave up a text that is not JSON: the path of the field, as
//! `sources[0].secrets[1].env`, where the parser says line and column.

use crate::error::Path;

/// A position, as serde_json counts: the line from 1, the column in bytes up to the last one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A container that is open at the place.
enum Open {
    Array(usize),
    Object(String),
}

/// The path of the value at `place`. In text that is not JSON, the path up to the error.
pub(super) fn path_at(text: &[u8], place: Place) -> Path {
    let before: usize = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(place.line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let seen = text
        .get(..before.saturating_add(place.column))
        .unwrap_or(text);
    let mut open: Vec<Open> = Vec::new();
    let mut bytes = seen.iter().enumerate().peekable();
    let mut expects_key = false;
    while let Some((at, byte)) = bytes.next() {
        let is_last = bytes.peek().is_none();
        match byte {
            b'{' => {
                open.push(Open::Object(String::new()));
                expects_key = true;
            }
            b'[' => {
                open.push(Open::Array(0));
                expects_key = false;
            }
            // An error at the end of a container is about the container.
            b'}' | b']' if is_last => {
                open.pop();
                break;
            }
            b'}' | b']' => {
                open.pop();
                expects_key = false;
            }
            b',' => match open.last_mut() {
                Some(Open::Array(index)) => *index += 1,
                Some(Open::Object(_)) => expects_key = true,
                None => {}
            },
            b':' => expects_key = false,
            b'"' => {
                let start = at + 1;
                let mut end = start;
                while let Some((at, byte)) = bytes.next() {
                    end = at;
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                if expects_key && let Some(Open::Object(key)) = open.last_mut() {
                    let bytes = seen.get(start..end).unwrap_or_default();
                    *key = String::from_utf8_lossy(bytes).into_owned();
                }
            }
            _ => {}
        }
    }
    let mut path = Path::default();
    for container in &open {
        path = match container {
            Open::Array(index) => path.index(*index),
            Open::Object(key) if key.is_empty() => path,
            Open::Object(key) => path.field(key),
        };
    }
    path
}
