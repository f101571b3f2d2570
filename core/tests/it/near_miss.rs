//! Near misses of a guarded path: refused where other requests pass, whatever the spelling.

use callback_guard_core::policy::{Destination, Policy};
use callback_guard_core::request::RequestHead;
use callback_guard_core::verdict::Code;
use serde_json::{Value, json};

use crate::spellings::{TRICKS, sets, spelled};
use crate::support::{Host, NOW, Request, configuration, policy};

/// A source for every path, and requests that match none of them pass.
fn passing(paths: &[&str]) -> Policy {
    policy(&configuration(|configuration| {
        configuration["unmatched"] = json!("pass");
        let source = configuration["sources"][0].take();
        let sources: Vec<Value> = paths
            .iter()
            .enumerate()
            .map(|(index, path)| {
                let mut source = source.clone();
                source["name"] = json!(format!("s{index}"));
                source["match"] = match path.strip_suffix("/*") {
                    Some(prefix) => json!({ "path_prefix": prefix }),
                    None => json!({ "path": path }),
                };
                source
            })
            .collect();
        configuration["sources"] = json!(sources);
    }))
}

fn destination(policy: &Policy, path: &[u8]) -> Destination {
    let pairs: &[(&[u8], &[u8])] = &[
        (b":method", b"POST"),
        (b":path", path),
        (b":authority", b"app.example"),
    ];
    policy.destination(&RequestHead::new(pairs))
}

fn names(set: u32) -> Vec<&'static str> {
    let is_in = |number: &usize| set >> number & 1 == 1;
    (0..TRICKS.len())
        .filter(is_in)
        .map(|n| TRICKS[n].0)
        .collect()
}

#[test]
fn every_combination_of_tricks_on_every_path_is_a_near_miss() {
    for path in [
        "/callbacks/suno",
        "/hook",
        "/a/b/c/d",
        "/api/Hook-1.0/x",
        "/hook.php",
    ] {
        let policy = passing(&[path]);
        for set in sets(if path == "/callbacks/suno" { 4 } else { 3 }) {
            let other = spelled(path, set);
            if other == path {
                continue;
            }
            assert_eq!(
                destination(&policy, other.as_bytes()),
                Destination::NearMiss(0),
                "{path}: {other} {:?}",
                names(set)
            );
        }
        let all = spelled(path, (1 << TRICKS.len()) - 1);
        assert_eq!(
            destination(&policy, all.as_bytes()),
            Destination::NearMiss(0),
            "{all}"
        );
    }
}

#[test]
fn every_combination_of_tricks_on_the_beginning_is_a_near_miss_of_a_prefix() {
    let policy = passing(&["/callbacks/*"]);
    for set in sets(3) {
        for below in ["", "/suno", "/a/b?c=d"] {
            let other = format!("{}{below}", spelled("/callbacks", set));
            let destination = destination(&policy, other.as_bytes());
            // What the tricks have left alone, or put at the end, is below the prefix.
            let is_below = other
                .strip_prefix("/callbacks")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let names = names(set);
            match destination {
                Destination::Source(0) => assert!(is_below, "{other} {names:?}"),
                Destination::NearMiss(0) => assert!(!is_below, "{other} {names:?}"),
                // A format ends a path: what follows is another one.
                _ => assert!(
                    !below.is_empty()
                        && (names.contains(&"a format") || names.contains(&"NUL and more")),
                    "{other} {names:?}"
                ),
            }
        }
    }
}

