//! The pure rules, at their boundaries.

use std::time::Duration;

use callback_guard_inbox::circuit::{Circuit, FAILURES, Permit};
use callback_guard_inbox::delivery::{Delivery, Outcome, State, retry_after};
use callback_guard_inbox::moment::Moment;
use callback_guard_inbox::rate::Rate;
use callback_guard_inbox::schedule::Schedule;
use callback_guard_inbox::signing::SigningKey;
use callback_guard_inbox::store::Place;

const NOW: Moment = Moment(1_769_670_760_000);
const LEASE: Duration = Duration::from_secs(40);

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn the_default_schedule_lasts_three_days() {
    let default = schedule(Schedule::DEFAULT);
    assert_eq!(default.attempts(), 13);
    let sum = |jitter: f64| -> Duration {
        (1..)
            .map_while(|attempt| default.delay(attempt, jitter))
            .sum()
    };
    assert_eq!(sum(0.0), seconds(258_155)); // 71 h 42 min 35 s
    assert_eq!(sum(1.0), seconds(309_786));
}

#[test]
fn a_schedule_of_n_steps_makes_n_plus_one_attempts() {
    let schedule = schedule("5s,30s");
    let mut delivery = Delivery::accepted(NOW);
    let mut now = NOW;
    for (attempt, pause) in [(1, 5), (2, 30)] {
        delivery = delivery.claim(now, attempt, LEASE).unwrap();
        delivery = delivery
            .settle(attempt, &answered(500), now, &schedule, 0.0)
            .unwrap();
        assert_eq!(delivery.state, State::Waiting);
        assert_eq!(delivery.due, now.after(seconds(pause)));
        now = delivery.due;
    }
    delivery = delivery.claim(now, 3, LEASE).unwrap();
    delivery = delivery
        .settle(3, &Outcome::Failed, now, &schedule, 0.0)
        .unwrap();
    assert_eq!((delivery.state, delivery.attempts), (State::Dead, 3));
    assert_eq!(delivery.claim(now.after(seconds(9999)), 4, LEASE), None);
}

#[test]
fn jitter_only_lengthens_and_by_a_fifth_at_most() {
    let schedule = schedule("10s");
    for (jitter, expected) in [
        (-1.0, 10_000),
        (0.0, 10_000),
        (0.5, 11_000),
        (1.0, 12_000),
        (9.0, 12_000),
    ] {
        let delay = schedule.delay(1, jitter).unwrap();
        assert_eq!(delay.as_millis(), expected, "{jitter}");
    }
    assert_eq!(schedule.delay(0, 0.0), None);
    assert_eq!(schedule.delay(2, 0.0), None);
    assert_eq!(schedule.delay(u32::MAX, 0.0), None);
}

#[test]
fn wrong_schedules_are_refused() {
    for text in ["", "5", "5s,", "5s,,6s", "0s", "31d", "-5s", "5s;6s", "x"] {
        let error = text.parse::<Schedule>().unwrap_err();
        assert!(
            error.contains("separated by commas, as 5s,30s,2m,1h"),
            "{text}: {error}"
        );
    }
    assert!(
        "1s,"
            .repeat(100)
            .trim_end_matches(',')
            .parse::<Schedule>()
            .is_ok()
    );
    assert!(
        "1s,"
            .repeat(101)
            .trim_end_matches(',')
            .parse::<Schedule>()
            .is_err()
    );
}

#[test]
fn what_an_answer_leads_to() {
    let schedule = schedule("5s");
    let cases = [
        (answered(200), State::Delivered),
        (answered(299), State::Delivered),
        (answered(100), State::Waiting),
        (answered(199), State::Waiting),
        (answered(300), State::Waiting),
        (answered(400), State::Waiting),
        (answered(404), State::Waiting),
        (answered(409), State::Waiting),
        (answered(410), State::Dead),
        (answered(411), State::Waiting),
        (answered(500), State::Waiting),
        (Outcome::Failed, State::Waiting),
    ];
    for (outcome, expected) in cases {
        let claimed = Delivery::accepted(NOW).claim(NOW, 7, LEASE).unwrap();
        let settled = claimed.settle(7, &outcome, NOW, &schedule, 0.0).unwrap();
        assert_eq!(settled.state, expected, "{outcome:?}");
    }
}

