//! The inspector: what it shows, to whom, in a real browser, and from a listener of its own.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use callback_guard_harness::{
    Answer, Reader, Request, Response, Setup, client, page, places, wait, wasm,
};
use serde_json::{Value, json};

use callback_guard_support::{Change as _, Guarded, SECRET, event, now, sign_at, signed};

const TOKEN: &str = "correct-horse-battery-staple";

fn with_token(setup: Setup<'static>) -> Setup<'static> {
    setup
        .env("INSPECTOR_TOKEN", TOKEN)
        .render(|render| render.host_environment(&["SUNO_WEBHOOK_KEY", "INSPECTOR_TOKEN"]))
}

/// With the inspector on the listener of the callbacks.
#[track_caller]
fn inspected() -> Guarded {
    Guarded::builder()
        .configuration(|configuration| {
            configuration["inspector"] =
                json!({ "path": "/callback-guard", "events": 50, "token_env": "INSPECTOR_TOKEN" });
        })
        .map(with_token)
        .start()
}

fn events_with(token: &str) -> Request {
    Request::get("/callback-guard/events").header("authorization", format!("Bearer {token}"))
}

#[track_caller]
fn parsed(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

#[track_caller]
fn wait_for(guarded: &Guarded, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::wait_for(what, || {
        let list = parsed(&guarded.send(&events_with(TOKEN)));
        is(&list).then_some(list)
    })
    .unwrap()
}

#[test]
fn the_decisions_of_all_workers_are_shown() {
    let guarded = inspected();
    let (id, body) = event("inspected");
    guarded
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    assert_eq!(guarded.send(&signed(&body)).status, 500);
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    for _ in 0..20 {
        assert_eq!(guarded.send(&signed(&body)).status, 200);
    }
    guarded.send(&sign_at(&event("old").1, now() - 400));
    guarded.send(&signed(&body).path("/elsewhere"));
    let forged = guarded.send(&signed(&body).body(event("forged-words").1));
    assert_eq!(forged.status, 401);

    let list = wait_for(&guarded, "the upstream's answers", |list| {
        let events = list["events"].as_array().unwrap();
        let open = |event: &&Value| event["verdict"] == "forwarded" && event["outcome"].is_null();
        events.iter().filter(open).count() == 0
    });
    let events = list["events"].as_array().unwrap();
    assert_eq!(events.len(), 25);
    assert_eq!(
        (&list["recorded_verified"], &list["recorded_other"]),
        (&json!(22), &json!(3))
    );
    let of = |verdict: &str| -> Vec<&Value> {
        let is = |event: &&Value| event["verdict"] == verdict;
        events.iter().filter(is).collect()
    };
    let forwarded = of("forwarded");
    assert_eq!(forwarded.len(), 2);
    assert_eq!(
        (&forwarded[0]["outcome"], &forwarded[0]["upstream_status"]),
        (&json!("accepted"), &json!(200))
    );
    assert_eq!(
        (&forwarded[1]["outcome"], &forwarded[1]["upstream_status"]),
        (&json!("refused"), &json!(500))
    );
    let duplicates = of("duplicate");
    assert_eq!(duplicates.len(), 20);
    for event in duplicates.iter().chain(&forwarded) {
        assert_eq!(event["id"], json!(id));
        assert_eq!(event["stage"], "200");
        assert_eq!(event["key"], forwarded[0]["key"]);
        assert_eq!(event["body_bytes"], json!(body.len()));
        assert_eq!(event["source"], "suno");
    }
    let recorded = &guarded.upstream.recorded()[0];
    let key = recorded.head.header("x-callback-guard-key").unwrap();
    assert!(key.starts_with(forwarded[0]["key"].as_str().unwrap()));
    assert_eq!(
        of("timestamp_too_old")[0]["age_seconds"].as_i64().unwrap() / 10,
        40
    );
    assert_eq!(of("no_source")[0]["source"], Value::Null);
    assert_eq!(of("signature_mismatch")[0]["id"], Value::Null);
    let text = list.to_string();
    for hidden in ["forged-words", SECRET, TOKEN, "success"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    guarded.assert_alive();
}

#[test]
fn nobody_without_the_token_sees_anything() {
    let guarded = inspected();
    guarded.send(&signed(&event("hidden").1));
    for request in [
        Request::get("/callback-guard/events"),
        events_with("wrong"),
        events_with(""),
        events_with(TOKEN).header("authorization", format!("Bearer {TOKEN}")),
        Request::get("/callback-guard/events").header("authorization", b"Bearer \xff\xfe"),
    ] {
        let response = guarded.send(&request);
        assert_eq!(response.status, 401, "{request:?}");
        assert!(!String::from_utf8_lossy(&response.body).contains("hidden"));
    }
    let page = guarded.send(&Request::get("/callback-guard"));
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-encoding").as_deref(), Some("gzip"));
    let post = signed(&event("post").1).path("/callback-guard");
    assert_eq!(guarded.send(&post).status, 405);
    assert_eq!(
        guarded.send(&post.path("/callback-guard/events")).status,
        405
    );
    assert_eq!(
        guarded.upstream.heads(),
        1,
        "the inspector's requests stay here"
    );
    guarded.assert_alive();
}

#[test]
fn switched_off_there_is_no_such_page() {
    let guarded = Guarded::start();
    guarded.send(&signed(&event("off").1));
    assert_eq!(guarded.send(&Request::get("/callback-guard")).status, 404);
    assert_eq!(guarded.send(&events_with(TOKEN)).status, 404);
}

#[test]
fn the_documented_listener_shows_what_the_other_one_decides() {
    let printed = page::marked(
        "docs/inspector.md",
        "the_documented_listener_shows_what_the_other_one_decides",
    );
    let printed: [page::Block; 4] = printed.unwrap().try_into().unwrap();
    let [kept, listener, curl, reply] = printed;
    let mut listener = listener.value().unwrap()[0].take();
    let mut kept = kept.value().unwrap();
    let socket = "/address/socket_address";
    assert_eq!(
        listener.pointer(&format!("{socket}/address")),
        Some(&json!("127.0.0.1")),
        "it is for this machine alone"
    );
    *listener
        .pointer_mut(&format!("{socket}/port_value"))
        .unwrap() = json!(0);
    let plugin = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
    let own = listener.pointer_mut(plugin).unwrap();
    own["vm_config"]["code"]["local"]["filename"] = json!(wasm::module(&|_| {}).unwrap());
    let guarded = Guarded::builder()
        .configuration(|configuration| configuration["inspector"] = kept["inspector"].take())
        .map(|setup| {
            with_token(setup).render(|render| {
                render.edit(|document| {
                    let listeners = &mut document["static_resources"]["listeners"];
                    listeners.as_array_mut().unwrap().push(listener);
                })
            })
        })
        .start();
    let (id, body) = event("elsewhere");
    guarded.send(&signed(&body));
    assert_eq!(guarded.send(&Request::get("/callback-guard")).status, 404);
    let admin = guarded.envoy.admin_get("/listeners?format=json").unwrap();
    let admin: Value = serde_json::from_str(&admin).unwrap();
    let statuses = admin["listener_statuses"].as_array().unwrap();
    let own = statuses.iter().find(|one| one["name"] == "inspector");
    let port = own
        .unwrap()
        .pointer("/local_address/socket_address/port_value");
    let address = format!("127.0.0.1:{}", port.unwrap()).parse().unwrap();
    let ask = |request: &Request| client::send(address, request).unwrap();

    assert_eq!(ask(&Request::get("/callback-guard")).status, 200);
    assert_eq!(ask(&Request::get("/callback-guard/events")).status, 401);
    assert_eq!(ask(&Request::get("/favicon.ico")).status, 404);
    let list = parsed(&ask(&events_with(TOKEN)));
    let events = list["events"].as_array().unwrap();
    let shown: Vec<_> = events.iter().map(|event| &event["verdict"]).collect();
    assert_eq!(
        shown,
        ["no_source", "forwarded"],
        "of the other listener alone"
    );
    assert_eq!(events[1]["id"], json!(id));

    let reader = Reader::new()
        .unwrap()
        .env("INSPECTOR_TOKEN", TOKEN)
        .instead("127.0.0.1:9902", &address.to_string());
    let said = reader.run(&curl.text).unwrap();
    let said: Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!(said["events"], list["events"]);
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let reply = reply.value().unwrap();
    assert_eq!(names(&said), names(&reply));
    assert_eq!(names(&said["events"][1]), names(&reply["events"][0]));
    guarded.assert_alive();
}

#[test]
fn the_page_works_in_chromium() {
    let guarded = inspected();
    let pictures = places::target().join("inspector");
    fs::create_dir_all(&pictures).unwrap();
    let mut browser = Command::new(program("node", "nodejs"))
        .arg(driver().join("inspector.mjs"))
        .arg(program("chromium", "chromium"))
        .arg(format!("http://{}/callback-guard", guarded.address()))
        .arg(TOKEN)
        .arg(&pictures)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = BufReader::new(browser.stdout.take().unwrap()).lines();
    if words.next().is_some_and(|line| line.unwrap() == "send") {
        let body = event("first").1;
        guarded.send(&signed(&body));
        guarded.send(&signed(&body));
        guarded.upstream.answer_in_turn([Answer::status(500)]);
        guarded.send(&signed(&event("failing").1));
        guarded.send(&sign_at(&event("stale").1, now() - 400));
        guarded.send(&signed(&event("unsigned").1).without("x-webhook-signature"));
    }
    let output = browser.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["light", "dark", "narrow"] {
        let picture = fs::metadata(pictures.join(format!("{name}.png"))).unwrap();
        assert!(picture.len() > 10_000, "{name}");
    }
    guarded.assert_alive();
}

/// A directory with the browser's driver, installed from its lock file.
fn driver() -> PathBuf {
    let from = places::repository().join("tests/services/browser");
    let to = places::target().join("inspector/driver");
    fs::create_dir_all(&to).unwrap();
    for name in ["package.json", "package-lock.json", "inspector.mjs"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let install = Command::new(program("npm", "npm"))
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&to)
        .output()
        .unwrap();
    assert!(
        install.status.success(),
        "`npm ci` in {}: {}",
        to.display(),
        String::from_utf8_lossy(&install.stderr)
    );
    to
}

/// Where `name` is; Debian's `package` has it, and is installed if that is possible.
#[track_caller]
fn program(name: &str, package: &str) -> PathBuf {
    let find = || {
        env::split_paths(&env::var_os("PATH")?)
            .map(|directory| directory.join(name))
            .find(|file| Path::is_file(file))
    };
    if let Some(found) = find() {
        return found;
    }
    for arguments in [
        &["update", "-qq"][..],
        &["install", "-y", "-qq", "--no-install-recommends", package],
    ] {
        let _ = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output();
    }
    find().unwrap_or_else(|| {
        panic!("`{name}` is not on the PATH and could not be installed: apt-get install {package}")
    })
}