#[test]
fn what_is_read_in_two_orders_is_near_in_either() {
    let policy = passing(&["/callbacks/suno"]);
    for path in [
        "/callbacks/suno;x=%2Fy",
        "/callbacks/suno%3Bx=%252Fy",
        "/callbacks;/suno",
        "/a;%2F..%2Fcallbacks%2Fsuno",
        "/a%2Fb/../callbacks/suno",
        "/callbacks//../suno",
        "/a//../callbacks/suno",
        "/callbacks/x/..;/suno",
        "/callbacks/x/%2e%2e/suno",
        "/callbacks/x/%252e%252e/suno",
        "/callbacks/x/..%5csuno",
        "/../callbacks/suno",
        "/x/../callbacks/suno.json",
        "/%%34%33allbacks/suno",
        "/%EF%BC%8563allbacks/suno",
        "/callbacks/%c5%bfuno",
        "/callbacks%e0%80%afsuno",
        "/callbacks%ef%bc%8fsuno",
        "/callbacks/suno%3fx",
        "/callbacks/suno%23/x",
        "/callbacks/suno%c2%a0",
        "/callbacks/suno%0d%0a",
        "/callbacks/suno+",
        "/callbacks/suno#x",
        "/callbacks/suno/?x",
        "\\callbacks\\suno",
        "/\\evil/callbacks/suno",
        "//user@evil:80/callbacks/suno",
        "http://evil/callbacks/suno",
        "HTTP://evil//Callbacks/suno",
        "http:/callbacks/suno",
        "callbacks/suno",
        "/app_dev.php/callbacks/suno/",
    ] {
        assert_eq!(
            destination(&policy, path.as_bytes()),
            Destination::NearMiss(0),
            "{path}"
        );
    }
    for path in [
        &b"/callbacks/suno\0"[..],
        b"/callbacks/suno\xc2\xa0",
        b"/callbacks/\xc5\xbfuno",
    ] {
        assert_eq!(
            destination(&policy, path),
            Destination::NearMiss(0),
            "{path:?}"
        );
    }
}

#[test]
fn what_no_application_takes_for_the_path_passes() {
    let policy = passing(&["/callbacks/suno", "/v1.0", "/hooks/*"]);
    for path in [
        "/",
        "",
        "*",
        "/callbacks",
        "/callbacks/",
        "/callbacks/sun",
        "/callbacks/suno2",
        "/callbacks/suno/x",
        "/callbacks/suno.d/x",
        "/x/callbacks/suno",
        "/callbackssuno",
        "/callbacks/x/suno",
        "/callbacks/x/../y",
        "/callbacks/%FFsuno",
        "/other?next=/callbacks/suno",
        "/v1.0/users",
        "/v1",
        "/hook",
        "/hooksx",
        "/hooks-archive/1",
    ] {
        assert_eq!(
            destination(&policy, path.as_bytes()),
            Destination::Elsewhere,
            "{path}"
        );
    }
}

#[test]
fn a_guarded_path_is_one_under_any_host() {
    let policy = || {
        policy(&configuration(|configuration| {
            configuration["unmatched"] = json!("pass");
            configuration["sources"][0]["match"]["host"] = json!("hooks.example");
        }))
    };
    let request = Request::unsigned("{}");
    for (host, code) in [
        ("hooks.example", Code::SignatureMissing),
        ("HOOKS.example:8443", Code::SignatureMissing),
        ("hooks.example.", Code::NoSource),
        ("app.example", Code::NoSource),
        ("evil@hooks.example", Code::NoSource),
        ("", Code::NoSource),
    ] {
        let request = request.clone().with(":authority", host);
        let (_, seen) = Host::new(policy()).send(&request, NOW);
        assert_eq!(seen.code(), Some(code), "{host}");
    }
}

