//! Time for workers that have something to do as it passes: requests that wait for another one to settle,
//! and settlements that are sent again. Envoy has no timers for filters, so a thread keeps the time.
//!
//! A settlement wakes those who wait at once; the clock's own pace is for what other processes, other
//! configurations and the end of a lease change.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callback_guard_core::time::UnixMillis;
use callback_guard_core::worker::TICK_MILLIS;

/// The clock of one configuration.
#[derive(Default)]
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    /// How many workers want to hear of the time.
    listeners: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_settled: bool,
    is_closed: bool,
}

impl Clock {
    /// A worker begins, or ends, to want to hear of the time.
    pub(crate) fn adjust(&self, listens: bool) {
        if listens {
            self.shared.listeners.fetch_add(1, Ordering::Relaxed);
            self.wake(|_| {});
        } else {
            self.shared.listeners.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A claim has been settled: somebody may have waited for that.
    pub(crate) fn settled(&self) {
        if self.shared.listeners.load(Ordering::Relaxed) > 0 {
            self.wake(|state| state.is_settled = true);
        }
    }

    fn wake(&self, change: impl FnOnce(&mut State)) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.shared.changed.notify_one();
    }

    /// Starts the thread, which calls `time` when it is time for the workers that listen, until it breaks.
    pub(crate) fn start(
        &self,
        time: impl FnMut() -> ControlFlow<()> + Send + 'static,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("callback-guard".into())
            .spawn(move || run(&shared, time))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the thread, and waits for that.
    pub(crate) fn close(&self) {
        self.wake(|state| state.is_closed = true);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // If it has panicked there is nothing left to end.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, mut time: impl FnMut() -> ControlFlow<()>) {
    let pace = Duration::from_millis(TICK_MILLIS.into());
    loop {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.is_closed && !state.is_settled {
            if shared.listeners.load(Ordering::Relaxed) == 0 {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (next, wait) = shared
                .changed
                .wait_timeout(state, pace)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if wait.timed_out() {
                break;
            }
        }
        if state.is_closed {
            return;
        }
        state.is_settled = false;
        drop(state);
        if time().is_break() {
            return;
        }
    }
}

/// The time.
pub(crate) fn now() -> UnixMillis {
    // Before 1970 everything is stale: refused, not let through.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
