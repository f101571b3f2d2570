//! What a claim reads and writes does not grow with the backlog.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use callback_guard_inbox::delivery::Outcome;
use callback_guard_inbox::moment::{Moment, SteadyClock};
use callback_guard_inbox::store::{
    ClaimRequest, Claimed, Claims, Filter, Place, Selector, Settlement, Store, Writer,
};
use tokio::runtime::Runtime;

use crate::support::{Bench, failing, number, write};

/// Events of one kind: more than one claim looks at.
const MANY: i64 = 5000;

struct Queue {
    runtime: Runtime,
    file: PathBuf,
    store: Store,
    writer: Writer,
    time: Arc<AtomicI64>,
    claims: i64,
    _folder: tempfile::TempDir,
}

impl Queue {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inbox.db");
        let time = Arc::new(AtomicI64::new(1_000_000));
        let runtime = Runtime::new().unwrap();
        let (store, writer) = runtime.block_on(async {
            let clock = SteadyClock::by_hand(Arc::clone(&time));
            let place = Place::Sqlite(file.clone());
            let store = Store::open_at(&place, clock).await.unwrap();
            let (writer, _) = Writer::start(&store);
            (store, writer)
        });
        Self {
            runtime,
            file,
            store,
            writer,
            time,
            claims: 0,
            _folder: folder,
        }
    }

    /// Adds events that are due, numbered from `first`; `id` is SQL.
    fn add(&self, first: i64, count: i64, source: &str, id: &str) {
        let now = self.time.load(Ordering::Relaxed);
        let last = first + count - 1;
        let statement = format!(
            "WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
             INSERT INTO inbox_events (event, turn, key, source, id, state, attempts, tries, due, \
             claim, claimed_at, lost_at, received_at, changed_at, bytes) \
             SELECT i, i, printf('%064x', i), '{source}', {id}, 0, 0, 0, {now}, 0, 0, 0, {now}, \
             {now}, 100 FROM n"
        );
        write(&self.file, &[statement]);
    }

    fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn claim(&mut self, most: usize) -> Claims {
        self.claims += 1;
        let request = ClaimRequest {
            claim: self.claims,
            most,
            in_order: true,
            lease: Duration::from_secs(40),
            wall: Moment(self.time.load(Ordering::Relaxed)),
        };
        self.runtime.block_on(self.writer.claim(request)).unwrap()
    }

    fn settle(&self, claimed: Claimed, status: u16) {
        let settlement = Settlement {
            claimed,
            outcome: Outcome::Answered {
                status,
                retry_after: None,
            },
            error: None,
            at: Moment(0),
            took: Duration::ZERO,
            schedule: "5s,5s,5s".parse().unwrap(),
            jitter: 0.0,
        };
        let settled = self.writer.settle(Arc::new(settlement));
        assert!(self.runtime.block_on(settled).unwrap());
    }

    /// How many rows a claim would find due.
    fn due(&self) -> i64 {
        let now = self.time.load(Ordering::Relaxed);
        number(
            &self.file,
            &format!("SELECT count(*) FROM inbox_events WHERE state < 2 AND due <= {now}"),
        )
    }

    /// How many rows were written at the present moment.
    fn written(&self) -> i64 {
        let now = self.time.load(Ordering::Relaxed);
        number(
            &self.file,
            &format!("SELECT count(*) FROM inbox_events WHERE changed_at = {now}"),
        )
    }
}

fn numbers(claims: &Claims) -> Vec<i64> {
    claims.events.iter().map(|claimed| claimed.event).collect()
}

#[test]
fn events_behind_one_of_their_id_are_read_once_and_the_others_are_found() {
    let mut queue = Queue::new();
    queue.add(1, MANY, "suno", "'one'");
    queue.add(MANY + 1, 3, "suno", "'task ' || i");
    let mut found = Vec::new();
    let mut rounds = 0;
    loop {
        let claims = queue.claim(8);
        found.extend(numbers(&claims));
        rounds += 1;
        if !claims.is_more {
            break;
        }
    }
    assert_eq!(found, [1, MANY + 1, MANY + 2, MANY + 3]);
    // No claim has read them all, and none will read any of them again.
    assert!((2..20).contains(&rounds), "{rounds}");
    assert_eq!(queue.due(), 0);
}

