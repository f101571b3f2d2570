//! The end of an Envoy, and a new one beside it: `deploy/envoy/drain.sh` lets what is in flight get its
//! answer; a canary gets copies of what the old one has accepted (docs/upgrading.md).

use std::process::{Child, Command, ExitStatus, Stdio};

use callback_guard_harness::{Answer, Gate, Request, client, page, places, upstream, wait};
use serde_json::json;

use callback_guard_support::{Guarded, event, signed};

/// Runs the script against an Envoy, with these seconds for what is in flight.
fn drain(guarded: &Guarded, seconds: u32) -> Child {
    drain_at(guarded.envoy.admin_address().port(), seconds)
}

fn drain_at(port: u16, seconds: u32) -> Child {
    Command::new("bash")
        .arg(places::repository().join("deploy/envoy/drain.sh"))
        .env("CALLBACK_GUARD_ADMIN_PORT", port.to_string())
        .env("CALLBACK_GUARD_DRAIN_SECONDS", seconds.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status, said)
}

fn is_ready(guarded: &Guarded) -> bool {
    let port = guarded.envoy.admin_address().port().to_string();
    let mut command = Command::new("bash");
    command
        .arg(places::repository().join("deploy/envoy/drain.sh"))
        .arg("--is-ready")
        .env("CALLBACK_GUARD_ADMIN_PORT", port);
    command.status().unwrap().success()
}

fn wait_until_closed(guarded: &Guarded) {
    wait::wait_for("no new connection to be taken", || {
        std::net::TcpStream::connect(guarded.address())
            .is_err()
            .then_some(())
    })
    .unwrap();
}

#[test]
fn a_delivery_in_flight_gets_its_answer_before_envoy_is_stopped() {
    let guarded = Guarded::start();
    assert!(is_ready(&guarded));
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let (_, body) = event("in-flight");
    let delivery = guarded.begin_delivery(&signed(&body));
    // A retry of it, that waits for the first.
    let waiting = guarded.begin_waiting(&signed(&body));

    let mut draining = drain(&guarded, 60);
    wait_until_closed(&guarded);
    assert!(!is_ready(&guarded));
    assert!(draining.try_wait().unwrap().is_none());
    assert!(!delivery.is_finished());

    gate.open();
    let (status, said) = end(draining);
    assert!(status.success(), "{said}");
    assert_eq!(said, "drain: no request is in flight\n");
    assert_eq!(delivery.finish().unwrap().status, 200);
    let second = waiting.finish().unwrap();
    assert_eq!(second.status, 200);
    assert_eq!(
        second.header("x-callback-guard").as_deref(),
        Some("duplicate")
    );
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn a_drain_has_an_end() {
    let guarded = Guarded::start();
    let gate = Gate::new();
    guarded.upstream.answer(Answer::status(200).when(&gate));
    let delivery = guarded.begin_delivery(&signed(&event("in-flight").1));
    let (status, said) = end(drain(&guarded, 1));
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        said,
        "drain: 1 requests are still in flight after 1 s (CALLBACK_GUARD_DRAIN_SECONDS)\n"
    );
    gate.open();
    assert_eq!(delivery.finish().unwrap().status, 200);
}

#[test]
fn a_drain_says_where_it_looked_for_envoy() {
    let port = upstream::unused_address().unwrap().port();
    let (status, said) = end(drain_at(port, 1));
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        said,
        format!(
            "drain: no answer from Envoy's admin port at 127.0.0.1:{port} (CALLBACK_GUARD_ADMIN_PORT)\n"
        )
    );
}

/// So that a keep-alive connection of a sender moves to the next Envoy.
#[test]
fn while_it_drains_each_answer_closes_its_connection() {
    let guarded = Guarded::start();
    let mut connection = client::RawConnection::open(guarded.address()).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    connection.write(request).unwrap();
    let before = connection.read_response().unwrap().unwrap();
    assert_eq!(before.header("connection"), None);
    let (status, said) = end(drain(&guarded, 60));
    assert!(status.success(), "{said}");
    connection.write(request).unwrap();
    let after = connection.read_response().unwrap().unwrap();
    assert_eq!(after.header("connection").as_deref(), Some("close"));
}

#[test]
fn a_canary_judges_copies_and_changes_nothing() {
    let printed = page::block(
        "docs/upgrading.md",
        "a_canary_judges_copies_and_changes_nothing",
    );
    let mut printed = printed.unwrap().value().unwrap();
    let canary = Guarded::start();
    let address = canary.address();
    let cluster = json!({
        "name": "canary",
        "load_assignment": { "cluster_name": "canary", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": address.port() } },
        } }] }] },
    });
    let guarded = Guarded::builder()
        .render(|render| {
            render.add_cluster(cluster).connection_manager(|manager| {
                let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
                route["request_mirror_policies"] =
                    printed["route"]["request_mirror_policies"].take();
            })
        })
        .start();
    // What the canary's application says reaches nobody.
    canary.upstream.answer(Answer::status(500));
    let (_, body) = event("copied");
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    canary.upstream.wait_for_requests(1).unwrap();
    // A duplicate is answered by the old one, and not copied; nor is a request without a signature.
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    let unsigned = Request::post("/callbacks/suno").json(body);
    assert_eq!(guarded.send(&unsigned).status, 401);
    let (_, last) = event("copied");
    assert_eq!(guarded.send(&signed(&last)).status, 200);
    canary.upstream.wait_for_requests(2).unwrap();
    assert_eq!(canary.requests("suno", "forwarded"), 2);
    assert_eq!(canary.requests("suno", "signature_missing"), 0);
    assert_eq!(guarded.upstream.heads(), 2);
}
