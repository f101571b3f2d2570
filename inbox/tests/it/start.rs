//! What is refused at the start, with what and where, and exit code 2; and what the files are like.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use callback_guard_harness::Upstream;
use callback_guard_harness::client::{self, Request};
use callback_guard_inbox::store::VERSION;

use crate::old;
use crate::support::{Bench, key, setup, write};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_callback-guard-inbox"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut all = vec![
        "run",
        "--store",
        "sqlite:/nonexistent/inbox.db",
        "--to",
        "http://127.0.0.1:1",
    ];
    all.extend_from_slice(arguments);
    let output = run(&all, environment);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_flags_are_refused_with_what_is_accepted() {
    let cases: [(&[&str], &str); 14] = [
        (&["--to", "ftp://x"], "expected http://HOST[:PORT][/PATH]"),
        (
            &["--to", "http://user@x"],
            "expected http://HOST[:PORT][/PATH]",
        ),
        (
            &["--to", "http://x/?a"],
            "expected http://HOST[:PORT][/PATH]",
        ),
        (&["--store", "mysql://x"], "expected sqlite:FILE"),
        (&["--schedule", "5"], "expected 1 to 100 durations"),
        (&["--timeout", "0s"], "expected a duration of 1 ms or more"),
        (&["--concurrency", "0"], "0 is not in 1..=1024"),
        (&["--rate", "0"], "0 is not in 1.."),
        (&["--max-backlog", "0"], "0 is not in 1.."),
        (
            &["--max-backlog-bytes", "10GB"],
            "expected bytes, as 500MiB",
        ),
        (&["--order", "fifo"], "id, none"),
        (&["--drop-header", "a b"], "invalid HTTP header name"),
        (&["--listen", "localhost"], "invalid socket address"),
        (&["--unknown"], "unexpected argument"),
    ];
    for (arguments, expected) in cases {
        // A flag that is given twice is refused for that, so the defaults are left out.
        let base: Vec<&str> = [
            ["--store", "sqlite:/nonexistent/x.db"],
            ["--to", "http://127.0.0.1:1"],
        ]
        .into_iter()
        .filter(|flag| !arguments.contains(&flag[0]))
        .flatten()
        .collect();
        let mut all = vec!["run"];
        all.extend(base);
        all.extend_from_slice(arguments);
        let output = run(&all, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_public_address_is_refused_without_a_token() {
    for address in [
        "0.0.0.0:8080",
        "[::]:8080",
        "8.8.8.8:80",
        "[2001:db8::1]:80",
        "[::ffff:8.8.8.8]:80",
    ] {
        let error = refused(&["--listen", address], &[]);
        assert!(
            error.contains("is neither loopback nor private"),
            "{address}: {error}"
        );
        let token = [("TOKEN", "sixteen-and-more")];
        let error = refused(&["--listen", address, "--token-env", "TOKEN"], &token);
        assert!(
            error.contains("/nonexistent/inbox.db"),
            "{address}: {error}"
        ); // One step further.
    }
    for address in [
        "127.0.0.1:0",
        "10.1.2.3:80",
        "172.31.0.1:80",
        "192.168.1.1:80",
        "[::1]:80",
        "[fd00::1]:80",
    ] {
        let error = refused(&["--listen", address], &[]);
        assert!(
            error.contains("/nonexistent/inbox.db"),
            "{address}: {error}"
        );
    }
}

#[test]
fn secrets_that_are_missing_or_unfit_are_named_and_never_quoted() {
    let cases: [(&str, Option<&str>, &str); 5] = [
        (
            "--token-env",
            None,
            "--token-env: environment variable `SECRET` is not set",
        ),
        (
            "--token-env",
            Some(" "),
            "--token-env: environment variable `SECRET` is empty",
        ),
        (
            "--token-env",
            Some("hunter2"),
            "--token-env: environment variable `SECRET` is no token: expected 16 or more visible ASCII characters",
        ),
        (
            "--sign-env",
            None,
            "--sign-env: environment variable `SECRET` is not set",
        ),
        (
            "--sign-env",
            Some("hunter2"),
            "--sign-env: environment variable `SECRET`: expected `whsec_` and the base64 of 16 to 64 bytes",
        ),
    ];
    for (flag, value, expected) in cases {
        let environment: Vec<_> = value.map(|value| ("SECRET", value)).into_iter().collect();
        let error = refused(&[flag, "SECRET"], &environment);
        assert_eq!(error, format!("error: {expected}\n"));
    }
    let help = run(
        &["run", "--help"],
        &[("CALLBACK_GUARD_INBOX_STORE", "postgres://u:hunter2@h/d")],
    );
    assert!(!String::from_utf8(help.stdout).unwrap().contains("hunter2"));
}

#[test]
fn every_flag_is_an_environment_variable() {
    let help = run(&["run", "--help"], &[]);
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<_> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|word| {
            word.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '-')
        })
        .filter(|word| !["help", "version", "token-env"].contains(word) || *word == "token-env")
        .filter(|word| *word != "help")
        .collect();
    assert!(flags.len() >= 17, "{flags:?}");
    for flag in flags {
        let variable = format!(
            "CALLBACK_GUARD_INBOX_{}",
            flag.to_uppercase().replace('-', "_")
        );
        assert!(help.contains(&format!("[env: {variable}")), "{flag}");
    }
    let error = run(
        &["run", "--to", "http://127.0.0.1:1"],
        &[("CALLBACK_GUARD_INBOX_STORE", "sqlite:/nonexistent/x.db")],
    );
    assert!(
        String::from_utf8(error.stderr)
            .unwrap()
            .contains("/nonexistent/x.db")
    );
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let error = refused(&[], &[]);
    assert!(
        error.starts_with("error: store sqlite:/nonexistent/inbox.db: "),
        "{error}"
    );
    let output = run(&["stats", "--store", "sqlite:/nonexistent/inbox.db"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.db");
    std::fs::write(
        &file,
        "this is no database, but it is long enough to be looked at ".repeat(20),
    )
    .unwrap();
    let store = format!("sqlite:{}", file.display());
    let output = run(
        &["run", "--store", &store, "--to", "http://127.0.0.1:1"],
        &[],
    );
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("not a database"), "{error}");
    // Unreachable, with a password that is not shown.
    let output = run(
        &[
            "run",
            "--store",
            "postgres://u:hunter2@127.0.0.1:1/d",
            "--to",
            "http://127.0.0.1:1",
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: store postgres://127.0.0.1:1/d: "),
        "{error}"
    );
    assert!(!error.contains("hunter2"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/inbox.db", folder.path().display());
    let address = taken.local_addr().unwrap().to_string();
    let output = run(
        &[
            "run",
            "--store",
            &store,
            "--to",
            "http://127.0.0.1:1",
            "--listen",
            &address,
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(&format!("cannot listen on {address}")),
        "{error}"
    );
}

#[test]
fn a_store_of_a_newer_version_is_refused_by_all_commands() {
    let mut bench = Bench::new(&[]);
    bench.inbox.kill();
    let file = bench.inbox.setup.directory().join("inbox.db");
    let newer = VERSION + 1;
    write(
        &file,
        &[format!(
            "UPDATE inbox_meta SET value = {newer} WHERE name = 'version'"
        )],
    );
    let error = format!("{:#}", bench.inbox.setup.start().unwrap_err());
    let expected = format!(
        "the store has schema version {newer}, this program knows up to {VERSION}: \
         run the newer callback-guard-inbox that has written it"
    );
    assert!(error.contains(&expected), "{error}");
    assert!(error.contains("exit status: 2"), "{error}");
    let output = bench.inbox.setup.tool("stats", &[]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains(&expected)
    );
}

#[test]
fn a_store_of_each_older_version_is_brought_up_to_date_with_all_that_is_in_it() {
    assert_eq!(i64::try_from(old::STEPS.len()).unwrap(), VERSION);
    for version in 1..old::STEPS.len() {
        let upstream = Upstream::start().unwrap();
        let setup = setup(&upstream);
        let file = setup.directory().join("inbox.db");
        write(&file, &old::statements(version, false));
        // Commands do not change the schema.
        let output = setup.tool("stats", &[]).unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        let expected = format!(
            "the store has schema version {version}, this program has {VERSION}: \
             `callback-guard-inbox run` brings it up to date"
        );
        assert!(error.contains(&expected), "{error}");
        let bench = Bench {
            inbox: setup.start().unwrap(),
            upstream,
        };
        let stats = bench.wait_for_stats("all to be delivered", |stats| {
            stats["waiting"] == 0 && stats["delivering"] == 0
        });
        old::assert_delivered(&stats, &bench.bodies());
        // What had been delivered is still known, and what comes has a place of its own.
        let known = bench.inbox.send(&format!("{:064}", 1), "a", b"1").unwrap();
        assert_eq!(known.header("x-callback-guard-inbox").unwrap(), "known");
        bench.accept("new", "b");
        bench.wait_for_stats("the new one", |stats| stats["delivered"] == 6);
    }
}

#[test]
fn a_second_inbox_on_the_same_file_is_refused() {
    let mut bench = Bench::new(&[]);
    let second = bench.inbox.setup.another().unwrap();
    let error = format!("{:#}", second.start().unwrap_err());
    assert!(
        error.contains("another inbox is running on this file"),
        "{error}"
    );
    assert!(error.contains("exit status: 2"), "{error}");
    bench.accept("one", "task"); // The first goes on.
    bench.inbox.kill();
    second.start().unwrap(); // A killed one's lock is gone with it.
}

#[test]
fn the_files_are_readable_by_their_owner_alone() {
    let bench = Bench::new(&[]);
    bench.accept("one", "task");
    let modes = || {
        let mut modes = Vec::new();
        for entry in std::fs::read_dir(bench.inbox.setup.directory()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("inbox.db") {
                modes.push((name, entry.metadata().unwrap().permissions().mode() & 0o777));
            }
        }
        modes.sort();
        modes
    };
    let expected = ["inbox.db", "inbox.db-shm", "inbox.db-wal", "inbox.db.lock"]
        .map(|name| (name.to_owned(), 0o600));
    assert_eq!(modes(), expected);
}

#[test]
fn files_that_were_open_to_others_are_closed_to_them() {
    let mut bench = Bench::new(&[]);
    bench.inbox.kill();
    let file = bench.inbox.setup.directory().join("inbox.db");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    bench.inbox = bench.inbox.setup.start().unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn health_and_metrics_are_on_the_admin_port_alone() {
    let bench = Bench::new(&[]);
    bench.accept("one", "task");
    let health = client::send(bench.inbox.admin_address(), &Request::get("/healthz")).unwrap();
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    bench.wait_for_state(&key("one"), "delivered");
    let metrics = client::send(bench.inbox.admin_address(), &Request::get("/metrics")).unwrap();
    let text = metrics.text();
    for line in [
        "callback_guard_inbox_accepted_total{source=\"suno\"} 1",
        "callback_guard_inbox_attempts_total{outcome=\"delivered\"} 1",
        "callback_guard_inbox_attempts_total{outcome=\"failed\"} 0",
        "callback_guard_inbox_delivered_total{source=\"suno\"} 1",
        "callback_guard_inbox_delivery_seconds_count 1",
        "callback_guard_inbox_refused_total{code=\"inbox_full\"} 0",
        "callback_guard_inbox_store_up 1",
        "callback_guard_inbox_circuit_open 0",
        "callback_guard_inbox_paused 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    for path in ["/metrics", "/healthz"] {
        assert_eq!(
            client::send(bench.inbox.address(), &Request::get(path))
                .unwrap()
                .status,
            405
        );
    }
    assert_eq!(
        client::send(bench.inbox.admin_address(), &Request::get("/"))
            .unwrap()
            .status,
        404
    );
}
