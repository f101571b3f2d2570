//! A secret that is changed while Envoy serves, by the way that docs/envoy.md prints.

use std::fs;

use callback_guard_harness::page::Block;
use callback_guard_harness::wait;
use serde_json::{Value, json};

use crate::{Guarded, SECRET, event, signed, signed_under};

/// `printed` are the page's blocks, `typed_config` is the guard's filter, with its own configuration at
/// `place`.
#[track_caller]
pub fn assert_it_rotates(
    printed: &[Block],
    typed_config: &Value,
    place: &str,
    environment: &[(&str, &str)],
) {
    let [filter, node, resources] = [0, 1, 2].map(|at: usize| printed[at].value().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callback-guard.yaml");
    let write = |secret: &str| {
        let mut filter = typed_config.clone();
        let configuration = json!({
            "sources": [{
                "name": "suno", "match": { "path": "/callbacks/suno" }, "preset": "suno",
                "secrets": [{ "value": secret }],
            }],
        });
        *filter.pointer_mut(place).unwrap() = configuration.to_string().into();
        let mut resource = resources.clone();
        resource["resources"][0]["typed_config"] = filter;
        let new = folder.path().join("new.yaml");
        fs::write(&new, resource.to_string()).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    write(SECRET);
    let mut filter = filter;
    filter["config_discovery"]["type_urls"] = json!([typed_config["@type"]]);
    filter["config_discovery"]["config_source"]["path_config_source"]["path"] =
        json!(file.to_str().unwrap());
    let guarded = Guarded::builder()
        .map(|setup| {
            environment
                .iter()
                .fold(setup, |setup, (name, value)| setup.env(name, value))
        })
        .render(|render| {
            render
                .edit(|envoy| envoy["node"] = node["node"].clone())
                .connection_manager(|manager| manager["http_filters"][0] = filter)
        })
        .start();

    let (id, body) = event("kept");
    assert_eq!(guarded.send(&signed(&body)).status, 200);
    write("the-new-secret-of-the-sender");
    wait::wait_for("the new secret", || {
        let status = guarded
            .send(&signed_under("the-new-secret-of-the-sender", &id))
            .status;
        (status == 200).then_some(())
    })
    .unwrap();
    assert_eq!(guarded.upstream.heads(), 1, "the store is kept");
    assert_eq!(guarded.send(&signed(&event("old").1)).status, 401);

    // A wrong configuration is not taken.
    write("");
    wait::wait_for("the refusal of a wrong configuration", || {
        let stats = guarded.envoy.stats().unwrap();
        stats
            .iter()
            .any(|(name, value)| name.ends_with(".config_fail") && *value > 0)
            .then_some(())
    })
    .unwrap();
    let still = signed_under("the-new-secret-of-the-sender", "still");
    assert_eq!(guarded.send(&still).status, 200);
    guarded.assert_alive();
}
