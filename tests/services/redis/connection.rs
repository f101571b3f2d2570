//! A connection of the native build's own to Redis, in what a front has not: its URL, TLS, its thread, and how
//! it comes back.

use std::fs;
use std::time::Duration;

use callback_guard_harness::fleet::{AUTHORITIES_VARIABLE, URL_VARIABLE};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{
    Envoy, Filter, Fleet, FleetSetup, Network, Setup, Update, Way, client,
};
use serde_json::json;

use super::support::callback;

fn one() -> FleetSetup<'static> {
    FleetSetup::by(Way::Connection, 1).workers(1)
}

fn patient() -> FleetSetup<'static> {
    one().patient()
}

/// The kinds of errors that were counted.
fn errors(fleet: &Fleet) -> Vec<String> {
    let stats = fleet.envoys[0].stats().unwrap();
    let start = "wasmcustom.callback_guard.store_errors_total.error.";
    let counted = stats.into_iter().filter(|(_, count)| *count > 0);
    counted
        .filter_map(|(name, _)| Some(name.strip_prefix(start)?.to_owned()))
        .collect()
}

/// The URL and what it is made of are in nothing that Envoy shows.
fn assert_discreet(fleet: &Fleet) {
    let envoy = &fleet.envoys[0];
    let mut shown = vec![envoy.log()];
    for page in ["/config_dump", "/stats", "/clusters", "/server_info"] {
        shown.push(envoy.admin_get(page).unwrap());
    }
    for secret in ["p%40ss", "p@ss", "another-secret", "redis://", "rediss://"] {
        for text in &shown {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

/// Threads of Envoy that serve connections.
fn threads(envoy: &Envoy) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", envoy.process_id())).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "callback-redis")
        .count()
}

#[test]
fn events_are_shared_over_tls() {
    let fleet = FleetSetup::by(Way::Connection, 2)
        .patient()
        .tls()
        .start()
        .unwrap();
    assert_eq!(fleet.send(0, &callback("t1")).unwrap().text(), "received\n");
    let again = fleet.send(1, &callback("t1")).unwrap();
    let code = again.header("x-callback-guard");
    assert_eq!(code.as_deref(), Some("duplicate"));
    assert_eq!(fleet.upstream.heads(), 1);
    assert_eq!(fleet.keys().unwrap().len(), 1);
    assert_discreet(&fleet);
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_asked() {
    // Authorities there are, but not this one.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    fs::write(&path, other.cert.pem()).unwrap();
    let fleet = patient()
        .tls()
        .env(AUTHORITIES_VARIABLE, path.to_str().unwrap())
        .start()
        .unwrap();
    assert_eq!(fleet.send(0, &callback("v1")).unwrap().text(), "received\n");
    assert_eq!(errors(&fleet), ["unreachable"]);
    assert_eq!(fleet.keys().unwrap().len(), 0);
    let log = fleet.envoys[0].log();
    assert!(
        log.contains("no connection to Redis: unreachable: invalid peer certificate"),
        "{log}"
    );
    assert_discreet(&fleet);
}

#[test]
fn a_wrong_password_is_denied_and_said() {
    for login in [
        "guard:another-secret",
        "nobody:another-secret",
        ":another-secret",
    ] {
        let fleet = patient().login(login).start().unwrap();
        assert_eq!(fleet.send(0, &callback("w1")).unwrap().text(), "received\n");
        assert_eq!(errors(&fleet), ["denied"], "{login}");
        assert_eq!(
            fleet.stat("store_fallbacks_total.action.memory").unwrap(),
            1
        );
        let log = fleet.envoys[0].log();
        assert!(log.contains("no connection to Redis: denied"), "{log}");
        assert_discreet(&fleet);
    }
}

#[test]
fn a_command_that_the_user_may_not_use_is_counted_as_refused() {
    let fleet = patient().start().unwrap();
    fleet
        .redis
        .command(&["ACL", "SETUSER", "guard", "-eval", "-evalsha"])
        .unwrap();
    assert_eq!(fleet.send(0, &callback("n1")).unwrap().text(), "received\n");
    assert_eq!(errors(&fleet), ["redis"]);
    assert_eq!(fleet.upstream.heads(), 1);
}

#[test]
fn a_redis_that_has_forgotten_the_scripts_is_told_them() {
    let fleet = patient().start().unwrap();
    for id in ["f1", "f2"] {
        assert_eq!(fleet.send(0, &callback(id)).unwrap().text(), "received\n");
        fleet.redis.command(&["SCRIPT", "FLUSH", "SYNC"]).unwrap();
    }
    assert_eq!(fleet.send(0, &callback("f3")).unwrap().text(), "received\n");
    assert_eq!(fleet.keys().unwrap().len(), 3);
    assert!(errors(&fleet).is_empty());
    // Claim and settle: told at first, forgotten and told again, told again.
    assert_eq!(fleet.redis.calls("eval").unwrap(), 6);
    assert_eq!(fleet.redis.calls("evalsha").unwrap(), 4);
}

#[test]
fn an_idle_connection_that_is_closed_costs_no_event() {
    let fleet = patient().start().unwrap();
    for id in ["i1", "i2", "i3"] {
        assert_eq!(fleet.send(0, &callback(id)).unwrap().text(), "received\n");
        let before = fleet.relay.connections();
        fleet
            .redis
            .command(&["CLIENT", "KILL", "USER", "guard"])
            .unwrap();
        wait_for("another connection", || {
            (fleet.relay.connections() > before).then_some(())
        })
        .unwrap();
    }
    assert!(errors(&fleet).is_empty());
    assert_eq!(fleet.keys().unwrap().len(), 3);
}

#[test]
fn a_slow_redis_costs_time_and_nothing_else() {
    let fleet = patient().start().unwrap();
    assert_eq!(fleet.send(0, &callback("s0")).unwrap().status, 200);
    fleet.relay.set(Network::Slow);
    let before = fleet.relay.connections();
    for id in ["s1", "s2"] {
        let response = fleet.send(0, &callback(id)).unwrap();
        assert_eq!(response.text(), "received\n");
        // There and back, to claim and to settle.
        assert!(
            response.took >= Duration::from_millis(400),
            "{:?}",
            response.took
        );
    }
    assert!(errors(&fleet).is_empty());
    assert_eq!(fleet.relay.connections(), before);
    assert_eq!(fleet.keys().unwrap().len(), 3);
}

#[test]
fn a_redis_that_hangs_costs_its_timeouts_and_comes_back() {
    let fleet = one().start().unwrap();
    assert_eq!(fleet.send(0, &callback("h0")).unwrap().status, 200);
    fleet.redis.hangs().unwrap();
    for number in 1..=6 {
        let response = fleet.send(0, &callback(&format!("h{number}"))).unwrap();
        assert_eq!(response.text(), "received\n");
    }
    assert!(errors(&fleet).contains(&"timeout".to_owned()));
    assert_eq!(fleet.stat("store_circuits_open").unwrap(), 1);
    fleet.redis.goes_on().unwrap();
    // What was delivered meanwhile is recorded.
    wait_for("all events in Redis", || {
        (fleet.keys().unwrap().len() == 7).then_some(())
    })
    .unwrap();
    wait_for("the circuit to close", || {
        (fleet.stat("store_circuits_open").unwrap() == 0).then_some(())
    })
    .unwrap();
    assert_eq!(fleet.upstream.heads(), 7);
}

#[test]
fn a_program_that_is_no_redis_is_malformed() {
    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap();
    std::thread::spawn(move || {
        // Kept: one that is closed with bytes unread is reset, and nobody reads the answer.
        let mut kept = Vec::new();
        for mut stream in web.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            kept.push(stream);
        }
    });
    let store = json!({ "kind": "redis", "url_env": URL_VARIABLE, "timeout_milliseconds": 10_000 });
    let fleet = one().front(store, address).start().unwrap();
    assert_eq!(fleet.send(0, &callback("m1")).unwrap().text(), "received\n");
    assert_eq!(errors(&fleet), ["malformed"]);
}

#[test]
fn a_configuration_that_goes_takes_its_thread_along() {
    let fleet = one().start().unwrap();
    let url = format!("redis://guard:p%40ss%2Fword@{}", fleet.relay.address());
    let stack = Setup::new()
        .filter(Filter::Native)
        .workers(2)
        .dynamic_listener()
        // How long the listener before keeps its configuration.
        .options(|options| {
            options
                .arguments
                .extend(["--drain-time-s", "1"].map(str::to_owned));
        })
        .env(URL_VARIABLE, &url)
        .guard(|config| config["store"] = json!({ "kind": "redis", "url_env": URL_VARIABLE }))
        .start()
        .unwrap();
    let wait_for_threads = |count: usize| {
        wait_for(&format!("{count} threads"), || {
            (threads(&stack.envoy) == count).then_some(())
        })
        .unwrap();
    };
    wait_for_threads(1);
    for number in 0..3 {
        let id = format!("reload-{number}");
        assert_eq!(stack.send(&callback(&id)).unwrap().text(), "received\n");
        let update = stack.update(|render| {
            render.guard(|config| config["store"]["capacity"] = (2_000 + number).into())
        });
        assert_eq!(update.unwrap(), Update::Accepted);
        wait_for_threads(1);
    }
    assert_eq!(fleet.keys().unwrap().len(), 3);
    let update =
        stack.update(|render| render.guard(|config| config["store"] = json!({ "kind": "memory" })));
    assert_eq!(update.unwrap(), Update::Accepted);
    wait_for_threads(0);
    assert_eq!(
        stack.send(&callback("reload-memory")).unwrap().text(),
        "received\n"
    );
    assert!(!stack.envoy.log().contains("panic"));
}

#[test]
fn an_envoy_with_calls_on_their_way_ends_well() {
    let fleet = patient().start().unwrap();
    assert_eq!(fleet.send(0, &callback("q0")).unwrap().status, 200);
    fleet.redis.hangs().unwrap();
    let before = fleet.relay.bytes();
    let held = client::begin(fleet.envoys[0].listener_address(), callback("q1")).unwrap();
    wait_for("the claim", || (fleet.relay.bytes() > before).then_some(())).unwrap();
    // Whether Envoy still answers that matters to nobody: how it ends does.
    let _ = fleet.envoys[0].admin_post("/quitquitquit");
    wait_for("Envoy to end", || {
        (!fleet.envoys[0].is_running()).then_some(())
    })
    .unwrap();
    assert_eq!(
        fleet.envoys[0].exit_code(),
        Some(0),
        "{}",
        fleet.envoys[0].log()
    );
    drop(held);
    fleet.redis.goes_on().unwrap();
}

#[test]
fn the_webassembly_module_says_who_can() {
    let output = Setup::new()
        .filter(Filter::Wasm)
        .env(URL_VARIABLE, "redis://:another-secret@127.0.0.1")
        .guard(|config| config["store"] = json!({ "kind": "redis", "url_env": URL_VARIABLE }))
        .validate()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("store.url_env: needs the native build"),
        "{said}"
    );
    assert!(!said.contains("another-secret"), "{said}");
}
