//! `send --challenge`, against applications that answer, well or not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_core::scheme::keys::{Algorithm, Key};
use callback_guard_core::testkit::private_key;
use serde_json::Value;

use crate::support::{Run, SECRET, file, run_with};

/// What is asked.
struct Asked {
    method: String,
    target: String,
    head: String,
    body: Value,
}

impl Asked {
    /// A parameter of the query; none of these values has an escape in it.
    fn query(&self, name: &str) -> String {
        let query = self.target.split_once('?').unwrap().1;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(given, _)| *given == name)
            .unwrap()
            .1
            .to_owned()
    }

    fn header(&self, name: &str) -> String {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(given, _)| given.eq_ignore_ascii_case(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {}", self.head))
            .1
            .to_owned()
    }
}

/// A status, one header and a body.
type Answer = (u16, String, String);

/// Asks an application that answers one request so.
#[track_caller]
fn ask(arguments: &[&str], answer: impl FnOnce(&Asked) -> Answer + Send + 'static) -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/callbacks?a=1", listener.local_addr().unwrap());
    let application = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let mut line = head.split(' ');
        let (method, target) = (
            line.next().unwrap().to_owned(),
            line.next().unwrap().to_owned(),
        );
        let mut asked = Asked {
            method,
            target,
            head: head.replace("\r\n", "\n"),
            body: Value::Null,
        };
        if head.to_ascii_lowercase().contains("content-length: ") {
            let mut body = vec![0; asked.header("content-length").parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            asked.body = serde_json::from_slice(&body).unwrap_or_default();
        }
        let (status, header, body) = answer(&asked);
        let length = body.len();
        let reply =
            format!("HTTP/1.1 {status} X\r\n{header}content-length: {length}\r\n\r\n{body}");
        stream.write_all(reply.as_bytes()).unwrap();
    });
    let run = run_with(
        &[
            &["send", "--challenge", "--secret-env", "KEY"],
            arguments,
            &[&url],
        ]
        .concat(),
        &[("KEY", SECRET)],
        "",
    );
    application.join().unwrap();
    run
}

fn mac(text: &str) -> Vec<u8> {
    let key = Key::secret(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
    key.mac(&[text.as_bytes()]).unwrap().as_slice().to_vec()
}

fn echo(text: String) -> Answer {
    (200, String::new(), text)
}

#[test]
fn a_challenge_of_each_kind_is_asked_and_its_answer_accepted() {
    let slack = |asked: &Asked| {
        assert_eq!(asked.method, "POST");
        assert_eq!(asked.header("x-slack-signature").len(), 67, "it is signed");
        assert_eq!(asked.body["type"], "url_verification");
        echo(asked.body["challenge"].as_str().unwrap().to_owned())
    };
    let whatsapp = |asked: &Asked| {
        assert_eq!(asked.method, "GET");
        assert_eq!(asked.query("hub.mode"), "subscribe");
        assert_eq!(asked.query("hub.verify_token"), "a-verify-token-of-tests");
        assert_eq!(asked.query("a"), "1");
        echo(asked.query("hub.challenge"))
    };
    let x = |asked: &Asked| {
        let mac = STANDARD.encode(mac(&asked.query("crc_token")));
        echo(format!(r#"{{"response_token":"sha256={mac}"}}"#))
    };
    let zoom = |asked: &Asked| {
        let token = asked.body["payload"]["plainToken"].as_str().unwrap();
        let mac = hex::encode(mac(token));
        echo(format!(
            r#"{{"plainToken":"{token}","encryptedToken":"{mac}"}}"#
        ))
    };
    let okta = |asked: &Asked| {
        let value = asked.header("x-okta-verification-challenge");
        echo(format!(r#"{{"verification":"{value}"}}"#))
    };
    let ringcentral = |asked: &Asked| {
        let header = format!("validation-token: {}\r\n", asked.header("validation-token"));
        (200, header, String::new())
    };
    let trello = |asked: &Asked| {
        assert_eq!(asked.method, "HEAD");
        echo(String::new())
    };
    type Application = fn(&Asked) -> Answer;
    let verify = ["--parameter", "verify_token=a-verify-token-of-tests"];
    let public = ["--parameter", "public_url=https://hooks.example.com"];
    let cases: [(&str, &[&str], Application); 7] = [
        ("slack", &[], slack),
        ("whatsapp", &verify, whatsapp),
        ("x", &[], x),
        ("zoom", &[], zoom),
        ("okta", &[], okta),
        ("ringcentral", &[], ringcentral),
        ("trello", &public, trello),
    ];
    for (preset, parameters, application) in cases {
        let run = ask(&[&["--preset", preset], parameters].concat(), application);
        assert_eq!(
            (run.code, run.err.as_str()),
            (0, ""),
            "{preset}: {}",
            run.out
        );
        assert!(run.out.starts_with("ok     "), "{preset}: {}", run.out);
        assert!(!run.out.contains(SECRET), "{}", run.out);
    }
}

#[test]
fn a_private_key_signs_the_challenge_of_a_sender_with_one() {
    let pem = include_str!("../../../tests/data/keys/ed25519.pem");
    assert!(private_key(Algorithm::Ed25519).public_spki().is_some());
    let key = file("key.pem", pem);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/callbacks", listener.local_addr().unwrap());
    drop(listener);
    let run = run_with(
        &[
            "send",
            "--challenge",
            "--preset",
            "discord",
            "--secret-file",
            &key.path,
            &url,
        ],
        &[],
        "",
    );
    // Nobody listens there, but it was signed.
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(
        run.out
            .starts_with("WRONG  POST /callbacks: cannot connect"),
        "{}",
        run.out
    );
}

#[test]
fn an_answer_that_its_sender_would_not_accept_is_told() {
    for (answer, expected) in [
        (
            (200, "", "something else"),
            r#"200, "something else", expected ""#,
        ),
        ((404, "", ""), "404, expected 200"),
        ((201, "", "x"), "201, expected 200"),
    ] {
        let (status, header, body) = answer;
        let given = (status, String::from(header), String::from(body));
        let run = ask(&["--preset", "dropbox"], move |_| given);
        assert_eq!(run.code, 1, "{}{}", run.out, run.err);
        assert!(
            run.out.starts_with("WRONG  GET /callbacks?a=1&challenge="),
            "{}",
            run.out
        );
        assert!(run.out.contains(expected), "{}", run.out);
    }
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let url = "http://127.0.0.1:9/callbacks";
    for (preset, expected) in [
        ("stripe", "the source has no challenge"),
        ("whatsapp", "verify_token"),
    ] {
        let arguments = [
            "send",
            "--challenge",
            "--secret-env",
            "KEY",
            "--preset",
            preset,
            url,
        ];
        let run = run_with(&arguments, &[("KEY", SECRET)], "");
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{preset}");
        assert!(run.err.contains(expected), "{preset}: {}", run.err);
    }
}
