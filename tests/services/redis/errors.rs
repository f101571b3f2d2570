//! Every way in which a store can fail: none loses an event, none hangs, each is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use callback_guard_harness::client;
use callback_guard_harness::fleet::{Redis, TOKEN_VARIABLE, store};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Fleet, FleetSetup, Load, Network, Way};

use super::front::{Act, Asked, Front};
use super::support::{callback, stage_of};

both_ways! {
    reject_releases_what_a_lost_answer_may_have_claimed,
    a_failed_settle_is_retried_until_it_is_told,
    an_outage_costs_a_few_timeouts_and_then_nothing,
}

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

/// Claims fail in each of these ways; with `on_error` `memory` each event is delivered, once.
fn check_claim_errors(protocol: &str, rows: Vec<(Act, &str)>) {
    let front = Front::start(healthy);
    let fleet = fleet_before(&front, protocol, "memory");
    let stat = |name: &str| fleet.stat(name).unwrap();
    for (number, (act, kind)) in rows.into_iter().enumerate() {
        let id = format!("e{number}");
        let errors = format!("store_errors_total.error.{kind}");
        let counted = || (stat(&errors), stat("store_fallbacks_total.action.memory"));
        let before = counted();
        front.script(move |asked| match !asked.body.contains("ZCARD") {
            true => healthy(asked),
            false => act.clone(),
        });
        let first = fleet.send(0, &callback(&id)).unwrap();
        assert_eq!(first.text(), "received\n", "row {number}, {kind}");
        assert_eq!(
            counted(),
            (before.0 + 1, before.1 + 1),
            "row {number}, {kind}"
        );
        // The process's own store knows it.
        let again = fleet.send(0, &callback(&id)).unwrap();
        let code = again.header("x-callback-guard");
        assert_eq!(code.as_deref(), Some("duplicate"), "row {number}, {kind}");
        assert_eq!(
            fleet.upstream.heads(),
            2 * number + 1,
            "row {number}, {kind}"
        );
        // A success in between: no circuit opens.
        front.script(healthy);
        let between = fleet
            .send(0, &callback(&format!("between{number}")))
            .unwrap();
        assert_eq!(between.status, 200);
    }
    assert_eq!(stat("store_circuit_openings_total"), 0);
    assert_eq!(stat("settle_failures_total.source.suno"), 0);
}

/// Grants and settles everything, in both protocols.
fn healthy(asked: &Asked) -> Act {
    let (name, reply) = match !asked.body.contains("ZCARD") {
        true => ("EVAL", "1"),
        false => ("EVAL", "null"),
    };
    let name = if asked.body.starts_with('[') {
        "result"
    } else {
        name
    };
    reply_with(200, &format!("{{\"{name}\":{reply}}}"))
}

fn reply_with(status: u16, body: &str) -> Act {
    Act::Reply(status, body.to_owned())
}

