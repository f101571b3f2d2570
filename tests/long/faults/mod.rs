//! An application that fails in every way, a listener that is reloaded under load, an Envoy or a VM
//! that is killed under load, a clock that steps; and senders that come again until they get a 2xx.
//!
//! At the end there is a table. Nothing may be lost: an event whose sender got 2xx has been delivered. Nothing
//! may be delivered again after a 2xx, unless nobody can have known of that: the answer came after
//! the route's timeout or was cut off, or the store went away with its process.

mod application;
mod trial;
mod vm;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use callback_guard_harness::{Answer, Body, Clock, Gate, Piece, Update, wait};

use application::Application;
use callback_guard_support::{Builder, Change as _, Guarded, event, has_vms, now, sign_at, signed};
use trial::{Did, Ledger, Row, SENDERS, Senders, events, lot};
use vm::Neighbour;

const ROUTE_TIMEOUT: Duration = Duration::from_millis(400);

/// Longer than the route's timeout, as it must be, and no longer than a test can wait.
const LEASE_SECONDS: u64 = 2;

fn builder() -> Builder {
    Guarded::builder()
        .route_timeout(ROUTE_TIMEOUT)
        .workers(2)
        .configuration(|configuration| {
            configuration["sources"][0]["dedupe"]["lease_seconds"] = LEASE_SECONDS.into();
        })
}

/// What the application does with an event's n-th delivery.
fn mood(id: &str, delivery: usize) -> (Did, Answer) {
    match lot(id, delivery) % 14 {
        0 => (Did::Failed, Answer::status(500)),
        1 => (Did::Failed, Answer::status(302)),
        2 => (Did::Failed, Answer::reset()),
        3 => (Did::Failed, Answer::status(503).before_body()),
        4 => (Did::Failed, Answer::reset().before_body()),
        5 => (Did::Failed, Answer::status(200).when(&Gate::new())),
        6 => (Did::Accepted, Answer::cut_short(200)),
        7 => (
            Did::AcceptedUnseen,
            Answer::status(200).after(ROUTE_TIMEOUT * 3),
        ),
        8 => (Did::Accepted, Answer::status(200).after(ROUTE_TIMEOUT / 4)),
        9 => (Did::Failed, Answer::status(500).after(ROUTE_TIMEOUT / 4)),
        10 => (Did::Accepted, Answer::status(204)),
        _ => (Did::Accepted, Answer::status(200)),
    }
}

/// Takes its time, so that there are claims open at any moment, and accepts.
fn unhurried(id: &str, delivery: usize) -> (Did, Answer) {
    let delay = Duration::from_millis(20 + lot(id, delivery) % 60);
    (Did::Accepted, Answer::status(200).after(delay))
}

/// The result of a fault that leaves Envoy and its store as they are: nothing is delivered again, and
/// afterwards all events are known.
#[track_caller]
fn finish(
    fault: &str,
    guarded: &Guarded,
    events: &[String],
    senders: &Senders,
    ledger: &Ledger,
) -> Row {
    let row = Row::new(fault, events, senders, ledger, 0);
    senders.assert_known(events, ledger);
    guarded.assert_alive();
    row
}

/// All that the application can do, over HTTP/1.1 or HTTP/2.
fn moods(seed: u64, is_http2: bool) -> Row {
    let guarded = match is_http2 {
        false => builder(),
        true => builder().render(callback_guard_harness::Render::upstream_http2),
    }
    .start();
    let (ledger, senders) = (Ledger::default(), Senders::new(guarded.address()));
    ledger.keep(&guarded, mood);
    let events = events("moods", seed, 60);
    senders.send(&events);
    let protocol = if is_http2 { "HTTP/2" } else { "HTTP/1.1" };
    let fault = format!("application in all its moods, {protocol}");
    finish(&fault, &guarded, &events, &senders, &ledger)
}

/// The application breaks off, resets and stops at every byte.
fn breaks_at_every_byte(seed: u64) -> Row {
    let breaks = application::breaks();
    let count = breaks.len();
    let ledger = Ledger::default();
    let application = Application::start(&ledger, breaks, Duration::ZERO);
    let guarded = builder().application_at(application.address()).start();
    let senders = Senders::new(guarded.address());
    let events = events("bytes", seed, count);
    senders.send(&events);
    assert!(application.connections() > count, "a break was left out");
    finish(
        "application closes, resets, hangs at every byte",
        &guarded,
        &events,
        &senders,
        &ledger,
    )
}

