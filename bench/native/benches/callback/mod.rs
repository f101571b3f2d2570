//! The callback of the benchmarks, and the guard's configuration for it.

use std::sync::Arc;

use callback_guard_core::policy::Policy;

pub(crate) const KEY: &str = "test-webhook-hmac-key";

/// Only the local store, as small as may be: a copy of it costs little.
#[allow(dead_code, reason = "one benchmark has a larger one")]
pub(crate) const MEMORY: &str = r#"{"kind":"memory","capacity":1000}"#;

/// One source of this preset with [`KEY`], and this store.
pub(crate) fn policy(preset: &str, store: &str) -> Arc<Policy> {
    let text = format!(
        r#"{{"sources":[{{"name":"suno","match":{{"path":"/callbacks/suno"}},"preset":"{preset}","secrets":[{{"value":"{KEY}"}}]}}],"store":{store}}}"#
    );
    Arc::new(callback_guard_config::testkit::policy(&text))
}

/// What Suno sends when a task is complete.
pub(crate) fn body(task: &str, tracks: usize) -> String {
    let track = r#"{"id":"8551662c","audio_url":"https://cdn.example.com/a.mp3","prompt":"[Verse] Night city lights\nwe run","title":"Iron Man","duration":198.44}"#;
    let list = vec![track; tracks].join(",");
    format!(
        r#"{{"code":200,"msg":"ok","data":{{"callbackType":"complete","task_id":"{task}","data":[{list}]}}}}"#
    )
}
