//! Every way in which a store can fail: none loses an event, none hangs, each is counted.

use std::time::Duration;

use callback_guard_harness::fleet::{Redis, TOKEN_VARIABLE, store};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Fleet, FleetSetup, Network};

use crate::front::{Act, Front};
use crate::support::callback;

fn fleet_before(front: &Front, protocol: &str, on_error: &str) -> Fleet {
    let mut store = store(protocol);
    store["on_error"] = on_error.into();
    let token = if protocol == "upstash" {
        "the-token"
    } else {
        "guard:pw"
    };
    FleetSetup::new(1)
        .workers(1)
        .front(store, front.address)
        .env(TOKEN_VARIABLE, token)
        .start()
        .unwrap()
}

fn wait_for_stat(fleet: &Fleet, name: &str, least: u64) {
    wait_for(name, || (fleet.stat(name).unwrap() >= least).then_some(())).unwrap();
}

/// Claims fail as `act` says; with `on_error` `memory` the event is delivered, once.
fn check_claim_error(protocol: &str, act: Act, kind: &str) {
    let front = Front::start(move |_| act.clone());
    let fleet = fleet_before(&front, protocol, "memory");
    let first = fleet.send(0, &callback("e1")).unwrap();
    assert_eq!(first.status, 200, "{kind}");
    assert_eq!(first.text(), "received\n", "{kind}");
    assert!(
        first.took < Duration::from_secs(2),
        "{kind}: {:?}",
        first.took
    );
    assert!(
        fleet.stat(&format!("store_errors.error.{kind}")).unwrap() >= 1,
        "{kind}"
    );
    assert_eq!(
        fleet.stat("store_fallbacks.action.memory").unwrap(),
        1,
        "{kind}"
    );
    // The process's own store knows it.
    let again = fleet.send(0, &callback("e1")).unwrap();
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate"),
        "{kind}"
    );
    assert_eq!(fleet.upstream.heads(), 1, "{kind}");
}

fn reply(status: u16, body: &str) -> Act {
    Act::Reply(status, body.to_owned())
}

