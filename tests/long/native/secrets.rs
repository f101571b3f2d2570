//! How the native build gets another secret while Envoy serves.

use std::fs;

use callback_guard_harness::{Render, native, page, places};
use serde_json::Value;

use callback_guard_support::rotation::assert_it_rotates;

#[test]
fn a_secret_is_rotated_by_a_file_that_envoy_watches() {
    let read = |name: &str| fs::read_to_string(places::repository().join(name)).unwrap();
    let mut filter = Value::Null;
    let render = Render::yaml(&read("envoy-native.yaml")).connection_manager(|manager| {
        filter = manager["http_filters"][0]["typed_config"].take();
    });
    render.document().unwrap();
    let kind = filter["@type"].as_str().unwrap();
    assert!(read("docs/native.md").contains(kind), "{kind}");
    let module = native::module(&|_| {}).unwrap();
    let directory = module.parent().unwrap().to_str().unwrap();
    let environment = [(native::SEARCH_PATH_VARIABLE, directory)];
    let name = "a_secret_is_rotated_by_a_file_that_envoy_watches";
    let printed = page::marked("docs/envoy.md", name).unwrap();
    assert_it_rotates(&printed, &filter, "/filter_config/value", &environment);
}
