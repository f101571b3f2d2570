//! A backup as docs/inbox.md has it.

use std::fs;

use callback_guard_harness::inbox::program;
use callback_guard_harness::{InboxSetup, Reader, page, upstream};

use crate::deploy::programs::find;

#[test]
fn a_backup_of_a_running_inbox_has_all_that_it_holds() {
    let block = page::block(
        "docs/inbox.md",
        "a_backup_of_a_running_inbox_has_all_that_it_holds",
    );
    let nobody = format!("http://{}", upstream::unused_address().unwrap());
    let setup = InboxSetup::new(&program(false, &|_| {}).unwrap(), &nobody).unwrap();
    let inbox = setup.start().unwrap();
    for number in 0..20 {
        let key = format!("{number:0>64}");
        assert_eq!(inbox.send(&key, &key, b"{}").unwrap().status, 200);
    }
    let folder = setup.directory().to_str().unwrap();
    let reader = Reader::new()
        .unwrap()
        .instead(
            "sqlite3 ",
            &format!("{} ", find("sqlite3", "sqlite3").display()),
        )
        .instead("inbox.db", &format!("{folder}/inbox.db"))
        .instead("copy.db", &format!("{folder}/copy.db"));
    let said = reader.run(&block.unwrap().text).unwrap();
    assert_eq!((said.code, said.text.as_str()), (Some(0), ""));
    // The file alone, without its log.
    let restored = setup.directory().join("restored.db");
    fs::copy(setup.directory().join("copy.db"), &restored).unwrap();
    let restored = setup.store(&format!("sqlite:{}", restored.display()));
    let all = restored.json("list", &[]).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 20);
}
