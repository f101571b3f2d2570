//! `deploy/redis/compose.yaml`: two Envoys that share their events.

use std::time::{Duration, Instant};

use callback_guard_harness::{SECRET, SECRET_VARIABLE, wait};

use super::engine::{Services, docker, id_of, send};
use crate::deploy::programs::run;
use crate::deploy::support::{body, forged, genuine};

#[test]
fn two_envoys_deliver_an_event_once() {
    let variables = format!("{SECRET_VARIABLE}={SECRET}\n");
    let services = Services::of("deploy/redis", &[(".env", &variables)]);
    services.up();
    services.wait_until_healthy(&["redis", "webdis", "app", "envoy-a", "envoy-b"]);

    let event = body("shared");
    assert_eq!(send(10000, &genuine(&event)).status, 200);
    let again = send(10001, &genuine(&event));
    assert_eq!(again.status, 200);
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(send(10001, &forged(&body("shared"))).status, 401);
    assert_eq!(services.deliveries(&id_of(&event)), 1);

    // What a restart of Redis leaves is known to both.
    run(&mut services.compose(&["restart", "redis"]));
    services.wait_until_healthy(&["redis", "webdis"]);
    // The Envoy that delivered it needs no Redis for that.
    let again = send(10000, &genuine(&event));
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(services.deliveries(&id_of(&event)), 1);
    // The first call of the other over a connection that the old Redis has closed may fail: then
    // `on_error: memory` delivers once more, and this Envoy knows it by itself, too.
    wait::wait_for("a duplicate after the restart", || {
        let again = send(10001, &genuine(&event));
        (again.header("x-callback-guard").as_deref() == Some("duplicate")).then_some(())
    })
    .unwrap();
    assert!(services.deliveries(&id_of(&event)) <= 2);

    // Webdis brings no Redis of its own, and hears the signal to stop.
    let container = services.container("webdis");
    let processes = run(&mut docker(&["top", &container, "-eo", "pid,args"]));
    assert!(!processes.contains("redis-server"), "{processes}");
    let begin = Instant::now();
    run(&mut services.compose(&["stop", "webdis"]));
    assert!(begin.elapsed() < Duration::from_secs(9));
}
