//! Callbacks, files of the repository, and Kubernetes manifests.

use std::fs;
use std::path::PathBuf;

use callback_guard_harness::{Body, Reader, Request, SECRET, SECRET_VARIABLE, places, wasm};
use callback_guard_support::{event, now, sign_under};
use serde_json::Value;

pub fn path(name: &str) -> PathBuf {
    places::repository().join(name)
}

#[track_caller]
pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A reader of pages who is in a checkout: its scripts, and the module where they put it.
pub fn checkout() -> Reader {
    let module = wasm::module(&|_| {}).unwrap();
    let built = module.ancestors().nth(3).unwrap().display().to_string();
    let script = |name: &str| path(name).display().to_string();
    Reader::new()
        .unwrap()
        .env(SECRET_VARIABLE, SECRET)
        .instead("target/wasm32-wasip1", &format!("{built}/wasm32-wasip1"))
        .instead(
            "deploy/module.sh",
            &format!("{} --target-dir {built}", script("deploy/module.sh")),
        )
        .instead(
            "deploy/docker/oci-image.sh",
            &script("deploy/docker/oci-image.sh"),
        )
        .instead(
            "deploy/kubernetes/base.sh",
            &script("deploy/kubernetes/base.sh"),
        )
}

/// The documents of a YAML file. A key that comes twice is refused.
#[track_caller]
pub fn documents(name: &str) -> Vec<Value> {
    parse_documents(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn parse_documents(text: &str) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let mut documents = Vec::new();
    for part in format!("\n{text}").split("\n---\n") {
        let document: yaml_serde::Value = yaml_serde::from_str(part)?;
        if !document.is_null() {
            documents.push(serde_json::to_value(document)?);
        }
    }
    Ok(documents)
}

/// The document of this kind and name.
#[track_caller]
pub fn document(name: &str, kind: &str) -> Value {
    documents(name)
        .into_iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("{name}: no {kind}"))
}

/// A body of the sender about an event that no other callback speaks of.
pub fn body(name: &str) -> String {
    event(name).1
}

/// A callback with this body that was signed `age` seconds ago under `secret`.
pub fn signed(body: &str, secret: &str, age: u64) -> Request {
    sign_under(secret, body, now() - age)
}

pub fn genuine(body: &str) -> Request {
    signed(body, SECRET, 0)
}

/// Signed under a secret that the guard does not have.
pub fn forged(body: &str) -> Request {
    signed(body, "another-secret", 0)
}

/// The same request with its body in two halves, after the headers.
pub fn in_halves(request: Request, body: &str) -> Request {
    request.body(Body::halves(body.to_owned()))
}