/// The application is killed with deliveries under way, and started again, three times.
fn application_killed(seed: u64) -> Row {
    let ledger = Ledger::default();
    let delay = Duration::from_millis(30);
    let mut application = Application::start(&ledger, Vec::new(), delay);
    let guarded = builder().application_at(application.address()).start();
    let senders = Senders::new(guarded.address());
    let events = events("crash", seed, 80);
    thread::scope(|scope| {
        scope.spawn(|| senders.send(&events));
        for kill in 1..=3 {
            wait_for_deliveries(&ledger, kill * 15);
            application.kill();
            let refused = "cluster.another.upstream_cx_connect_fail";
            let before = guarded.stat(refused);
            wait::wait_for("refused connections", || {
                (guarded.stat(refused) >= before + 5).then_some(())
            })
            .unwrap();
            application.revive();
        }
    });
    finish(
        "application killed and started again, 3 times",
        &guarded,
        &events,
        &senders,
        &ledger,
    )
}

#[track_caller]
fn wait_for_deliveries(ledger: &Ledger, count: usize) {
    wait::wait_for("some deliveries", || (ledger.len() >= count).then_some(())).unwrap();
}

/// The listener's file is changed with claims open.
fn listener_reloaded(seed: u64) -> Row {
    let guarded = builder().lds().start();
    let (ledger, senders) = (Ledger::default(), Senders::new(guarded.address()));
    ledger.keep(&guarded, mood);
    let before = events("before", seed, 10);
    senders.send(&before);
    let during = events("reload", seed, 40);
    thread::scope(|scope| {
        scope.spawn(|| senders.send(&during));
        for (number, tolerance) in [200, 250, 300].into_iter().enumerate() {
            wait_for_deliveries(&ledger, 12 + number * 12);
            let update = guarded.update(|render| {
                render.guard(|configuration| {
                    configuration["sources"][0]["tolerance_seconds"] = tolerance.into();
                })
            });
            assert_eq!(update.unwrap(), Update::Accepted);
        }
    });
    let events = [before, during].concat();
    finish(
        "listener reloaded, 3 times",
        &guarded,
        &events,
        &senders,
        &ledger,
    )
}

/// Envoy is killed with claims open; another one takes its place, with an empty store.
fn envoy_killed(seed: u64) -> Row {
    const KILLS: usize = 2;
    let mut guarded = builder().start();
    let (ledger, senders) = (Ledger::default(), Senders::new(guarded.address()));
    ledger.keep(&guarded, unhurried);
    let events = events("envoy", seed, 60);
    thread::scope(|scope| {
        let sending = scope.spawn(|| senders.send(&events));
        for kill in 1..=KILLS {
            wait_for_deliveries(&ledger, kill * 15);
            assert!(!sending.is_finished(), "it is killed too late");
            let process = guarded.envoy.process_id().to_string();
            let killed = Command::new("kill").args(["-9", &process]).status();
            assert!(killed.unwrap().success());
            guarded.restart_stack();
            *senders.address.lock().unwrap() = guarded.address();
        }
    });
    let row = Row::new(
        "Envoy killed and started again, twice",
        &events,
        &senders,
        &ledger,
        KILLS * SENDERS,
    );
    guarded.assert_alive();
    row
}

/// The guard's VM is killed by a neighbour, on both workers, with claims open; forgers try to get
/// through meanwhile.
fn vm_killed(seed: u64) -> Row {
    const KILLS: usize = 3;
    let directory = tempfile::tempdir().unwrap();
    let module = vm::poisoned_module(directory.path());
    let guarded = vm::with_neighbour(builder(), &module).start();
    let neighbour = Neighbour::of(&guarded);
    let (ledger, senders) = (Ledger::default(), Senders::new(guarded.address()));
    ledger.keep(&guarded, unhurried);
    let events = events("vm", seed, 120);
    thread::scope(|scope| {
        let sending = scope.spawn(|| senders.send(&events));
        for kill in 1..=KILLS {
            wait_for_deliveries(&ledger, kill * 20);
            assert!(!sending.is_finished(), "it is killed too late");
            let reloads = vm::reloads(&guarded);
            // Where the neighbour itself is still without a VM it reaches no trap.
            wait::wait_for("the VM to die and to be back", || {
                neighbour.trap();
                let forged = signed(&event("forged").1).replace("x-webhook-signature", "x");
                let stack: &callback_guard_harness::Stack = &guarded;
                let status = stack.send(&forged).map_or(0, |response| response.status);
                assert!(matches!(status, 0 | 401 | 503), "{status}");
                (vm::reloads(&guarded) > reloads).then_some(())
            })
            .unwrap();
        }
    });
    let row = Row::new(
        "VM killed by a plugin with the same vm_id, 3 times",
        &events,
        &senders,
        &ledger,
        vm::deaths(&guarded) * SENDERS,
    );
    senders.assert_known(&events, &ledger);
    for request in guarded.upstream.recorded() {
        let id = request.head.header("x-callback-guard-id").unwrap();
        assert!(events.contains(&id), "{id}");
    }
    row
}

