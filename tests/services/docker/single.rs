//! `compose.yaml`: one Envoy with the guard, and an application.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use callback_guard_harness::{SECRET, SECRET_VARIABLE, client, page, wait};

use super::engine::{PATIENCE, Services, docker, id_of, printed, send, slow};
use crate::deploy::programs::{output, run};
use crate::deploy::support::{body, forged, genuine, signed};

const PORT: u16 = 10000;

/// What the file `.env` has beside the secret: nothing, and the native build.
const MODULE: &str = "";
const NATIVE: &str = "CALLBACK_GUARD_CONFIG=envoy-native.yaml\n";

/// The secret comes from the file `.env`.
fn start(more: &str) -> Services {
    let variables = format!("{SECRET_VARIABLE}={SECRET}\n{more}");
    let services = Services::of("", &[(".env", &variables)]);
    services.up();
    services.wait_until_healthy(&["envoy", "app"]);
    services
}

#[test]
fn the_guard_stands_before_the_application_with_no_more_rights_than_it_needs() {
    let services = start(MODULE);
    assert_guarded(&services, "wasm");
}

#[test]
fn the_native_build_stands_before_the_application_with_no_more_rights_than_it_needs() {
    let services = start(NATIVE);
    assert_guarded(&services, "dynamic_modules");
}

/// `component` is the one of Envoy's log that the guard writes to.
#[track_caller]
fn assert_guarded(services: &Services, component: &str) {
    let (first, second) = (body("docker"), body("docker"));
    assert_eq!(send(PORT, &genuine(&first)).status, 200);
    let again = send(PORT, &genuine(&first));
    assert_eq!(again.status, 200);
    assert_eq!(
        again.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    let refused = send(PORT, &forged(&second));
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("x-callback-guard").as_deref(),
        Some("signature_mismatch")
    );
    assert_eq!(services.deliveries(&id_of(&first)), 1);
    assert!(!services.log("app").contains(&id_of(&second)));
    // The guard's own line for it, and Envoy's.
    let log = services.wait_for_log("envoy", r#""verdict":"signature_mismatch""#);
    let own = format!("[info][{component}]");
    assert!(log.lines().any(|line| line.contains(&own)), "{log}");

    let said = |arguments: &[&str]| {
        String::from_utf8_lossy(&services.exec("envoy", arguments).stdout).into_owned()
    };
    assert_eq!(said(&["id", "-u"]), "101\n");
    let status = said(&["cat", "/proc/1/status"]);
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let write = services.exec("envoy", &["touch", "/tmp/something"]);
    let reason = String::from_utf8_lossy(&write.stderr).into_owned();
    assert!(reason.contains("Read-only file system"), "{write:?}");
    for service in ["envoy", "app"] {
        let limits = services.inspect(service, "{{json .HostConfig.LogConfig.Config}}");
        assert_eq!(limits, r#"{"max-file":"4","max-size":"10m"}"#, "{service}");
    }

    // A restart brings it back; the memory store has gone with the process.
    run(&mut services.compose(&["restart", "envoy"]));
    services.wait_until_healthy(&["envoy"]);
    assert_eq!(send(PORT, &genuine(&first)).status, 200);
    assert_eq!(services.deliveries(&id_of(&first)), 2);
}

#[test]
fn a_delivery_in_flight_at_the_stop_ends_with_its_answer() {
    assert_stops_well(&start(MODULE));
}

#[test]
fn a_delivery_in_flight_at_the_stop_of_the_native_build_ends_with_its_answer() {
    assert_stops_well(&start(NATIVE));
}

#[track_caller]
fn assert_stops_well(services: &Services) {
    let event = body("in-flight");
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let delivery = client::begin(address, slow(genuine(&event), 5000)).unwrap();
    wait::wait_for("the delivery at the application", || {
        (services.deliveries(&id_of(&event)) == 1).then_some(())
    })
    .unwrap();
    run(&mut services.compose(&["stop", "envoy"]));
    assert!(delivery.is_finished(), "stopped before its answer");
    assert_eq!(delivery.finish().unwrap().status, 200);
    services.wait_for_log("envoy", "drain: no request is in flight");
    assert_eq!(services.inspect("envoy", "{{.State.ExitCode}}"), "0");
}

/// Whoever follows the text has a checkout, Docker and nothing else.
#[test]
fn what_the_pages_print_for_docker_builds_and_starts() {
    const NAME: &str = "what_the_pages_print_for_docker_builds_and_starts";
    let pages = ["README.md", "deploy/docker/README.md", "docs/native.md"];
    let blocks = pages.map(|page| page::marked(page, NAME).unwrap()).concat();
    let commands: BTreeSet<_> = blocks.iter().flat_map(page::Block::commands).collect();
    let (runs, ups): (Vec<_>, Vec<_>) = commands.iter().partition(|it| it.contains("docker run "));
    assert_eq!((runs.len(), ups.len()), (1, 3), "{commands:?}");
    for command in ups {
        let services = Services::of_checkout();
        services.up_as_printed(command);
        services.wait_until_healthy(&["envoy", "app"]);
        let secret = command.contains("your-key").then_some("your-key");
        let event = body("printed");
        let genuine = signed(&event, secret.unwrap_or(SECRET), 0);
        assert_eq!(send(PORT, &genuine).status, 200, "{command}");
        assert_eq!(send(PORT, &forged(&event)).status, 401, "{command}");
        assert_eq!(services.deliveries(&id_of(&event)), 1, "{command}");
    }
    let container = run(&mut printed(runs[0], "docker "));
    let container = container.trim();
    let healthy = wait::wait_for_within(PATIENCE, "the container to be healthy", || {
        let health = ["inspect", "--format", "{{.State.Health.Status}}", container];
        (run(&mut docker(&health)) == "healthy\n").then_some(())
    });
    run(&mut docker(&["rm", "--force", container]));
    healthy.unwrap();
}

#[test]
fn a_missing_secret_is_named_and_hinders_no_other_command() {
    assert_names_the_missing_secret(&Services::of("", &[]));
    assert_names_the_missing_secret(&Services::of("", &[(".env", NATIVE)]));
}

#[track_caller]
fn assert_names_the_missing_secret(services: &Services) {
    for command in [&["ps"][..], &["logs"], &["down"], &["config", "--quiet"]] {
        run(&mut services.compose(command));
    }
    services.up();
    let log = services.wait_for_log("envoy", "callback-guard: Envoy ended with status 1");
    assert!(
        log.contains("environment variable `SUNO_WEBHOOK_KEY` is not set"),
        "{log}"
    );
    assert!(log.contains(".env beside compose.yaml"), "{log}");
    let down = output(&mut services.compose(&["down"]));
    assert!(down.status.success(), "{down:?}");
}
