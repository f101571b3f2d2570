//! What a source's rules read of a request, collected while they are compiled.

use crate::error::{ConfigError, Path};
use callback_guard_core::json::{Pointer, Root};
use callback_guard_core::policy::{Alone, CapturedHeader, HeaderRole};

/// The pointers and headers that a source needs, each once, by slot.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) pointers: Vec<Pointer>,
    pub(super) headers: Vec<CapturedHeader>,
    /// What the pointers lead into.
    pub(super) root: Root,
    pub(super) alone: Vec<Alone>,
}

impl Fields {
    pub(super) fn pointer(&mut self, path: &Path, text: &str) -> Result<usize, ConfigError> {
        let pointer =
            Pointer::parse(text).map_err(|error| ConfigError::new(path, error.to_string()))?;
        if self.root == Root::Array && !pointer.begins_with_index() {
            let problem = format!(
                "the JSON pointer `{pointer}` finds nothing in an array, which `payload.root` wants, \
                 expected one that begins with an index, such as `/0{pointer}`"
            );
            return Err(ConfigError::new(path, problem));
        }
        Ok(self.slot(pointer))
    }

    fn slot(&mut self, pointer: Pointer) -> usize {
        if let Some(slot) = self.pointers.iter().position(|known| *known == pointer) {
            return slot;
        }
        self.pointers.push(pointer);
        self.pointers.len() - 1
    }

    /// Path and query, kept until the body is there.
    pub(super) fn target(&mut self) -> usize {
        const TARGET: &str = ":path";
        if let Some(index) = self
            .headers
            .iter()
            .position(|header| &*header.name == TARGET)
        {
            return index;
        }
        self.headers.push(CapturedHeader {
            name: TARGET.into(),
            role: HeaderRole::Signed,
        });
        self.headers.len() - 1
    }

    /// Where the pointer in `slot` leads through the first item of an array, a second item must not
    /// be there: nothing signs it.
    pub(super) fn refuse_second(&mut self, slot: usize) {
        let Some(text) = self
            .pointers
            .get(slot)
            .map(|pointer| pointer.as_str().to_owned())
        else {
            return;
        };
        for (at, token) in text.match_indices("/0") {
            let after = at.saturating_add(token.len());
            let (Some(before), Some(rest)) = (text.get(..at), text.get(after..)) else {
                continue;
            };
            if !rest.is_empty() && !rest.starts_with('/') {
                continue;
            }
            let second = format!("{before}/1");
            let Ok(pointer) = Pointer::parse(&second) else {
                continue;
            };
            let slot = self.slot(pointer);
            if self.alone.iter().all(|alone| alone.slot != slot) {
                self.alone.push(Alone {
                    slot,
                    pointer: second.into(),
                });
            }
        }
    }

    pub(super) fn header(
        &mut self,
        path: &Path,
        name: &str,
        role: HeaderRole,
    ) -> Result<usize, ConfigError> {
        let name = header_name(path, name)?;
        let known = self
            .headers
            .iter_mut()
            .enumerate()
            .find(|(_, header)| header.name == name);
        if let Some((index, header)) = known {
            // What more than the dedupe key needs must not be missing.
            if header.role == HeaderRole::Key {
                header.role = role;
            }
            return Ok(index);
        }
        self.headers.push(CapturedHeader { name, role });
        Ok(self.headers.len() - 1)
    }
}

/// A header's name, in lower case.
///
/// Source: RFC 9110, 5.6.2 (token).
pub(super) fn header_name(path: &Path, name: &str) -> Result<Box<str>, ConfigError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(ConfigError::new(path, "expected the name of a header"));
    }
    Ok(name.to_ascii_lowercase().into())
}
