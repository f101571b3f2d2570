//! The inspector: what it keeps, how much, who may look, and the page.

use std::collections::BTreeSet;
use std::io::Read as _;

use base64::Engine as _;
use callback_guard_config as config;
use callback_guard_core::inspector::{
    Entry, Inspector, LEAST_EVENTS, MAX_EVENT_BYTES, MOST_EVENTS, Slot,
};
use callback_guard_core::policy::Policy;
use callback_guard_core::report::Stage;
use callback_guard_core::request::RequestHead;
use callback_guard_core::store::{SharedData, Swap, Unavailable};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::{Outcome, Reply, StreamId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Host, MapShared, NOW, Request, SECRET, configuration};

const TOKEN: &str = "correct-horse-battery-staple";
const BODY: &str = r#"{"code":200,"msg":"private words","data":{"callbackType":"complete","task_id":"ee9c2715375b7837f8bb51d641ff5863"}}"#;

fn environment(name: &str) -> Option<Vec<u8>> {
    match name {
        "TOKEN" => Some(TOKEN.into()),
        "SHORTEST" => Some(vec![b'x'; 16]),
        "SHORT" => Some(vec![b'x'; 15]),
        "LONGEST" => Some(vec![b'x'; 256]),
        "LONG" => Some(vec![b'x'; 257]),
        "SPACED" => Some(b"correct horse battery staple".to_vec()),
        _ => None,
    }
}

fn parse(change: impl FnOnce(&mut Value)) -> Result<Policy, String> {
    let configuration = configuration(|configuration| {
        configuration["inspector"] =
            json!({ "path": "/inspector", "events": 10, "token_env": "TOKEN" });
        change(configuration);
    });
    config::parse(configuration.to_string().as_bytes(), &environment)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn policy(change: impl FnOnce(&mut Value)) -> Policy {
    parse(change).unwrap()
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), expected: &str) {
    let error = parse(change).unwrap_err();
    assert_eq!(error, expected);
    assert!(
        !error.contains(TOKEN) && !error.contains("staple"),
        "{error}"
    );
}

#[test]
fn mistakes_in_the_configuration() {
    refused(
        |c| c["inspector"] = json!({ "path": "/inspector" }),
        "inspector.token_env: is missing, expected the name of the environment variable that holds \
         the token",
    );
    refused(
        |c| c["inspector"] = json!({ "token_env": "TOKEN" }),
        "inspector.token_env: given without `path`, expected both or none",
    );
    refused(
        |c| c["inspector"]["token_env"] = json!("ABSENT"),
        "inspector.token_env: environment variable `ABSENT` is not set",
    );
    for (name, length) in [("SHORT", 15), ("LONG", 257), ("SPACED", 28)] {
        refused(
            |c| c["inspector"]["token_env"] = json!(name),
            &format!(
                "inspector.token_env: the token has {length} bytes, expected 16 to 256 visible \
                 ASCII characters, no space"
            ),
        );
    }
    for name in ["SHORTEST", "LONGEST"] {
        policy(|c| c["inspector"]["token_env"] = json!(name));
    }
    for path in ["", "inspector", "/", "/inspector/", "/a?b", "/a b"] {
        refused(
            |c| c["inspector"]["path"] = json!(path),
            "inspector.path: expected a path that begins with `/` and does not end with it, \
             without query, fragment and space",
        );
    }
    for events in [LEAST_EVENTS - 1, MOST_EVENTS + 1] {
        refused(
            |c| c["inspector"]["events"] = json!(events),
            &format!("inspector.events: {events} is out of range, expected 10 to 1000"),
        );
    }
    for events in [LEAST_EVENTS, MOST_EVENTS] {
        policy(|c| c["inspector"]["events"] = json!(events));
    }
    refused(
        |c| c["inspector"]["evnts"] = json!(10),
        "inspector.evnts: unknown field `evnts`, expected one of `path`, `events`, `token_env`",
    );
}

