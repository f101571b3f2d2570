//! What real senders send and what attackers with a captured signature try, by what the application
//! saw of it.

use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{Algorithm, SigningKey};
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Answer, Request, Response};
use serde_json::{Value, json};

use callback_guard_support::{Change as _, Guarded, body_of, event, now, sign_at, signed};

const SECRET: &str = "a secret of this test";

/// What the sender gets: the status, and the guard's code if it is the guard's answer.
fn verdict(response: &Response) -> (u16, Option<String>) {
    (response.status, response.header("x-callback-guard"))
}

fn delivered() -> (u16, Option<String>) {
    (200, None)
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

fn duplicate() -> (u16, Option<String>) {
    refused(200, "duplicate")
}

/// The bodies that the application got, in order.
fn bodies(guarded: &Guarded) -> Vec<String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let recorded = guarded.upstream.recorded();
    recorded.into_iter().map(|one| text(one.body)).collect()
}

/// A guard of other sources than Suno, and their sender.
struct Senders {
    guarded: Guarded,
    policy: Policy,
}

impl Senders {
    fn start(sources: Value) -> Self {
        let text = json!({ "sources": sources }).to_string();
        Self {
            policy: config::parse(text.as_bytes(), &|_| None).unwrap(),
            guarded: Guarded::with(|guard| guard["sources"] = sources),
        }
    }

    /// A genuine callback of the source whose path this is.
    fn request(&self, path: &str, body: &str) -> Request {
        let mut sources = self.policy.sources.iter();
        let source = sources.find(|source| source.route.path.text() == path);
        let source = source.unwrap();
        let key = SigningKey::secret(Algorithm::HmacSha256, SECRET.as_bytes()).unwrap();
        let draft = Draft {
            target: path,
            is_json: true,
            body: body.as_bytes(),
            id: "msg_1",
        };
        let at = UnixMillis::from_seconds(now());
        let made = sign::callback(source, &key, &draft, at).unwrap();
        let mut request = Request::post(path).json(body.to_owned());
        for (name, value) in &made.headers {
            request = request.header(name, value);
        }
        request
    }
}

fn preset(name: &str) -> Value {
    json!({
        "name": name, "match": { "path": format!("/{name}") }, "preset": name,
        "secrets": [{ "value": SECRET }],
    })
}

/// A source that signs the body, spelled out.
fn of_signed_body(name: &str, value: Value, more: Value) -> Value {
    let mut source = json!({
        "name": name, "match": { "path": format!("/{name}") },
        "signature": { "message": [{ "body": true }], "value": value },
        "secrets": [{ "value": SECRET }],
    });
    for (field, value) in more.as_object().unwrap() {
        source[field] = value.clone();
    }
    source
}

#[test]
fn what_can_be_invented_under_one_signature_is_bounded_and_harms_no_other_id() {
    let guarded = Guarded::start();
    let (id, _) = event("captured");
    let at = now();
    let stage = |number: usize| {
        let data = json!({ "task_id": id, "callbackType": number.to_string() });
        sign_at(
            &json!({ "code": 200, "msg": "", "data": data }).to_string(),
            at,
        )
    };
    for number in 0..64 {
        assert_eq!(
            verdict(&guarded.send(&stage(number))),
            delivered(),
            "{number}"
        );
    }
    let response = guarded.send(&stage(64));
    assert_eq!(verdict(&response), refused(429, "too_many_events"));
    assert_eq!(
        verdict(&guarded.send(&signed(&event("other").1))),
        delivered()
    );
    assert_eq!(guarded.upstream.heads(), 65);
}

