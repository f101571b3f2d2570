//! The floor of the benchmark: a filter that holds head and body until the body is whole, and does
//! nothing else. No filter that decides by the body can cost less. With the configuration `reads` it
//! also takes head and body over into the VM, once each, as a filter must that checks them; with
//! `hashes` it takes the SHA-256 of the body, too.
#![allow(missing_docs, reason = "the entry point that the macro makes has none")]
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};
use sha2::{Digest, Sha256};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root(Work::default())));
}}

/// What is done beside holding.
#[derive(Clone, Copy, Default)]
struct Work {
    reads: bool,
    hashes: bool,
}

struct Root(Work);

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        let hashes = text == br#""hashes""#;
        self.0 = Work {
            reads: hashes || text == br#""reads""#,
            hashes,
        };
        true
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream(self.0)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream(Work);

impl Stream {
    fn hold_until(is_whole: bool) -> Action {
        if is_whole {
            Action::Continue
        } else {
            Action::Pause
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, ends: bool) -> Action {
        if self.0.reads {
            // The answer goes nowhere: the call is what is measured.
            let _ = proxy_wasm::hostcalls::get_map_bytes(MapType::HttpRequestHeaders);
        }
        Self::hold_until(ends)
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        if self.0.reads && ends {
            let body = proxy_wasm::hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size);
            if let (Ok(Some(body)), true) = (body, self.0.hashes) {
                std::hint::black_box(Sha256::digest(&body));
            }
        }
        Self::hold_until(ends)
    }
}
