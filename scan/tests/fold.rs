//! Simple case folding against the whole of Unicode's own data.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

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

/// The first character of each class and its class on the other side, by the character that represents
/// the class. One place for each character of Unicode: a map of a million takes seconds.
struct Classes(Vec<Option<(char, char)>>);

impl Classes {
    fn new() -> Self {
        Self(vec![None; 0x11_0000])
    }

    fn first(&mut self, class: char, character: char, known: char) -> (char, char) {
        let place = usize::try_from(u32::from(class)).unwrap();
        *self.0[place].get_or_insert((character, known))
    }
}

/// What makes two characters equal is the same here and there; the representative may be another.
#[test]
fn characters_are_equal_as_case_folding_has_it() {
    let (mut of_ours, mut of_theirs) = (Classes::new(), Classes::new());
    let mut differences = Vec::new();
    for character in '\0'..=char::MAX {
        let (ours, theirs) = (fold::character(character), reference(character));
        // Two classes of ours in one of theirs: none.
        let first = of_theirs.first(theirs, character, ours);
        assert_eq!(first.1, ours, "{:?} {character:?}", first.0);
        let first = of_ours.first(ours, character, theirs);
        if first.1 != theirs && !is_newer(character) {
            differences.push((first.0, character));
        }
    }
    // Two classes of theirs in one of ours: only what `equalsIgnoreCase` of Java adds.
    assert_eq!(differences, [('I', '\u{130}'), ('I', '\u{131}')]);
}
