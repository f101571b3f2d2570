//! docs/envoy.md: what it prints for an Envoy configuration does in a real Envoy what the text says.

use std::fs;

use callback_guard_harness::client::RawConnection;
use callback_guard_harness::{Reader, Render, Request, SECRET_VARIABLE, page};
use serde_json::{Value, json};

use callback_guard_support::rotation::assert_it_rotates;
use callback_guard_support::{Guarded, SECRET, event, signed};

const PAGE: &str = "docs/envoy.md";

/// The block that a test runs, as it is printed.
#[track_caller]
fn yaml(test: &str) -> Value {
    page::block(PAGE, test).unwrap().value().unwrap()
}

#[test]
fn openssl_and_curl_make_a_genuine_callback() {
    let guarded = Guarded::start();
    let block = page::block(PAGE, "openssl_and_curl_make_a_genuine_callback").unwrap();
    let reader = Reader::new()
        .unwrap()
        .env(SECRET_VARIABLE, SECRET)
        .instead("127.0.0.1:10000", &guarded.address().to_string());
    let said = reader.run(&block.text).unwrap();
    assert!(said.text.starts_with("HTTP/1.1 200"), "{said:?}");
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn health_checks_are_answered_before_the_guard() {
    let guarded = Guarded::builder()
        .render(|render| render.before_guard(yaml("health_checks_are_answered_before_the_guard")))
        .start();
    assert_eq!(guarded.send(&Request::get("/healthz")).status, 200);
    assert_eq!(guarded.send(&Request::get("/")).status, 404);
    assert_eq!(guarded.requests("*", "no_source"), 1);
    assert_eq!(guarded.send(&signed(&event("healthy").1)).status, 200);
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn only_the_senders_addresses_come_to_the_guard() {
    let filter = yaml("only_the_senders_addresses_come_to_the_guard");
    let own = "/typed_config/rules/policies/sender/principals/0/remote_ip";
    let mut here = filter.clone();
    *here.pointer_mut(own).unwrap() = json!({ "address_prefix": "127.0.0.0", "prefix_len": 8 });
    for (filter, status, delivered) in [(filter, 403, 0), (here, 200, 1)] {
        let guarded = Guarded::builder()
            .render(|render| render.before_guard(filter))
            .start();
        assert_eq!(guarded.send(&signed(&event("address").1)).status, status);
        assert_eq!(guarded.upstream.heads(), delivered);
    }
}

#[test]
fn strangers_hold_none_of_the_connections_where_senders_are_known() {
    let change = yaml("strangers_hold_none_of_the_connections_where_senders_are_known");
    let own = "/filter_chain_match/source_prefix_ranges/0";
    let mut here = change.clone();
    *here.pointer_mut(own).unwrap() = json!({ "address_prefix": "127.0.0.0", "prefix_len": 8 });
    for (change, is_known) in [(change, false), (here, true)] {
        let guarded = Guarded::builder()
            .render(|render| {
                render.listener(|listener| {
                    listener["filter_chains"][0]["filter_chain_match"] =
                        change["filter_chain_match"].clone();
                })
            })
            .start();
        if is_known {
            assert_eq!(guarded.send(&signed(&event("known").1)).status, 200);
            continue;
        }
        // A head that does not end, for which others have five seconds; then 408.
        for _ in 0..20 {
            let mut connection = RawConnection::open(guarded.address()).unwrap();
            connection.write("POST / HTTP/1.1\r\n").unwrap();
            // Closed, or reset with the bytes unread.
            let response = connection.read_response().ok().flatten();
            assert!(response.is_none(), "{response:?}");
        }
        let stats = guarded.envoy.stats().unwrap();
        let unmatched = stats
            .iter()
            .find(|(name, _)| name.ends_with(".no_filter_chain_match"));
        assert_eq!(unmatched.map(|(_, count)| *count), Some(20));
        assert_eq!(guarded.upstream.heads(), 0);
    }
}

#[test]
fn what_is_over_the_rate_comes_again() {
    let mut filter = yaml("what_is_over_the_rate_comes_again");
    filter["typed_config"]["token_bucket"] =
        json!({ "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s" });
    let guarded = Guarded::builder()
        .render(|render| render.before_guard(filter))
        .start();
    let request = signed(&event("rate").1);
    assert_eq!(guarded.send(&request).status, 200);
    assert_eq!(guarded.send(&request).status, 429);
    assert_eq!(guarded.upstream.heads(), 1);
}

#[test]
fn the_guard_works_on_one_route_alone() {
    let mut route = yaml("the_guard_works_on_one_route_alone");
    route["route"]["cluster"] = json!("app");
    let guarded = Guarded::builder()
        .render(|render| {
            render.connection_manager(|manager| {
                manager["http_filters"][0]["disabled"] = json!(true);
                let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
                routes.as_array_mut().unwrap().insert(0, route);
            })
        })
        .start();
    let unsigned = |path: &str| guarded.send(&Request::post(path).json("{}")).status;
    assert_eq!(unsigned("/callbacks/suno"), 401);
    assert_eq!(guarded.upstream.heads(), 0);
    assert_eq!(unsigned("/other"), 200);
    assert_eq!(guarded.upstream.heads(), 1);
    assert_eq!(guarded.send(&signed(&event("route").1)).status, 200);
}

#[test]
fn a_secret_is_rotated_by_a_file_that_envoy_watches() {
    // The harness puts the built module's path there too late for the file.
    let module = callback_guard_harness::wasm::module(&|_| {}).unwrap();
    let mut plugin = Value::Null;
    let render = Render::repository()
        .module(&module)
        .connection_manager(|manager| {
            plugin = manager["http_filters"][0]["typed_config"].take();
        });
    render.document().unwrap();
    let printed = page::marked(PAGE, "a_secret_is_rotated_by_a_file_that_envoy_watches").unwrap();
    assert_it_rotates(&printed, &plugin, "/config/configuration/value", &[]);
}

#[test]
fn a_secret_from_a_file_loses_its_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("suno-webhook-key");
    fs::write(&secret, "the-secret\n\n").unwrap();
    let block = page::block(PAGE, "a_secret_from_a_file_loses_its_line_break").unwrap();
    let reader = Reader::new()
        .unwrap()
        .instead("/run/secrets/suno-webhook-key", secret.to_str().unwrap())
        .instead(
            "exec envoy -c /etc/envoy/envoy.yaml",
            "exec printenv SUNO_WEBHOOK_KEY",
        );
    let said = reader.run(&block.text).unwrap();
    assert_eq!(said.text, "the-secret\n");
}