#[test]
fn its_paths_are_no_sources() {
    let at = |path: &'static str| move |c: &mut Value| c["inspector"]["path"] = json!(path);
    refused(
        at("/callbacks/suno"),
        "inspector.path: `/callbacks/suno` is a path of sources[0] too",
    );
    policy(at("/callbacks"));
    let below = |c: &mut Value| {
        c["sources"][0]["match"] = json!({ "path_prefix": "/callbacks" });
        at("/callbacks/inspector")(c);
    };
    refused(
        below,
        "inspector.path: `/callbacks/inspector` is a path of sources[0] too",
    );
    refused(
        |c| c["sources"][0]["match"] = json!({ "path": "/inspector/events", "host": "a.example" }),
        "inspector.path: `/inspector/events` is a path of sources[0] too",
    );
}

#[test]
fn only_what_shows_the_inspector_may_be_without_sources() {
    let shows = policy(|c| c["sources"] = json!([]));
    assert!(!shows.inspector.unwrap().records);
    refused(
        |c| {
            c["sources"] = json!([]);
            c["inspector"] = json!({});
        },
        "sources: there is none, expected at least one",
    );
    let keeps = policy(|c| c["inspector"] = json!({ "events": 30 }));
    let inspector = keeps.inspector.unwrap();
    assert!(inspector.records && inspector.place.is_none());
    let default = policy(|c| c["inspector"] = json!({}));
    assert_eq!(default.inspector.unwrap().events, 200);
}

/// What the inspector of `policy` says to a request.
fn ask(
    policy: &Policy,
    shared: &mut MapShared,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Reply> {
    let pseudo = [(":method", method), (":path", path), (":authority", "any")];
    let pairs: Vec<(&[u8], &[u8])> = pseudo
        .iter()
        .chain(headers)
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let inspector = policy.inspector.as_ref().unwrap();
    inspector.answer(shared, &RequestHead::new(&pairs), NOW)
}

#[track_caller]
fn listing(policy: &Policy, shared: &mut MapShared) -> Value {
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*token)];
    let reply = ask(policy, shared, "GET", "/inspector/events", &headers).unwrap();
    assert_eq!(reply.status, 200);
    serde_json::from_slice(&reply.body).unwrap()
}

#[track_caller]
fn header<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
    let mut values = reply.headers.iter().filter(|(given, _)| *given == name);
    let value = values.next().map(|(_, value)| &**value);
    assert_eq!(values.next(), None, "{name} comes once");
    value
}

#[test]
fn the_events_are_behind_the_token() {
    let policy = policy(|_| {});
    let mut shared = MapShared::default();
    let good = format!("Bearer {TOKEN}");
    let status = |shared: &mut MapShared, headers: &[(&str, &str)]| {
        let reply = ask(&policy, shared, "GET", "/inspector/events?x", headers).unwrap();
        assert_eq!(header(&reply, "cache-control"), Some("no-store"));
        if reply.status != 200 {
            let body = br#"{"type":"about:blank","title":"Unauthorized","status":401}"#;
            assert_eq!(reply.body, &body[..]);
            assert_eq!(
                header(&reply, "www-authenticate"),
                Some("Bearer realm=\"callback-guard\"")
            );
        }
        reply.status
    };
    assert_eq!(status(&mut shared, &[("authorization", &good)]), 200);
    let lower = format!("bearer {TOKEN}");
    assert_eq!(status(&mut shared, &[("authorization", &lower)]), 200);
    let longer = format!("{good}r");
    let shorter = &good[..good.len() - 1];
    let basic = format!("Basic {TOKEN}");
    for wrong in [
        "", "Bearer", "Bearer ", "Bearer x", TOKEN, &*longer, shorter, &*basic,
    ] {
        assert_eq!(
            status(&mut shared, &[("authorization", wrong)]),
            401,
            "{wrong:?}"
        );
    }
    assert_eq!(status(&mut shared, &[]), 401);
    let twice = [("authorization", &*good), ("authorization", &*good)];
    assert_eq!(status(&mut shared, &twice), 401);
}

