//! The JSON Schema of the configuration; `tests/long` holds it against the parser.

use crate::support::{repository, run};

#[test]
fn the_file_in_docs_is_current() {
    let file = std::fs::read_to_string(repository().join("docs/config.schema.json")).unwrap();
    let run = run(&["schema"]);
    assert_eq!(run.code, 0);
    assert!(
        file == run.out,
        "docs/config.schema.json is not current: callback-guard schema > docs/config.schema.json"
    );
}