#[test]
fn a_near_miss_is_refused_where_the_source_is_enforced_and_marked_where_it_is_monitored() {
    let near = Request::unsigned("{}").with(":path", "/Callbacks/suno/");
    let sent = |policy: Policy| {
        let mut guard = Host::new(policy);
        let (stream, seen) = guard.send(&near, NOW);
        (guard.report(stream).clone(), seen)
    };
    let (report, seen) = sent(passing(&["/callbacks/suno"]));
    assert_eq!(
        (seen.code(), report.source_index()),
        (Some(Code::NoSource), Some(0))
    );
    let rejection = report.rejection.unwrap().to_string();
    assert!(!report.is_forwarded && rejection.contains("near miss"));

    let monitored = policy(&configuration(|configuration| {
        configuration["unmatched"] = json!("pass");
        configuration["mode"] = json!("monitor");
    }));
    let (report, seen) = sent(monitored);
    assert_eq!(seen.header("x-callback-guard-verdict"), Some("no_source"));
    assert_eq!(seen.header("x-callback-guard-key"), None);
    assert!(report.is_forwarded);

    // Without `pass` it is a request like any other that matches nothing.
    let (report, seen) = sent(policy(&configuration(|_| {})));
    let found = (seen.code(), report.source_index());
    assert_eq!(found, (Some(Code::NoSource), None));
}

#[test]
fn a_near_miss_of_a_stricter_source_is_not_judged_by_a_wider_one() {
    let policy = |wide: &str, strict: &str| {
        policy(&configuration(|configuration| {
            let source = configuration["sources"][0].clone();
            for (name, rule, path, mode) in [
                ("wide", "path_prefix", "/callbacks", wide),
                ("strict", "path", "/callbacks/suno", strict),
            ] {
                let mut source = source.clone();
                source["name"] = json!(name);
                source["match"] = json!({ rule: path });
                source["mode"] = json!(mode);
                let index = usize::from(name == "strict");
                configuration["sources"][index] = source;
                if index == 0 {
                    configuration["sources"]
                        .as_array_mut()
                        .unwrap()
                        .push(Value::Null);
                }
            }
        }))
    };
    for (wide, strict, path, expected) in [
        (
            "monitor",
            "enforce",
            "/callbacks/suno",
            Destination::Source(1),
        ),
        (
            "monitor",
            "enforce",
            "/callbacks/Suno",
            Destination::NearMiss(1),
        ),
        (
            "enforce",
            "enforce",
            "/callbacks/suno/",
            Destination::NearMiss(1),
        ),
        (
            "enforce",
            "enforce",
            "/callbacks/other",
            Destination::Source(0),
        ),
        (
            "enforce",
            "enforce",
            "/callbacks/suno/x",
            Destination::Source(0),
        ),
        // What is only watched makes nothing stricter, and nothing laxer.
        (
            "enforce",
            "monitor",
            "/callbacks/Suno",
            Destination::Source(0),
        ),
    ] {
        let destination = destination(&policy(wide, strict), path.as_bytes());
        assert_eq!(destination, expected, "{wide} {strict} {path}");
    }
}

#[test]
fn a_path_that_leads_out_of_a_prefix_is_not_below_it() {
    let policy = passing(&["/callbacks/*"]);
    for (path, expected) in [
        ("/callbacks/../admin", Destination::NearMiss(0)),
        ("/callbacks/x/..%2f../admin", Destination::NearMiss(0)),
        ("/callbacks/%252e%252e/admin", Destination::NearMiss(0)),
        ("/callbacks/..;/admin", Destination::NearMiss(0)),
        ("/callbacks/v1.2/a..b/%C3%A4...", Destination::Source(0)),
        ("/callbacks/x?/../..", Destination::Source(0)),
    ] {
        assert_eq!(destination(&policy, path.as_bytes()), expected, "{path}");
    }
}

#[test]
fn the_longest_path_is_read_in_no_time() {
    let policy = passing(&["/callbacks/suno", "/hooks/*"]);
    for unit in [
        "%25",
        "/",
        "/..",
        "%2f..",
        "a/",
        ";%2f",
        "%u002f",
        "%ef%bc%85",
        ".php/",
    ] {
        let path = format!("/{}", unit.repeat((64 << 10) / unit.len()));
        let start = std::time::Instant::now();
        let _ = destination(&policy, path.as_bytes());
        let seconds = start.elapsed().as_secs_f64();
        assert!(seconds < 1.0, "{unit}: {seconds} s");
    }
}
