//! Header pairs as they cross the border between proxy and filter.
//!
//! A count; then for each pair the lengths of name and value; then the bytes of each name and value,
//! each followed by a zero. Numbers are 32 bits, little endian.
//!
//! Source: proxy-wasm ABI 0.2.1, "Header map"; the zero is not counted in the lengths.

/// Reads pairs; `None` if `bytes` are not of this form.
#[must_use]
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (count, rest) = number(bytes)?;
    let (mut lengths, mut text) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name_length, after) = number(lengths)?;
        let (value_length, after) = number(after)?;
        lengths = after;
        let (name, after) = zero_terminated(text, name_length)?;
        let (value, after) = zero_terminated(after, value_length)?;
        text = after;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// Writes pairs.
#[must_use]
pub(crate) fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: usize| u32::try_from(text).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&length(pairs.len()));
    for (name, value) in pairs {
        bytes.extend_from_slice(&length(name.len()));
        bytes.extend_from_slice(&length(value.len()));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

fn zero_terminated(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    match bytes.split_at_checked(length)? {
        (text, [0, rest @ ..]) => Some((text, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode(&[("a", ""), ("", "value"), (":path", "/x")]);
        let pairs: &[(&[u8], &[u8])] = &[(b"a", b""), (b"", b"value"), (b":path", b"/x")];
        assert_eq!(decode(&bytes).unwrap(), pairs);
        for torn in 0..bytes.len() {
            assert_eq!(decode(&bytes[..torn]), None, "{torn} bytes");
        }
        assert_eq!(decode(&[0xff; 4]), None);
    }
}