#[test]
fn only_its_own_paths_and_get() {
    let policy = policy(|_| {});
    let mut shared = MapShared::default();
    for path in [
        "/",
        "/inspector/",
        "/inspectors",
        "/inspector/event",
        "/x/inspector",
    ] {
        assert_eq!(ask(&policy, &mut shared, "GET", path, &[]), None, "{path}");
    }
    for path in ["/inspector", "/inspector/events"] {
        for method in ["POST", "HEAD", "OPTIONS", "get"] {
            let reply = ask(&policy, &mut shared, method, path, &[]).unwrap();
            assert_eq!(reply.status, 405, "{method} {path}");
            assert_eq!(header(&reply, "allow"), Some("GET"));
        }
    }
    let hidden = parse(|c| c["inspector"] = json!({})).unwrap();
    assert_eq!(ask(&hidden, &mut shared, "GET", "/inspector", &[]), None);
    assert_eq!(shared.size(), 0, "looking writes nothing");
}

/// Sends a request; what came of it is kept.
fn keep(host: &mut Host, request: &Request, now: UnixMillis) -> StreamId {
    host.send(request, now).0
}

/// A host of this configuration.
fn host(change: impl FnOnce(&mut Value)) -> Host {
    Host::new(policy(change))
}

#[test]
fn a_decision_is_shown_with_its_numbers_and_without_payload() {
    let mut host = host(|_| {});
    let request = Request::genuine(&host.policy, BODY, NOW);
    let later = NOW.plus_seconds(7);
    let stream = keep(&mut host, &request, later);
    let key = host.report(stream).key.unwrap().to_hex();
    let mut expected = json!({
        "verified": true,
        "number": 1,
        "time_unix_ms": later.as_millis(),
        "source": "suno",
        "verdict": "forwarded",
        "detail": null,
        "sent_on": true,
        "id": "ee9c2715375b7837f8bb51d641ff5863",
        "stage": "complete 200",
        "key": &key[..16],
        "age_seconds": 7,
        "body_bytes": BODY.len(),
        "outcome": null,
        "upstream_status": null,
    });
    let list = listing(&host.policy, &mut host.shared);
    assert_eq!(
        list,
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now_unix_ms": NOW.as_millis(),
            "kept": 10,
            "recorded_verified": 1,
            "recorded_other": 0,
            "events": [expected],
        })
    );

    host.settle(stream, Outcome::Refused, later);
    expected["outcome"] = json!("refused");
    expected["upstream_status"] = json!(500);
    let list = listing(&host.policy, &mut host.shared);
    assert_eq!(list["events"], json!([expected]));

    let all = format!("{list}");
    for hidden in ["private words", SECRET, TOKEN] {
        assert!(!all.contains(hidden), "{hidden}");
    }
    let signature = request
        .headers
        .iter()
        .find(|(name, _)| name == b"x-webhook-signature")
        .map(|(_, value)| String::from_utf8(value.clone()).unwrap());
    assert!(!all.contains(&signature.unwrap()));
}

#[test]
fn refusals_say_what_was_off_and_nothing_that_is_not_verified() {
    let mut host = host(|_| {});
    let request = Request::genuine(&host.policy, BODY, NOW);
    keep(&mut host, &request, NOW.plus_seconds(301));
    keep(
        &mut host,
        &request,
        UnixMillis::from_seconds(NOW.as_seconds() - 61),
    );
    keep(
        &mut host,
        &request.clone().without("x-webhook-signature"),
        NOW,
    );
    let forged = request.body(&BODY.replace("ee9c", "aaaa"));
    keep(&mut host, &forged, NOW);
    let list = listing(&host.policy, &mut host.shared);
    let mut seen: Vec<_> = list["events"].as_array().unwrap().clone();
    seen.sort_by_key(|event| event["number"].as_u64());
    let of = |name: &str| {
        let values = seen.iter().map(|event| event[name].clone());
        values.collect::<Value>()
    };
    assert_eq!(
        of("verdict"),
        json!([
            "timestamp_too_old",
            "timestamp_in_future",
            "signature_missing",
            "signature_mismatch"
        ])
    );
    assert_eq!(
        of("detail"),
        json!([
            "off by 301 s, 300 s accepted",
            "off by 61 s, 60 s accepted",
            null,
            null
        ])
    );
    assert_eq!(of("age_seconds"), json!([301, -61, null, 0]));
    assert_eq!(of("body_bytes"), json!([null, null, null, BODY.len()]));
    assert_eq!(of("verified"), json!([false, false, false, false]));
    for name in ["id", "stage", "key", "outcome", "upstream_status"] {
        assert_eq!(of(name), json!([null, null, null, null]), "{name}");
    }
}

