//! Inboxes and applications that are killed at any instant.

use std::path::Path;

use callback_guard_harness::InboxSetup;

use crate::support::seeds;
use crate::trial;

#[test]
fn killed_at_any_instant_nothing_answered_is_lost_and_doubles_are_what_was_under_way() {
    let program = Path::new(env!("CARGO_BIN_EXE_callback-guard-inbox"));
    let total = trial::run_all(seeds(10), 10, |seed| {
        trial::run(seed, 1, |url| InboxSetup::new(program, url).unwrap())
    });
    assert_eq!(total.lost, 0);
    // Each kill costs the attempts that were under way, 16 at most.
    assert!(total.doubles <= total.kills * 16, "{total:?}");
}
