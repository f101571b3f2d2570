//! The inbox behind the guard in a real Envoy: what the sender gets and what the application gets.

use std::cell::RefCell;
use std::net::SocketAddr;

use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, BodyState, Gate, Inbox, InboxSetup, Request, inbox, page};

use callback_guard_support::{Guarded, body_of, event, now, sign_at, signed};

/// Envoy with the guard, an inbox, and an application.
fn start(arguments: &[&str], token: Option<&str>) -> (Guarded, Inbox) {
    let program = inbox::program(false, &|_| {}).unwrap();
    let started = RefCell::new(None);
    let between = |application: SocketAddr| {
        let mut setup =
            InboxSetup::new(&program, &format!("http://{application}"))?.arguments(arguments);
        if let Some(token) = token {
            setup = setup
                .env("TOKEN", token)
                .arguments(["--token-env", "TOKEN"]);
        }
        let inbox = setup.start()?;
        let address = inbox.address();
        started.replace(Some(inbox));
        Ok(address)
    };
    let mut setup = callback_guard_harness::Setup::new().between(between);
    if let Some(token) = token {
        let printed = page::block(
            "docs/inbox.md",
            "envoy_brings_the_token_and_the_application_does_not_see_it",
        );
        let mut printed = printed.unwrap().value().unwrap();
        setup = setup.env("INBOX_TOKEN", token).render(|render| {
            render.connection_manager(|manager| {
                manager["route_config"]["request_headers_to_add"] =
                    printed["request_headers_to_add"].take();
            })
        });
    }
    let stack = setup.start().unwrap();
    (Guarded::of(stack), started.into_inner().unwrap())
}

fn stats(inbox: &Inbox, state: &str) -> u64 {
    let stats = inbox.setup.json("stats", &[]).unwrap();
    stats[state].as_u64().unwrap()
}

#[test]
fn a_verified_callback_is_answered_at_once_and_arrives_as_it_was_signed() {
    let (guarded, inbox) = start(&[], None);
    let (id, body) = event("inbox");
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    wait_for("the store to know", || {
        (stats(&inbox, "delivered") == 1).then_some(())
    })
    .unwrap();
    let all = guarded.upstream.recorded();
    assert_eq!(all[0].body, body.as_bytes());
    assert_eq!(all[0].head.path, "/callbacks/suno");
    assert_eq!(all[0].head.values("x-callback-guard-id"), [id]);
    assert_eq!(all[0].head.values("x-callback-guard-source"), ["suno"]);
    assert_eq!(all[0].head.values("x-callback-guard-attempt"), ["1"]);
    assert_eq!(all[0].head.values("x-callback-guard-key").len(), 1);
}

