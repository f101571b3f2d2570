//! An application and an inbox, and what all tests ask of them.

use std::path::Path;
use std::time::Duration;

use callback_guard_harness::wait::wait_for;
use callback_guard_harness::{Answer, Inbox, InboxSetup, Upstream};
use serde_json::Value;

/// Pauses so short that a test need not wait, and so many that no event dies by chance.
pub const PATIENT: &str = "50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,\
    50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms,50ms";

pub struct Bench {
    pub upstream: Upstream,
    pub inbox: Inbox,
}

/// How an inbox before `upstream` is run.
pub fn setup(upstream: &Upstream) -> InboxSetup {
    let program = Path::new(env!("CARGO_BIN_EXE_callback-guard-inbox"));
    InboxSetup::new(program, &format!("http://{}", upstream.address())).unwrap()
}

impl Bench {
    pub fn new(arguments: &[&str]) -> Self {
        Self::with(|setup| setup.arguments(arguments))
    }

    pub fn with(edit: impl FnOnce(InboxSetup) -> InboxSetup) -> Self {
        let upstream = Upstream::start().unwrap();
        let inbox = edit(setup(&upstream)).start().unwrap();
        Self { upstream, inbox }
    }

    /// Hands over an event whose key and body are made of `name`.
    pub fn accept(&self, name: &str, id: &str) -> String {
        let key = key(name);
        let response = self.inbox.send(&key, id, name.as_bytes()).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.header("x-callback-guard-inbox").unwrap(),
            "accepted"
        );
        key
    }

    /// The bodies that the application has got whole, in order.
    pub fn bodies(&self) -> Vec<String> {
        self.upstream
            .recorded()
            .iter()
            .map(|record| String::from_utf8_lossy(&record.body).into_owned())
            .collect()
    }

    pub fn event(&self, key: &str) -> Value {
        self.inbox.setup.json("show", &[key]).unwrap()
    }

    pub fn wait_for_state(&self, key: &str, state: &str) -> Value {
        wait_for(&format!("{key} to be {state}"), || {
            let event = self.event(key);
            (event["state"] == state).then_some(event)
        })
        .unwrap()
    }

    /// Whether the store has no event, in whatever state.
    pub fn is_empty(&self) -> bool {
        self.inbox.setup.json("list", &[]).unwrap() == serde_json::json!([])
    }

    pub fn stats(&self) -> Value {
        self.inbox.setup.json("stats", &[]).unwrap()
    }

    pub fn wait_for_stats(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.stats()).filter(|stats| is(stats))).unwrap()
    }
}

/// 64 hexadecimal digits, made of `name`.
pub fn key(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.len() <= 64, "{name}");
    format!("{hex:0>64}")
}

/// A deterministic source of chance.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How many seeds the tests of chance go through: `CALLBACK_GUARD_SEEDS`, or `default`.
pub fn seeds(default: u64) -> u64 {
    std::env::var("CALLBACK_GUARD_SEEDS")
        .ok()
        .map_or(default, |count| count.parse().unwrap())
}

pub fn failing() -> Answer {
    Answer::status(500)
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Runs statements on a file of SQLite, which is made if it is not there.
pub fn write(file: &Path, statements: &[String]) {
    on(file, async |connection| {
        for statement in statements {
            let query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
            query.execute(&mut *connection).await.unwrap();
        }
    });
}

/// The number that a statement finds.
pub fn number(file: &Path, statement: &str) -> i64 {
    on(file, async |connection| {
        let query = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()));
        let row = query.fetch_one(connection).await.unwrap();
        sqlx::Row::get(&row, 0)
    })
}

fn on<T>(file: &Path, work: impl AsyncFnOnce(&mut sqlx::AnyConnection) -> T) -> T {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connect = <sqlx::AnyConnection as sqlx::Connection>::connect(&url);
        work(&mut connect.await.unwrap()).await
    })
}
