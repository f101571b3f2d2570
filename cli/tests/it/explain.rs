//! `explain`.

use base64::Engine as _;
use callback_guard_config as config;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;

use crate::support::{Run, SECRET, file, run_with};

const NOW: u64 = 1_769_670_760;
const BODY: &str = r#"{"code":200,"msg":"all done","data":{"task_id":"ee9c2715375b7837f8bb51d641ff5863","callbackType":"text"}}"#;

/// A scheme that signs its body, with the timestamp in the signature header.
const SIGNED_BODY: &str = r#""signature":{"message":[{"timestamp":true},{"literal":"."},{"body":true}],
    "value":{"header":"x-sig","separator":",","key":"v1","encoding":"hex"},
    "timestamp":{"key":"t"},"id":{"pointers":["/id"]}}"#;

fn configuration(scheme: &str, encoding: &str) -> String {
    format!(
        r#"{{"sources":[{{"name":"one","match":{{"path":"/callbacks"}},{scheme},
        "payload":{{"allowed_url_hosts":["example.com"]}},
        "secrets":[{{"env":"KEY"{encoding}}}]}}]}}"#
    )
}

/// A request: its signed headers may be changed.
struct Request {
    scheme: &'static str,
    encoding: &'static str,
    head: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    /// Signed with `key` over `body`, as the source of `scheme` has it.
    fn signed(scheme: &'static str, key: &[u8], body: &str) -> Self {
        let configuration = configuration(scheme, "");
        let environment = |_: &str| Some(SECRET.into());
        let policy = config::parse(configuration.as_bytes(), &environment).unwrap();
        let key = SigningKey::secret(Algorithm::HmacSha256, key).unwrap();
        let now = UnixMillis::from_seconds(NOW);
        let headers = sign::sign(&policy.sources[0], &key, body.as_bytes(), "m", now).unwrap();
        Self {
            scheme,
            encoding: "",
            head: "POST /callbacks?x HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
                .into(),
            headers,
            body: body.into(),
        }
    }