#[test]
fn nothing_that_the_guard_refuses_is_stored() {
    let (guarded, inbox) = start(&[], None);
    let body = body_of("forged");
    let forged = Request::post("/callbacks/suno")
        .header("x-webhook-timestamp", now().to_string())
        .header(
            "x-webhook-signature",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        )
        .header("x-callback-guard-key", "0".repeat(64))
        .header("x-callback-guard-source", "suno")
        .header("x-callback-guard-id", "forged")
        .json(body.clone());
    assert_eq!(guarded.send(&forged).status, 401);
    assert_eq!(guarded.send(&sign_at(&body, now() - 3600)).status, 401);
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    wait_for("the genuine one", || {
        (stats(&inbox, "delivered") == 1).then_some(())
    })
    .unwrap();
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn the_sender_has_its_200s_while_the_application_is_down_and_nothing_is_lost() {
    // An attempt that the crash cuts off is made again after its lease: the timeout and 10 s.
    let schedule = ["50ms"; 100].join(",");
    let (guarded, mut inbox) = start(&["--schedule", &schedule, "--timeout", "1s"], None);
    guarded.upstream.answer(Answer::status(503));
    let mut bodies = Vec::new();
    for number in 0..20 {
        let (_, body) = event(&format!("down-{number}"));
        assert_eq!(guarded.send(&signed(&body)).status, 200);
        let again = guarded.send(&signed(&body));
        assert_eq!(again.status, 200);
        assert_eq!(again.header("x-callback-guard").unwrap(), "duplicate");
        bodies.push(body);
    }
    inbox.restart().unwrap(); // Killed, in the middle of an outage.
    let (_, body) = event("after-the-crash");
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    bodies.push(body);
    guarded.upstream.clear();
    guarded.upstream.answer(Answer::status(200));
    wait_for("all to be delivered", || {
        (stats(&inbox, "delivered") == 21).then_some(())
    })
    .unwrap();
    let mut seen: Vec<_> = guarded
        .upstream
        .recorded()
        .into_iter()
        .map(|one| String::from_utf8(one.body).unwrap())
        .collect();
    seen.sort();
    seen.dedup();
    bodies.sort();
    assert_eq!(seen, bodies);
}

#[test]
fn without_the_inbox_or_its_store_the_sender_is_told_to_try_again() {
    let (guarded, mut inbox) = start(&["--max-backlog", "1", "--schedule", "1h"], None);
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let (_, first) = event("first");
    assert_eq!(guarded.send(&signed(&first)).status, 200);
    // Full: the guard has released the claim, so the retry is no duplicate.
    let (_, second) = event("second");
    assert_eq!(guarded.send(&signed(&second)).status, 503);
    gate.open();
    wait_for("room", || {
        (guarded.send(&signed(&second)).status == 200).then_some(())
    })
    .unwrap();
    wait_for("both to be delivered", || {
        (stats(&inbox, "delivered") == 2).then_some(())
    })
    .unwrap();
    inbox.kill();
    let (_, third) = event("third");
    assert_eq!(guarded.send(&signed(&third)).status, 503);
    inbox = inbox.setup.start().unwrap();
    wait_for("the inbox", || {
        (guarded.send(&signed(&third)).status == 200).then_some(())
    })
    .unwrap();
    wait_for("all to be delivered", || {
        (stats(&inbox, "delivered") == 3).then_some(())
    })
    .unwrap();
}

/// As docs/troubleshooting.md advises where an application has lost its data.
#[test]
fn what_the_application_has_lost_it_gets_again_by_a_replay() {
    let (guarded, inbox) = start(&[], None);
    let request = signed(&event("lost").1);
    assert_eq!(guarded.send(&request).status, 200);
    wait_for("the delivery", || {
        (stats(&inbox, "delivered") == 1).then_some(())
    })
    .unwrap();
    // The sender cannot help.
    let again = guarded.send(&request);
    assert_eq!(again.header("x-callback-guard").unwrap(), "duplicate");
    let replay = inbox.setup.tool("replay", &["--state", "delivered"]);
    let replay = replay.unwrap();
    assert!(replay.status.success(), "{replay:?}");
    let all = guarded
        .upstream
        .wait_until("the replay", |all| {
            all.len() == 2 && all[1].body_state == BodyState::Complete
        })
        .unwrap();
    let key = |at: usize| all[at].head.header("x-callback-guard-key").unwrap();
    assert_eq!((key(0), &all[0].body), (key(1), &all[1].body));
}

#[test]
fn envoy_brings_the_token_and_the_application_does_not_see_it() {
    let token = "a-token-of-32-visible-characters";
    let (guarded, inbox) = start(&[], Some(token));
    let (id, body) = event("token");
    assert_eq!(
        guarded
            .send(&signed(&body).header("authorization", "Bearer the-sender's"))
            .status,
        200
    );
    let direct = inbox.send(&"0".repeat(64), &id, b"{}").unwrap();
    assert_eq!(direct.status, 401);
    let all = guarded
        .upstream
        .wait_until("the delivery", |all| !all.is_empty())
        .unwrap();
    assert!(all[0].head.values("authorization").is_empty());
}
