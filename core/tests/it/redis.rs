//! The Redis store: what is sent, byte for byte, what every reply means, and the contract of both
//! stores, held by the same tests.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use callback_guard_config::{self as config, Build};
use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::log::start_line;
use callback_guard_core::store::bucket::{Fingerprint, OwnerToken};
use callback_guard_core::store::circuit::{
    Circuit, FAILURES, LONGEST_REST_MILLIS, Permit, REST_MILLIS, Transition,
};
use callback_guard_core::store::local::LocalStore;
use callback_guard_core::store::redis::{
    Access, Address, Answer, Ask, Front, Login, MAX_REPLY_BYTES, OnError, Place, Protocol, Remote,
    Replies, Reply, Script, Server, StoreError,
};
use callback_guard_core::store::retries::{CAPACITY, PendingSettlement, Retries};
use callback_guard_core::store::{ClaimAnswer, ClaimRequest, Settlement};
use callback_guard_core::time::UnixMillis;
use sha2::{Digest, Sha256};

use crate::redis_server::{Redis, words};
use crate::support::{MapShared, configuration, policy};

const NOW: UnixMillis = UnixMillis::from_seconds(1_000_000);

fn remote(protocol: Protocol) -> Remote {
    Remote {
        access: Access::Front(front(protocol)),
        key_prefix: "callback-guard:".into(),
        timeout_millis: 250,
        on_error: OnError::Memory,
    }
}

fn front(protocol: Protocol) -> Front {
    Front {
        protocol,
        cluster: "redis_http".into(),
        authority: "redis.internal".into(),
        authorization: Some(Front::authorization(protocol, "user:password")),
        replies: Replies::of(protocol),
    }
}

/// By a connection.
fn direct() -> Remote {
    Remote {
        access: Access::Server(Server::parse(b"redis://user:password@redis.internal").unwrap()),
        ..remote(Protocol::Webdis)
    }
}

fn posted(ask: Ask) -> String {
    match ask {
        Ask::Post(body) => body,
        Ask::Eval(eval) => panic!("{eval:?}"),
    }
}

fn http(status: u16, body: &[u8]) -> Answer<'_> {
    Answer::Http { status, body }
}

fn request(number: u64, owner: u64) -> ClaimRequest {
    of_id(number, number, owner)
}

/// An event of a message id that may make three.
fn of_id(id: u64, number: u64, owner: u64) -> ClaimRequest {
    let salt = [3; 16];
    ClaimRequest {
        key: EventKey::from_bytes(Sha256::digest(number.to_le_bytes()).into()),
        id: IdKey::new("suno", &id.to_string(), &salt, true),
        events_per_id: 3,
        owner: OwnerToken::new(owner),
        lease_seconds: 30,
    }
}

fn deliver(number: u64, owner: u64) -> Settlement {
    Settlement::Deliver {
        key: request(number, owner).key,
        id: request(number, owner).id,
        owner: OwnerToken::new(owner),
        fingerprint: Fingerprint::new(number),
        window_seconds: 86_400,
    }
}

fn release(number: u64, owner: u64) -> Settlement {
    Settlement::Release {
        key: request(number, owner).key,
        id: request(number, owner).id,
        owner: OwnerToken::new(owner),
    }
}

const HEX: &str = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc";

