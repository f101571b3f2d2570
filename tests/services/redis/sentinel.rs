//! A Redis that Sentinels look after: the native build follows it where they say that it is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use callback_guard_harness::fleet::{Redis, Sentinel, URL_VARIABLE, find_servers};
use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Envoy, FleetSetup, Way};
use serde_json::json;

use super::support::callback;

const CONNECTED: &str = "connected to Redis";

/// Envoys that find their Redis by these Sentinels.
fn by(
    sentinels: &[SocketAddr],
    options: &str,
    envoys: usize,
    any: SocketAddr,
) -> FleetSetup<'static> {
    let hosts: Vec<String> = sentinels.iter().map(SocketAddr::to_string).collect();
    let hosts = hosts.join(",");
    let url = format!("redis+sentinel://guard:p%40ss%2Fword@{hosts}/mymaster/0{options}");
    let store = json!({ "kind": "redis", "url_env": URL_VARIABLE, "timeout_milliseconds": 10_000 });
    FleetSetup::by(Way::Connection, envoys)
        .front(store, any)
        .env(URL_VARIABLE, &url)
        // What is delivered while there is no master is recorded once there is one, within the lease.
        .guard(|config| config["sources"][0]["dedupe"] = json!({ "lease_seconds": 300 }))
}

fn events(redis: &Redis) -> usize {
    let keys = redis.command(&["KEYS", "*"]).unwrap_or_default();
    keys.lines().filter(|key| !key.contains(":id:")).count()
}

fn wait_for_events(redis: &Redis, count: usize) {
    wait_for(&format!("{count} events"), || {
        (events(redis) == count).then_some(())
    })
    .unwrap();
}

fn wait_for_connections(envoy: &Envoy, count: usize) {
    wait_for(&format!("connection {count}"), || {
        (envoy.log().matches(CONNECTED).count() == count).then_some(())
    })
    .unwrap();
}

#[test]
fn each_event_is_delivered_once_while_the_master_and_the_first_sentinel_die() {
    find_servers(&|_| {}).unwrap();
    let (mut master, replica) = (Redis::start().unwrap(), Redis::start().unwrap());
    replica.follow(&master).unwrap();
    let mut sentinels = [(); 3].map(|()| Sentinel::start(&master).unwrap());
    for sentinel in &sentinels {
        sentinel.knows(2).unwrap();
    }
    let addresses = sentinels.each_ref().map(Sentinel::address);
    let login = "?sentinel_username=watcher&sentinel_password=w%40tch";
    let fleet = by(&addresses, login, 2, master.address()).start().unwrap();
    for envoy in &fleet.envoys {
        wait_for_connections(envoy, 1);
    }

    let before = ["b0", "b1", "b2"];
    for id in before {
        assert_eq!(fleet.send(0, &callback(id)).unwrap().text(), "received\n");
    }
    assert_eq!(events(&master), before.len());
    // What a master has acknowledged and not passed on is lost with it: no promise is made of that.
    wait_for_events(&replica, before.len());

    let [first, ..] = &mut sentinels;
    first.kill();
    master.kill();
    let meanwhile = ["m0", "m1", "m2", "m3"];
    for id in meanwhile {
        assert_eq!(fleet.send(0, &callback(id)).unwrap().text(), "received\n");
    }

    wait_for("a Sentinel to promote the replica", || {
        let role = replica.command(&["ROLE"]).ok()?;
        role.starts_with("master").then_some(())
    })
    .unwrap();
    for envoy in &fleet.envoys {
        wait_for_connections(envoy, 2);
    }
    wait_for_events(&replica, before.len() + meanwhile.len());
    for id in before.into_iter().chain(meanwhile) {
        let again = fleet.send(1, &callback(id)).unwrap();
        let code = again.header("x-callback-guard");
        assert_eq!(code.as_deref(), Some("duplicate"), "{id}");
    }
    assert_eq!(
        fleet.send(1, &callback("after")).unwrap().text(),
        "received\n"
    );
    assert_eq!(events(&replica), before.len() + meanwhile.len() + 1);
    assert_eq!(fleet.upstream.heads(), events(&replica));
    for envoy in &fleet.envoys {
        let log = envoy.log();
        for secret in [
            "p%40ss",
            "p@ss",
            "w%40tch",
            "w@tch",
            "redis+sentinel",
            "mymaster",
        ] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

/// Answers whoever asks with this, as a Sentinel might.
fn sentinel_that_says(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    address
}

#[test]
fn a_server_that_is_no_master_any_more_is_left_alone() {
    find_servers(&|_| {}).unwrap();
    let (master, replica) = (Redis::start().unwrap(), Redis::start().unwrap());
    replica.follow(&master).unwrap();
    // One that nobody has told of a fail-over.
    let port = replica.address().port().to_string();
    let sentinel = sentinel_that_says(format!(
        "*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n",
        port.len()
    ));
    let fleet = by(&[sentinel], "", 1, replica.address()).start().unwrap();
    assert_eq!(fleet.send(0, &callback("s1")).unwrap().text(), "received\n");
    let log = fleet.envoys[0].log();
    assert!(
        log.contains("unreachable: the server that a Sentinel named is no master"),
        "{log}"
    );
    assert_eq!(events(&replica), 0);
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    wait_for_connections(&fleet.envoys[0], 1);
    wait_for_events(&replica, 1);
    assert_eq!(fleet.upstream.heads(), 1);
}

#[test]
fn a_name_that_the_sentinels_do_not_know_is_said() {
    find_servers(&|_| {}).unwrap();
    let sentinel = sentinel_that_says("*-1\r\n".to_owned());
    let fleet = by(&[sentinel], "", 1, sentinel).start().unwrap();
    assert_eq!(fleet.send(0, &callback("n1")).unwrap().text(), "received\n");
    let log = fleet.envoys[0].log();
    assert!(
        log.contains("unreachable: a Sentinel knows no server by the name in the URL"),
        "{log}"
    );
}
