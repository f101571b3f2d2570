//! `deploy/redis` is the repository's `envoy.yaml` with a shared store, and fits together.

use std::fs;

use callback_guard_harness::fleet::{CLUSTER, TOKEN_VARIABLE, WEBDIS_TOKEN};
use callback_guard_harness::{Render, Setup, places};
use serde_json::{Value, json};

fn read(name: &str) -> String {
    fs::read_to_string(places::repository().join("deploy/redis").join(name)).unwrap()
}

fn guard(document: &Value) -> Value {
    let filter =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
    let text = document.pointer(&format!("{filter}/typed_config/config/configuration/value"));
    serde_json::from_str(text.unwrap().as_str().unwrap()).unwrap()
}

#[test]
fn envoy_yaml_differs_in_the_store_only() {
    let ours = Render::yaml(&read("envoy.yaml"));
    let ours = ours.document().unwrap().clone();
    let store = guard(&ours)["store"].clone();
    assert_eq!(store["cluster"], CLUSTER);
    assert_eq!(store["token_env"], TOKEN_VARIABLE);
    let cluster = ours["static_resources"]["clusters"][1].clone();
    assert_eq!(cluster["name"], CLUSTER);
    let expected = Render::repository()
        .guard(|config| config["store"] = store)
        .plugin(|plugin| {
            let keys = &mut plugin["vm_config"]["environment_variables"]["host_env_keys"];
            keys.as_array_mut().unwrap().push(TOKEN_VARIABLE.into());
        })
        .add_cluster(cluster)
        .edit(|document| {
            let tags = document["stats_config"]["stats_tags"]
                .as_array_mut()
                .unwrap();
            tags.push(json!({
                "tag_name": "error",
                "regex": r"^wasmcustom\.callback_guard\.store_errors_total(\.error\.([^.]+))$"
            }));
            tags.push(json!({
                "tag_name": "action",
                "regex": r"^wasmcustom\.callback_guard\.store_fallbacks_total(\.action\.([^.]+))$"
            }));
        });
    let mut expected = expected.document().unwrap().clone();
    let mut ours = ours;
    // The text of the guard's configuration may be laid out in another way.
    assert_eq!(guard(&ours), guard(&expected));
    for document in [&mut ours, &mut expected] {
        let filter =
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
        let path = format!("{filter}/typed_config/config/configuration/value");
        *document.pointer_mut(&path).unwrap() = Value::Null;
    }
    assert_eq!(ours, expected);
}

#[test]
fn envoy_accepts_it() {
    let text = read("envoy.yaml");
    let output = Setup::new()
        .env(TOKEN_VARIABLE, WEBDIS_TOKEN)
        .render(|_| Render::yaml(&text))
        .validate()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
}

#[test]
fn the_passwords_fit_together() {
    let webdis: Value = serde_json::from_str(&read("webdis.json")).unwrap();
    let redis = webdis["redis_auth"].as_str().unwrap();
    assert!(read("users.acl").contains(&format!(" >{redis} ")));
    assert_eq!(webdis["acl"][1]["http_basic_auth"], WEBDIS_TOKEN);
    assert!(read("compose.yaml").contains(WEBDIS_TOKEN));
}
