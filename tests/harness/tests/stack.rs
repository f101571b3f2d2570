//! The harness against a real Envoy with no guard in it: what the end-to-end tests rely on.

#![allow(clippy::unwrap_used)] // In the functions that the tests share.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use callback_guard_harness::client::Connection;
use callback_guard_harness::render::buffer_filter;
use callback_guard_harness::upstream::unused_address;
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{
    Answer, Body, BodyState, Gate, Load, Outcome, Piece, Protocol, RawConnection, Request, Setup,
    Stack, Update, client,
};
use serde_json::json;

/// A stack for one test; Envoy is there in a quarter of a second.
fn plain() -> Stack {
    Setup::new().without_guard().start().unwrap()
}

#[test]
fn a_request_reaches_the_upstream_as_it_was_sent() {
    let stack = plain();
    let bodies = [
        ("empty", Body::empty(), ""),
        ("one piece", Body::one_piece("0123456789"), "0123456789"),
        ("split", Body::split(["0123", "45", "6789"]), "0123456789"),
        ("chunked", Body::chunked(["0123", "456789"]), "0123456789"),
        ("chunked, empty", Body::chunked([""; 0]), ""),
    ];
    for protocol in Protocol::ALL {
        for (name, body, expected) in &bodies {
            stack.upstream.clear();
            let request = Request::post("/some/path?query=1")
                .header("x-test", b"caf\xe9")
                .header("x-test", "second")
                .body(body.clone())
                .protocol(protocol);
            let response = stack.send(&request).unwrap();
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, "received\n")
            );

            let records = stack
                .upstream
                .wait_until("the answer", |records| {
                    records
                        .iter()
                        .any(|record| record.outcome == Outcome::Answered)
                })
                .unwrap();
            assert_eq!(records.len(), 1, "{name}, {protocol:?}");
            let record = &records[0];
            assert_eq!(record.body, expected.as_bytes(), "{name}, {protocol:?}");
            assert_eq!(record.body_state, BodyState::Complete);
            assert_eq!(record.head.method, "POST");
            assert_eq!(record.head.path, "/some/path?query=1");
            assert_eq!(record.head.host, "callbacks.test");
            let values: Vec<_> = record
                .head
                .headers
                .iter()
                .filter(|(name, _)| name == "x-test")
                .collect();
            assert_eq!(values[0].1, b"caf\xe9");
            assert_eq!(values[1].1, b"second");
        }
    }
}

#[test]
fn a_split_body_shows_its_head_first_and_a_held_one_does_not() {
    for protocol in Protocol::ALL {
        let stack = plain();
        let gate = Gate::new();
        let body = Body::pieces(vec![
            Piece::Data("first".into()),
            Piece::Wait(gate.clone()),
            Piece::Data("second".into()),
        ]);
        let request = Request::post("/").body(body).protocol(protocol);
        let sending = stack.begin(&request).unwrap();
        let records = stack.upstream.wait_until("half a body", |records| {
            records
                .first()
                .is_some_and(|record| record.body == b"first")
        });
        assert_eq!(records.unwrap()[0].body_state, BodyState::Receiving);
        assert!(!sending.is_finished());
        gate.open();
        assert_eq!(sending.finish().unwrap().status, 200);
        assert_eq!(stack.upstream.recorded()[0].body, b"firstsecond");
    }

    let held = Setup::new()
        .render(|render| render.after_guard(buffer_filter(1024)).without_guard())
        .start()
        .unwrap();
    let gate = Gate::new();
    let body = Body::pieces(vec![
        Piece::Data("first".into()),
        Piece::Wait(gate.clone()),
        Piece::Data("second".into()),
    ]);
    let sending = held.begin(&Request::post("/").body(body)).unwrap();
    wait_for("Envoy to have the request", || {
        (held
            .envoy
            .stat("http.callbacks.downstream_rq_active")
            .unwrap()
            == 1)
            .then_some(())
    })
    .unwrap();
    assert_eq!(held.upstream.heads(), 0);
    gate.open();
    assert_eq!(sending.finish().unwrap().status, 200);
}

#[test]
fn trailers_travel_where_they_are_enabled() {
    let stack = Setup::new()
        .without_guard()
        .render(callback_guard_harness::Render::http1_trailers)
        .start()
        .unwrap();
    for protocol in Protocol::ALL {
        stack.upstream.clear();
        let body = Body::chunked(["some"]).trailer("x-check", "sum");
        let request = Request::post("/").body(body).protocol(protocol);
        assert_eq!(stack.send(&request).unwrap().status, 200);
        let trailers = &stack.upstream.recorded()[0].trailers;
        assert_eq!(
            trailers,
            &[("x-check".to_owned(), b"sum".to_vec())],
            "{protocol:?}"
        );
    }
}

