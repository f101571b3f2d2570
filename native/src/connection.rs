//! A connection of the module's own to Redis: a thread with a small runtime, on which the calls of all workers
//! share one pipelined connection.
//!
//! Every call ends once: with Redis' reply, or with an error when it has timed out, when there is no
//! connection, or when the connection's thread is gone. The core has the rules for each case.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use callback_guard_core::store::redis::{Answer, Eval, Reply, Script, Server, StoreError};
use callback_guard_core::worker::CallId;
use futures_util::future::select;
use redis::{Cmd, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use crate::caller::Caller;
use crate::dial::{Dial, meaning};
use crate::link::{Link, Open};

/// How long the thread rests after a panic, so that one that comes again and again costs little.
const REST_AFTER_PANIC: Duration = Duration::from_secs(1);

/// The connection of one configuration.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    calls: Mutex<Option<UnboundedSender<Call>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dial: Dial,
    timeout: Duration,
    is_closing: AtomicBool,
}

/// A call of a worker, on its way to the thread.
struct Call {
    worker: usize,
    id: CallId,
    eval: Box<Eval>,
    deadline: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// For a server. Nothing is sent before [`Connection::start`].
    ///
    /// # Errors
    ///
    /// What is missing for it, with nothing of the server's URL.
    pub(crate) fn new(server: &Server, timeout_millis: u64) -> Result<Self, String> {
        let timeout = Duration::from_millis(timeout_millis);
        Ok(Self {
            shared: Arc::new(Shared {
                dial: Dial::new(server, timeout)?,
                timeout,
                is_closing: AtomicBool::new(false),
            }),
            calls: Mutex::default(),
            thread: Mutex::default(),
        })
    }

    /// Starts the thread, which connects.
    pub(crate) fn start<C: Caller + Send + Sync + 'static>(
        &self,
        caller: &Arc<C>,
    ) -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Only those that look names up have it.
            .thread_name("callback-lookup")
            .build()?;
        let (calls, received) = unbounded_channel();
        let (shared, caller) = (Arc::clone(&self.shared), Arc::downgrade(caller));
        let thread = thread::Builder::new()
            .name("callback-redis".into())
            .spawn(move || run(runtime, received, &shared, &caller))?;
        *lock(&self.calls) = Some(calls);
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Has a script run for a worker, which learns of its end.
    pub(crate) fn begin(&self, worker: usize, id: CallId, eval: Box<Eval>) {
        let call = Call {
            worker,
            id,
            eval,
            deadline: Instant::now() + self.shared.timeout,
        };
        if let Some(calls) = &*lock(&self.calls) {
            // The other end goes after this one alone.
            let _ = calls.send(call);
        }
    }

    /// Ends the thread and what is on its way, and waits for that.
    pub(crate) fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        lock(&self.calls).take();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // It catches what panics in it.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

fn run<C: Caller + Send + Sync + 'static>(
    runtime: Runtime,
    mut calls: UnboundedReceiver<Call>,
    shared: &Arc<Shared>,
    caller: &Weak<C>,
) {
    let mut serve = || runtime.block_on(serve(&mut calls, shared, caller));
    while catch_unwind(AssertUnwindSafe(&mut serve)).is_err() {
        thread::sleep(REST_AFTER_PANIC);
    }
    // Ends its tasks, and waits for a name that is being looked up.
    drop(runtime);
}

/// Serves until no more calls can come.
async fn serve<C: Caller + Send + Sync + 'static>(
    calls: &mut UnboundedReceiver<Call>,
    shared: &Arc<Shared>,
    caller: &Weak<C>,
) {
    let link = Link::default();
    let scripts = Arc::new(Scripts::new());
    let receive = async {
        while let Some(call) = calls.recv().await {
            let pending = Pending {
                shared: Arc::clone(shared),
                caller: Weak::clone(caller),
                worker: call.worker,
                id: Some(call.id),
            };
            let (link, scripts) = (link.clone(), Arc::clone(&scripts));
            tokio::spawn(carry(pending, call, link, scripts));
        }
    };
    let keep = link.keep(&shared.dial, shared.timeout);
    select(pin!(receive), pin!(keep)).await;
}

