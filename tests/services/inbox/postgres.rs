//! What PostgreSQL adds: several inboxes on one store, and a database that goes away.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use callback_guard_harness::client::{self, Gate};
use callback_guard_harness::inbox::{callback, program};
use callback_guard_harness::wait::wait_for_within;
use callback_guard_harness::{Answer, Inbox, InboxSetup, Postgres, Request, Upstream};
use serde_json::Value;

use super::old;

struct Bench {
    database: Postgres,
    upstream: Upstream,
    inboxes: Vec<Inbox>,
}

impl Bench {
    fn start(inboxes: usize, arguments: &[&str]) -> Self {
        let database = Postgres::start().unwrap();
        let upstream = Upstream::start().unwrap();
        let program = program(false, &|_| {}).unwrap();
        let first = InboxSetup::new(&program, &format!("http://{}", upstream.address()))
            .unwrap()
            .store(&database.url())
            .arguments(arguments);
        // All at once: one of them makes the tables.
        let inboxes = thread::scope(|scope| {
            let starts: Vec<_> = (0..inboxes)
                .map(|_| {
                    let setup = first.another().unwrap();
                    scope.spawn(move || setup.start().unwrap())
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        Self {
            database,
            upstream,
            inboxes,
        }
    }

    fn send(&self, inbox: usize, name: &str, id: &str) -> client::Response {
        self.inboxes[inbox]
            .send(&key(name), id, name.as_bytes())
            .unwrap()
    }

    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        self.inboxes[0].setup.json(command, arguments).unwrap()
    }

    fn wait_for_stats(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for_within(Duration::from_secs(60), what, || {
            let stats = self.inboxes[0].setup.json("stats", &[]).ok()?;
            is(&stats).then_some(stats)
        })
        .unwrap()
    }

    /// The version of the store's schema.
    fn version(&self) -> i64 {
        let found = self
            .database
            .query("SELECT value FROM inbox_meta WHERE name = 'version'");
        found.unwrap().parse().unwrap()
    }

    fn bodies(&self) -> Vec<String> {
        let all = self.upstream.recorded();
        all.iter()
            .map(|one| String::from_utf8_lossy(&one.body).into_owned())
            .collect()
    }
}

/// 64 hexadecimal digits, made of `name`.
fn key(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0>64}")
}

#[test]
fn the_whole_life_of_events() {
    let bench = Bench::start(1, &["--schedule", "10ms,10ms"]);
    bench.upstream.answer_with(|head| {
        let is_poison = head.header("x-callback-guard-key").unwrap() == key("poison");
        Answer::status(if is_poison { 422 } else { 200 })
    });
    assert_eq!(
        bench
            .send(0, "poison", "task")
            .header("x-callback-guard-inbox")
            .unwrap(),
        "accepted"
    );
    assert_eq!(
        bench
            .send(0, "poison", "task")
            .header("x-callback-guard-inbox")
            .unwrap(),
        "known"
    );
    bench.send(0, "after", "task");
    bench.wait_for_stats("both to end", |stats| {
        stats["dead"] == 1 && stats["delivered"] == 1
    });
    assert_eq!(bench.bodies(), ["poison", "poison", "poison", "after"]);
    let event = bench.json("show", &[&key("poison")]);
    assert_eq!(
        (&event["attempts"], &event["last_status"]),
        (&3.into(), &422.into())
    );
    assert_eq!(event["tries"].as_array().unwrap().len(), 3);
    let listed = bench.json(
        "list",
        &["--state", "dead", "--id", "task", "--source", "suno"],
    );
    assert_eq!(listed.as_array().unwrap().len(), 1);
    // Replay, under a pause that another process sets.
    let tool = |command: &str, arguments: &[&str]| {
        let output = bench.inboxes[0].setup.tool(command, arguments).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    tool("pause", &[]);
    bench.upstream.answer(Answer::status(200));
    assert_eq!(tool("replay", &["--state", "dead"]), "replayed: 1\n");
    thread::sleep(Duration::from_millis(600)); // Several polls.
    assert_eq!(bench.bodies().len(), 4);
    tool("resume", &[]);
    bench.wait_for_stats("the replay", |stats| stats["delivered"] == 2);
    assert_eq!(tool("show", &["--body", &key("poison")]), "poison");
    assert_eq!(tool("discard", &["--id", "task"]), "discarded: 2\n");
    assert_eq!(bench.json("list", &[]), Value::Array(vec![]));
}

#[test]
fn four_inboxes_share_the_work_and_do_nothing_twice() {
    let bench = Bench::start(4, &["--concurrency", "4"]);
    let ids = 10;
    thread::scope(|scope| {
        for id in 0..ids {
            let bench = &bench;
            scope.spawn(move || {
                for number in 0..20 {
                    let name = format!("{id}-{number}");
                    let response = bench.send((id + number) % 4, &name, &id.to_string());
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
    });
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 200);
    let bodies = bench.bodies();
    assert_eq!(bodies.len(), 200);
    for id in 0..ids {
        let prefix = format!("{id}-");
        let of_id: Vec<_> = bodies
            .iter()
            .filter(|body| body.starts_with(&prefix))
            .collect();
        let expected: Vec<_> = (0..20).map(|number| format!("{id}-{number}")).collect();
        assert!(of_id.into_iter().eq(&expected), "{id}: {bodies:?}");
    }
    let delivered: Vec<f64> = bench
        .inboxes
        .iter()
        .map(|inbox| {
            inbox
                .metric("callback_guard_inbox_delivered_total{source=\"suno\"}")
                .unwrap()
        })
        .collect();
    assert!(
        delivered.iter().filter(|count| **count > 0.0).count() > 1,
        "{delivered:?}"
    );
}

#[test]
fn the_same_events_at_four_inboxes_at_once_are_accepted_once_each() {
    let bench = Bench::start(4, &[]);
    let accepted: usize = thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|inbox| {
                let bench = &bench;
                scope.spawn(move || {
                    let mut requests: Vec<Request> = (0..200)
                        .map(|number| {
                            callback(&key(&number.to_string()), &number.to_string(), b"x")
                        })
                        .collect();
                    // Each in another order: that is what deadlocks are made of.
                    requests.rotate_left(inbox * 50);
                    if inbox % 2 == 1 {
                        requests.reverse();
                    }
                    let address = bench.inboxes[inbox].address();
                    let load = callback_guard_harness::Load::http1(16);
                    let all = client::send_all(address, requests, load).unwrap();
                    let all = all.into_iter().map(Result::unwrap);
                    all.inspect(|response| assert_eq!(response.status, 200, "{}", response.text()))
                        .filter(|response| {
                            response.header("x-callback-guard-inbox").unwrap() == "accepted"
                        })
                        .count()
                })
            })
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum()
    });
    assert_eq!(accepted, 200);
    bench.wait_for_stats("all to be delivered", |stats| stats["delivered"] == 200);
    assert_eq!(bench.upstream.heads(), 200);
    for inbox in &bench.inboxes {
        assert!(
            !inbox.log().unwrap().contains("ERROR"),
            "{}",
            inbox.log().unwrap()
        );
    }
}

#[test]
fn without_the_database_the_answer_is_503_and_everything_comes_back_with_it() {
    let mut bench = Bench::start(1, &["--timeout", "1s"]);
    assert_eq!(bench.send(0, "before", "1").status, 200);
    bench.wait_for_stats("the first", |stats| stats["delivered"] == 1);
    bench.database.kill();
    let refused = bench.send(0, "during", "2");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json().unwrap()["code"], "store_unavailable");
    assert_eq!(refused.header("retry-after").unwrap(), "1");
    let health = client::send(bench.inboxes[0].admin_address(), &Request::get("/healthz")).unwrap();
    assert_eq!(health.status, 503);
    bench.database.restart().unwrap();
    wait_for_within(Duration::from_secs(60), "it to take events again", || {
        (bench.send(0, "during", "2").status == 200).then_some(())
    })
    .unwrap();
    bench.wait_for_stats("the second", |stats| stats["delivered"] == 2);
    let health = client::send(bench.inboxes[0].admin_address(), &Request::get("/healthz")).unwrap();
    assert_eq!(health.status, 200);
    assert_eq!(bench.bodies(), ["before", "during"]);
}

#[test]
fn an_outcome_is_recorded_though_the_database_was_away_when_it_came() {
    let mut bench = Bench::start(1, &["--timeout", "30s"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    bench.send(0, "one", "1");
    bench.upstream.wait_for_requests(1).unwrap();
    bench.database.kill();
    gate.open();
    thread::sleep(Duration::from_millis(500)); // The first try to record it fails.
    bench.database.restart().unwrap();
    bench.wait_for_stats("the delivery", |stats| stats["delivered"] == 1);
    assert_eq!(bench.bodies(), ["one"]);
    let keys: BTreeSet<String> = bench
        .upstream
        .recorded()
        .iter()
        .filter_map(|one| one.head.header("x-callback-guard-key"))
        .collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_lease_follows_the_database_clock_and_not_that_of_an_inbox() {
    // Two inboxes, one of them killed with an event: the other takes it over after the lease.
    let mut bench = Bench::start(2, &["--timeout", "1s"]);
    let gate = Gate::new();
    bench.upstream.answer(Answer::status(200).when(&gate));
    bench.send(0, "one", "1");
    bench.upstream.wait_for_requests(1).unwrap();
    let is_first = bench.inboxes[0]
        .metric("callback_guard_inbox_in_flight")
        .unwrap()
        > 0.0;
    bench.inboxes[usize::from(!is_first)].kill();
    gate.open();
    let left: Value = bench
        .database
        .query("SELECT due - CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) FROM inbox_events")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=11_000).contains(&left.as_i64().unwrap()), "{left}");
    bench.wait_for_stats("the delivery", |stats| stats["delivered"] == 1);
    assert_eq!(bench.bodies(), ["one", "one"]);
}

#[test]
fn a_newer_store_and_a_foreign_one_are_refused() {
    let mut bench = Bench::start(1, &[]);
    bench.inboxes[0].kill();
    let known = bench.version();
    let newer = known + 1;
    bench
        .database
        .query(&format!(
            "UPDATE inbox_meta SET value = {newer} WHERE name = 'version'"
        ))
        .unwrap();
    let error = format!("{:#}", bench.inboxes[0].setup.start().unwrap_err());
    assert!(error.contains("exit status: 2"), "{error}");
    let expected =
        format!("the store has schema version {newer}, this program knows up to {known}");
    assert!(error.contains(&expected), "{error}");
    bench.database.query("CREATE DATABASE empty").unwrap();
    let setup = bench.inboxes[0]
        .setup
        .clone()
        .store(&bench.database.url().replace("/postgres", "/empty"));
    let output = setup.tool("stats", &[]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this is no inbox's store"));
}

#[test]
fn a_store_of_each_older_version_is_brought_up_to_date_with_all_that_is_in_it() {
    for version in 1..old::STEPS.len() {
        let mut bench = Bench::start(1, &[]);
        assert_eq!(
            bench.version(),
            i64::try_from(old::STEPS.len()).unwrap(),
            "a step is missing in the tests"
        );
        bench.inboxes[0].kill();
        bench.database.query("DROP SCHEMA public CASCADE").unwrap();
        bench.database.query("CREATE SCHEMA public").unwrap();
        let statements = old::statements(version, true).join(";\n");
        bench.database.query(&statements).unwrap();
        // Several at once: one of them brings it up to date.
        let setups = [(); 3].map(|()| bench.inboxes[0].setup.another().unwrap());
        bench.inboxes = thread::scope(|scope| {
            let starts = setups.map(|setup| scope.spawn(move || setup.start().unwrap()));
            starts.map(|start| start.join().unwrap()).into()
        });
        let stats = bench.wait_for_stats("all to be delivered", |stats| {
            stats["waiting"] == 0 && stats["delivering"] == 0
        });
        old::assert_delivered(&stats, &bench.bodies());
        assert_eq!(bench.version(), i64::try_from(old::STEPS.len()).unwrap());
        bench.send(0, "new", "b");
        bench.wait_for_stats("the new one", |stats| stats["delivered"] == 6);
    }
}

#[test]
fn an_answer_does_not_depend_on_how_the_server_is_set_up() {
    let mut bench = Bench::start(1, &[]);
    bench
        .database
        .query("ALTER SYSTEM SET synchronous_commit = off")
        .unwrap();
    bench.database.restart().unwrap();
    bench.inboxes[0].restart().unwrap();
    assert_eq!(
        bench.database.query("SHOW synchronous_commit").unwrap(),
        "off"
    );
    assert_eq!(bench.send(0, "one", "1").status, 200);
    // At once, as a power cut does for the processes: 200 ms later it would be written anyway.
    bench.database.kill();
    bench.database.restart().unwrap();
    assert_eq!(
        bench
            .database
            .query("SELECT count(*) FROM inbox_events")
            .unwrap(),
        "1"
    );
}