#[test]
fn the_upstream_fails_as_it_is_told() {
    let stack = Setup::new()
        .without_guard()
        .render(|render| render.route_timeout(Duration::from_millis(300)))
        .start()
        .unwrap();
    let never = Gate::new();
    let rows = [
        (
            "its own error",
            Answer::status(500),
            Some(500),
            "via_upstream",
        ),
        (
            "reset",
            Answer::reset(),
            Some(503),
            "upstream_reset_before_response_started",
        ),
        (
            "silence",
            Answer::status(200).when(&never),
            Some(504),
            "response_timeout",
        ),
        (
            "late",
            Answer::status(200).after(Duration::from_secs(9)),
            Some(504),
            "response_timeout",
        ),
        (
            "cut short",
            Answer::cut_short(200),
            None,
            "upstream_reset_after_response_started",
        ),
        (
            "at the head",
            Answer::status(202).before_body(),
            Some(202),
            "via_upstream",
        ),
    ];
    for (name, answer, status, details) in rows {
        stack.upstream.answer(answer);
        // No guard, so the log shows no path: the host distinguishes the lines.
        let host = name.replace([' ', ','], "-");
        let response = stack.send(&Request::post("/").host(&host).body("body"));
        assert_eq!(
            response.as_ref().map(|response| response.status).ok(),
            status,
            "{name}"
        );
        let line = stack
            .envoy
            .wait_for_access(name, |line| line["host"] == host.as_str());
        let found = line.unwrap()["details"].as_str().unwrap().to_owned();
        assert!(found.starts_with(details), "{name}: {found}");
    }

    stack
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(204)]);
    let next = || stack.send(&Request::post("/")).unwrap().status;
    assert_eq!([next(), next(), next()], [500, 204, 204]);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_envoys_503() {
    let stack = plain();
    stack.upstream.close_connections(true);
    assert_eq!(
        stack.send(&Request::post("/").body("body")).unwrap().status,
        503
    );
    assert_eq!(stack.upstream.heads(), 0);
    assert!(stack.upstream.connections() > 0);

    let nobody = unused_address().unwrap();
    let elsewhere = json!({
        "name": "nobody",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": "nobody", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": { "socket_address": { "address": nobody.ip(), "port_value": nobody.port() } } }
        }] }] },
    });
    let stack = Setup::new()
        .without_guard()
        .render(|render| {
            render.add_cluster(elsewhere).connection_manager(|manager| {
                manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] =
                    "nobody".into();
            })
        })
        .start()
        .unwrap();
    assert_eq!(
        stack.send(&Request::post("/").body("body")).unwrap().status,
        503
    );
}

#[test]
fn a_client_that_goes_away_is_seen_at_the_upstream() {
    for protocol in Protocol::ALL {
        let stack = plain();
        let never = Gate::new();
        stack.upstream.answer(Answer::status(200).when(&never));
        let request = Request::post("/").body("body").protocol(protocol);
        let sending = stack.begin(&request).unwrap();
        stack.upstream.wait_for_requests(1).unwrap();
        sending.abort();
        let abandoned = stack.upstream.wait_until("the end of it", |records| {
            records[0].outcome == Outcome::Abandoned
        });
        assert_eq!(abandoned.unwrap()[0].body_state, BodyState::Complete);

        let body = Body::pieces(vec![
            Piece::Data("half".into()),
            Piece::Pause(Duration::from_millis(20)),
            Piece::Abort,
        ]);
        let request = Request::post("/cut").body(body).protocol(protocol);
        stack.send(&request).unwrap_err();
        let cut = stack.upstream.wait_until("the end of the body", |records| {
            records
                .last()
                .is_some_and(|record| record.body_state == BodyState::CutShort)
        });
        assert_eq!(cut.unwrap().len(), 2);
    }
}