#[test]
fn duplicates_have_the_key_of_the_first() {
    let mut host = host(|_| {});
    let request = Request::genuine(&host.policy, BODY, NOW);
    let stream = keep(&mut host, &request, NOW);
    host.settle(stream, Outcome::Accepted, NOW);
    keep(&mut host, &request, NOW);
    let other = BODY.replace("complete", "first");
    let other = Request::genuine(&host.policy, &other, NOW);
    keep(&mut host, &other, NOW);
    let list = listing(&host.policy, &mut host.shared);
    let events = list["events"].as_array().unwrap();
    let verdicts: Vec<_> = events.iter().map(|event| &event["verdict"]).collect();
    assert_eq!(verdicts, ["forwarded", "duplicate", "forwarded"]);
    assert_eq!(events[1]["key"], events[2]["key"]);
    assert_ne!(events[0]["key"], events[1]["key"]);
    assert_eq!(events[0]["stage"], "first 200");
}

#[test]
fn in_monitor_mode_a_refused_request_is_shown_as_sent_on() {
    let mut host = host(|c| c["mode"] = json!("monitor"));
    let request = Request::genuine(&host.policy, BODY, NOW).without("x-webhook-signature");
    keep(&mut host, &request, NOW);
    let list = listing(&host.policy, &mut host.shared);
    assert_eq!(list["events"][0]["verdict"], "signature_missing");
    assert_eq!(list["events"][0]["sent_on"], true);
}

#[test]
fn switched_off_nothing_is_noted() {
    for change in [
        |c: &mut Value| drop(c.as_object_mut().unwrap().remove("inspector")),
        |_: &mut Value| {},
    ] {
        let mut host = host(change);
        let is_on = host.policy.inspector.is_some();
        let request = Request::genuine(&host.policy, BODY, NOW);
        let stream = keep(&mut host, &request, NOW);
        assert_eq!(host.report(stream).stage != Stage::default(), is_on);
        let written = host.shared.sorted().len();
        assert_eq!(written > 2, is_on, "beside the salt and a bucket");
    }
}

fn other(number: u64) -> Entry<'static> {
    Entry {
        time_unix_ms: number,
        verdict: "signature_missing",
        ..Entry::default()
    }
}

fn inspector(events: u32) -> Inspector {
    policy(|c| c["inspector"]["events"] = json!(events))
        .inspector
        .unwrap()
}

#[test]
fn a_flood_of_forged_requests_pushes_out_no_genuine_one_and_takes_no_memory() {
    let policy = policy(|c| c["inspector"]["events"] = json!(MOST_EVENTS));
    let inspector = policy.inspector.as_ref().unwrap();
    let mut shared = MapShared::default();
    let text = "x".repeat(300);
    let largest = Entry {
        source: &text,
        verdict: &text,
        detail: &text,
        id: &text,
        stage: &text,
        key: &text,
        ..other(1)
    };
    for verified in [true, false] {
        for _ in 0..2 * MOST_EVENTS {
            let event = Entry {
                verified,
                ..largest
            };
            inspector.write(&mut shared, &event).unwrap();
        }
    }
    let most = usize::try_from(MOST_EVENTS).unwrap();
    let full = shared.size();
    assert!(full <= 2 * (most * MAX_EVENT_BYTES + 12), "{full}");
    for number in 0..10 * u64::from(MOST_EVENTS) {
        inspector.write(&mut shared, &other(number)).unwrap();
    }
    assert!(shared.size() <= full, "{}", shared.size());
    let list = listing(&policy, &mut shared);
    let events = list["events"].as_array().unwrap();
    let verified = events.iter().filter(|event| event["verified"] == true);
    assert_eq!(verified.count(), most);
    assert_eq!(events.len(), 2 * most);
    assert_eq!(list["recorded_other"], 12 * MOST_EVENTS);
}