#[test]
fn an_invented_event_does_not_make_the_genuine_one_a_duplicate() {
    let guarded = Guarded::start();
    let (id, _) = event("captured");
    let body = |stage: &str, text: &str| {
        let data = json!({ "task_id": id, "callbackType": stage });
        json!({ "code": 200, "msg": text, "data": data }).to_string()
    };
    let (text, invented, genuine) = (
        body("text", "all"),
        body("complete", "evil"),
        body("complete", "all"),
    );
    let captured = now() - 60;
    for (body, at, expected) in [
        (&text, captured, delivered()),
        (&invented, captured, delivered()),
        (&genuine, now(), delivered()),
        (&genuine, now(), duplicate()),
        // Signed as the invented one was: it cannot be distinguished from another invention.
        (&body("complete", "more"), captured, duplicate()),
    ] {
        assert_eq!(
            verdict(&guarded.send(&sign_at(body, at))),
            expected,
            "{body}"
        );
    }
    assert_eq!(bodies(&guarded), [text, invented, genuine]);
    let changed = |at: usize| {
        let head = &guarded.upstream.recorded()[at].head;
        head.header("x-callback-guard-changed")
    };
    assert_eq!([changed(0), changed(1)], [None, None]);
    assert_eq!(changed(2).as_deref(), Some("true"));
}

#[test]
fn a_message_that_comes_again_with_another_body_and_a_new_signature_is_delivered() {
    let guarded = Guarded::start();
    let (id, _) = event("voice");
    let ask = |phrase: &str| {
        let data = json!({ "taskId": id, "status": "wait_validating", "validateInfo": phrase });
        json!({ "code": 200, "msg": "", "data": data }).to_string()
    };
    let start = now() - 100;
    for (phrase, at, expected) in [
        ("A", start, delivered()),
        ("B", start + 50, delivered()),
        ("B", start + 80, duplicate()),
        ("A", start + 90, duplicate()),
    ] {
        let response = guarded.send(&sign_at(&ask(phrase), at));
        assert_eq!(verdict(&response), expected, "{phrase} at {at}");
    }
    assert_eq!(bodies(&guarded), [ask("A"), ask("B")]);
}

#[test]
fn an_id_with_dots_is_the_senders_own() {
    let guarded = Guarded::start();
    for id in ["task_kling-2.6_1765182425861", "a.b.", ".1769670760"] {
        let response = guarded.send(&signed(&body_of(id)));
        assert_eq!(verdict(&response), delivered(), "{id}");
        let head = guarded.upstream.recorded().pop().unwrap().head;
        assert_eq!(head.values("x-callback-guard-id"), [id]);
    }
}