/// The wall clock steps with claims open, there and back. Each event comes from two senders, so that
/// one waits for what the other has claimed.
fn clock_stepped(seed: u64) -> Row {
    // By less than a lease, and past leases, but not past the window.
    const STEPS: [i64; 6] = [15, -10, 3600, -7200, 40_000, 0];
    const LEASE: i64 = 30;
    let clock = Clock::new().unwrap();
    let guarded = builder()
        .map(|setup| setup.clock(&clock))
        .configuration(|configuration| {
            configuration["sources"][0]["dedupe"]["lease_seconds"] = LEASE.into();
        })
        .start();
    let (ledger, senders) = (Ledger::default(), Senders::new(guarded.address()));
    ledger.keep(&guarded, unhurried);
    let twins = Senders::new(guarded.address());
    let events = events("clock", seed, 120);
    let mut ended_leases = 0;
    thread::scope(|scope| {
        scope.spawn(|| twins.send(&events));
        let sending = scope.spawn(|| senders.send(&events));
        let mut before = 0;
        for (number, step) in STEPS.into_iter().enumerate() {
            wait_for_deliveries(&ledger, (number + 1) * 15);
            assert!(!sending.is_finished(), "it steps too late");
            clock.set(step).unwrap();
            for senders in [&senders, &twins] {
                senders.ahead.store(step, Ordering::Relaxed);
            }
            ended_leases += usize::from(step - before >= LEASE);
            before = step;
        }
    });
    let row = Row::new(
        "clock set ahead and back by up to 13 hours, 6 times",
        &events,
        &senders,
        &ledger,
        ended_leases * SENDERS,
    );
    guarded.assert_alive();
    row
}

#[test]
fn nothing_is_lost_and_nothing_is_delivered_twice() {
    let mut faults: Vec<fn(u64) -> Row> = vec![
        |seed| moods(seed, false),
        |seed| moods(seed, true),
        breaks_at_every_byte,
        application_killed,
        listener_reloaded,
        envoy_killed,
        clock_stepped,
    ];
    if has_vms() {
        faults.push(vm_killed);
    }
    // `CALLBACK_GUARD_SEEDS=2,3,4` runs others.
    let seeds = std::env::var("CALLBACK_GUARD_SEEDS").unwrap_or("1".to_owned());
    for seed in seeds.split(',') {
        let seed = seed.parse().unwrap();
        println!("seed {seed}\n{}", Row::HEAD);
        for fault in &faults {
            let row = fault(seed);
            println!("{row}");
            row.check();
        }
    }
}

/// One by one, on one worker: the outcome of each request whose VM dies.
#[test]
fn a_vm_that_dies_loses_no_event_and_lets_nothing_through() {
    if !has_vms() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let module = vm::poisoned_module(directory.path());
    let guarded = vm::with_neighbour(builder().workers(1), &module)
        .route_timeout(Duration::from_secs(10))
        .start();
    let neighbour = Neighbour::of(&guarded);
    let (_, known) = event("known");
    assert_eq!(guarded.send(&signed(&known)).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);

    // A claim at the application, a duplicate that waits for it, and two bodies half there.
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let (id, body) = event("claimed");
    let claimed = guarded.begin(&signed(&body));
    guarded.upstream.wait_for_requests(2).unwrap();
    let waiting = guarded.begin_waiting(&signed(&body));
    let (half, rest) = (Gate::new(), Gate::new());
    let in_halves = |body: &str, gate: &Gate| {
        let middle = body.len() / 2;
        let data = |text: &str| Piece::Data(text.to_owned().into());
        let (first, second) = (data(&body[..middle]), data(&body[middle..]));
        Body::pieces(vec![first, Piece::Wait(gate.clone()), second])
    };
    let (late_id, late) = event("late");
    let held = guarded.begin(&signed(&late).body(in_halves(&late, &half)));
    let forged = signed(&event("forged").1).replace("x-webhook-signature", "A".repeat(43) + "=");
    let forged_body = event("forged").1;
    let forged = guarded.begin(&forged.body(in_halves(&forged_body, &rest)));
    wait::wait_for("five requests", || {
        (guarded.stat("http.callbacks.downstream_rq_active") == 4).then_some(())
    })
    .unwrap();

    neighbour.trap();

    // All of them end without the guard. None reaches the application after that.
    half.open();
    rest.open();
    for (name, request) in [
        ("claimed", claimed),
        ("waiting", waiting),
        ("held", held),
        ("forged", forged),
    ] {
        let status = request.finish().map_or(0, |response| response.status);
        assert!(matches!(status, 0 | 503), "{name}: {status}");
    }
    assert_eq!(guarded.upstream.heads(), 2);

    // The senders come again. The VM is back, the event is not lost: once its lease has ended it is
    // delivered a second time, for nobody knows of the first.
    guarded.upstream.answer(Answer::status(200));
    let senders = Senders::new(guarded.address());
    senders.send(&[late_id.clone(), id.clone()]);
    let recorded = guarded.upstream.recorded();
    let ids: Vec<_> = recorded
        .iter()
        .map(|request| request.head.header("x-callback-guard-id").unwrap())
        .collect();
    let count = |id: &String| ids.iter().filter(|known| *known == id).count();
    assert_eq!((ids.len(), count(&id), count(&late_id)), (4, 2, 1));
    assert!(vm::reloads(&guarded) >= 1);
    // What was settled before is still known: the store is not the VM's.
    let response = guarded.send(&signed(&known));
    let verdict = response.header("x-callback-guard");
    assert_eq!(verdict.as_deref(), Some("duplicate"));
    let forged = signed(&event("forged").1).replace("x-webhook-signature", "x");
    assert_eq!(guarded.send(&forged).status, 401);
    assert_eq!(guarded.upstream.heads(), 4);
}