#[test]
fn errors_of_webdis() {
    let webdis = |act, kind| check_claim_error("webdis", act, kind);
    webdis(
        reply(200, r#"{"SET":[false,"NOPERM no permission"]}"#),
        "redis",
    );
    webdis(reply(200, "<html>"), "malformed");
    webdis(reply(200, r#"{"GET":null}"#), "malformed");
    webdis(reply(200, r#"{"SET":nu"#), "malformed");
    webdis(
        reply(200, r#"{"SET":"somebody else's value"}"#),
        "malformed",
    );
    webdis(reply(200, &"x".repeat(100_000)), "malformed");
    webdis(reply(200, ""), "malformed");
    webdis(reply(401, ""), "denied");
    webdis(reply(403, ""), "denied");
    webdis(reply(503, ""), "unreachable");
    webdis(reply(302, ""), "status");
    webdis(Act::Truncated(r#"{"SET":"#.into()), "unreachable");
    webdis(Act::Close, "unreachable");
    webdis(Act::Silence, "timeout");
}

#[test]
fn errors_of_upstash() {
    let upstash = |act, kind| check_claim_error("upstash", act, kind);
    upstash(reply(400, r#"{"error":"ERR syntax error"}"#), "redis");
    upstash(reply(401, r#"{"error":"Unauthorized"}"#), "denied");
    upstash(reply(500, "oops"), "malformed");
    upstash(reply(200, r#"{"result":null,"error":"x"}"#), "malformed");
    upstash(reply(200, r#"{"result":7}"#), "malformed");
}

#[test]
fn a_wrong_token_is_denied_and_counted() {
    let front = Front::upstash(Redis::start().unwrap(), "another-token");
    let fleet = fleet_before(&front, "upstash", "reject");
    let refused = fleet.send(0, &callback("t1")).unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(
        refused.header("x-callback-guard").as_deref(),
        Some("store_unavailable")
    );
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    assert!(fleet.stat("store_errors.error.denied").unwrap() >= 1);
    assert_eq!(fleet.stat("store_fallbacks.action.reject").unwrap(), 1);
    assert_eq!(fleet.upstream.heads(), 0);
}

#[test]
fn upstash_claims_settles_and_releases() {
    let front = Front::upstash(Redis::start().unwrap(), "the-token");
    let fleet = fleet_before(&front, "upstash", "reject");
    fleet
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    assert_eq!(fleet.send(0, &callback("u1")).unwrap().status, 500);
    assert_eq!(fleet.send(0, &callback("u1")).unwrap().status, 200);
    let again = fleet.send(0, &callback("u1")).unwrap();
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(fleet.upstream.heads(), 2);
    // Claim and release, claim and deliver; the duplicate was known without a round trip.
    let asked = front.asked();
    assert_eq!(asked.len(), 4);
    assert!(
        asked
            .iter()
            .all(|asked| asked.authorization == "Bearer the-token")
    );
    assert!(asked.iter().all(|asked| !asked.body.contains("u1")));
    assert_eq!(fleet.stat("store_fallbacks.action.reject").unwrap(), 0);
}

#[test]
fn pass_forwards_unclaimed() {
    let front = Front::start(|_| Act::Close);
    let fleet = fleet_before(&front, "webdis", "pass");
    for _ in 0..2 {
        assert_eq!(fleet.send(0, &callback("p1")).unwrap().text(), "received\n");
    }
    assert_eq!(fleet.upstream.heads(), 2);
    assert_eq!(fleet.stat("store_fallbacks.action.pass").unwrap(), 2);
}

#[test]
fn reject_releases_what_a_lost_answer_may_have_claimed() {
    let fleet = FleetSetup::new(2)
        .workers(1)
        .guard(|config| config["store"]["on_error"] = "reject".into())
        .start()
        .unwrap();
    // Redis gets the claim; its answer is lost.
    fleet.relay.set(Network::Deaf);
    assert_eq!(fleet.send(0, &callback("l1")).unwrap().status, 503);
    assert_eq!(fleet.keys().unwrap().len(), 1);
    fleet.relay.set(Network::Up);
    wait_for("the release", || {
        fleet.keys().unwrap().is_empty().then_some(())
    })
    .unwrap();
    assert_eq!(fleet.send(1, &callback("l1")).unwrap().status, 200);
    assert_eq!(fleet.upstream.heads(), 1);
}

#[test]
fn a_failed_settle_is_retried_until_it_is_told() {
    let fleet = FleetSetup::new(2).workers(1).start().unwrap();
    // The claim passes; then the network goes, while the upstream works.
    let gate = callback_guard_harness::Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let address = fleet.envoys[0].listener_address();
    let sent = callback_guard_harness::client::begin(address, callback("s1")).unwrap();
    fleet
        .upstream
        .wait_until("the callback", |seen| seen.len() == 1)
        .unwrap();
    fleet.relay.set(Network::Stalled);
    gate.open();
    let first = sent.finish().unwrap();
    // Held for one time-out, then sent on: the upstream has it.
    assert_eq!(first.status, 200);
    assert_eq!(fleet.stat("store_errors.error.timeout").unwrap(), 1);
    fleet.relay.set(Network::Up);
    wait_for_stat(&fleet, "store_settle_retries", 1);
    wait_for("the settlement", || {
        let keys = fleet.keys().unwrap();
        let value = fleet.redis.command(&["GET", keys.first()?]).unwrap();
        value.starts_with("d:").then_some(())
    })
    .unwrap();
    let again = fleet.send(1, &callback("s1")).unwrap();
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(fleet.stat("settle_failures.source.suno").unwrap(), 0);
}

#[test]
fn an_outage_costs_a_few_timeouts_and_then_nothing() {
    let fleet = FleetSetup::new(1)
        .workers(1)
        .guard(|config| config["store"]["timeout_milliseconds"] = 400.into())
        .start()
        .unwrap();
    fleet.relay.set(Network::Stalled);
    let mut slow = 0;
    for number in 0..40 {
        let response = fleet.send(0, &callback(&format!("o{number}"))).unwrap();
        assert_eq!(response.text(), "received\n");
        assert!(
            response.took < Duration::from_millis(1200),
            "{:?}",
            response.took
        );
        slow += u32::from(response.took > Duration::from_millis(350));
    }
    // Three to open the circuit; probes are the errands' as a rule.
    assert!((3..=6).contains(&slow), "{slow}");
    assert_eq!(fleet.stat("store_circuit_openings").unwrap(), 1);
    assert_eq!(fleet.stat("store_circuits_open").unwrap(), 1);
    assert!(fleet.stat("store_errors.error.circuit_open").unwrap() >= 30);
    assert_eq!(fleet.stat("store_fallbacks.action.memory").unwrap(), 40);
    // It closes by itself, and what was delivered meanwhile is told.
    fleet.relay.set(Network::Up);
    wait_for("the circuit to close", || {
        (fleet.stat("store_circuits_open").unwrap() == 0).then_some(())
    })
    .unwrap();
    wait_for("40 events in Redis", || {
        (fleet.keys().unwrap().len() == 40).then_some(())
    })
    .unwrap();
    assert_eq!(fleet.upstream.heads(), 40);
}