#[test]
fn retry_after_lengthens_a_pause_up_to_an_hour() {
    let schedule = schedule("1m");
    for (asked, pause) in [
        (0, 60),
        (59, 60),
        (61, 61),
        (3600, 3600),
        (3601, 3600),
        (u64::MAX, 3600),
    ] {
        let outcome = Outcome::Answered {
            status: 503,
            retry_after: Some(seconds(asked)),
        };
        let claimed = Delivery::accepted(NOW).claim(NOW, 7, LEASE).unwrap();
        let settled = claimed.settle(7, &outcome, NOW, &schedule, 0.0).unwrap();
        assert_eq!(settled.due, NOW.after(seconds(pause)), "{asked}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let cases = [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("99999999999999999999999", Some(u64::MAX)),
        ("Thu, 29 Jan 2026 07:12:45 GMT", Some(5)),
        ("Thursday, 29-Jan-26 07:12:45 GMT", Some(5)),
        ("Thu, 29 Jan 2026 07:12:35 GMT", Some(0)), // Past.
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
    ];
    for (value, expected) in cases {
        assert_eq!(retry_after(value, NOW), expected.map(seconds), "{value}");
    }
}

#[test]
fn only_the_holder_of_a_claim_settles_and_only_while_it_holds() {
    let schedule = schedule("5s");
    let first = Delivery::accepted(NOW).claim(NOW, 1, LEASE).unwrap();
    assert_eq!(
        first.claim(NOW.after(LEASE).before(Duration::from_millis(1)), 2, LEASE),
        None
    );
    let second = first.claim(NOW.after(LEASE), 2, LEASE).unwrap();
    assert_eq!(second.settle(1, &answered(200), NOW, &schedule, 0.0), None);
    assert_eq!(second.release(1, NOW), None);
    assert!(
        second
            .settle(2, &answered(200), NOW, &schedule, 0.0)
            .is_some()
    );
}

#[test]
fn a_lost_claim_uses_up_no_attempt() {
    let mut delivery = Delivery::accepted(NOW);
    let mut now = NOW;
    for claim in 0..100 {
        delivery = delivery.claim(now, claim, LEASE).unwrap();
        now = now.after(LEASE);
    }
    assert_eq!(delivery.attempts, 0);
}

#[test]
fn a_replay_is_a_new_series_but_not_beside_an_attempt() {
    let schedule = schedule("5s");
    let claimed = Delivery::accepted(NOW).claim(NOW, 1, LEASE).unwrap();
    assert_eq!(claimed.replay(NOW), None);
    for outcome in [answered(200), answered(410), answered(500)] {
        let settled = claimed.settle(1, &outcome, NOW, &schedule, 0.0).unwrap();
        assert_eq!(
            settled.replay(NOW),
            Some(Delivery::accepted(NOW)),
            "{outcome:?}"
        );
    }
}

#[test]
fn ten_failures_in_a_row_open_the_circuit_and_one_success_closes_it() {
    let mut circuit = Circuit::new(seconds(5));
    for failure in 1..FAILURES {
        circuit.record(false, NOW);
        assert_eq!(circuit.permit(NOW), Permit::Free, "{failure}");
    }
    circuit.record(true, NOW);
    for _ in 1..FAILURES {
        circuit.record(false, NOW);
    }
    assert_eq!(circuit.permit(NOW), Permit::Free);
    circuit.record(false, NOW);
    assert_eq!(circuit.permit(NOW), Permit::Nothing);
    let almost = NOW.after(Duration::from_millis(4999));
    assert_eq!(circuit.permit(almost), Permit::Nothing);
    let due = NOW.after(seconds(5));
    assert_eq!(circuit.permit(due), Permit::Probe);
    circuit.begin_probe();
    assert_eq!(circuit.permit(due), Permit::Nothing); // One at a time.
    circuit.record(false, due);
    assert_eq!(circuit.permit(due), Permit::Nothing);
    let next = due.after(seconds(5));
    assert_eq!(circuit.permit(next), Permit::Probe);
    circuit.begin_probe();
    circuit.record(true, next);
    assert_eq!(circuit.permit(next), Permit::Free);
}

#[test]
fn a_probe_comes_every_thirty_seconds_at_least() {
    let mut circuit = Circuit::new(seconds(3600));
    for _ in 0..FAILURES {
        circuit.record(false, NOW);
    }
    assert_eq!(
        circuit.permit(NOW.after(Duration::from_millis(29_999))),
        Permit::Nothing
    );
    assert_eq!(circuit.permit(NOW.after(seconds(30))), Permit::Probe);
}

#[test]
fn a_rate_is_never_exceeded_and_always_reached() {
    for per_second in [1, 7, 10, 100, 5000] {
        let mut rate = Rate::new(Some(per_second), NOW);
        let mut taken = 0;
        for millisecond in 0..10_000 {
            let count = rate.available(16, NOW.after(Duration::from_millis(millisecond)));
            rate.take(count);
            taken += count;
        }
        let expected = usize::try_from(per_second).unwrap() * 10;
        let burst = usize::try_from(per_second).unwrap() / 10 + 1;
        assert!(
            (expected - 1..=expected + burst).contains(&taken),
            "{per_second}: {taken}"
        );
    }
    assert_eq!(Rate::new(None, NOW).available(16, NOW), 16);
    // A clock that goes back gives nothing.
    let mut rate = Rate::new(Some(1), NOW);
    rate.take(1);
    assert_eq!(rate.available(1, Moment(0)), 0);
    assert_eq!(rate.available(1, NOW), 0);
}

#[test]
fn a_place_is_shown_without_its_password() {
    let shown = |text: &str| text.parse::<Place>().unwrap().to_string();
    assert_eq!(
        shown("postgres://app:p%40ss@db.example:5432/inbox?sslmode=require&password=x"),
        "postgres://db.example:5432/inbox"
    );
    assert_eq!(shown("postgresql://a:b@c@host/d"), "postgres://host/d");
    assert_eq!(shown("sqlite:inbox.db"), "sqlite:inbox.db");
    assert_eq!(
        shown("sqlite:///var/lib/inbox.db"),
        "sqlite:/var/lib/inbox.db"
    );
    let place = format!("{:?}", "postgres://u:secret@h/d".parse::<Place>().unwrap());
    assert_eq!(place, "postgres://h/d");
    for text in ["", "sqlite:", "inbox.db", "mysql://x", "SQLITE:x"] {
        assert!(text.parse::<Place>().is_err(), "{text}");
    }
}

#[test]
fn deliveries_are_signed_as_standard_webhooks_signs() {
    // The vector of the Standard Webhooks libraries.
    let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    assert_eq!(
        key.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#
        ),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert_eq!(format!("{key:?}"), "SigningKey([redacted])");
    for text in [
        "",
        "whsec_",
        "whsec_AAAA",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_!!!!",
    ] {
        let error = SigningKey::parse(text).unwrap_err();
        assert_eq!(error, "expected `whsec_` and the base64 of 16 to 64 bytes");
    }
}
