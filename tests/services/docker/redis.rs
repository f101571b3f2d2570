//! `deploy/redis/compose.yaml`: two Envoys that share their events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callback_guard_harness::{page, wait};

use super::engine::{Services, docker, id_of, send};
use crate::deploy::programs::run;
use crate::deploy::support::{body, forged, genuine};

#[test]
fn two_envoys_deliver_an_event_once() {
    let block = page::block("docs/redis.md", "two_envoys_deliver_an_event_once").unwrap();
    // The first makes the image: `engine::image`.
    let [_, up] = block.commands().try_into().unwrap();
    let services = Services::of("deploy/redis", &[]);
    assert!(up.starts_with("cd deploy/redis && "), "{up}");
    services.up_as_printed(&up);
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

    // The Envoy that delivered it needs no Redis to know it.
    run(&mut services.compose(&["restart", "redis"]));
    let again = send(10000, &genuine(&event));
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    // The other learns it from what the restart has left. Not before Webdis has its connections again: until
    // then `on_error: memory` delivers it once more, as it is documented.
    services.wait_until_healthy(&["redis"]);
    wait_for_webdis(&services);
    let again = send(10001, &genuine(&event));
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(services.deliveries(&id_of(&event)), 1);

    // Webdis brings no Redis of its own, and hears the signal to stop.
    let container = services.container("webdis");
    let processes = run(&mut docker(&["top", &container, "-eo", "pid,args"]));
    assert!(!processes.contains("redis-server"), "{processes}");
    run(&mut services.compose(&["stop", "webdis"]));
    let status = run(&mut docker(&[
        "inspect",
        "--format",
        "{{.State.ExitCode}}",
        &container,
    ]));
    assert_ne!(status.trim(), "137", "it was killed after the grace period");
}

/// Waits until each thread of Webdis reaches Redis: it has two, which take new connections in turn, and each has
/// connections of its own that it makes again one after the other.
#[track_caller]
fn wait_for_webdis(services: &Services) {
    // As webdis.json has the password.
    let authorization = STANDARD.encode("guard:change-me-webdis");
    let request = format!(
        "GET /EVAL/return%%201/0 HTTP/1.0\\r\\nauthorization: Basic {authorization}\\r\\n\\r\\n"
    );
    let ask = format!("printf '{request}' | nc -w 2 127.0.0.1 7379");
    wait::wait_for("all of Webdis", || {
        (0..8)
            .all(|_| {
                let said = services.exec("webdis", &["sh", "-c", &ask]).stdout;
                String::from_utf8_lossy(&said).contains(r#"{"EVAL":1}"#)
            })
            .then_some(())
    })
    .unwrap();
}