#[test]
fn errors_of_webdis() {
    let rows = vec![
        (
            reply_with(200, r#"{"EVAL":[false,"NOPERM no permission"]}"#),
            "redis",
        ),
        (reply_with(200, "<html>"), "malformed"),
        (reply_with(200, r#"{"GET":null}"#), "malformed"),
        (reply_with(200, r#"{"EVAL":nu"#), "malformed"),
        (
            reply_with(200, r#"{"EVAL":"somebody else's value"}"#),
            "malformed",
        ),
        (reply_with(200, &"x".repeat(100_000)), "malformed"),
        (reply_with(200, ""), "malformed"),
        (reply_with(401, ""), "denied"),
        (reply_with(403, ""), "denied"),
        (reply_with(503, ""), "unreachable"),
        (reply_with(302, ""), "status"),
        (Act::Truncated(r#"{"EVAL":"#.into()), "unreachable"),
        (Act::Close, "unreachable"),
        (Act::Silence, "timeout"),
    ];
    check_claim_errors("webdis", rows);
}

#[test]
fn errors_of_upstash() {
    let rows = vec![
        (reply_with(400, r#"{"error":"ERR syntax error"}"#), "redis"),
        (reply_with(401, r#"{"error":"Unauthorized"}"#), "denied"),
        (reply_with(500, "oops"), "malformed"),
        (
            reply_with(200, r#"{"result":null,"error":"x"}"#),
            "malformed",
        ),
        (reply_with(200, r#"{"result":7}"#), "malformed"),
    ];
    check_claim_errors("upstash", rows);
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
    assert!(fleet.stat("store_errors_total.error.denied").unwrap() >= 1);
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.reject").unwrap(),
        1
    );
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
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.reject").unwrap(),
        0
    );
}

#[test]
fn pass_forwards_unclaimed() {
    let front = Front::start(|_| Act::Close);
    let fleet = fleet_before(&front, "webdis", "pass");
    for _ in 0..2 {
        assert_eq!(fleet.send(0, &callback("p1")).unwrap().text(), "received\n");
    }
    assert_eq!(fleet.upstream.heads(), 2);
    assert_eq!(fleet.stat("store_fallbacks_total.action.pass").unwrap(), 2);
}

fn reject_releases_what_a_lost_answer_may_have_claimed(way: Way) {
    let fleet = FleetSetup::by(way, 2)
        .workers(1)
        .guard(|config| config["store"]["on_error"] = "reject".into())
        .start()
        .unwrap();
    // Redis gets the claim; its answer is lost.
    fleet.relay.set(Network::Deaf);
    assert_eq!(fleet.send(0, &callback("l1")).unwrap().status, 503);
    // The release goes the same way at once, so the key may be gone again.
    assert!(fleet.calls().unwrap() >= 1);
    fleet.relay.set(Network::Up);
    wait_for("the release", || {
        fleet.keys().unwrap().is_empty().then_some(())
    })
    .unwrap();
    assert_eq!(fleet.send(1, &callback("l1")).unwrap().status, 200);
    assert_eq!(fleet.upstream.heads(), 1);
}

fn a_failed_settle_is_retried_until_it_is_told(way: Way) {
    let fleet = FleetSetup::by(way, 2).workers(1).start().unwrap();
    // The claim passes; then the network goes, while the upstream works.
    let gate = callback_guard_harness::Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let address = fleet.envoys[0].listener_address();
    let sent = client::begin(address, callback("s1")).unwrap();
    fleet.upstream.wait_for_requests(1).unwrap();
    fleet.relay.set(Network::Stalled);
    gate.open();
    let first = sent.finish().unwrap();
    // Held for one time-out, then forwarded: the upstream has it.
    assert_eq!(first.status, 200);
    assert_eq!(fleet.stat("store_errors_total.error.timeout").unwrap(), 1);
    fleet.relay.set(Network::Up);
    wait_for_stat(&fleet, "store_settle_retries_total", 1);
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
    assert_eq!(fleet.stat("settle_failures_total.source.suno").unwrap(), 0);
}

fn an_outage_costs_a_few_timeouts_and_then_nothing(way: Way) {
    let fleet = FleetSetup::by(way, 1)
        .workers(1)
        .guard(|config| config["store"]["timeout_milliseconds"] = 400.into())
        .start()
        .unwrap();
    fleet.relay.set(Network::Stalled);
    for number in 0..40 {
        let response = fleet.send(0, &callback(&format!("o{number}"))).unwrap();
        assert_eq!(response.text(), "received\n");
    }
    // Three failures open the circuit: three calls to a front, or all that wait on a connection with the
    // first. The probes add theirs.
    let timeouts = fleet.stat("store_errors_total.error.timeout").unwrap();
    assert!((1..=6).contains(&timeouts), "{timeouts}");
    assert_eq!(fleet.stat("store_circuit_openings_total").unwrap(), 1);
    assert_eq!(fleet.stat("store_circuits_open").unwrap(), 1);
    assert!(fleet.stat("store_errors_total.error.circuit_open").unwrap() >= 30);
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.memory").unwrap(),
        40
    );
    // It closes by itself, and what was delivered meanwhile is recorded.
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

/// Whoever has captured signatures can invent events. A store that answers must not look to the guard
/// like one that is down: what another Envoy has delivered would be delivered again.
#[test]
fn a_flood_of_events_asks_for_a_few_at_a_time_and_opens_no_circuit() {
    const IDS: usize = 20;
    const STAGES: usize = 50;
    let (current, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let front = Front::start(move |asked| {
        let calls = current.fetch_add(1, Ordering::Relaxed) + 1;
        seen.fetch_max(calls, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
        current.fetch_sub(1, Ordering::Relaxed);
        healthy(asked)
    });
    let mut store = store("webdis");
    store["timeout_milliseconds"] = 5_000.into();
    let fleet = FleetSetup::new(1)
        .workers(1)
        .front(store, front.address)
        .env(TOKEN_VARIABLE, "guard:pw")
        .start()
        .unwrap();
    let requests = (0..STAGES)
        .flat_map(|stage| (0..IDS).map(move |id| stage_of(&format!("captured-{id}"), stage)))
        .collect();
    let address = fleet.envoys[0].listener_address();
    for response in client::send_all(address, requests, Load::http2(10, 100)).unwrap() {
        let response = response.unwrap();
        assert_eq!(response.text(), "received\n", "{}", response.status);
    }
    assert_eq!(fleet.upstream.heads(), IDS * STAGES);
    assert_eq!(fleet.stat("store_circuit_openings_total").unwrap(), 0);
    assert_eq!(
        fleet.stat("store_fallbacks_total.action.memory").unwrap(),
        0
    );
    // And eight in the background.
    let most = most.load(Ordering::Relaxed);
    assert!((9..=64 + 8).contains(&most), "{most} calls at once");
}