/// One step after the other: what is fresh, what a claim and what a delivered event come to.
#[test]
fn a_clock_that_steps_loses_no_event() {
    let clock = Clock::new().unwrap();
    let guarded = builder()
        .map(|setup| setup.clock(&clock))
        .route_timeout(Duration::from_secs(20))
        .configuration(|configuration| {
            configuration["sources"][0]["dedupe"]["window_seconds"] = 1000.into();
        })
        .start();
    let at = |body: &str, ahead: i64| sign_at(body, now().saturating_add_signed(ahead));
    let verdict = |request| guarded.send(&request).header("x-callback-guard");
    let heads_of = |id: &str| {
        let recorded = guarded.upstream.recorded();
        let ids = recorded
            .iter()
            .map(|one| one.head.header("x-callback-guard-id"));
        ids.filter(|known| known.as_deref() == Some(id)).count()
    };

    // Timestamps are held against the clock as it is.
    for (ahead, refusal) in [(3600, "timestamp_too_old"), (-3600, "timestamp_in_future")] {
        clock.set(ahead).unwrap();
        let (id, body) = event("fresh");
        assert_eq!(verdict(at(&body, 0)).as_deref(), Some(refusal));
        assert_eq!(verdict(at(&body, ahead)), None);
        assert_eq!(heads_of(&id), 1);
    }

    // Ahead past a lease: the claim is free, though its request is still under way. Back: the claim
    // lives for one lease more, not for as long as the step.
    for ahead in [10, -500] {
        clock.set(0).unwrap();
        let (id, body) = event("claim");
        let gate = Gate::new();
        let answers = [Answer::status(200).when(&gate), Answer::status(200)];
        guarded.upstream.answer_in_turn(answers);
        let first = guarded.begin(&at(&body, 0));
        wait::wait_for("the claim", || (heads_of(&id) == 1).then_some(())).unwrap();
        clock.set(ahead).unwrap();
        let second = guarded.send(&at(&body, ahead));
        assert_eq!(
            (second.status, second.header("x-callback-guard")),
            (200, None)
        );
        gate.open();
        assert_eq!(first.finish().unwrap().status, 200);
        let third = verdict(at(&body, ahead));
        assert_eq!(third.as_deref(), Some("duplicate"), "{ahead}");
        assert_eq!(heads_of(&id), 2, "{ahead}");
    }

    // Ahead past the window: the event is forgotten, and what was captured before is stale. Back
    // again: what was captured is fresh, and known.
    clock.set(0).unwrap();
    let (id, body) = event("window");
    let captured = at(&body, 0);
    assert_eq!(verdict(captured.clone()), None);
    assert_eq!(verdict(captured.clone()).as_deref(), Some("duplicate"));
    clock.set(2000).unwrap();
    assert_eq!(
        verdict(captured.clone()).as_deref(),
        Some("timestamp_too_old")
    );
    assert_eq!(verdict(at(&body, 2000)), None);
    clock.set(0).unwrap();
    assert_eq!(verdict(captured).as_deref(), Some("duplicate"));
    assert_eq!(heads_of(&id), 2);
    guarded.assert_alive();
}
