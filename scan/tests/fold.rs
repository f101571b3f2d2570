//! Simple case folding against the whole of Unicode's own data.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use callback_guard_scan::fold;

/// The mappings C and S of CaseFolding.txt.
fn reference(character: char) -> char {
    unicode_case_mapping::case_folded(character)
        .and_then(|code| char::from_u32(code.get()))
        .unwrap_or(character)
}

/// Letters of Unicode 17: the crate has the data of 16.
fn is_newer(character: char) -> bool {
    matches!(character, '\u{a7ce}'..='\u{a7d5}' | '\u{16ea0}'..='\u{16ed3}')
}

/// What makes two characters equal is the same here and there; the representative may be another.
#[test]
fn characters_are_equal_as_case_folding_has_it() {
    let mut classes: BTreeMap<char, (char, char)> = BTreeMap::new();
    let mut differences = Vec::new();
    for character in '\0'..=char::MAX {
        let (ours, theirs) = (fold::character(character), reference(character));
        let first = *classes.entry(ours).or_insert((character, theirs));
        if first.1 != theirs && !is_newer(character) {
            differences.push((first.0, character));
        }
    }
    // Two classes of theirs in one of ours: only what `equalsIgnoreCase` of Java adds.
    assert_eq!(differences, [('I', '\u{130}'), ('I', '\u{131}')]);
    // Two classes of ours in one of theirs: none.
    let mut classes: BTreeMap<char, (char, char)> = BTreeMap::new();
    for character in '\0'..=char::MAX {
        let (ours, theirs) = (fold::character(character), reference(character));
        let first = *classes.entry(theirs).or_insert((character, ours));
        assert_eq!(first.1, ours, "{:?} {character:?}", first.0);
    }
}