#[test]
fn bytes_written_by_hand_arrive_as_they_are() {
    let stack = plain();
    let request = b"POST /raw HTTP/1.1\r\nhost: a\r\nx-bytes: \xff\xfe\r\nx-bytes: again\r\ncontent-length: 2\r\n\r\n{}";
    let response = stack.raw(request).unwrap().unwrap();
    assert_eq!(response.status, 200);
    let head = &stack.upstream.recorded()[0].head;
    let values: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| name == "x-bytes")
        .map(|(_, value)| value.clone())
        .collect();
    assert_eq!(values, [b"\xff\xfe".to_vec(), b"again".to_vec()]);

    let refused = stack.raw("POST / HTTP/1.1\r\nhost: a\r\nx_y: 1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(refused.unwrap().unwrap().status, 400);

    // Two on one connection, the second one chunked and in two parts.
    let mut connection = RawConnection::open(stack.address()).unwrap();
    connection
        .write("POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    assert_eq!(
        connection.read_response().unwrap().unwrap().text(),
        "received\n"
    );
    connection
        .write("POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc")
        .unwrap();
    stack
        .upstream
        .wait_until("its head", |records| records.len() == 3)
        .unwrap();
    connection.write("\r\n0\r\n\r\n").unwrap();
    assert_eq!(connection.read_response().unwrap().unwrap().status, 200);
}

#[test]
fn many_requests_at_once() {
    let stack = plain();
    for load in [Load::http1(4), Load::http2(2, 50)] {
        stack.upstream.clear();
        let requests: Vec<_> = (0..1000)
            .map(|number| Request::post("/").body(format!("{number}")))
            .collect();
        let responses = stack.send_all(requests, load).unwrap();
        assert_eq!(responses.len(), 1000);
        for response in responses {
            assert_eq!(response.unwrap().status, 200, "{load:?}");
        }
        let mut numbers: Vec<usize> = stack
            .upstream
            .recorded()
            .iter()
            .map(|record| String::from_utf8_lossy(&record.body).parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }
    let connections = stack
        .envoy
        .stat("http.callbacks.downstream_cx_http1_total")
        .unwrap();
    assert_eq!(connections, 4);

    let status = client::block_on(async {
        let mut first = Connection::open(stack.address(), Protocol::Http2).await?;
        let mut second = first.share().unwrap();
        first.send(&Request::get("/1")).await?;
        second
            .send(&Request::get("/2"))
            .await
            .map(|response| response.status)
    });
    assert_eq!(status.unwrap().unwrap(), 200);
}

#[test]
fn the_listener_changes_while_it_serves() {
    let stack = Setup::new()
        .without_guard()
        .dynamic_listener()
        .start()
        .unwrap();
    let address = stack.address();
    assert_eq!(stack.send(&Request::get("/")).unwrap().status, 200);

    let answer = |status: u32| {
        move |render: callback_guard_harness::Render| {
            render.connection_manager(|manager| {
                manager["route_config"]["virtual_hosts"][0]["routes"] = json!([
                    { "match": { "prefix": "/" }, "direct_response": { "status": status } }
                ]);
            })
        }
    };
    for status in [201, 202, 203] {
        assert_eq!(stack.update(answer(status)).unwrap(), Update::Accepted);
        // On every worker: some of these meet each.
        for _ in 0..20 {
            assert_eq!(
                stack.send(&Request::get("/")).unwrap().status,
                u16::try_from(status).unwrap()
            );
        }
    }
    assert_eq!(
        stack.update(|render| render).unwrap(),
        Update::Accepted,
        "no change"
    );

    let wrong = |render: callback_guard_harness::Render| {
        render.connection_manager(|manager| manager["stat_prefix"] = "".into())
    };
    let Update::Rejected(reason) = stack.update(wrong).unwrap() else {
        panic!("an empty stat_prefix is accepted");
    };
    assert!(reason.contains("StatPrefix"), "{reason}");
    assert_eq!(stack.send(&Request::get("/")).unwrap().status, 203);
    assert_eq!(stack.address(), address);

    let static_one = plain();
    static_one.update(|render| render).unwrap_err();
}

#[test]
fn envoy_shows_what_it_does() {
    // Shared, as tests may do: Envoy must not end with the thread that started it.
    static SHARED: LazyLock<Stack> = LazyLock::new(plain);
    std::thread::spawn(|| {
        let request = Request::get("/one").host("one.example");
        assert_eq!(SHARED.send(&request).unwrap().status, 200);
    })
    .join()
    .unwrap();
    let envoy = &SHARED.envoy;
    assert!(envoy.is_running());
    assert_eq!(SHARED.send(&Request::get("/two")).unwrap().status, 200);

    assert_eq!(envoy.stat("cluster.app.upstream_rq_200").unwrap(), 2);
    assert_eq!(envoy.stat("no.such.thing").unwrap(), 0);
    assert!(
        envoy
            .prometheus()
            .unwrap()
            .contains("envoy_cluster_upstream_rq_total")
    );
    assert_eq!(envoy.admin_get("/ready").unwrap().trim(), "LIVE");
    envoy.admin_get("/no-such-page").unwrap_err();
    envoy.admin_post("/logging?wasm=debug").unwrap();
    assert!(envoy.log().contains("starting main dispatch loop"));
    assert!(envoy.rss_bytes().unwrap() > 10_000_000);

    let line = envoy
        .wait_for_access("its line", |line| line["host"] == "one.example")
        .unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["details"], "via_upstream");
    assert_eq!(line["verdict"], json!(null));
    assert_eq!(line["upstream"], SHARED.upstream.address().to_string());
}