#[test]
fn an_attempt_writes_as_little_whether_many_or_none_wait_behind_it() {
    let mut queue = Queue::new();
    queue.add(1, MANY, "suno", "'one'");
    let mut first = queue.claim(8);
    while queue.claim(8).is_more {}
    queue.pass(1);
    queue.settle(first.events.remove(0), 500);
    assert_eq!((queue.written(), queue.due()), (1, 0));
    queue.pass(5);
    let mut again = queue.claim(8);
    assert_eq!(numbers(&again), [1]);
    queue.pass(1);
    queue.settle(again.events.remove(0), 200);
    // It, and the next of its id, which is due now.
    assert_eq!((queue.written(), queue.due()), (2, 1));
    for event in 2..10 {
        let mut next = queue.claim(8);
        assert_eq!(numbers(&next), [event]);
        queue.settle(next.events.remove(0), 200);
    }
    // A dead one wakes the next as well, and so does one that is discarded.
    let mut next = queue.claim(8);
    queue.settle(next.events.remove(0), 410);
    let key = format!("{:064x}", 11);
    let selector = Selector {
        keys: vec![key],
        ..Selector::default()
    };
    let discarded = queue.store.discard(&selector);
    assert_eq!(queue.runtime.block_on(discarded).unwrap().done, 1);
    assert_eq!(numbers(&queue.claim(8)), [12]);
}

#[test]
fn events_of_a_paused_source_are_passed_over_and_those_of_others_are_found() {
    let mut queue = Queue::new();
    queue.add(1, MANY, "b", "i");
    queue.add(MANY + 1, 2, "a", "i");
    queue.add(MANY + 3, 2, "c", "i");
    let pause = queue.store.pause(Some("b"));
    queue.runtime.block_on(pause).unwrap();
    queue.pass(1);
    let claims = queue.claim(8);
    assert_eq!(numbers(&claims), [MANY + 1, MANY + 2, MANY + 3, MANY + 4]);
    assert!(!claims.is_more);
    assert_eq!((queue.written(), queue.due()), (4, MANY));
    let pause = queue.store.pause(None);
    queue.runtime.block_on(pause).unwrap();
    assert_eq!(queue.claim(8), Claims::default());
    let resume = queue.store.resume(None);
    queue.runtime.block_on(resume).unwrap();
    let claims = queue.claim(8);
    assert_eq!(numbers(&claims), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(claims.is_more);
}

#[test]
fn what_waits_for_an_event_of_its_id_is_shown_without_a_time_and_goes_on_without_order() {
    let mut bench = Bench::new(&["--schedule", "1h"]);
    bench.upstream.answer(failing());
    let first = bench.accept("first", "task");
    bench.accept("second", "task");
    let third = bench.accept("third", "task");
    callback_guard_harness::wait::wait_for("both to be set aside", || {
        let event = bench.event(&third);
        (event["state"] == "waiting" && event["next_attempt_at"].is_null()).then_some(())
    })
    .unwrap();
    bench.wait_for_state(&first, "waiting");
    bench.inbox.terminate().unwrap();
    assert!(bench.inbox.wait().unwrap().success());
    bench
        .upstream
        .answer(callback_guard_harness::Answer::status(200));
    let setup = bench.inbox.setup.clone().arguments(["--order", "none"]);
    bench.inbox = setup.start().unwrap();
    bench.wait_for_stats("the later ones", |stats| stats["delivered"] == 2);
    assert_eq!(bench.event(&first)["state"], "waiting");
}

#[test]
fn the_count_by_state_is_that_of_all_events() {
    let mut queue = Queue::new();
    queue.add(1, 6, "suno", "i");
    let claims = queue.claim(4);
    for (claimed, status) in claims.events.into_iter().zip([200, 200, 410]) {
        queue.settle(claimed, status);
    }
    let stats = queue.runtime.block_on(queue.store.stats()).unwrap();
    assert_eq!((stats.waiting, stats.delivering), (2, 1));
    assert_eq!((stats.delivered, stats.dead), (2, 1));
    let waiting = Selector {
        state: Some(Filter::Waiting),
        ..Selector::default()
    };
    let listed = queue.runtime.block_on(queue.store.list(&waiting, 0));
    assert_eq!(listed.unwrap().len(), 2);
}
