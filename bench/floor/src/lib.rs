//! The floor of the benchmark: a filter that holds head and body until the body is whole, and does
//! nothing else. No filter that decides by the body can cost less. With any configuration text it
//! also takes head and body over into the VM, once each, as a filter must that checks them.
#![allow(missing_docs, reason = "the entry point that the macro makes has none")]
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, MapType};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { reads: false }));
}}

struct Root {
    reads: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        self.reads = size > 0;
        true
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { reads: self.reads }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    reads: bool,
}

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
        if self.reads {
            // The answer goes nowhere: the call is what is measured.
            let _ = proxy_wasm::hostcalls::get_map_bytes(MapType::HttpRequestHeaders);
        }
        Self::hold_until(ends)
    }

    fn on_http_request_body(&mut self, size: usize, ends: bool) -> Action {
        if self.reads && ends {
            let _ = proxy_wasm::hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size);
        }
        Self::hold_until(ends)
    }
}
