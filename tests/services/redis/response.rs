//! The sender's 2xx means that the event is remembered: the response is held until the store has
//! answered, whatever shape it has.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use callback_guard_harness::client::{self, begin};
use callback_guard_harness::fleet::{TOKEN_VARIABLE, store};
use callback_guard_harness::render::buffer_filter;
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Fleet, FleetSetup, Gate, Network, Protocol, Way};

use super::front::{Act, Asked, Front};
use super::support::{callback, callback_with};

both_ways! {
    a_client_that_leaves_releases_its_claim,
    a_client_that_leaves_while_the_store_is_asked_leaves_no_claim,
    an_envoy_that_dies_leaves_its_claim_to_its_lease,
    a_changed_body_is_seen_by_the_other_envoy,
    requests_that_wait_ask_seldom_and_end,
}

/// A gate for the threads of a front.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn set(&self, is_open: bool) {
        *self.0.0.lock().unwrap() = is_open;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let is_open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

/// Grants every claim, and answers a settlement once `door` is open.
fn granting(door: &Door) -> impl Fn(&Asked) -> Act + Send + Sync + 'static {
    let door = door.clone();
    move |asked| {
        if asked.body.contains("ZCARD") {
            return Act::Reply(200, r#"{"EVAL":null}"#.into());
        }
        door.pass();
        Act::Reply(200, r#"{"EVAL":1}"#.into())
    }
}

fn one_envoy(front: &Front, change: impl FnOnce(FleetSetup<'_>) -> FleetSetup<'_>) -> Fleet {
    let mut store = store("webdis");
    store["timeout_milliseconds"] = 10_000.into();
    let setup = FleetSetup::new(1)
        .workers(1)
        .front(store, front.address)
        .env(TOKEN_VARIABLE, "guard:pw");
    change(setup).start().unwrap()
}

#[test]
fn a_response_is_held_until_the_settlement_is_answered() {
    let door = Door::default();
    let front = Front::start(granting(&door));
    let fleet = one_envoy(&front, |setup| setup);
    let shapes = [
        ("no body", Answer::status(200), 200),
        ("a body", Answer::status(202).body("received\n"), 200),
        ("a refusal", Answer::status(500).body("failed\n"), 500),
        (
            "16 KiB",
            Answer::status(200).body(vec![b'x'; 16 << 10]),
            200,
        ),
    ];
    for (number, (shape, answer, status)) in shapes.into_iter().enumerate() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            door.set(false);
            fleet.upstream.clear();
            fleet.upstream.answer(answer.clone());
            let asked = front.asked().len();
            let request = callback(&format!("h-{number}-{protocol:?}")).protocol(protocol);
            let sent = begin(fleet.envoys[0].listener_address(), request).unwrap();
            // The upstream has answered, for its answer is being settled.
            wait_for("the settlement", || {
                (front.asked().len() == asked + 2).then_some(())
            })
            .unwrap();
            assert!(!sent.is_finished(), "{shape} {protocol:?}");
            door.set(true);
            let response = sent.finish().unwrap();
            assert_eq!(response.status, status, "{shape} {protocol:?}");
            assert_eq!(fleet.upstream.heads(), 1, "{shape} {protocol:?}");
        }
    }
    assert_eq!(fleet.stat("store_early_responses_total").unwrap(), 0);
}

#[test]
fn a_long_response_is_let_go_before_and_counted() {
    let door = Door::default();
    let front = Front::start(granting(&door));
    let fleet = one_envoy(&front, |setup| setup);
    fleet
        .upstream
        .answer(Answer::status(200).body(vec![b'x'; 300_000]));
    let response = fleet.send(0, &callback("long")).unwrap();
    assert_eq!((response.status, response.body.len()), (200, 300_000));
    assert_eq!(fleet.stat("store_early_responses_total").unwrap(), 1);
    door.set(true);
    let again = fleet.send(0, &callback("long")).unwrap();
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
}

#[test]
fn envoys_buffer_filter_may_hold_the_headers() {
    let door = Door::default();
    let front = Front::start(granting(&door));
    let fleet = one_envoy(&front, |setup| {
        setup
            .guard(|config| config["hold_headers"] = "buffer_after".into())
            .render(|render| {
                render
                    .headers_stop_iteration(false)
                    .after_guard(buffer_filter(1 << 20))
            })
    });
    for (number, body) in ["", "received\n"].into_iter().enumerate() {
        door.set(false);
        fleet.upstream.clear();
        fleet.upstream.answer(Answer::status(200).body(body));
        let asked = front.asked().len();
        let request = callback(&format!("b-{number}"));
        let sent = begin(fleet.envoys[0].listener_address(), request).unwrap();
        wait_for("the settlement", || {
            (front.asked().len() == asked + 2).then_some(())
        })
        .unwrap();
        assert!(!sent.is_finished());
        door.set(true);
        assert_eq!(sent.finish().unwrap().text(), body);
        assert_eq!(fleet.upstream.heads(), 1);
    }
}

