//! docs/inbox.md: its commands do what it says.

use std::path::Path;

use callback_guard_harness::page::{self, Block};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Reader, Request, Upstream, client, inbox, upstream};

use crate::support::key;

#[test]
fn the_commands_of_the_page_tell_of_an_outage_and_end_it() {
    let blocks = page::marked(
        "docs/inbox.md",
        "the_commands_of_the_page_tell_of_an_outage_and_end_it",
    );
    let [run, after]: [Block; 2] = blocks.unwrap().try_into().unwrap();
    let application = Upstream::start().unwrap();
    let [listen, admin] = [(); 2].map(|()| upstream::unused_address().unwrap());
    let reader = Reader::new()
        .and_then(|reader| {
            let program = Path::new(env!("CARGO_BIN_EXE_callback-guard-inbox"));
            reader.program("callback-guard-inbox", program)
        })
        .unwrap()
        // Of its own: the printed command leaves them at their defaults.
        .env("CALLBACK_GUARD_INBOX_LISTEN", listen.to_string())
        .env("CALLBACK_GUARD_INBOX_ADMIN", admin.to_string())
        .env("CALLBACK_GUARD_INBOX_SCHEDULE", "1ms")
        .instead("127.0.0.1:9000", &application.address().to_string());
    let mut running = reader.start(&run.text).unwrap();
    wait_for("the inbox", || {
        assert!(running.is_running(), "{}", running.log());
        client::send(admin, &Request::get("/healthz")).ok()
    })
    .unwrap();

    let fails = key("outage");
    application.answer_with({
        let fails = fails.clone();
        move |head| {
            let is_failing = head.header("x-callback-guard-key") == Some(fails.clone());
            Answer::status(if is_failing { 400 } else { 200 })
        }
    });
    for key in [&fails, &key("good")] {
        let callback = inbox::callback(key, key, b"{}");
        assert_eq!(client::send(listen, &callback).unwrap().status, 200);
    }
    let commands = after.commands();
    let [export, stats, dead, replay, lost] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    let say = |command: &str| {
        let said = reader.run(&format!("{export}\n{command}")).unwrap();
        assert_eq!(said.code, Some(0), "{said:?}");
        said.text
    };
    // Each state is a line.
    let has = |state: &str| {
        let text = say(stats);
        text.lines()
            .any(|line| line.split_whitespace().eq(state.split(' ')))
    };
    wait_for("both to end", || {
        (has("dead 1") && has("delivered 1")).then_some(())
    })
    .unwrap();
    let listed = say(dead);
    assert!(
        listed.contains(&fails) && !listed.contains(&key("good")),
        "{listed}"
    );
    application.clear();
    application.answer(Answer::status(200));
    assert_eq!(say(replay), "replayed: 1\n");
    wait_for("what had died", || has("delivered 2").then_some(())).unwrap();
    assert_eq!(say(lost), "replayed: 2\n");
    application.wait_for_requests(3).unwrap();
}