#[test]
fn the_newest_are_kept_and_come_first() {
    let policy = policy(|_| {});
    let inspector = policy.inspector.as_ref().unwrap();
    let mut shared = MapShared::default();
    for time in 1..=13 {
        let event = Entry {
            verified: time % 4 == 0,
            ..other(time)
        };
        inspector.write(&mut shared, &event).unwrap();
    }
    let list = listing(&policy, &mut shared);
    let times: Vec<_> = list["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["time_unix_ms"].as_u64().unwrap())
        .collect();
    assert_eq!(times, (1..=13).rev().collect::<Vec<_>>());
    for time in 14..=16 {
        inspector.write(&mut shared, &other(time)).unwrap();
    }
    let list = listing(&policy, &mut shared);
    let times = list["events"].as_array().unwrap();
    let times: Vec<_> = times
        .iter()
        .map(|event| event["time_unix_ms"].as_u64().unwrap())
        .collect();
    // Of the ten oldest of the others three have gone: 1, 2 and 3.
    assert_eq!(times, [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4]);
}

#[test]
fn who_shows_need_not_have_the_size_of_who_writes() {
    let mut shared = MapShared::default();
    let writer = inspector(20);
    for time in 1..=30 {
        writer.write(&mut shared, &other(time)).unwrap();
    }
    for (events, expected) in [(10, 10), (20, 20), (1000, 20)] {
        let shows = policy(|c| {
            c["sources"] = json!([]);
            c["inspector"]["events"] = json!(events);
        });
        let list = listing(&shows, &mut shared);
        let list = list["events"].as_array().unwrap();
        assert_eq!(list.len(), expected);
        assert_eq!(list[0]["time_unix_ms"], 30);
    }
}

#[test]
fn an_answer_that_comes_late_marks_no_other_event() {
    let policy = policy(|_| {});
    let inspector = policy.inspector.as_ref().unwrap();
    let mut shared = MapShared::default();
    let first = inspector.write(&mut shared, &other(1)).unwrap();
    for time in 2..=11 {
        inspector.write(&mut shared, &other(time)).unwrap();
    }
    inspector.answered(&mut shared, first, Outcome::Accepted, 200);
    let list = listing(&policy, &mut shared);
    for event in list["events"].as_array().unwrap() {
        assert_eq!(event["outcome"], Value::Null);
    }
}

/// Shared data where others are always faster, or where nothing works.
struct Contended {
    refuses: bool,
    tries: usize,
}

impl SharedData for Contended {
    fn get(&mut self, _: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        if self.refuses {
            return Err(Unavailable);
        }
        Ok((Some(other(1).encode()), Some(7)))
    }

    fn set(&mut self, _: &str, _: &[u8], _: u32) -> Result<Swap, Unavailable> {
        self.tries += 1;
        Ok(Swap::Conflict)
    }
}

#[test]
fn who_loses_the_race_gives_up() {
    let inspector = inspector(10);
    for (refuses, tries) in [(false, 4), (true, 0)] {
        let mut shared = Contended { refuses, tries: 0 };
        assert_eq!(inspector.write(&mut shared, &other(1)), None);
        assert_eq!(shared.tries, tries);
    }
    let mut shared = Contended {
        refuses: false,
        tries: 0,
    };
    let kept = Slot {
        verified: false,
        number: 0,
    };
    inspector.answered(&mut shared, kept, Outcome::Accepted, 200);
    assert_eq!(shared.tries, 4);
}

#[test]
fn what_is_written_is_read_and_what_is_torn_is_left_out() {
    let event = Entry {
        verified: true,
        number: u64::MAX,
        time_unix_ms: 1_769_670_760_123,
        source: "suno",
        verdict: "forwarded",
        detail: "é",
        sent_on: true,
        id: "id-1",
        stage: "complete 200",
        key: "0123456789abcdef",
        age_seconds: Some(i64::MIN),
        body_bytes: Some(u64::MAX),
        outcome: None,
        upstream_status: None,
    };
    let bytes = event.encode();
    assert_eq!(Entry::decode(true, &bytes), Some(event));
    for torn in 0..bytes.len() {
        assert_eq!(Entry::decode(true, &bytes[..torn]), None, "{torn} bytes");
    }
    let mut another = bytes.clone();
    another[0] = 2;
    assert_eq!(Entry::decode(true, &another), None, "another format");
    let cut = Entry {
        id: &"é".repeat(65),
        ..event
    };
    let bytes = cut.encode();
    assert_eq!(Entry::decode(true, &bytes).unwrap().id, "é".repeat(64));
}

#[test]
fn whatever_lies_in_the_shared_data_comes_out_as_json() {
    let policy = policy(|_| {});
    let inspector = policy.inspector.as_ref().unwrap();
    let mut shared = MapShared::default();
    let nasty = "</script>\"\\\u{0}\u{1f}\u{7f}\u{2028}é😀";
    let event = Entry {
        id: nasty,
        age_seconds: Some(i64::MIN),
        body_bytes: Some(u64::MAX),
        ..other(1)
    };
    inspector.write(&mut shared, &event).unwrap();
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*token)];
    let reply = ask(&policy, &mut shared, "GET", "/inspector/events", &headers).unwrap();
    let text = String::from_utf8(reply.body.into_owned()).unwrap();
    assert!(!text.contains('<') && !text.contains('\u{0}'), "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["events"][0]["id"], nasty);
    assert_eq!(list["events"][0]["age_seconds"], i64::MIN);
    assert_eq!(list["events"][0]["body_bytes"], u64::MAX);
}

