//! `compose.yaml` with its profile `inbox`: the inbox between the guard and the application.

use std::process::Command;
use std::time::Duration;

use callback_guard_harness::{SECRET, SECRET_VARIABLE, wait};
use tempfile::TempDir;

use super::engine::{Services, id_of, load, send};
use crate::deploy::programs::run;
use crate::deploy::release::program;
use crate::deploy::support::{body, forged, genuine, path};

#[test]
fn an_application_that_is_down_gets_its_callback_from_the_inbox() {
    let directory = TempDir::new().unwrap();
    let layout = directory.path().join("image");
    run(Command::new(path("deploy/docker/oci-image.sh"))
        .arg(program("callback-guard-inbox", "callback-guard-inbox"))
        .arg(&layout));
    load(&layout, "callback-guard-inbox:0.2.0");
    let variables = format!("{SECRET_VARIABLE}={SECRET}\n");
    let services = Services::of("", &[(".env", &variables)]).profile("inbox");
    services.up();
    services.wait_until_healthy(&["envoy-inbox"]);

    run(&mut services.compose(&["stop", "app"]));
    let event = body("stored");
    let accepted = wait::wait_for("the inbox", || {
        let answer = send(10001, &genuine(&event));
        (answer.status == 200).then_some(answer)
    });
    let accepted = accepted.unwrap();
    assert_eq!(
        accepted.header("x-callback-guard-inbox").as_deref(),
        Some("accepted")
    );
    assert_eq!(send(10001, &forged(&body("stored"))).status, 401);
    let again = send(10001, &genuine(&event));
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );

    // A new container of the inbox knows it, and delivers it once the application is there.
    run(&mut services.compose(&["up", "--detach", "--no-deps", "--force-recreate", "inbox"]));
    run(&mut services.compose(&["start", "app"]));
    wait::wait_for_within(Duration::from_secs(120), "the delivery", || {
        (services.deliveries(&id_of(&event)) == 1).then_some(())
    })
    .unwrap();
}