#[test]
fn what_is_sent() {
    let key = EventKey::from_bytes(hex::decode(HEX).unwrap().try_into().unwrap());
    let id = IdKey {
        local: 1,
        shared: [0xab; 16],
    };
    let claim = ClaimRequest {
        key,
        id,
        events_per_id: 64,
        owner: OwnerToken::new(255),
        lease_seconds: 30,
    };
    let settlement = Settlement::release(&claim);
    let (ids, name) = ("ab".repeat(16), &HEX[..32]);
    let webdis = remote(Protocol::Webdis);
    let keys = format!("callback-guard%3Asuno%3A{HEX}/callback-guard%3Asuno%3Aid%3A{ids}");
    let script = "EVAL/local%20v%3Dredis%2Ecall%28%27GET%27%2CKEYS%5B1%5D%29";
    let sent = posted(webdis.claim("suno", &claim));
    assert!(sent.starts_with(script), "{sent}");
    let end = format!("/2/{keys}/c%3A00000000000000ff/30000/64/{name}");
    assert!(sent.ends_with(&end), "{sent}");
    let release = posted(webdis.settle("suno", &settlement));
    assert!(release.starts_with(script), "{release}");
    let end = format!("/2/{keys}/c%3A00000000000000ff/{name}");
    assert!(release.ends_with(&end), "{release}");
    let upstash = remote(Protocol::Upstash);
    let sent = posted(upstash.claim("suno", &claim));
    let sent: Vec<String> = serde_json::from_str(&sent).unwrap();
    let keys = [
        format!("callback-guard:suno:{HEX}"),
        format!("callback-guard:suno:id:{ids}"),
    ];
    assert_eq!(
        sent[2..5],
        ["2".to_owned(), keys[0].clone(), keys[1].clone()]
    );
    assert_eq!(sent[5..], ["c:00000000000000ff", "30000", "64", name]);
    assert_eq!(
        front(Protocol::Webdis).headers(),
        [
            (":method", "POST"),
            (":path", "/"),
            (":authority", "redis.internal"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", "Basic dXNlcjpwYXNzd29yZA=="),
        ]
    );
    assert_eq!(
        front(Protocol::Upstash).headers()[4],
        ("authorization", "Bearer user:password")
    );
}

/// Who shares events by a front and who does by a connection have the same keys, values and scripts.
#[test]
fn a_connection_asks_what_a_front_is_asked() {
    let (claim, settlement) = (request(1, 2), deliver(1, 2));
    let upstash = remote(Protocol::Upstash);
    let by_front = [
        upstash.claim("suno", &claim),
        upstash.settle("suno", &settlement),
        upstash.settle("suno", &Settlement::release(&claim)),
    ];
    let by_connection = [
        direct().claim("suno", &claim),
        direct().settle("suno", &settlement),
        direct().settle("suno", &Settlement::release(&claim)),
    ];
    for (front, connection) in by_front.into_iter().zip(by_connection) {
        let front: Vec<String> = serde_json::from_str(&posted(front)).unwrap();
        let Ask::Eval(eval) = connection else {
            panic!("{connection:?}")
        };
        let mut words = vec!["EVAL".to_owned(), eval.script.text().into(), "2".into()];
        words.extend(eval.keys);
        words.extend(eval.arguments);
        assert_eq!(words, front);
    }
    let digests = [Script::Claim, Script::Deliver, Script::Release].map(Script::digest);
    assert!(digests.iter().all(|digest| digest.len() == 40));
}

#[test]
fn what_a_reply_by_a_connection_means() {
    use ClaimAnswer::{ClaimedByAnother, Delivered, Granted, TooMany};
    use StoreError::{Denied, Malformed, Redis};

    let long = [b'x'; MAX_REPLY_BYTES + 1];
    let owner = OwnerToken::new(1);
    let known = Fingerprint::new(10).with_signed(7);
    let claims = [
        (Reply::Null, Ok(Granted)),
        (Reply::Text(b"c:0000000000000001"), Ok(Granted)),
        (Reply::Text(b"c:0000000000000002"), Ok(ClaimedByAnother)),
        (
            Reply::Text(b"d:0000000000000002:000000000000000a:00000007"),
            Ok(Delivered(known)),
        ),
        (Reply::Text(b"full"), Ok(TooMany)),
        (Reply::Text(b""), Err(Malformed)),
        (Reply::Text(b"c:1"), Err(Malformed)),
        (Reply::Text(b"\xff"), Err(Malformed)),
        (Reply::Text(&long), Err(Malformed)),
        (Reply::Number(1), Err(Malformed)),
        (Reply::Other, Err(Malformed)),
        (Reply::Error("NOPERM"), Err(Redis)),
        (Reply::Error("LOADING"), Err(Redis)),
        (Reply::Error("NOAUTH"), Err(Denied)),
        (Reply::Error("WRONGPASS"), Err(Denied)),
    ];
    for (reply, expected) in claims {
        let answer = direct().read_claim(Answer::Redis(reply), owner);
        assert_eq!(answer, expected, "{reply:?}");
    }
    let settlements = [
        (Reply::Number(1), Ok(true)),
        (Reply::Number(0), Ok(false)),
        (Reply::Number(2), Err(Malformed)),
        (Reply::Null, Err(Malformed)),
        (Reply::Text(b"1"), Err(Malformed)),
        (Reply::Error("READONLY"), Err(Redis)),
    ];
    for (reply, expected) in settlements {
        let answer = direct().read_settle(Answer::Redis(reply));
        assert_eq!(answer, expected, "{reply:?}");
    }
    // What did not come by the way that was asked is no answer.
    let stray = direct().read_claim(http(200, br#"{"EVAL":null}"#), owner);
    assert_eq!(stray, Err(Malformed));
    let stray = remote(Protocol::Webdis).read_claim(Answer::Redis(Reply::Null), owner);
    assert_eq!(stray, Err(Malformed));
}

fn address(host: &str, port: u16) -> Address {
    Address {
        host: host.into(),
        port,
    }
}

fn login(user: Option<&str>, password: Option<&str>) -> Login {
    Login {
        user: user.map(Into::into),
        password: password.map(Into::into),
    }
}

#[test]
fn urls_of_redis() {
    let server =
        |host: &str, port, is_tls, user: Option<&str>, password: Option<&str>, database| {
            Ok(Server {
                place: Place::At(address(host, port)),
                is_tls,
                login: login(user, password),
                database,
            })
        };
    let (user, password) = (Some("guard"), Some("p@ss:w/rd?#%"));
    for (url, expected) in [
        ("redis://redis", server("redis", 6379, false, None, None, 0)),
        (
            "redis://redis.internal:7000/",
            server("redis.internal", 7000, false, None, None, 0),
        ),
        (
            "rediss://guard:p%40ss%3Aw%2Frd%3F%23%25@10.0.0.7/3",
            server("10.0.0.7", 6379, true, user, password, 3),
        ),
        (
            "rediss://:secret@[2001:db8::7]:6380/15",
            server("2001:db8::7", 6380, true, None, Some("secret"), 15),
        ),
    ] {
        assert_eq!(Server::parse(url.as_bytes()), expected, "{url}");
    }
    for url in [
        "",
        "secret",
        "redis:",
        "redis://",
        "redis:///0",
        "redis://:secret@/0",
        "redis://:secret@ho st",
        "redis://:secret@host:99999",
        "redis://:secret@host:port",
        "redis://secret@host",
        "redis://:secret@host/db",
        "redis://:secret@host/-1",
        "redis://:secret@host/+1",
        "redis://:secret@host/1/2",
        "redis://:secret@host/0?protocol=resp3",
        "rediss://:secret@host/#insecure",
        "redis://:secret%ff@host",
        "redis-sentinel://:secret@host",
        "unix:///secret.sock",
        "https://:secret@host",
    ] {
        let problem = Server::parse(url.as_bytes()).map(|_| url).expect_err(url);
        assert!(
            problem.contains("redis://") || problem.contains('`'),
            "{url}: {problem}"
        );
        assert!(!problem.contains("secret"), "{url}: {problem}");
    }
    assert!(Server::parse(b"redis://:secret\xff@host").is_err());
}

#[test]
fn urls_of_sentinels() {
    let of = |addresses: &[(&str, u16)], master: &str, sentinel, is_tls, login, database| {
        let addresses = addresses.iter().map(|(host, port)| address(host, *port));
        Ok(Server {
            place: Place::Sentinels {
                addresses: addresses.collect(),
                master: master.into(),
                login: sentinel,
            },
            is_tls,
            login,
            database,
        })
    };
    let nobody = || login(None, None);
    for (url, expected) in [
        (
            "redis+sentinel://sentinel/mymaster",
            of(
                &[("sentinel", 26379)],
                "mymaster",
                nobody(),
                false,
                nobody(),
                0,
            ),
        ),
        (
            "REDISS+Sentinel://guard:p%40ss%2C%2F%3F@one:7000,10.0.0.7,[2001:db8::7],[::1]:1/my%2Fmaster/3\
             ?sentinel_username=w%26tch&sentinel_password=a%3Db%2Bc",
            of(
                &[
                    ("one", 7000),
                    ("10.0.0.7", 26379),
                    ("2001:db8::7", 26379),
                    ("::1", 1),
                ],
                "my/master",
                login(Some("w&tch"), Some("a=b+c")),
                true,
                login(Some("guard"), Some("p@ss,/?")),
                3,
            ),
        ),
        (
            "redis+sentinel://:pass@one,two/mymaster/?sentinel_password=word\n",
            of(
                &[("one", 26379), ("two", 26379)],
                "mymaster",
                login(None, Some("word")),
                false,
                login(None, Some("pass")),
                0,
            ),
        ),
        (
            // An `@` in the password that was not encoded: the last one ends it.
            "redis+sentinel://guard:p@ss@one/mymaster?",
            of(
                &[("one", 26379)],
                "mymaster",
                nobody(),
                false,
                login(Some("guard"), Some("p@ss")),
                0,
            ),
        ),
    ] {
        assert_eq!(Server::parse(url.as_bytes()), expected, "{url}");
    }
    for url in [
        "redis+sentinel://",
        "redis+sentinel://:secret@",
        "redis+sentinel://:secret@one",
        "redis+sentinel://:secret@one/",
        "redis+sentinel://:secret@one//0",
        "redis+sentinel:///mymaster",
        "redis+sentinel://:secret@one,/mymaster",
        "redis+sentinel://:secret@,one/mymaster",
        "redis+sentinel://:secret@one, two/mymaster",
        "redis+sentinel://:secret@one:port/mymaster",
        "redis+sentinel://:secret@one:/mymaster",
        "redis+sentinel://:secret@one:99999/mymaster",
        "redis+sentinel://:secret@::1/mymaster",
        "redis+sentinel://:secret@[::1/mymaster",
        "redis+sentinel://:secret@one]/mymaster",
        "redis+sentinel://:secret@[]/mymaster",
        "redis+sentinel://secret@one/mymaster",
        "redis+sentinel://:secret%ff@one/mymaster",
        "redis+sentinel://:secret@one/mymaster/db",
        "redis+sentinel://:secret@one/mymaster/-1",
        "redis+sentinel://:secret@one/mymaster/0/1",
        "redis+sentinel://:secret@one/mymaster/0#secret",
        "redis+sentinel://:secret@one/mymaster?sentinel_username=secret",
        "redis+sentinel://:secret@one/mymaster?sentinel_password=",
        "redis+sentinel://:secret@one/mymaster?sentinel_password",
        "redis+sentinel://:secret@one/mymaster?sentinel_password=secret+word",
        "redis+sentinel://:secret@one/mymaster?sentinel_password=secret%ff",
        "redis+sentinel://:secret@one/mymaster?sentinel_password=secret&sentinel_password=secret",
        "redis+sentinel://:secret@one/mymaster?sentinel_password=secret&",
        "redis+sentinel://:secret@one/mymaster?ssl_cert_reqs=none",
        "sentinel://:secret@one/mymaster",
    ] {
        let problem = Server::parse(url.as_bytes()).map(|_| url).expect_err(url);
        assert!(
            problem.contains("://") || problem.contains('`') || problem.contains('?'),
            "{url}: {problem}"
        );
        assert!(!problem.contains("secret"), "{url}: {problem}");
    }
}

#[test]
fn no_debug_shows_the_token() {
    for remote in [remote(Protocol::Upstash), direct()] {
        let text = format!("{remote:?}");
        assert!(!text.contains("password"), "{text}");
        assert!(!text.contains("user"), "{text}");
    }
}

#[test]
fn what_a_reply_to_a_claim_means() {
    use ClaimAnswer::{ClaimedByAnother, Delivered, Granted, TooMany};
    use StoreError::{Denied, Malformed, Redis, Status, Timeout, Unreachable};

    let owner = OwnerToken::new(1);
    let rows: &[(Protocol, u16, &str, Result<ClaimAnswer, StoreError>)] = &[
        (Protocol::Webdis, 200, r#"{"EVAL":null}"#, Ok(Granted)),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"c:0000000000000001"}"#,
            Ok(Granted),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"c:0000000000000002"}"#,
            Ok(ClaimedByAnother),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"d:0000000000000002:000000000000000a"}"#,
            Ok(Delivered(Fingerprint::new(10))),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":[false,"ERR x"]}"#,
            Err(Redis),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":[true,"OK"]}"#,
            Err(Malformed),
        ),
        (Protocol::Webdis, 200, r#"{"EVAL":1}"#, Err(Malformed)),
        (Protocol::Webdis, 200, r#"{"SET":null}"#, Err(Malformed)),
        (Protocol::Webdis, 200, r#"{"EVAL":"full"}"#, Ok(TooMany)),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"d:0000000000000002:000000000000000a:00000007"}"#,
            Ok(Delivered(Fingerprint::new(10).with_signed(7))),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"d:0000000000000002:000000000000000a:7"}"#,
            Err(Malformed),
        ),
        (Protocol::Webdis, 200, r#"{"EVAL":nul"#, Err(Malformed)),
        (Protocol::Webdis, 200, r#"{"EVAL":null}{"#, Err(Malformed)),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":null,"EVAL":null}"#,
            Err(Malformed),
        ),
        (Protocol::Webdis, 200, r#"{"EVAL":"c:1"}"#, Err(Malformed)),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"c:00000000000000FF"}"#,
            Err(Malformed),
        ),
        (
            Protocol::Webdis,
            200,
            r#"{"EVAL":"d:0000000000000002"}"#,
            Err(Malformed),
        ),
        (Protocol::Webdis, 200, r#"{"EVAL":""}"#, Err(Malformed)),
        (Protocol::Webdis, 200, "", Err(Malformed)),
        (Protocol::Webdis, 200, "OK", Err(Malformed)),
        (Protocol::Webdis, 200, "[]", Err(Malformed)),
        (Protocol::Webdis, 400, r#"{"EVAL":null}"#, Err(Status)),
        (Protocol::Webdis, 401, "", Err(Denied)),
        (Protocol::Webdis, 403, "", Err(Denied)),
        (Protocol::Webdis, 404, "", Err(Status)),
        (Protocol::Webdis, 503, "", Err(Unreachable)),
        (Protocol::Webdis, 504, "", Err(Timeout)),
        (Protocol::Upstash, 200, r#"{"result":null}"#, Ok(Granted)),
        (
            Protocol::Upstash,
            200,
            r#"{"result":"c:0000000000000002"}"#,
            Ok(ClaimedByAnother),
        ),
        (Protocol::Upstash, 200, r#"{"result":"OK"}"#, Err(Malformed)),
        (
            Protocol::Upstash,
            200,
            r#"{"result":[false,"ERR x"]}"#,
            Err(Malformed),
        ),
        (Protocol::Upstash, 200, r#"{"error":"ERR x"}"#, Err(Redis)),
        (Protocol::Upstash, 400, r#"{"error":"ERR x"}"#, Err(Redis)),
        (Protocol::Upstash, 500, r#"{"error":"ERR x"}"#, Err(Redis)),
        (Protocol::Upstash, 400, r#"{"result":null}"#, Err(Malformed)),
        (
            Protocol::Upstash,
            200,
            r#"{"error":"x","result":null}"#,
            Err(Malformed),
        ),
        (Protocol::Upstash, 200, r#"{"error":null}"#, Err(Malformed)),
        (
            Protocol::Upstash,
            401,
            r#"{"error":"Unauthorized"}"#,
            Err(Denied),
        ),
        (Protocol::Upstash, 429, "", Err(Status)),
    ];
    for (protocol, status, body, expected) in rows {
        let answer = remote(*protocol).read_claim(http(*status, body.as_bytes()), owner);
        assert_eq!(answer, *expected, "{protocol:?} {status} {body}");
    }
}

#[test]
fn what_a_reply_to_a_settlement_means() {
    let rows: &[(Protocol, &str, Result<bool, StoreError>)] = &[
        (Protocol::Webdis, r#"{"EVAL":1}"#, Ok(true)),
        (Protocol::Webdis, r#"{"EVAL":0}"#, Ok(false)),
        (
            Protocol::Webdis,
            r#"{"EVAL":[false,"ERR x"]}"#,
            Err(StoreError::Redis),
        ),
        (
            Protocol::Webdis,
            r#"{"EVAL":2}"#,
            Err(StoreError::Malformed),
        ),
        (
            Protocol::Webdis,
            r#"{"EVAL":true}"#,
            Err(StoreError::Malformed),
        ),
        (
            Protocol::Webdis,
            r#"{"EVAL":null}"#,
            Err(StoreError::Malformed),
        ),
        (
            Protocol::Webdis,
            r#"{"SET":null}"#,
            Err(StoreError::Malformed),
        ),
        (Protocol::Upstash, r#"{"result":1}"#, Ok(true)),
        (Protocol::Upstash, r#"{"result":0}"#, Ok(false)),
        (
            Protocol::Upstash,
            r#"{"result":"1"}"#,
            Err(StoreError::Malformed),
        ),
    ];
    for (protocol, body, expected) in rows {
        let answer = remote(*protocol).read_settle(http(200, body.as_bytes()));
        assert_eq!(answer, *expected, "{protocol:?} {body}");
    }
}

#[test]
fn a_reply_has_a_limit() {
    let padded = |size: usize| {
        let reply = r#"{"EVAL":null}"#;
        format!("{reply}{}", " ".repeat(size - reply.len()))
    };
    let read = |size| {
        remote(Protocol::Webdis).read_claim(http(200, padded(size).as_bytes()), OwnerToken::new(1))
    };
    assert_eq!(read(MAX_REPLY_BYTES), Ok(ClaimAnswer::Granted));
    assert_eq!(read(MAX_REPLY_BYTES + 1), Err(StoreError::Malformed));
}

#[test]
fn every_truncation_of_a_reply_is_malformed() {
    for whole in [
        r#"{"EVAL":"d:0000000000000002:000000000000000a"}"#,
        r#"{"EVAL":null}"#,
    ] {
        for end in 0..whole.len() {
            let part = &whole.as_bytes()[..end];
            let answer = remote(Protocol::Webdis).read_claim(http(200, part), OwnerToken::new(1));
            assert_eq!(answer, Err(StoreError::Malformed), "{}", &whole[..end]);
        }
    }
}

#[test]
fn what_becomes_of_a_request_when_the_store_fails() {
    let rows = [
        (
            OnError::Memory,
            true,
            ClaimAnswer::GrantedLocally,
            true,
            false,
        ),
        // Without a claim of its own it cannot fall back on it.
        (
            OnError::Memory,
            false,
            ClaimAnswer::Unavailable,
            false,
            true,
        ),
        (OnError::Reject, true, ClaimAnswer::Unavailable, false, true),
        (OnError::Pass, true, ClaimAnswer::Unavailable, false, true),
    ];
    for (on_error, holds_locally, answer, keeps_locally, releases_remotely) in rows {
        let resolved = on_error.resolve(Err(StoreError::Timeout), holds_locally);
        assert_eq!(
            (
                resolved.answer,
                resolved.keeps_locally,
                resolved.releases_remotely
            ),
            (answer, keeps_locally, releases_remotely),
            "{on_error:?} {holds_locally}"
        );
        // What was never asked needs no release.
        let resolved = on_error.resolve(Err(StoreError::CircuitOpen), holds_locally);
        assert!(!resolved.releases_remotely);
    }
    let resolved = OnError::Memory.resolve(Ok(ClaimAnswer::ClaimedByAnother), true);
    assert!(!resolved.keeps_locally && !resolved.releases_remotely);
    assert!(
        OnError::Memory
            .resolve(Ok(ClaimAnswer::Granted), true)
            .keeps_locally
    );
}

fn at(millis: u64) -> UnixMillis {
    UnixMillis::new(NOW.as_millis() + millis)
}

/// Opens a circuit at `NOW`.
fn opened() -> Circuit {
    let mut circuit = Circuit::default();
    for number in 1..=FAILURES {
        let permit = circuit.permit(NOW).unwrap();
        let turn = circuit.failed(permit, NOW);
        let expected = if number == FAILURES {
            Transition::Opened
        } else {
            Transition::None
        };
        assert_eq!(turn, expected);
    }
    circuit
}

#[test]
fn a_circuit_opens_after_failures_in_a_row() {
    let mut circuit = Circuit::default();
    for _ in 0..10 {
        for _ in 1..FAILURES {
            assert_eq!(circuit.failed(Permit::Call, NOW), Transition::None);
        }
        assert_eq!(circuit.succeeded(Permit::Call), Transition::None);
    }
    assert!(!circuit.is_open());
    assert!(opened().is_open());
}

#[test]
fn an_open_circuit_lets_one_probe_through() {
    let mut circuit = opened();
    assert_eq!(circuit.permit(at(REST_MILLIS - 1)), None);
    assert!(!circuit.would_permit(at(REST_MILLIS - 1)));
    assert!(circuit.would_permit(at(REST_MILLIS)));
    assert_eq!(circuit.permit(at(REST_MILLIS)), Some(Permit::Probe));
    assert_eq!(circuit.permit(at(REST_MILLIS)), None);
    // Calls from before say nothing.
    assert_eq!(circuit.succeeded(Permit::Call), Transition::None);
    assert_eq!(
        circuit.failed(Permit::Call, at(REST_MILLIS)),
        Transition::None
    );
    assert_eq!(circuit.permit(at(REST_MILLIS)), None);
    assert_eq!(circuit.succeeded(Permit::Probe), Transition::Closed);
    assert_eq!(circuit.permit(at(REST_MILLIS)), Some(Permit::Call));
}

#[test]
fn failed_probes_double_the_rest_up_to_a_limit() {
    let mut circuit = opened();
    let (mut now, mut rest) = (NOW, REST_MILLIS);
    for _ in 0..8 {
        let due = UnixMillis::new(now.as_millis() + rest);
        assert_eq!(circuit.permit(UnixMillis::new(due.as_millis() - 1)), None);
        assert_eq!(circuit.permit(due), Some(Permit::Probe));
        assert_eq!(circuit.failed(Permit::Probe, due), Transition::None);
        (now, rest) = (due, (rest * 2).min(LONGEST_REST_MILLIS));
    }
    assert_eq!(rest, LONGEST_REST_MILLIS);
}

#[test]
fn an_abandoned_probe_makes_room_for_another() {
    let mut circuit = opened();
    let now = at(REST_MILLIS);
    assert_eq!(circuit.permit(now), Some(Permit::Probe));
    circuit.abandoned(Permit::Call, now);
    assert_eq!(circuit.permit(now), None);
    circuit.abandoned(Permit::Probe, now);
    assert_eq!(circuit.permit(now), Some(Permit::Probe));
}

/// What rests until a moment would rest for as long as the clock is set back.
#[test]
fn no_rest_outlasts_a_clock_that_is_set_back() {
    let past = UnixMillis::new(NOW.as_millis() - 600_000);
    let mut circuit = opened();
    assert!(circuit.would_permit(past));
    assert_eq!(circuit.permit(past), Some(Permit::Probe));
    let source = Arc::clone(&policy(&configuration(|_| {})).sources[0]);
    let mut retries = Retries::default();
    let failed = PendingSettlement::new(source, deliver(1, 1), at(30_000), NOW).again(NOW);
    assert!(retries.push(failed).is_none());
    assert!(retries.next_due(NOW).is_none());
    assert!(retries.next_due(past).is_some());
}

#[test]
fn retries_keep_what_is_due_and_give_up_at_the_end_of_the_lease() {
    let source = Arc::clone(&policy(&configuration(|_| {})).sources[0]);
    let mut retries = Retries::default();
    let pending = PendingSettlement::new(Arc::clone(&source), deliver(1, 1), at(30_000), at(0));
    assert!(!pending.is_retry);
    let again = pending.again(at(0));
    assert!(again.is_retry);
    assert!(retries.push(again).is_none());
    assert!(retries.next_due(at(99)).is_none());
    let due = retries.next_due(at(100)).unwrap();
    assert!(retries.is_empty());
    // The pause doubles.
    assert!(retries.push(due.again(at(100))).is_none());
    assert!(retries.next_due(at(299)).is_none());
    assert!(retries.next_ended(at(29_999)).is_none());
    assert!(retries.next_ended(at(30_000)).is_some());
    for number in 0..CAPACITY {
        let number = u64::try_from(number).unwrap();
        let pending = PendingSettlement::new(Arc::clone(&source), deliver(number, 1), at(1), at(0));
        assert!(retries.push(pending).is_none());
    }
    let dropped = retries
        .push(PendingSettlement::new(
            Arc::clone(&source),
            deliver(9_999, 1),
            at(1),
            at(0),
        ))
        .unwrap();
    assert_eq!(dropped.settlement, deliver(0, 1));
    assert_eq!(retries.len(), CAPACITY);
}

/// A store, as the guard uses it.
trait Store {
    fn claim(&mut self, request: &ClaimRequest, now: UnixMillis) -> ClaimAnswer;
    fn settle(&mut self, settlement: &Settlement, now: UnixMillis) -> bool;
}

struct InMemory(LocalStore, MapShared);

impl Store for InMemory {
    fn claim(&mut self, request: &ClaimRequest, now: UnixMillis) -> ClaimAnswer {
        self.0.claim(&mut self.1, request, now).0
    }

    fn settle(&mut self, settlement: &Settlement, now: UnixMillis) -> bool {
        self.0.settle(&mut self.1, settlement, now).unwrap().0
    }
}

/// A Redis, by way of the protocol's own text.
struct InRedis {
    remote: Remote,
    server: Redis,
}

impl InRedis {
    fn new(remote: Remote) -> Self {
        Self {
            remote,
            server: Redis::default(),
        }
    }

    /// Has `read` see what Redis says, as it comes by the way that was asked.
    fn asked<T>(
        &mut self,
        ask: Ask,
        now: UnixMillis,
        read: impl FnOnce(&Remote, Answer<'_>) -> Result<T, StoreError>,
    ) -> T {
        // What is asked by a connection is put to the server in the words of Upstash.
        let (protocol, body) = match (ask, &self.remote.access) {
            (Ask::Post(body), Access::Front(front)) => (front.protocol, body),
            (Ask::Eval(eval), Access::Server(_)) => {
                let mut words = vec!["EVAL".to_owned(), eval.script.text().into(), "2".into()];
                words.extend(eval.keys);
                words.extend(eval.arguments);
                (Protocol::Upstash, serde_json::to_string(&words).unwrap())
            }
            (ask, access) => panic!("{ask:?} by {access:?}"),
        };
        let reply = self
            .server
            .answer(protocol, &words(protocol, &body), now.as_millis());
        assert_eq!(self.server.endless(), 0, "every key has an end");
        if let Access::Front(_) = self.remote.access {
            return read(&self.remote, http(200, &reply)).unwrap();
        }
        let reply: serde_json::Value = serde_json::from_slice(&reply).unwrap();
        let said = match &reply["result"] {
            serde_json::Value::Null => Reply::Null,
            serde_json::Value::String(text) => Reply::Text(text.as_bytes()),
            said => Reply::Number(said.as_i64().unwrap()),
        };
        read(&self.remote, Answer::Redis(said)).unwrap()
    }
}

impl Store for InRedis {
    fn claim(&mut self, request: &ClaimRequest, now: UnixMillis) -> ClaimAnswer {
        let ask = self.remote.claim("suno", request);
        self.asked(ask, now, |remote, answer| {
            remote.read_claim(answer, request.owner)
        })
    }

    fn settle(&mut self, settlement: &Settlement, now: UnixMillis) -> bool {
        let ask = self.remote.settle("suno", settlement);
        self.asked(ask, now, Remote::read_settle)
    }
}

/// The scripts, run: what a key holds, and until when.
#[test]
fn what_redis_holds() {
    let mut store = InRedis::new(remote(Protocol::Webdis));
    let key = format!("callback-guard:suno:{}", request(1, 1).key.to_hex());
    let at = NOW.as_millis();
    let holds = |store: &InRedis, now| {
        let (text, end) = store.server.text(&key, now)?;
        Some((text.to_owned(), end))
    };
    assert_eq!(store.claim(&request(1, 1), NOW), ClaimAnswer::Granted);
    let claimed = ("c:0000000000000001".to_owned(), at + 30_000);
    assert_eq!(holds(&store, at), Some(claimed));
    assert_eq!(holds(&store, at + 30_000), None);
    assert!(store.settle(&deliver(1, 1), NOW.plus_seconds(1)));
    let text = "d:0000000000000001:0000000000000001:00000000".to_owned();
    let delivered = Some((text, at + 86_401_000));
    assert_eq!(holds(&store, at), delivered);
    // Told again, by a settlement whose first answer was lost.
    assert!(store.settle(&deliver(1, 1), NOW.plus_seconds(2)));
    assert!(!store.settle(&release(1, 1), NOW.plus_seconds(2)));
    assert_eq!(holds(&store, at), delivered);
}

fn stores() -> Vec<(&'static str, Box<dyn Store>)> {
    vec![
        (
            "memory",
            Box::new(InMemory(LocalStore::new(1_000), MapShared::default())),
        ),
        ("webdis", Box::new(InRedis::new(remote(Protocol::Webdis)))),
        ("upstash", Box::new(InRedis::new(remote(Protocol::Upstash)))),
        ("a connection", Box::new(InRedis::new(direct()))),
    ]
}

#[test]
fn every_store_keeps_the_contract() {
    use ClaimAnswer::{ClaimedByAnother, Delivered, Granted};

    for (name, mut store) in stores() {
        let later = |seconds| NOW.plus_seconds(seconds);
        // absent -> claimed, by one
        assert_eq!(store.claim(&request(1, 1), NOW), Granted, "{name}");
        assert_eq!(store.claim(&request(1, 2), NOW), ClaimedByAnother, "{name}");
        // only the owner settles
        assert!(!store.settle(&release(1, 2), NOW), "{name}");
        assert!(!store.settle(&deliver(1, 2), NOW), "{name}");
        assert_eq!(store.claim(&request(1, 3), NOW), ClaimedByAnother, "{name}");
        // claimed -> absent
        assert!(store.settle(&release(1, 1), NOW), "{name}");
        assert_eq!(store.claim(&request(1, 3), NOW), Granted, "{name}");
        // claimed -> delivered, for the window
        assert!(store.settle(&deliver(1, 3), NOW), "{name}");
        let known = Delivered(Fingerprint::new(1));
        assert_eq!(store.claim(&request(1, 4), later(86_399)), known, "{name}");
        assert_eq!(
            store.claim(&request(1, 4), later(86_400)),
            Granted,
            "{name}"
        );
        // the lease ends
        assert_eq!(store.claim(&request(2, 5), NOW), Granted, "{name}");
        assert_eq!(
            store.claim(&request(2, 6), later(29)),
            ClaimedByAnother,
            "{name}"
        );
        assert_eq!(store.claim(&request(2, 6), later(30)), Granted, "{name}");
        // a late settlement does not take the claim of another
        assert!(!store.settle(&deliver(2, 5), later(31)), "{name}");
        assert_eq!(
            store.claim(&request(2, 7), later(31)),
            ClaimedByAnother,
            "{name}"
        );
        // but where nobody has claimed since, the event is remembered
        assert_eq!(store.claim(&request(3, 8), NOW), Granted, "{name}");
        assert!(store.settle(&deliver(3, 8), later(40)), "{name}");
        assert_eq!(
            store.claim(&request(3, 9), later(41)),
            Delivered(Fingerprint::new(3)),
            "{name}"
        );
    }
}

#[test]
fn every_store_counts_the_events_of_an_id() {
    use ClaimAnswer::{ClaimedByAnother, Granted, TooMany};

    for (name, mut store) in stores() {
        let event = |number| of_id(7, number, number);
        for number in 1..=3 {
            assert_eq!(store.claim(&event(number), NOW), Granted, "{name}");
        }
        // Claims count, delivered events count, another id's do not.
        assert_eq!(store.claim(&event(4), NOW), TooMany, "{name}");
        let settle = |number: u64| Settlement::Deliver {
            key: event(number).key,
            id: event(number).id,
            owner: OwnerToken::new(number),
            fingerprint: Fingerprint::new(number),
            window_seconds: 100,
        };
        assert!(store.settle(&settle(1), NOW), "{name}");
        assert_eq!(store.claim(&event(4), NOW), TooMany, "{name}");
        assert_eq!(store.claim(&of_id(8, 4, 4), NOW), Granted, "{name}");
        assert!(
            store.settle(&Settlement::release(&of_id(8, 4, 4)), NOW),
            "{name}"
        );
        // What is known is told all the same.
        assert_eq!(
            store.claim(&of_id(7, 2, 99), NOW),
            ClaimedByAnother,
            "{name}"
        );
        // A released one does not count.
        assert!(store.settle(&Settlement::release(&event(2)), NOW), "{name}");
        assert_eq!(store.claim(&event(4), NOW), Granted, "{name}");
        assert_eq!(store.claim(&event(5), NOW), TooMany, "{name}");
        // Nor does one whose lease or window has ended.
        let later = NOW.plus_seconds(30);
        assert_eq!(store.claim(&event(5), later), Granted, "{name}");
        assert_eq!(store.claim(&event(6), later), Granted, "{name}");
        assert_eq!(store.claim(&event(7), later), TooMany, "{name}");
        let end = NOW.plus_seconds(100);
        assert_eq!(store.claim(&event(7), end), Granted, "{name}");
    }
}

#[test]
fn every_store_says_the_same() {
    const START: u64 = 0x00c0_ffee;
    let mut state = START;
    let mut next = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut stores = stores();
    let mut now = NOW;
    let mut owner = 0;
    let mut claims: Vec<(u64, u64)> = Vec::new();
    let mut seen: HashMap<Discriminant<ClaimAnswer>, u32> = HashMap::new();
    for step in 0..5_000 {
        now = UnixMillis::new(now.as_millis() + next(1_000));
        let number = next(40);
        let settled = (!claims.is_empty() && next(2) == 0).then(|| {
            let at = usize::try_from(next(u64::try_from(claims.len()).unwrap())).unwrap();
            let (number, owner) = claims.swap_remove(at);
            if next(2) == 0 {
                Settlement::Deliver {
                    key: request(number, owner).key,
                    id: request(number, owner).id,
                    owner: OwnerToken::new(owner),
                    fingerprint: Fingerprint::new(owner),
                    window_seconds: 60,
                }
            } else {
                release(number, owner)
            }
        });
        if let Some(settlement) = settled {
            for (_, store) in &mut stores {
                store.settle(&settlement, now);
            }
            continue;
        }
        owner += 1;
        let mut answers = stores
            .iter_mut()
            .map(|(name, store)| (*name, store.claim(&request(number, owner), now)));
        let (_, first) = answers.next().unwrap();
        for (name, answer) in answers {
            assert_eq!(answer, first, "{name}, step {step}, start {START:#x}");
        }
        *seen.entry(discriminant(&first)).or_default() += 1;
        if first == ClaimAnswer::Granted {
            claims.push((number, owner));
        }
    }
    assert!(
        seen.len() == 3 && seen.values().all(|count| *count > 50),
        "{seen:?}"
    );
}

#[test]
fn configurations_of_the_store() {
    let environment = |name: &str| match name {
        "TOKEN" => Some(b"user:password".to_vec()),
        "PLAIN" => Some(b"secret-token".to_vec()),
        "BROKEN" => Some(b"secret token\n".to_vec()),
        _ => None,
    };
    let parse = |store: serde_json::Value| {
        let text = configuration(|c| c["store"] = store).to_string();
        config::parse(text.as_bytes(), &environment).map_err(|error| error.to_string())
    };
    let policy = parse(serde_json::json!({
        "kind": "redis", "protocol": "webdis", "cluster": "redis_http"
    }))
    .unwrap();
    let remote = policy.remote.unwrap();
    let Access::Front(front) = &remote.access else {
        panic!("{remote:?}")
    };
    assert_eq!(&*front.authority, "redis_http");
    assert_eq!(&*remote.key_prefix, "callback-guard:");
    assert_eq!(remote.timeout_millis, 250);
    assert_eq!(remote.on_error, OnError::Memory);
    assert_eq!(front.authorization, None);
    let refused = |change: fn(&mut serde_json::Value), expected: &str| {
        let mut store = serde_json::json!({
            "kind": "redis", "protocol": "upstash", "cluster": "redis_http",
            "authority": "redis.internal:8080", "token_env": "PLAIN", "key_prefix": "x:",
            "timeout_milliseconds": 100, "on_error": "reject"
        });
        assert!(parse(store.clone()).is_ok());
        change(&mut store);
        assert_eq!(parse(store).unwrap_err(), expected);
    };
    let missing: fn(&mut serde_json::Value) =
        |s| drop(s.as_object_mut().unwrap().remove("cluster"));
    refused(
        missing,
        "store.cluster: is missing, expected the name of an Envoy cluster",
    );
    refused(
        |s| drop(s.as_object_mut().unwrap().remove("protocol")),
        "store.protocol: is missing, expected `webdis` or `upstash`",
    );
    refused(
        |s| drop(s.as_object_mut().unwrap().remove("token_env")),
        "store.token_env: is missing, expected the name of an environment variable",
    );
    refused(
        |s| s["token_env"] = "ABSENT".into(),
        "store.token_env: environment variable `ABSENT` is not set",
    );
    refused(
        |s| s["token_env"] = "BROKEN".into(),
        "store.token_env: the token is empty or holds a space or a character that is not ASCII",
    );
    refused(
        |s| s["protocol"] = "webdis".into(),
        "store.token_env: the token of `webdis` has no `:`, expected user:password",
    );
    refused(
        |s| s["protocol"] = "resp".into(),
        "store.protocol: `resp` is unknown, expected `upstash` or `webdis`",
    );
    refused(
        |s| s["authority"] = "http://redis".into(),
        "store.authority: expected a host name, with or without a port",
    );
    refused(
        |s| s["key_prefix"] = "a b".into(),
        "store.key_prefix: expected at most 64 visible ASCII characters",
    );
    refused(
        |s| s["timeout_milliseconds"] = 0.into(),
        "store.timeout_milliseconds: 0 is out of range, expected 1 to 10000",
    );
    refused(
        |s| s["timeout_milliseconds"] = 10_001.into(),
        "store.timeout_milliseconds: 10001 is out of range, expected 1 to 10000",
    );
    refused(
        |s| s["kind"] = "memory".into(),
        "store.protocol: cannot be combined with `kind` `memory`, expected `kind` `redis`",
    );
    refused(
        |s| s["capacity"] = 1.into(),
        "store.capacity: 1 is out of range, expected 1000 to 4000000",
    );
}

#[test]
fn a_connection_is_for_the_native_build_alone() {
    let environment = |name: &str| match name {
        "REDIS" => Some(b"rediss://guard:the-secret@redis.internal:6380/2".to_vec()),
        "BROKEN" => Some(b"https://guard:the-secret@redis.internal".to_vec()),
        _ => None,
    };
    let parse = |build, change: fn(&mut serde_json::Value)| {
        let mut store = serde_json::json!({ "kind": "redis", "url_env": "REDIS" });
        change(&mut store);
        let text = configuration(|c| c["store"] = store).to_string();
        config::parse_for(build, text.as_bytes(), &environment).map_err(|error| error.to_string())
    };
    let policy = parse(Build::Native, |_| {}).unwrap();
    let remote = policy.remote.as_ref().unwrap();
    let Access::Server(server) = &remote.access else {
        panic!("{remote:?}")
    };
    assert!(server.place == Place::At(address("redis.internal", 6380)));
    assert_eq!((server.is_tls, server.database), (true, 2));
    assert_eq!(remote.timeout_millis, 250);
    assert!(start_line(&policy).contains(r#""store":"redis by TLS""#));
    let refused = |build, change, expected: &str| {
        assert_eq!(parse(build, change).unwrap_err(), expected);
    };
    refused(
        Build::Module,
        |_| {},
        "store.url_env: needs the native build, libcallback_guard.so: a WebAssembly filter has no connections \
         of its own. Expected an HTTP front of Redis on an Envoy cluster, such as `\"protocol\": \"webdis\", \
         \"cluster\": \"redis_http\"`",
    );
    for build in [Build::Module, Build::Native] {
        refused(
            build,
            |s| s["cluster"] = "redis_http".into(),
            "store.cluster: cannot be combined with `url_env`, expected one of the two: an HTTP front, or a connection",
        );
        refused(
            build,
            |s| s["kind"] = "memory".into(),
            "store.url_env: cannot be combined with `kind` `memory`, expected `kind` `redis`",
        );
    }
    refused(
        Build::Native,
        |s| s["url_env"] = "ABSENT".into(),
        "store.url_env: environment variable `ABSENT` is not set",
    );
    refused(
        Build::Native,
        |s| s["url_env"] = "redis://:the-secret@host".into(),
        "store.url_env: names a variable that is not set (not shown, as it may be a secret), expected the \
         name of an environment variable, such as `SUNO_WEBHOOK_KEY`",
    );
    for build in [Build::Module, Build::Native] {
        refused(
            build,
            |s| s["url_env"] = serde_json::json!(["redis://:the-secret@host"]),
            "store.url_env: is a list, expected a string, such as \"REDIS_URL\"",
        );
    }
    let error = parse(Build::Native, |s| s["url_env"] = "BROKEN".into()).unwrap_err();
    let expected =
        "store.url_env: the value of `BROKEN` (not shown) is no URL of Redis, expected redis://";
    assert!(error.starts_with(expected), "{error}");
    assert!(!error.contains("the-secret"), "{error}");
}