#[test]
fn a_stage_is_made_of_short_plain_words() {
    let stage = |values: &[&str]| {
        let mut stage = Stage::default();
        for value in values {
            stage.add(value.as_bytes());
        }
        stage.as_str().to_owned()
    };
    assert_eq!(stage(&["complete", "200"]), "complete 200");
    assert_eq!(stage(&["", "a b", "a@b", "<b>", "é", "ok"]), "ok");
    let (fits, long) = ("x".repeat(24), "x".repeat(25));
    assert_eq!(stage(&[&*fits]), fits);
    assert_eq!(stage(&[&*long]), "");
    assert_eq!(stage(&["abcdefghij"; 9]), ["abcdefghij"; 5].join(" "));
}

fn page_source() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/inspector/page.html");
    std::fs::read_to_string(path).unwrap()
}

fn page() -> Reply {
    let policy = policy(|_| {});
    ask(
        &policy,
        &mut MapShared::default(),
        "GET",
        "/inspector?x",
        &[],
    )
    .unwrap()
}

fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    assert_eq!(text.matches(begin).count(), 1, "{begin}");
    text.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

#[test]
fn the_packed_page_is_the_page() {
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&page().body[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert!(
        unpacked == page_source(),
        "page.html has changed: core/src/inspector/pack.sh"
    );
}

#[test]
fn the_page_comes_with_a_policy_that_allows_itself_alone() {
    let source = page_source();
    let hash = |text| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
    let script = hash(between(&source, "<script>", "</script>"));
    let style = hash(between(&source, "<style>", "</style>"));
    let reply = page();
    assert_eq!(
        header(&reply, "content-security-policy").unwrap(),
        format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    );
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-encoding", "gzip"),
        ("content-type", "text/html; charset=utf-8"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(header(&reply, name), Some(value), "{name}");
    }
}

#[test]
fn the_page_asks_nobody_else_and_writes_no_markup() {
    let source = page_source();
    // The name of the SVG elements is the only address in it.
    let addresses: Vec<_> = source.matches("://").collect();
    assert_eq!(addresses.len(), 1);
    assert!(source.contains("http://www.w3.org/2000/svg"));
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "style=",
    ] {
        assert!(!source.contains(sink), "{sink}");
    }
}

#[test]
fn the_page_has_a_step_and_advice_for_every_code() {
    let source = page_source();
    let json = between(
        &source,
        "<script type=\"application/json\" id=\"codes\">",
        "</script>",
    );
    let codes: Value = serde_json::from_str(json).unwrap();
    let told: BTreeSet<&str> = codes
        .as_object()
        .unwrap()
        .keys()
        .map(|key| &**key)
        .collect();
    let all: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(told, all);
    for (code, texts) in codes.as_object().unwrap() {
        let texts = texts.as_array().unwrap();
        assert_eq!(texts.len(), 2, "{code}");
        for text in texts {
            assert!(text.as_str().unwrap().ends_with('.'), "{code}: {text}");
        }
    }
}
