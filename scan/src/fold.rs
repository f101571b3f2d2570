//! Simple case folding: which names an application that ignores case takes for the same.
//!
//! Go's `encoding/json` compares names like this, so that `ta\u{17f}k_id` is read as `task_id`.

/// The folded form of a character: equal for two of them if simple case folding makes them equal.
///
/// One is beyond that: `İ` and `ı` count as `i`, as Java's `equalsIgnoreCase` has it.
///
/// Source: CaseFolding.txt of Unicode, the mappings C and S; a test compares all of them.
#[must_use]
pub fn character(character: char) -> char {
    match character {
        '\0'..='\x7f' => character.to_ascii_lowercase(),
        'İ' => 'i',
        // They have the same upper case, of several characters.
        '\u{1fd3}' => '\u{390}',
        '\u{1fe3}' => '\u{3b0}',
        '\u{fb05}' => '\u{fb06}',
        // By way of the upper case, since several small letters may have the same.
        _ => single(single(character, char::to_uppercase), char::to_lowercase),
    }
}

/// The one character that `map` makes of `character`; or itself, where they are several.
fn single<I: ExactSizeIterator<Item = char>>(character: char, map: impl Fn(char) -> I) -> char {
    let mut mapped = map(character);
    match (mapped.len(), mapped.next()) {
        (1, Some(one)) => one,
        _ => character,
    }
}

/// Whether two texts in UTF-8 are the same but for case.
#[must_use]
pub fn equal(one: &[u8], two: &[u8]) -> bool {
    if one.is_ascii() && two.is_ascii() {
        return one.eq_ignore_ascii_case(two);
    }
    let (Ok(one), Ok(two)) = (str::from_utf8(one), str::from_utf8(two)) else {
        return false;
    };
    one.chars().map(character).eq(two.chars().map(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_folds_to_ascii() {
        let given: Vec<char> = ('\u{80}'..=char::MAX)
            .filter(|one| character(*one).is_ascii())
            .collect();
        assert_eq!(given, ['\u{130}', '\u{131}', '\u{17f}', '\u{212a}']);
    }

    #[test]
    fn names_are_equal_but_for_case() {
        for (one, two, same) in [
            ("task_id", "TASK_ID", true),
            ("task_id", "ta\u{17f}k_id", true),
            ("task_id", "tas\u{212a}_id", true),
            ("task_id", "task-id", false),
            ("straße", "STRAẞE", true),
            ("straße", "strasse", false),
            ("ΣΑΣ", "σας", true),
            ("a", "aa", false),
            ("", "", true),
        ] {
            assert_eq!(equal(one.as_bytes(), two.as_bytes()), same, "{one} {two}");
        }
        assert!(!equal(b"\xff", b"a"));
    }
}
