//! The commands that pages print for whoever has an Envoy, as their readers run them: with both programs on
//! the `PATH`, and `envoy.yaml` in their folder.

use std::fs;
use std::net::SocketAddr;

use callback_guard_harness::page::{self, Block, Said};
use callback_guard_harness::{
    Reader, Render, Request, SECRET_VARIABLE, Upstream, client, envoy_binary, native, places,
    program, upstream, wait, wasm,
};
use serde_json::{Value, json};

use callback_guard_support::{Guarded, SECRET, event, now, sign_at, signed};

/// The address that pages send to.
const PRINTED: &str = "127.0.0.1:10000";

fn read(name: &str) -> String {
    fs::read_to_string(places::repository().join(name)).unwrap()
}

/// A reader without an Envoy that runs.
fn reader() -> Reader {
    let own = program::built("callback-guard-cli", "callback-guard", false, &|_| {}).unwrap();
    let envoy = envoy_binary::find(&|_| {}).unwrap();
    let envoy = envoy.path().expect("an Envoy that is a file");
    let module = wasm::module(&|_| {}).unwrap();
    let module = module.to_str().unwrap();
    let yaml = read("envoy.yaml").replace("/etc/envoy/callback_guard.wasm", module);
    Reader::new()
        .and_then(|reader| reader.program("callback-guard", &own))
        .and_then(|reader| reader.program("envoy", envoy))
        .and_then(|reader| reader.file("envoy.yaml", yaml))
        .unwrap()
        .env(SECRET_VARIABLE, SECRET)
}

/// A reader whose Envoy this is.
fn reader_of(guarded: &Guarded) -> Reader {
    reader().instead(PRINTED, &guarded.address().to_string())
}

/// What each command of a block gives.
#[track_caller]
fn run(reader: &Reader, block: &Block) -> Vec<Said> {
    let commands = block.commands();
    assert!(!commands.is_empty());
    let run = commands.iter().map(|command| reader.run(command).unwrap());
    run.collect()
}

