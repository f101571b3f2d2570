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
    signed(
        id,
        format!(
            r#"{{"code":200,"msg":"{message}","data":{{"callbackType":"complete","task_id":"{id}","data":[]}}}}"#
        ),
    )
}

/// A genuine callback about one of the stages of `id`: an event of its own.
pub(crate) fn stage_of(id: &str, stage: usize) -> Request {
    signed(
        id,
        format!(r#"{{"code":200,"msg":"","data":{{"callbackType":"{stage}","task_id":"{id}"}}}}"#),
    )
}

fn signed(id: &str, body: String) -> Request {
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

/// A repeatable sequence of numbers: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 33) % u64::try_from(bound).unwrap()).unwrap()
    }
}
