//! The floor of the benchmark: a filter that holds head and body until the body is whole, and does
//! nothing else. No filter that decides by the body can cost less.
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream;

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
        Self::hold_until(ends)
    }

    fn on_http_request_body(&mut self, _size: usize, ends: bool) -> Action {
        Self::hold_until(ends)
    }
}