/// Runs a block whose commands all succeed.
#[track_caller]
fn succeed(reader: &Reader, block: &Block) -> Vec<Said> {
    let all = run(reader, block);
    for said in &all {
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    all
}

/// Sends what the sender could not send.
fn refused(guarded: &Guarded) -> u64 {
    guarded.requests("suno", "signature_mismatch")
}

#[test]
fn the_printed_filter_guards_an_envoy() {
    let block = page::block("docs/envoy.md", "the_printed_filter_guards_an_envoy").unwrap();
    let said = succeed(&reader(), &block).remove(0).text;
    let mut filters: Vec<Value> = yaml_serde::from_str(&said).unwrap();
    assert_eq!(filters.len(), 1);
    let filter = filters.remove(0);
    let guarded = Guarded::builder()
        .render(|render| render.connection_manager(|manager| manager["http_filters"][0] = filter))
        .start();
    let body = event("printed").1;
    assert_eq!(guarded.send(&sign_at(&body, now() - 3600)).status, 401);
    assert_eq!(guarded.upstream.heads(), 0);
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn both_programs_accept_the_file() {
    for page in [
        "docs/envoy.md",
        "docs/troubleshooting.md",
        "docs/upgrading.md",
    ] {
        let block = page::block(page, "both_programs_accept_the_file").unwrap();
        for said in succeed(&reader(), &block) {
            let is_fine = said.text.contains("ok") || said.text.contains("' OK");
            assert!(is_fine, "{page}: {said:?}");
        }
    }
}

#[test]
fn a_callback_of_your_own_arrives() {
    for page in [
        "docs/envoy.md",
        "docs/troubleshooting.md",
        "docs/upgrading.md",
    ] {
        let block = page::block(page, "a_callback_of_your_own_arrives").unwrap();
        let guarded = Guarded::start();
        succeed(&reader_of(&guarded), &block);
        assert_eq!(guarded.upstream.heads(), 1, "{page}");
        assert_eq!(guarded.requests("suno", "forwarded"), 1, "{page}");
    }
}

#[test]
fn a_captured_request_is_explained() {
    for page in ["docs/migrating.md", "docs/troubleshooting.md"] {
        let block = page::block(page, "a_captured_request_is_explained").unwrap();
        let capture = "POST /callbacks/suno HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
            x-webhook-signature: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\
            x-webhook-timestamp: 1769670760\r\n\r\n{\"data\":{\"task_id\":\"captured\"}}";
        let reader = reader().file("request.txt", capture).unwrap();
        let said = run(&reader, &block).remove(0);
        assert_eq!(said.code, Some(1), "{page}: {said:?}");
        assert!(said.text.contains("signature_mismatch"), "{page}: {said:?}");
    }
}

#[test]
fn a_migration_watches_first_and_then_refuses() {
    let block = page::block(
        "docs/migrating.md",
        "a_migration_watches_first_and_then_refuses",
    );
    let block = block.unwrap();
    let guarded = Guarded::with(|configuration| configuration["mode"] = json!("monitor"));
    let reader = reader_of(&guarded);
    let watching = fs::read_to_string(reader.folder().join("envoy.yaml")).unwrap();
    let watching = watching.replacen("\"sources\":", "\"mode\": \"monitor\", \"sources\":", 1);
    let reader = reader.file("envoy.yaml", watching).unwrap();
    let said = succeed(&reader, &block);
    let monitor = "monitor: nothing is refused";
    assert!(said[0].text.contains(monitor), "{said:?}");
    let verdicts: Vec<_> = guarded
        .upstream
        .recorded()
        .iter()
        .map(|one| one.head.header("x-callback-guard-verdict").unwrap())
        .collect();
    assert_eq!(verdicts, ["forwarded", "signature_mismatch"]);

    let guarded = Guarded::start();
    let said = run(&reader_of(&guarded), &block);
    assert_eq!(said[1].code, Some(0), "{said:?}");
    assert!(said[2].text.contains("401"), "{said:?}");
    assert!(said[2].text.contains("signature_mismatch"), "{said:?}");
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn a_rotation_accepts_both_secrets_and_then_the_new_one_alone() {
    let blocks = page::marked(
        "docs/rotation.md",
        "a_rotation_accepts_both_secrets_and_then_the_new_one_alone",
    );
    let [check, both, after]: [Block; 3] = blocks.unwrap().try_into().unwrap();
    let old = "the-old-one-with-more-than-sixteen-bytes";
    let guarded = Guarded::builder()
        .map(|setup| setup.env("SUNO_WEBHOOK_KEY_PREVIOUS", old))
        .start();
    let reader = reader_of(&guarded).env("SUNO_WEBHOOK_KEY_PREVIOUS", old);
    let said = succeed(&reader, &check).remove(0).text;
    assert_eq!(said.matches("(set)").count(), 2, "{said}");
    succeed(&reader, &both);
    assert_eq!(guarded.upstream.heads(), 2);

    let guarded = Guarded::start();
    let said = run(&reader_of(&guarded), &after).remove(0);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.text.contains("401"), "{said:?}");
    assert!(said.text.contains("signature_mismatch"), "{said:?}");
    assert_eq!((refused(&guarded), guarded.upstream.heads()), (1, 0));
}

#[test]
fn the_readme_checks_a_file_from_the_checkout() {
    let block = page::block("README.md", "the_readme_checks_a_file_from_the_checkout").unwrap();
    let reader = Reader::new().unwrap();
    let repository = places::repository();
    for command in block.commands() {
        let there = format!("cd '{}'; {command}", repository.display());
        let said = reader.run(&there).unwrap();
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

/// One of the repository's files, with ports of its own in place of the printed ones.
fn on_own_ports(name: &str, upstream: SocketAddr) -> (String, SocketAddr) {
    let [admin, callbacks] = [(); 2].map(|()| upstream::unused_address().unwrap());
    let at = |address: SocketAddr| json!({ "address": "127.0.0.1", "port_value": address.port() });
    let render = Render::yaml(&read(name))
        .edit(|document| document["admin"]["address"]["socket_address"] = at(admin))
        .listener(|listener| listener["address"]["socket_address"] = at(callbacks))
        .upstream(upstream);
    (render.document().unwrap().to_string(), callbacks)
}

#[test]
fn the_native_build_is_checked_and_started() {
    let blocks = page::marked("docs/native.md", "the_native_build_is_checked_and_started");
    let [start, check]: [Block; 2] = blocks.unwrap().try_into().unwrap();
    let application = Upstream::start().unwrap();
    let (file, address) = on_own_ports("envoy-native.yaml", application.address());
    let module = native::module(&|_| {}).unwrap();
    let directory = module.parent().unwrap().to_str().unwrap();
    let reader = reader()
        .file("envoy-native.yaml", file)
        .unwrap()
        .instead("/etc/envoy", directory);
    succeed(&reader, &check);
    let mut envoy = reader.start(&start.text).unwrap();
    let request = signed(&event("native").1);
    let status = wait::wait_for("Envoy to serve", || {
        assert!(envoy.is_running(), "{}", envoy.log());
        client::send(address, &request).ok()
    });
    assert_eq!(status.unwrap().status, 200);
    let unsigned = Request::post("/callbacks/suno").json("{}");
    assert_eq!(client::send(address, &unsigned).unwrap().status, 401);
    assert_eq!(application.heads(), 1);
}
