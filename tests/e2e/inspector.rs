//! The inspector: what it shows, to whom, and how little it costs.

use callback_guard_harness::{Answer, Request, Response, Setup, Stack, wait};
use serde_json::{Value, json};

use crate::support::{Change as _, Guarded, SECRET, event, now, sign_at, signed};

const TOKEN: &str = "correct-horse-battery-staple";

fn switch_on(configuration: &mut Value) {
    configuration["inspector"] =
        json!({ "path": "/callback-guard", "events": 50, "token_env": "INSPECTOR_TOKEN" });
}

/// With the inspector on the listener of the callbacks.
fn inspected() -> Guarded {
    with_token(Guarded::builder().configuration(switch_on).workers(2)).start()
}

fn with_token(builder: crate::support::Builder) -> crate::support::Builder {
    builder.map(|setup| {
        setup
            .env("INSPECTOR_TOKEN", TOKEN)
            .render(|render| render.host_environment(&["SUNO_WEBHOOK_KEY", "INSPECTOR_TOKEN"]))
    })
}

fn get(path: &str) -> Request {
    Request::get(path)
}

fn with(token: &str) -> Request {
    get("/callback-guard/events").header("authorization", format!("Bearer {token}"))
}

#[track_caller]
fn listing(guarded: &Guarded) -> Value {
    let response = guarded.send(&with(TOKEN));
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn the_last_decisions_are_shown() {
    let guarded = inspected();
    let (id, body) = event("shown");
    guarded.send(&signed(&body));
    let list = listing(&guarded);
    println!("{list:#} {id}");
}