fn a_client_that_leaves_releases_its_claim(way: Way) {
    let fleet = FleetSetup::by(way, 2).patient().workers(1).start().unwrap();
    let gate = Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let sent = begin(fleet.envoys[0].listener_address(), callback("g1")).unwrap();
    fleet.upstream.wait_for_requests(1).unwrap();
    assert_eq!(fleet.keys().unwrap().len(), 1);
    sent.abort();
    wait_for("the release", || {
        fleet.keys().unwrap().is_empty().then_some(())
    })
    .unwrap();
    fleet.upstream.answer(Answer::status(200));
    assert_eq!(fleet.send(1, &callback("g1")).unwrap().status, 200);
}

fn a_client_that_leaves_while_the_store_is_asked_leaves_no_claim(way: Way) {
    let fleet = FleetSetup::by(way, 1)
        .workers(1)
        .guard(|config| config["store"]["timeout_milliseconds"] = 1_000.into())
        .start()
        .unwrap();
    fleet.relay.set(Network::Deaf);
    let sent = begin(fleet.envoys[0].listener_address(), callback("g2")).unwrap();
    wait_for("the claim", || {
        (fleet.keys().unwrap().len() == 1).then_some(())
    })
    .unwrap();
    sent.abort();
    fleet.relay.set(Network::Up);
    wait_for("the release", || {
        fleet.keys().unwrap().is_empty().then_some(())
    })
    .unwrap();
    assert_eq!(fleet.upstream.heads(), 0);
    assert_eq!(fleet.send(0, &callback("g2")).unwrap().text(), "received\n");
}

fn an_envoy_that_dies_leaves_its_claim_to_its_lease(way: Way) {
    let mut fleet = FleetSetup::by(way, 2)
        .patient()
        .workers(1)
        .guard(|config| {
            let dedupe = &mut config["sources"][0]["dedupe"];
            dedupe["lease_seconds"] = 2.into();
            dedupe["wait_seconds"] = 10.into();
        })
        .start()
        .unwrap();
    let gate = Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let address = fleet.envoys[0].listener_address();
    let cut_off = begin(address, callback("d1")).unwrap();
    fleet.upstream.wait_for_requests(1).unwrap();
    fleet.envoys[0].kill();
    assert!(cut_off.finish().is_err());
    gate.open();
    let second = fleet.send(1, &callback("d1")).unwrap();
    assert_eq!(second.text(), "");
    assert_eq!(second.status, 200);
    assert!(
        second.took > Duration::from_millis(500),
        "{:?}",
        second.took
    );
    assert_eq!(fleet.upstream.heads(), 2);
}

fn a_changed_body_is_seen_by_the_other_envoy(way: Way) {
    let fleet = FleetSetup::by(way, 2)
        .patient()
        .workers(1)
        .guard(|config| config["sources"][0]["dedupe"]["on_body_change"] = "reject".into())
        .start()
        .unwrap();
    assert_eq!(
        fleet.send(0, &callback_with("c1", "one")).unwrap().status,
        200
    );
    let same = fleet.send(1, &callback_with("c1", "one")).unwrap();
    assert_eq!(
        same.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    let other = fleet.send(1, &callback_with("c1", "two")).unwrap();
    assert_eq!(other.status, 409);
    assert_eq!(
        other.header("x-callback-guard").as_deref(),
        Some("body_changed")
    );
    assert_eq!(fleet.stat("body_changes_total.source.suno").unwrap(), 1);
}

fn requests_that_wait_ask_seldom_and_end(way: Way) {
    let fleet = FleetSetup::by(way, 2)
        .patient()
        .workers(1)
        .guard(|config| {
            config["sources"][0]["dedupe"]["wait_seconds"] = 2.into();
        })
        .start()
        .unwrap();
    let gate = Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let first = begin(fleet.envoys[0].listener_address(), callback("q1")).unwrap();
    fleet.upstream.wait_for_requests(1).unwrap();
    let waited = client::send(fleet.envoys[1].listener_address(), &callback("q1")).unwrap();
    assert_eq!(waited.status, 409);
    assert_eq!(
        waited.header("x-callback-guard").as_deref(),
        Some("in_flight")
    );
    assert!(
        waited.took > Duration::from_millis(1_900),
        "{:?}",
        waited.took
    );
    // But for the claim of the first.
    let calls = fleet.calls().unwrap() - 1;
    assert!((4..=12).contains(&calls), "{calls}");
    gate.open();
    assert_eq!(first.finish().unwrap().status, 200);
}