    fn suno(key: &str) -> Self {
        Self::signed(r#""preset":"suno""#, key.as_bytes(), BODY)
    }

    fn head(mut self, old: &str, new: &str) -> Self {
        assert!(self.head.contains(old));
        self.head = self.head.replace(old, new);
        self
    }

    fn header(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        for (_, value) in self.headers.iter_mut().filter(|(given, _)| given == name) {
            *value = change(value);
        }
        self
    }

    fn body(self, body: &str) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    fn text(&self) -> String {
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{}{headers}\r\n{}", self.head, self.body)
    }

    #[track_caller]
    fn explain(&self, key: &str, arguments: &[&str]) -> Run {
        let guard = file("guard.json", &configuration(self.scheme, self.encoding));
        let request = file("request.txt", &self.text());
        let paths = ["--config", &guard.path, &request.path];
        let all = [&["explain"], arguments, &paths].concat();
        run_with(&all, &[("KEY", key), ("OTHER", "another-key")], "")
    }

    /// It is refused with `code`, at the step of this name.
    #[track_caller]
    fn refused(&self, step: &str, code: Code) -> Run {
        let run = self.explain(SECRET, &[]);
        assert_eq!((run.code, run.err.as_str()), (1, ""), "{}", run.out);
        let line = run.out.lines().find(|line| line.starts_with("REFUSED"));
        let line = line.unwrap_or_else(|| panic!("nothing refused: {}", run.out));
        assert!(
            line.starts_with(&format!("REFUSED  {step:21} {code}")),
            "{line}"
        );
        let end = format!("refused: {} {code}", code.status());
        assert!(
            run.out.lines().any(|line| line.starts_with(&end)),
            "{}",
            run.out
        );
        run
    }

    /// The MAC does not match under `key`; this mistake is found.
    #[track_caller]
    fn mistake(&self, key: &str, arguments: &[&str], expected: &str) {
        let run = self.explain(key, arguments);
        assert_eq!(run.code, 1, "{}{}", run.out, run.err);
        let found = format!("\nmost likely: {expected}");
        assert!(run.out.contains(&found), "{}", run.out);
        assert!(
            key.is_empty() || !run.out.contains(key.trim()),
            "{}",
            run.out
        );
    }
}

#[test]
fn a_genuine_request_passes_every_step() {
    let request = Request::suno(SECRET);
    let run = request.explain(SECRET, &["--now", "1769670770"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let steps: Vec<&str> = run
        .out
        .lines()
        .filter(|line| line.starts_with("ok "))
        .collect();
    assert_eq!(steps.len(), 14, "{}", run.out);
    for expected in [
        "freshness             10 s old when received, 300 s old to 60 s ahead accepted; ",
        "message id            \"ee9c2715375b7837f8bb51d641ff5863\" at /data/task_id",
        "MAC                   matches under secret 1 of 1, KEY; signed message: \"ee9c2715375b7837f8bb51d641ff5863.1769670760\"",
    ] {
        assert!(run.out.contains(expected), "{}\nlacks {expected}", run.out);
    }
    assert!(!run.out.contains(SECRET));
    let body_first = Request::signed(SIGNED_BODY, SECRET.as_bytes(), r#"{"id":"a"}"#);
    let run = body_first.explain(SECRET, &[]);
    assert_eq!(run.code, 0, "{}", run.out);
    let place = |step: &str| run.out.find(&format!("\nok       {step} ")).unwrap();
    assert!(
        place("MAC") < place("JSON"),
        "a signed body is checked before it is parsed"
    );
}

#[test]
fn every_refusal_is_shown_at_its_step() {
    let genuine = || Request::suno(SECRET);
    genuine()
        .head("/callbacks", "/other")
        .refused("source", Code::NoSource);
    genuine()
        .head("POST", "PUT")
        .refused("method", Code::MethodNotAllowed);
    let other_type = genuine().head("application/json", "text/plain");
    other_type.refused("content type", Code::UnsupportedMediaType);
    let zipped = genuine().head("host: h", "host: h\r\ncontent-encoding: gzip");
    zipped.refused("content encoding", Code::UnsupportedContentEncoding);
    let large = genuine().head("host: h", "host: h\r\ncontent-length: 1048577");
    large.refused("declared length", Code::BodyTooLarge);
    let mut unsigned = genuine();
    unsigned.headers.clear();
    let run = unsigned.refused("signature, timestamp", Code::SignatureMissing);
    assert!(
        run.out.contains("most likely: the sender does not sign"),
        "{}",
        run.out
    );
    let mut twice = genuine();
    twice.headers.push(twice.headers[1].clone());
    twice.refused("signature, timestamp", Code::SignatureAmbiguous);
    genuine().body("").refused("body size", Code::BodyEmpty);
    genuine().body("[]").refused("JSON", Code::JsonMalformed);
    genuine()
        .body(r#"{"a":1,"a":2}"#)
        .refused("JSON", Code::JsonDuplicateKey);
    genuine().body("{}").refused("message id", Code::IdMissing);
    let two = r#"{"taskId":"b","data":{"task_id":"a"}}"#;
    let run = genuine().body(two).refused("message id", Code::IdAmbiguous);
    assert!(
        run.out.contains(r#""a" at /data/task_id, "b" at /taskId"#),
        "{}",
        run.out
    );
    let changed = BODY.replace("ee9c", "ee9d");
    genuine()
        .body(&changed)
        .refused("MAC", Code::SignatureMismatch);
    let no_code = BODY.replace("\"code\":200,", "");
    genuine()
        .body(&no_code)
        .refused("payload rules", Code::PayloadInvalid);
    let url = BODY.replace("all done\"", "m\",\"url\":\"https://evil.example/\"");
    genuine()
        .body(&url)
        .refused("payload rules", Code::UrlNotAllowed);
}

#[test]
fn age_is_judged_by_the_time_of_capture() {
    let genuine = Request::suno(SECRET);
    for (now, code) in [
        ("1769670700", 0),
        ("1769670699", 1),
        ("1769671060", 0),
        ("1769671061", 1),
        ("now", 1),
    ] {
        let run = genuine.explain(SECRET, &["--now", now]);
        assert_eq!(run.code, code, "{now}: {}", run.out);
    }
    let dated =
        Request::suno(SECRET).head("host: h", "host: h\r\ndate: Thu, 29 Jan 2026 07:17:41 GMT");
    let run = dated.refused("freshness", Code::TimestampTooOld);
    assert!(
        run.out
            .contains("received: 2026-01-29T07:17:41Z, as the capture says"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("301 s (5 min) old when received"),
        "{}",
        run.out
    );
}

#[test]
fn a_wrong_secret_is_found_among_those_given() {
    let other = Request::suno("another-key");
    other.mistake(
        SECRET,
        &["--try-env", "OTHER"],
        "it is signed with OTHER, which the source does not have\n",
    );
    other.mistake(
        SECRET,
        &[],
        "the sender signs with another secret, or the id or the timestamp was changed on the way; ",
    );
}

#[test]
fn a_secret_that_is_read_in_another_way_is_found() {
    let suno = r#""preset":"suno""#;
    // The sender decodes its key, the guard does not; and the other way round.
    let key = "dGVzdC13ZWJob29rLWhtYWMta2V5";
    let decoded = Request::signed(suno, b"test-webhook-hmac-key", BODY);
    decoded.mistake(
        key,
        &[],
        "the key is KEY decoded from base64: give the secret `\"encoding\": \"base64\"`\n",
    );
    let key = "746573742d776562686f6f6b2d686d61632d6b6579";
    decoded.mistake(
        key,
        &[],
        "the key is KEY decoded from hex: give the secret `\"encoding\": \"hex\"`\n",
    );
    let mut as_is = Request::signed(suno, key.as_bytes(), BODY);
    as_is.encoding = r#","encoding":"hex""#;
    as_is.mistake(
        key,
        &[],
        "the key is KEY as it is: give the secret `\"encoding\": \"utf8\"`\n",
    );
    let broken = Request::signed(suno, format!("{SECRET}\n").as_bytes(), BODY);
    broken.mistake(
        SECRET,
        &[],
        "the sender's key is KEY with a line break at its end: set it anew there\n",
    );
    let genuine = Request::suno(SECRET);
    genuine.mistake(
        &format!("{SECRET} "),
        &[],
        "KEY has white space or a line break around the key: remove it\n",
    );
    genuine.mistake(
        &format!("\"{SECRET}\""),
        &[],
        "KEY has quotation marks around the key: remove them\n",
    );
}

#[test]
fn an_id_from_another_field_is_found() {
    let text = r#"{"code":200,"msg":"m","data":{"task_id":"other_field"}}"#;
    let signed = Request::signed(r#""preset":"suno""#, SECRET.as_bytes(), text);
    let sent = text.replace(r#""other_field""#, r#""a","id":"other_field""#);
    signed.body(&sent).mistake(
        SECRET,
        &[],
        "the signed id is the value at /data/id, not the message id\n",
    );
}

#[test]
fn milliseconds_are_found_in_the_header_and_in_the_message() {
    let in_header =
        Request::suno(SECRET).header("x-webhook-timestamp", |value| format!("{value}123"));
    in_header.mistake(
        SECRET,
        &[],
        "the signed timestamp is in seconds, the one sent in milliseconds\n",
    );
    let both = Request::suno(SECRET);
    let id = "ee9c2715375b7837f8bb51d641ff5863";
    let message = format!("{id}.{NOW}123");
    let key = SigningKey::secret(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
    let mac = key.sign(&[message.as_bytes()]).unwrap();
    let mac = callback_guard_core::scheme::Encoding::Base64.encode(&mac);
    let signed = both.header("x-webhook-signature", |_| mac.clone());
    signed.mistake(
        SECRET,
        &[],
        "the signed timestamp is in milliseconds, the one sent in seconds\n",
    );
    let both = signed.header("x-webhook-timestamp", |value| format!("{value}123"));
    both.mistake(
        SECRET,
        &[],
        "the timestamp is in milliseconds, where this scheme has seconds\n",
    );
}

#[test]
fn a_body_that_was_written_anew_is_found() {
    let compact = r#"{"id":"a","b":[1,2],"c":"x: y, z"}"#;
    let spaced = r#"{"id": "a", "b": [1, 2], "c": "x: y, z"}"#;
    let rewritten = "the body was written anew on the way: the signed one ";
    for (signed, sent, how) in [
        (compact, spaced, "has no white space\n"),
        (spaced, compact, "has a space after each comma and colon\n"),
        (
            r#"{"b":1,"id":"a"}"#,
            r#"{"id":"a","b":1}"#,
            "has its keys sorted\n",
        ),
    ] {
        let request = Request::signed(SIGNED_BODY, SECRET.as_bytes(), signed).body(sent);
        request.mistake(SECRET, &[], &format!("{rewritten}{how}"));
    }
    let broken =
        Request::signed(SIGNED_BODY, SECRET.as_bytes(), &format!("{compact}\n")).body(compact);
    broken.mistake(SECRET, &[], &format!("{rewritten}ends with a line break\n"));
    let torn = Request::signed(SIGNED_BODY, SECRET.as_bytes(), compact).body(r#"{"id":"a"}"#);
    torn.mistake(
        SECRET,
        &[],
        "the sender signs with another secret, or the body was changed on the way; ",
    );
}

#[test]
fn a_signature_in_another_spelling_is_found() {
    let hex = Request::suno(SECRET).header("x-webhook-signature", |value| {
        hex::encode(
            base64::engine::general_purpose::STANDARD
                .decode(value)
                .unwrap(),
        )
    });
    hex.refused("signature, timestamp", Code::SignatureMalformed);
    hex.mistake(
        SECRET,
        &[],
        "the signature is written in hex, where this scheme has padded standard base64\n",
    );
    let unpadded = Request::suno(SECRET).header("x-webhook-signature", |value| {
        value.trim_end_matches('=').into()
    });
    unpadded.mistake(
        SECRET,
        &[],
        "the signature is written in base64 without padding, where this scheme has padded standard base64\n",
    );
    let sha1 = Request::suno(SECRET).header("x-webhook-signature", |_| "00".repeat(20));
    sha1.mistake(SECRET, &[], "the signature has 20 bytes, as HMAC-SHA1 has");
}

#[test]
fn another_scheme_is_recognised() {
    let github = r#""signature":{"message":[{"body":true}],"value":{"header":"x-webhook-signature","encoding":"base64"}}"#;
    let signed = Request::signed(github, SECRET.as_bytes(), BODY);
    let mut request = Request::suno(SECRET);
    let signature = signed.headers[0].1.clone();
    request = request.header("x-webhook-signature", |_| signature.clone());
    request.mistake(
        SECRET,
        &[],
        "the signed message is the body alone, as in another scheme: is it the right preset?\n",
    );
}

#[test]
fn curl_and_har_captures_are_explained_too() {
    let genuine = Request::suno(SECRET);
    let guard = file("guard.json", &configuration(genuine.scheme, ""));
    let body = file("body.json", BODY);
    let text = genuine.text();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let lines: String = head.lines().map(|line| format!("> {line}\r\n")).collect();
    let date = "Thu, 29 Jan 2026 07:12:45 GMT";
    let curl =
        format!("* Trying\n{lines}> \r\n* done\n< HTTP/1.1 401 X\r\n< date: {date}\r\n<\r\n");
    let curl = file("curl.log", &curl);
    let variables = [("KEY", SECRET)];
    let without = ["explain", "--config", &guard.path, &curl.path];
    let run = run_with(&without, &variables, "");
    assert_eq!(
        (run.code, run.err.as_str()),
        (
            2,
            "error: `curl -v` does not print the body: give it with --body\n"
        )
    );
    let with = [
        "explain",
        "--config",
        &guard.path,
        "--body",
        &body.path,
        &curl.path,
    ];
    let run = run_with(&with, &variables, "");
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(
        run.out
            .contains("freshness             5 s old when received"),
        "{}",
        run.out
    );

    let headers: Vec<serde_json::Value> = genuine
        .headers
        .iter()
        .map(|(name, value)| serde_json::json!({ "name": name, "value": value }))
        .chain([serde_json::json!({ "name": "Content-Type", "value": "application/json" })])
        .collect();
    let har = serde_json::json!({ "log": { "entries": [{
        "startedDateTime": "2026-01-29T07:12:50.000Z",
        "request": { "method": "POST", "url": "https://h/callbacks", "headers": headers,
            "postData": { "mimeType": "application/json", "text": BODY } },
    }]}});
    let run = run_with(
        &["explain", "--config", &guard.path, "-"],
        &variables,
        &har.to_string(),
    );
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(
        run.out
            .contains("freshness             10 s old when received"),
        "{}",
        run.out
    );
}

#[test]
fn without_a_configuration_a_preset_and_a_secret_do() {
    let request = file("request.txt", &Request::suno(SECRET).text());
    let run = run_with(
        &["explain", "--secret-env", "KEY", &request.path],
        &[("KEY", SECRET)],
        "",
    );
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(
        run.out.contains("matches under secret 1 of 1, KEY;"),
        "{}",
        run.out
    );
}

#[test]
fn monitor_mode_says_that_the_request_goes_through() {
    let request = file("request.txt", &Request::suno("another-key").text());
    let guard = configuration(r#""preset":"suno","mode":"monitor""#, "");
    let guard = file("guard.json", &guard);
    let arguments = ["explain", "--config", &guard.path, &request.path];
    let run = run_with(&arguments, &[("KEY", SECRET)], "");
    assert_eq!(run.code, 1);
    assert!(
        run.out
            .contains("refused: 401 signature_mismatch\nbut this source is in monitor mode"),
        "{}",
        run.out
    );
}

#[test]
fn each_way_past_the_guard_is_named() {
    let captured = |scheme: &str, all: &str, text: &str| {
        let guard = configuration(scheme, "").replacen('{', &format!("{{{all}"), 1);
        let (guard, request) = (file("guard.json", &guard), file("request.txt", text));
        let arguments = ["explain", "--config", &guard.path, &request.path];
        run_with(
            &arguments,
            &[("KEY", SECRET), ("TOKEN", "a-token-of-16-bytes")],
            "",
        )
    };
    let genuine = Request::suno(SECRET).text();
    for (scheme, all, text, end) in [
        (
            r#""preset":"suno""#,
            "",
            genuine.as_str(),
            "forwarded, unless the store knows the event",
        ),
        (
            r#""preset":"suno","dedupe":false"#,
            "",
            &genuine,
            "forwarded, each time (`dedupe` is `false`)",
        ),
        (
            r#""preset":"suno""#,
            r#""hold_headers":"buffer_after","#,
            &genuine,
            "forwarded, unless the store knows the event",
        ),
        (
            r#""preset":"suno""#,
            r#""unmatched":"pass","#,
            "GET /elsewhere HTTP/1.1\r\nhost: h\r\n\r\n",
            "passes untouched: it matches no source",
        ),
        (
            r#""preset":"suno""#,
            r#""inspector":{"path":"/look","token_env":"TOKEN"},"#,
            "GET /look HTTP/1.1\r\nhost: h\r\n\r\n",
            "the inspector answers it",
        ),
    ] {
        let run = captured(scheme, all, text);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{end}");
        assert!(run.out.contains(end), "{end}: {}", run.out);
    }
}

/// A declared length of at most 16 KiB has the guard answer at the body's end: that must not look as if
/// the head's checks had been passed.
#[test]
fn a_refusal_by_the_head_is_shown_there_whatever_length_is_declared() {
    for length in [1, 100, 16_384, 16_385] {
        let declared = format!("host: h\r\ncontent-length: {length}");
        let mut unsigned = Request::suno(SECRET).head("host: h", &declared);
        unsigned.headers.clear();
        let run = unsigned.refused("signature, timestamp", Code::SignatureMissing);
        assert!(!run.out.contains("ok       MAC"), "{length}: {}", run.out);
        let wrong = Request::suno(SECRET)
            .head("host: h", &declared)
            .header("x-webhook-signature", |_| "no base64!".to_owned());
        let run = wrong.refused("signature, timestamp", Code::SignatureMalformed);
        assert!(!run.out.contains("ok       MAC"), "{length}: {}", run.out);
    }
}

/// Whatever a capture holds, a terminal gets nothing to act on.
#[test]
fn control_characters_of_a_capture_are_escaped() {
    let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\r\u{8}";
    let escaped = serde_json::to_string(hostile).unwrap();
    let key = format!(r#"{{"code":200,{escaped}:1,{escaped}:2}}"#);
    let raw = format!("{{\"code\":200,\"{hostile}\":1}}");
    let id = format!(r#"{{"code":200,"msg":"m","data":{{"task_id":{escaped}}}}}"#);
    let deep =
        format!(r#"{{"code":{escaped},"msg":{escaped},"data":{{"task_id":"a",{escaped}:"b"}}}}"#);
    let in_head = hostile.replace('\r', "");
    let captures = [
        Request::suno(SECRET).body(&key),
        Request::suno(SECRET).body(&raw),
        Request::suno(SECRET).body(&id),
        Request::suno(SECRET).body(&deep),
        Request::suno(SECRET).header("x-webhook-signature", |_| in_head.clone()),
        Request::suno(SECRET).header("x-webhook-timestamp", |_| in_head.clone()),
        Request::suno(SECRET).head("application/json", &in_head),
        Request::suno(SECRET).head("/callbacks", &format!("/{in_head}")),
        Request::suno(SECRET).head("host: h", &format!("host: {in_head}")),
    ];
    for capture in captures {
        let run = capture.explain(SECRET, &[]);
        for text in [&run.out, &run.err] {
            let acts = |one: &char| *one != '\n' && one.is_control() || *one == '\u{202e}';
            assert_eq!(text.chars().find(acts), None, "{text:?}");
        }
    }
}

#[test]
fn a_url_that_is_signed_in_another_form_is_found() {
    let square =
        |url: &str| format!(r#""preset":"square","parameters":{{"notification_url":"{url}"}}"#);
    let body = r#"{"event_id":"a"}"#;
    let configured = "https://hooks.example.com/square";
    for signed in [
        "https://hooks.example.com/square/",
        "http://hooks.example.com/square",
        "https://hooks.example.com:443/square",
        "http://hooks.example.com/square/",
    ] {
        let key = SigningKey::secret(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
        let guard = |url: &str| {
            configuration(&square(url), "").replace(
                ",\n        \"payload\":{\"allowed_url_hosts\":[\"example.com\"]}",
                "",
            )
        };
        let environment = |_: &str| Some(SECRET.into());
        let policy = config::parse(guard(signed).as_bytes(), &environment).unwrap();
        let now = UnixMillis::from_seconds(NOW);
        let headers = sign::sign(&policy.sources[0], &key, body.as_bytes(), "m", now).unwrap();
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let text = format!(
            "POST /callbacks HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{lines}\r\n{body}"
        );
        let guard = file("guard.json", &guard(configured));
        let request = file("request.txt", &text);
        let all = ["explain", "--config", &guard.path, &request.path];
        let run = run_with(&all, &[("KEY", SECRET)], "");
        let expected =
            format!("most likely: the sender signs for {signed}, not for {configured}\n");
        assert!(run.out.contains(&expected), "{}{}", run.out, run.err);
    }
}

#[test]
fn a_challenge_is_shown_where_the_guard_answers_it() {
    let configuration = r#"{"sources":[{"name":"one","match":{"path":"/callbacks"},"preset":"okta",
        "secrets":[{"value":"a token of 16 bytes"}]}]}"#;
    let guard = file("guard.json", configuration);
    for (challenge, code, mark, end) in [
        (
            "abc.def",
            0,
            "ANSWERED challenge             by the guard",
            "a challenge: the guard answers it",
        ),
        (
            "<b>",
            1,
            "REFUSED  challenge             challenge_malformed",
            "refused: 400 challenge_malformed",
        ),
    ] {
        let capture = format!(
            "GET /callbacks HTTP/1.1\r\nhost: h\r\nx-okta-verification-challenge: {challenge}\r\n\r\n"
        );
        let capture = file("challenge.txt", &capture);
        let run = run_with(
            &["explain", "--config", &guard.path, &capture.path],
            &[],
            "",
        );
        assert_eq!((run.code, run.err.as_str()), (code, ""));
        assert!(
            run.out.contains(mark) && run.out.contains(end),
            "{}",
            run.out
        );
        assert!(
            run.out
                .contains("-        method                not reached"),
            "{}",
            run.out
        );
    }
}