/// A call whose worker has still to learn of its end.
struct Pending<C: Caller> {
    shared: Arc<Shared>,
    caller: Weak<C>,
    worker: usize,
    id: Option<CallId>,
}

impl<C: Caller> Pending<C> {
    fn end(mut self, answer: Result<Answer<'_>, StoreError>) {
        self.tell(answer);
    }

    fn tell(&mut self, answer: Result<Answer<'_>, StoreError>) {
        if let Some(id) = self.id.take()
            && let Some(caller) = self.caller.upgrade()
        {
            caller.ended(self.worker, id, answer);
        }
    }
}

impl<C: Caller> Drop for Pending<C> {
    /// Its task has panicked. Where the configuration ends there is nobody left to tell.
    fn drop(&mut self) {
        if !self.shared.is_closing.load(Ordering::Relaxed) {
            // A second panic while the first unwinds would end Envoy.
            let tell = || self.tell(Err(StoreError::Unreachable));
            let _ = catch_unwind(AssertUnwindSafe(tell));
        }
    }
}

async fn carry<C: Caller>(pending: Pending<C>, call: Call, link: Link, scripts: Arc<Scripts>) {
    let Call { eval, deadline, .. } = call;
    let open = match timeout_at(deadline, link.open()).await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return pending.end(Err(error)),
        Err(_) => return pending.end(Err(StoreError::Timeout)),
    };
    let heard = open.heard();
    let asked = scripts.run(&eval, &open);
    match timeout_at(deadline, asked).await {
        Ok(Ok(value)) => {
            open.hear();
            // A server that was demoted stays so on this connection; its name may mean another one by now.
            if matches!(&value, Value::ServerError(error) if error.code() == "READONLY") {
                open.give_up();
            }
            pending.end(Ok(Answer::Redis(reply(&value))));
        }
        Ok(Err(error)) => pending.end(Err(meaning(&error))),
        Err(_) => {
            // Not slow but silent: nothing at all has come back since. The network may have lost the connection.
            if open.heard() == heard {
                open.give_up();
            }
            pending.end(Err(StoreError::Timeout));
        }
    }
}

fn reply(value: &Value) -> Reply<'_> {
    match value {
        Value::BulkString(text) => Reply::Text(text),
        Value::Int(number) => Reply::Number(*number),
        Value::Nil => Reply::Null,
        Value::ServerError(error) => Reply::Error(error.code()),
        Value::SimpleString(text) => Reply::Text(text.as_bytes()),
        _ => Reply::Other,
    }
}

/// Under which names Redis knows the scripts.
struct Scripts {
    digests: [(Script, String); 3],
}

impl Scripts {
    fn new() -> Self {
        let all = [Script::Claim, Script::Deliver, Script::Release];
        Self {
            digests: all.map(|script| (script, script.digest())),
        }
    }

    /// Has Redis run a script: by its text the first time on a connection, then by its name, so that one round
    /// trip is enough. It may have been made to forget it: then by its text once more.
    async fn run(&self, eval: &Eval, open: &Open) -> Result<Value, redis::RedisError> {
        let mut connection = open.connection.clone();
        let mut all = self.digests.iter().zip(open.known());
        let found = all.find(|((script, _), _)| *script == eval.script);
        if let Some(((_, digest), is_known)) = found
            && is_known.load(Ordering::Relaxed)
        {
            let command = command("EVALSHA", digest, eval);
            let value = connection.send_packed_command(&command).await?;
            if !matches!(&value, Value::ServerError(error) if error.code() == "NOSCRIPT") {
                return Ok(value);
            }
        }
        let command = command("EVAL", eval.script.text(), eval);
        let value = connection.send_packed_command(&command).await?;
        if let Some((_, is_known)) = found
            && !matches!(value, Value::ServerError(_))
        {
            is_known.store(true, Ordering::Relaxed);
        }
        Ok(value)
    }
}

fn command(name: &str, script: &str, eval: &Eval) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(eval.keys.len());
    for word in eval.keys.iter().chain(&eval.arguments) {
        command.arg(word);
    }
    command
}
