//! The receiver of the ends of calls to the shared store.

use callback_guard_core::store::redis::{Answer, StoreError};
use callback_guard_core::worker::CallId;

/// The workers of a configuration, as those know them who make their calls.
pub(crate) trait Caller {
    /// A call of a worker has ended. On any thread that holds no worker.
    fn ended(&self, worker: usize, id: CallId, answer: Result<Answer<'_>, StoreError>);
}
