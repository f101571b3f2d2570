//! One event at two Envoys, in every state.

use callback_guard_harness::{Answer, FleetSetup, Gate, Way};

use super::support::callback;

both_ways! {
    an_event_is_delivered_once_by_two_envoys,
    a_request_waits_for_another_envoy_to_settle,
    a_refused_event_is_free_for_the_other_envoy,
}

fn an_event_is_delivered_once_by_two_envoys(way: Way) {
    let fleet = FleetSetup::by(way, 2).patient().start().unwrap();
    let first = fleet.send(0, &callback("a1")).unwrap();
    assert_eq!(first.status, 200);
    assert_eq!(first.text(), "received\n");
    for envoy in [1, 0, 1] {
        let again = fleet.send(envoy, &callback("a1")).unwrap();
        assert_eq!(again.status, 200);
        assert_eq!(
            again.header("x-callback-guard").as_deref(),
            Some("duplicate")
        );
    }
    assert_eq!(fleet.upstream.heads(), 1);
    let keys = fleet.keys().unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].starts_with("callback-guard:suno:"), "{keys:?}");
    let value = fleet.redis.command(&["GET", &keys[0]]).unwrap();
    assert!(value.starts_with("d:"), "{value}");
    let ends: u64 = fleet
        .redis
        .command(&["PTTL", &keys[0]])
        .unwrap()
        .parse()
        .unwrap();
    assert!((86_000_000..=86_400_000).contains(&ends), "{ends}");
}

fn a_request_waits_for_another_envoy_to_settle(way: Way) {
    let fleet = FleetSetup::by(way, 2).patient().start().unwrap();
    let gate = Gate::new();
    fleet.upstream.answer(Answer::status(200).when(&gate));
    let address = |envoy: usize| fleet.envoys[envoy].listener_address();
    let first = callback_guard_harness::client::begin(address(0), callback("w1")).unwrap();
    fleet.upstream.wait_for_requests(1).unwrap();
    let second = callback_guard_harness::client::begin(address(1), callback("w1")).unwrap();
    callback_guard_harness::wait::wait_for("the second to wait", || {
        (fleet.stat("waits_total.source.suno").unwrap() == 1).then_some(())
    })
    .unwrap();
    assert!(!second.is_finished());
    gate.open();
    assert_eq!(first.finish().unwrap().status, 200);
    let second = second.finish().unwrap();
    assert_eq!(
        second.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(fleet.upstream.heads(), 1);
}

fn a_refused_event_is_free_for_the_other_envoy(way: Way) {
    let fleet = FleetSetup::by(way, 2).patient().start().unwrap();
    fleet
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    assert_eq!(fleet.send(0, &callback("r1")).unwrap().status, 500);
    assert_eq!(fleet.keys().unwrap(), Vec::<String>::new());
    assert_eq!(fleet.send(1, &callback("r1")).unwrap().status, 200);
    assert_eq!(fleet.upstream.heads(), 2);
}

/// As docs/troubleshooting.md advises where an application has lost its data.
#[test]
fn delivered_events_can_be_had_again_under_another_name_of_the_source() {
    let mut fleet = FleetSetup::new(1).start().unwrap();
    let verdict = |fleet: &callback_guard_harness::Fleet| {
        let response = fleet.send(0, &callback("lost")).unwrap();
        assert_eq!(response.status, 200);
        response.header("x-callback-guard")
    };
    assert_eq!(verdict(&fleet), None);
    // A restart does not help: Redis remembers.
    fleet.replace(0).unwrap();
    assert_eq!(verdict(&fleet).as_deref(), Some("duplicate"));
    fleet
        .reconfigure(0, |config| {
            config["sources"][0]["name"] = "suno-again".into();
        })
        .unwrap();
    assert_eq!(verdict(&fleet), None);
    assert_eq!(verdict(&fleet).as_deref(), Some("duplicate"));
    assert_eq!(fleet.upstream.heads(), 2);
}
