//! Signed callbacks, and what Redis is asked in the tests.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_harness::{Request, SECRET};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A genuine callback about the event `id`.
pub(crate) fn callback(id: &str) -> Request {
    callback_with(id, "all generated")
}

/// The same with another message, which is no part of what makes the event.
pub(crate) fn callback_with(id: &str, message: &str) -> Request {
    let body = format!(
        r#"{{"code":200,"msg":"{message}","data":{{"callbackType":"complete","task_id":"{id}","data":[]}}}}"#
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let timestamp = now.as_secs().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    Request::post("/callbacks/suno")
        .header("x-webhook-timestamp", timestamp)
        .header("x-webhook-signature", signature)
        .json(body)
}