/// Whether a process runs; one that has ended and not been waited for does not.
fn alive(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[test]
fn no_process_is_left() {
    let mut stack = plain();
    let first = stack.envoy.process_id();
    assert!(alive(first));
    stack.restart().unwrap();
    assert!(!alive(first));
    assert_eq!(stack.send(&Request::get("/")).unwrap().status, 200);

    let second = stack.envoy.process_id();
    stack.envoy.kill();
    assert!(!stack.envoy.is_running());
    assert!(!stack.envoy.log().is_empty());
    stack.send(&Request::get("/")).unwrap_err();
    drop(stack);
    assert!(!alive(second));
}

#[test]
fn no_process_is_left_by_a_process_that_is_killed() {
    const FILE: &str = "WRITE_ENVOYS_PROCESS_ID_TO";

    // This test starts itself once more. That one starts an Envoy, says so, and waits to be killed.
    if let Some(file) = std::env::var_os(FILE) {
        let stack = plain();
        fs::write(file, format!("{}\n", stack.envoy.process_id())).unwrap();
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("id");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_process_is_left_by_a_process_that_is_killed"])
        .env(FILE, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let envoy = wait_for("Envoy's process id", || {
        let text = fs::read_to_string(&file).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    });
    victim.kill().unwrap();
    victim.wait().unwrap();
    let envoy = envoy.unwrap();
    wait_for("Envoy to end", || (!alive(envoy)).then_some(())).unwrap();
}

#[test]
fn an_envoy_that_does_not_come_up_says_why() {
    let wrong = || {
        Setup::new().without_guard().render(|render| {
            render.connection_manager(|manager| manager["stat_prefix"] = "".into())
        })
    };
    let error = format!("{:#}", wrong().start().unwrap_err());
    assert!(error.contains("StatPrefix"), "{error}");
    let error = format!("{:#}", wrong().dynamic_listener().start().unwrap_err());
    assert!(error.contains("StatPrefix"), "{error}");

    let output = wrong().validate().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("StatPrefix"));
    let output = Setup::new().without_guard().validate().unwrap();
    assert!(output.status.success());

    let twice = Setup::new().without_guard().without_guard();
    let error = format!("{:#}", twice.start().unwrap_err());
    assert_eq!(
        error,
        "the Envoy configuration has no envoy.filters.http.wasm"
    );
}

/// What `envoy.yaml` promises about requests that never reach a filter, or ask Envoy for favours.
#[test]
fn the_edge_is_strict() {
    let stack = plain();
    let rows = [
        ("underscore", Request::post("/").header("x_a", "1"), 400),
        ("escaped slash", Request::post("/callbacks%2fsuno"), 400),
        (
            "too many headers",
            (0..140).fold(Request::post("/"), |request, number| {
                request.header(&format!("x-{number}"), "1")
            }),
            431,
        ),
        (
            "long header",
            Request::post("/").header("x-long", "a".repeat(40_000)),
            431,
        ),
    ];
    for (name, request, status) in rows {
        assert_eq!(stack.send(&request).unwrap().status, status, "{name}");
    }
    assert_eq!(stack.upstream.heads(), 0);

    let request = Request::post("//callbacks/./x/..//suno").host("Callbacks.Test.:10000");
    assert_eq!(stack.send(&request).unwrap().status, 200);
    let head = stack.upstream.recorded()[0].head.clone();
    assert_eq!(
        (head.path.as_str(), head.host.as_str()),
        ("/callbacks/suno", "Callbacks.Test")
    );

    // A sender cannot have Envoy deliver twice, nor shorten the time.
    stack.upstream.clear();
    stack
        .upstream
        .answer(Answer::status(503).after(Duration::from_millis(100)));
    let request = Request::post("/")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-max-retries", "3")
        .header("x-envoy-upstream-rq-timeout-ms", "1");
    let response = stack.send(&request).unwrap();
    assert_eq!((response.status, response.text().as_str()), (503, ""));
    assert_eq!(stack.upstream.heads(), 1);
    assert!(
        !response
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("x-envoy"))
    );
    assert_eq!(response.header("server"), None);
}
