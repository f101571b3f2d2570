//! The guard's VM, killed by another plugin that shares it.
//!
//! Envoy gives plugins with the same `vm_id`, code and VM configuration one VM on each worker. Here
//! the second plugin is the guard once more, on a listener of its own. The module is the built one,
//! except that it runs into a trap where a request has trailers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use callback_guard_harness::{Body, Protocol, Render, Request, client, wasm};
use serde_json::json;
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{CodeSection, Function, Module};
use wasmparser::{ExternalKind, FunctionBody, Parser, Payload, TypeRef};

use callback_guard_support::{Builder, Guarded};

/// The callback that is to end in a trap.
const POISONED: &str = "proxy_on_request_trailers";

/// Writes the module with the trap into `directory`.
pub fn poisoned_module(directory: &Path) -> PathBuf {
    let built = std::fs::read(wasm::module(&|_| {}).unwrap()).unwrap();
    let path = directory.join("poisoned.wasm");
    std::fs::write(&path, poison(&built)).unwrap();
    path
}

fn poison(built: &[u8]) -> Vec<u8> {
    let (mut imported, mut exported) = (0, Vec::new());
    for payload in Parser::new(0).parse_all(built) {
        match payload.unwrap() {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += u32::from(matches!(import.unwrap().ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(exports) => {
                let exports = exports.into_iter().map(Result::unwrap);
                exported = exports
                    .filter(|export| export.kind == ExternalKind::Func)
                    .map(|export| (export.name.to_owned(), export.index))
                    .collect();
            }
            _ => {}
        }
    }
    let index = |name: &str| exported.iter().find(|(known, _)| known == name).unwrap().1;
    let target = index(POISONED);
    let named = exported.iter().filter(|(_, index)| *index == target);
    assert_eq!(named.count(), 1, "another callback has the same code");

    let mut module = Module::new();
    let mut poison = Poison {
        next: imported,
        target,
    };
    let parser = Parser::new(0);
    poison
        .parse_core_module(&mut module, parser, built)
        .unwrap();
    module.finish()
}

/// Copies a module, but for the body of one function.
struct Poison {
    next: u32,
    target: u32,
}

impl Reencode for Poison {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error<Self::Error>> {
        let index = self.next;
        self.next += 1;
        if index != self.target {
            return wasm_encoder::reencode::utils::parse_function_body(self, code, body);
        }
        let mut trap = Function::new([]);
        trap.instructions().unreachable().end();
        code.function(&trap);
        Ok(())
    }
}

/// The guard on `module`, and beside it a second listener whose plugin shares the guard's VM.
pub fn with_neighbour(builder: Builder, module: &Path) -> Builder {
    builder.render(|render: Render| {
        render.module(module).edit(|document| {
            let listeners = document["static_resources"]["listeners"]
                .as_array_mut()
                .unwrap();
            let mut second = listeners[0].clone();
            second["name"] = json!("neighbour");
            let manager = &mut second["filter_chains"][0]["filters"][0]["typed_config"];
            manager["stat_prefix"] = json!("neighbour");
            let plugin = &mut manager["http_filters"][0]["typed_config"]["config"];
            plugin["name"] = json!("neighbour");
            plugin["root_id"] = json!("neighbour");
            listeners.push(second);
        })
    })
}

/// The second listener.
pub struct Neighbour(SocketAddr);

impl Neighbour {
    pub fn of(guarded: &Guarded) -> Self {
        let address = |name| guarded.envoy.listener_named(name).unwrap();
        assert_eq!(address("callbacks"), guarded.address());
        Self(address("neighbour"))
    }

    /// Has the second plugin run into the trap. Returns the status.
    pub fn trap(&self) -> u16 {
        let request = Request::post("/callbacks/suno")
            .header("content-type", "application/json")
            .header(
                "x-webhook-timestamp",
                callback_guard_support::now().to_string(),
            )
            .header("x-webhook-signature", format!("{}=", "A".repeat(43)))
            .body(Body::chunked(["{}"]).trailer("x-t", "1"))
            .protocol(Protocol::Http2);
        client::send(self.0, &request).map_or(0, |response| response.status)
    }
}

/// How often Envoy has started a VM for the guard in place of a dead one.
pub fn reloads(guarded: &Guarded) -> u64 {
    guarded.stat("wasm.callback-guard.vm_reload_success")
}

/// How often a VM has run into the trap.
pub fn deaths(guarded: &Guarded) -> usize {
    let trapped = format!("Function: {POISONED} failed");
    guarded.envoy.log().matches(&trapped).count()
}