/// What tells two events apart is in a header that nobody signs.
#[test]
fn one_body_under_several_topics_is_one_delivery_each() {
    let senders = Senders::start(json!([preset("github"), preset("shopify")]));
    let guarded = &senders.guarded;
    let orders = ["orders/create", "orders/paid", "orders/updated"];
    for (path, header, topics) in [
        ("/shopify", "x-shopify-topic", &orders[..]),
        ("/github", "x-github-event", &["push", "ping"][..]),
    ] {
        let body = format!(r#"{{"id":1,"of":"{path}"}}"#);
        for expected in [delivered(), duplicate()] {
            for topic in topics {
                let request = senders.request(path, &body).replace(header, topic);
                assert_eq!(verdict(&guarded.send(&request)), expected, "{topic}");
            }
        }
    }
    assert_eq!(guarded.upstream.heads(), 5);
    // While the application is down somebody replays the body under another topic, later with success.
    let body = r#"{"ref":"main"}"#;
    let request = |topic: &str| {
        senders
            .request("/github", body)
            .replace("x-github-event", topic)
    };
    guarded.upstream.clear();
    guarded.upstream.answer(Answer::status(503));
    assert_eq!(guarded.send(&request("push")).status, 503);
    guarded.upstream.answer(Answer::status(200));
    assert_eq!(verdict(&guarded.send(&request("ping"))), delivered());
    assert_eq!(verdict(&guarded.send(&request("push"))), delivered());
    let seen: Vec<_> = guarded
        .upstream
        .recorded()
        .iter()
        .filter_map(|one| one.head.header("x-github-event"))
        .collect();
    assert_eq!(seen, ["push", "ping", "push"]);
}

#[test]
fn endpoints_below_one_prefix_get_their_own_copies() {
    let guarded = Guarded::with(|configuration| {
        configuration["sources"][0]["match"] = json!({ "path_prefix": "/callbacks" });
    });
    let request = signed(&event("copies").1);
    for (path, expected) in [
        ("/callbacks/a", delivered()),
        ("/callbacks/b", delivered()),
        ("/callbacks/a", duplicate()),
    ] {
        let response = guarded.send(&request.clone().path(path));
        assert_eq!(verdict(&response), expected, "{path}");
    }
    assert_eq!(guarded.upstream.heads(), 2);
}

#[test]
fn without_deduplication_what_is_alike_is_delivered_each_time() {
    let mut source = preset("dropbox");
    source["dedupe"] = json!(false);
    let senders = Senders::start(json!([source]));
    let body = r#"{"list_folder":{"accounts":["dbid:A"]}}"#;
    for _ in 0..3 {
        let response = senders.guarded.send(&senders.request("/dropbox", body));
        assert_eq!(verdict(&response), delivered());
    }
    assert_eq!(bodies(&senders.guarded), [body; 3]);
}

#[test]
fn bodies_of_other_shapes_are_delivered_where_their_sender_makes_them() {
    let plain = || json!({ "header": "x-signature", "encoding": "hex" });
    let outpost = json!({
        "header": "x-signature", "separator": ",", "prefix": "v0=", "encoding": "hex",
        "continued": true
    });
    let senders = Senders::start(json!([
        preset("github"),
        of_signed_body("array", plain(), json!({ "payload": { "root": "array" } })),
        of_signed_body("outpost", outpost, json!({})),
    ]));
    let guarded = &senders.guarded;
    // GitHub's default content type.
    let form = senders.request("/github", "payload=%7B%22a%22%3A1%7D");
    let form = form.replace("content-type", "application/x-www-form-urlencoded");
    assert_eq!(verdict(&guarded.send(&form)), delivered());
    let array = senders.request("/array", r#"[{"id":"a"},{"id":"b"}]"#);
    assert_eq!(verdict(&guarded.send(&array)), delivered());
    let object = senders.request("/array", r#"{"id":"a"}"#);
    assert_eq!(
        verdict(&guarded.send(&object)),
        refused(400, "json_malformed")
    );
    // The new secret's value comes first, and the guard knows the old one alone.
    let rotated = senders.request("/outpost", r#"{"id":"a"}"#);
    let (_, good) = rotated
        .headers
        .iter()
        .find(|(name, _)| name == "x-signature")
        .unwrap();
    let good = String::from_utf8(good.clone()).unwrap();
    let good = good.trim_start_matches("v0=").to_owned();
    let both = format!("v0={},{good}", "0".repeat(64));
    let rotated = rotated.replace("x-signature", both);
    assert_eq!(verdict(&guarded.send(&rotated)), delivered());
    assert_eq!(guarded.upstream.heads(), 3);
}

/// It is the sender's fault, or a forger's: never one of the guard, which would be asked for again.
#[test]
fn a_body_without_a_signed_field_is_refused_for_good() {
    let guarded = Guarded::with(|guard| {
        guard["sources"] = json!([{
            "name": "field", "match": { "path": "/field" },
            "signature": {
                "message": [{ "pointer": "/x" }, { "literal": "." }, { "id": true },
                    { "literal": "." }, { "timestamp": true }],
                "value": { "header": "x-signature", "encoding": "hex" },
                "timestamp": { "header": "x-time" },
                "id": { "pointers": ["/id"] },
            },
            "secrets": [{ "value": SECRET }],
        }]);
    });
    for body in [r#"{"id":"a"}"#, r#"{"id":"a","x":null}"#] {
        let request = Request::post("/field")
            .header("x-signature", "0".repeat(64))
            .header("x-time", now().to_string())
            .json(body);
        let response = guarded.send(&request);
        assert_eq!(
            verdict(&response),
            refused(401, "signature_mismatch"),
            "{body}"
        );
    }
    assert_eq!(guarded.upstream.heads(), 0);
}
