//! Senders that repeat until they get a 2xx, what the application did, and the result.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callback_guard_harness::{Answer, Protocol, Stack, client};

use callback_guard_support::{body_of, now, random, sign_at};

/// How many events are under way at once.
pub const SENDERS: usize = 4;

/// How long a sender tries. Ample: reached only where an event is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ids of some events. What happens to each follows from its id, whenever its turn comes.
pub fn events(name: &str, seed: u64, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name}-{seed}-{number}"))
        .collect()
}

/// A number for one delivery of one event.
pub fn lot(id: &str, delivery: usize) -> u64 {
    let fold = |sum: u64, byte: u8| random(sum ^ u64::from(byte));
    random(id.bytes().fold(1, fold) ^ u64::try_from(delivery).unwrap())
}

/// What the application did with one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It answered 2xx, and the answer arrived.
    Accepted,
    /// It answered 2xx too late, or the answer was lost: nobody can know.
    AcceptedUnseen,
    /// It failed, and nobody takes that for a 2xx.
    Failed,
}

/// Every delivery, in the order in which they came.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<(String, Did)>>>);

impl Ledger {
    pub fn note(&self, id: &str, did: Did) {
        self.0.lock().unwrap().push((id.to_owned(), did));
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn of(&self, id: &str) -> Vec<Did> {
        let all = self.0.lock().unwrap();
        let own = all.iter().filter(|(known, _)| known == id);
        own.map(|(_, did)| *did).collect()
    }

    /// Lets the application behind `stack` do as `choose` says with an event's n-th delivery.
    pub fn keep(
        &self,
        stack: &Stack,
        choose: impl Fn(&str, usize) -> (Did, Answer) + Send + Sync + 'static,
    ) {
        let ledger = self.clone();
        stack.upstream.answer_with(move |head| {
            let id = head.header("x-callback-guard-id").unwrap();
            let (did, answer) = choose(&id, ledger.of(&id).len());
            ledger.note(&id, did);
            answer
        });
    }
}

/// Those who send.
pub struct Senders {
    /// Where they send to.
    pub address: Mutex<SocketAddr>,
    /// By how many seconds their clock is ahead.
    pub ahead: AtomicI64,
    sent: AtomicUsize,
    told: Mutex<HashMap<String, usize>>,
}

impl Senders {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: Mutex::new(address),
            ahead: AtomicI64::new(0),
            sent: AtomicUsize::new(0),
            told: Mutex::default(),
        }
    }

    /// One attempt. Returns the status, 0 if there was none, and the guard's verdict.
    pub fn attempt(&self, id: &str, attempt: usize) -> (u16, Option<String>) {
        let seconds = now().saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        let request = sign_at(&body_of(id), seconds).protocol(Protocol::ALL[attempt % 2]);
        self.sent.fetch_add(1, Ordering::Relaxed);
        let address = *self.address.lock().unwrap();
        client::send(address, &request).map_or((0, None), |response| {
            (response.status, response.header("x-callback-guard"))
        })
    }

    /// Sends each event until it gets a 2xx, as many at once as there are senders.
    pub fn send(&self, events: &[String]) {
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                scope.spawn(move || {
                    for id in events.iter().skip(sender).step_by(SENDERS) {
                        self.send_until_told(id);
                    }
                });
            }
        });
    }

    fn send_until_told(&self, id: &str) {
        let start = Instant::now();
        for attempt in 0.. {
            let (status, _) = self.attempt(id, attempt);
            if (200..300).contains(&status) {
                *self.told.lock().unwrap().entry(id.to_owned()).or_default() += 1;
                return;
            }
            if start.elapsed() > PATIENCE {
                return;
            }
            // A sender's own pause between two attempts.
            std::thread::sleep(Duration::from_millis(5 + lot(id, attempt) % 20));
        }
    }

    /// Sends each event once more: all are remembered.
    #[track_caller]
    pub fn assert_known(&self, events: &[String], ledger: &Ledger) {
        let before = ledger.len();
        for (number, id) in events.iter().enumerate() {
            let (status, verdict) = self.attempt(id, number);
            assert_eq!(
                (status, verdict.as_deref()),
                (200, Some("duplicate")),
                "{id}"
            );
        }
        assert_eq!(ledger.len(), before);
    }
}

/// The result of one fault.
pub struct Row {
    fault: String,
    events: usize,
    attempts: usize,
    deliveries: usize,
    unseen: usize,
    again: usize,
    may_be_again: usize,
    untold: usize,
    lost: usize,
}

impl Row {
    /// `cut_off`: how many answers of the application the fault itself can have lost at most, for
    /// each of which an event may be delivered again.
    pub fn new(
        fault: &str,
        events: &[String],
        senders: &Senders,
        ledger: &Ledger,
        cut_off: usize,
    ) -> Self {
        let all: Vec<_> = events.iter().map(|id| ledger.of(id)).collect();
        let told = senders.told.lock().unwrap();
        let is_accepted = |did: &Did| *did != Did::Failed;
        let after_the_first = |deliveries: &Vec<Did>| {
            let first = deliveries.iter().position(|did| *did == Did::Accepted);
            first.map_or(0, |first| deliveries.len() - first - 1)
        };
        let unseen = |did: &&Did| **did == Did::AcceptedUnseen;
        Self {
            fault: fault.to_owned(),
            events: events.len(),
            attempts: senders.sent.load(Ordering::Relaxed),
            deliveries: all.iter().map(Vec::len).sum(),
            unseen: all.iter().flatten().filter(unseen).count(),
            again: all.iter().map(after_the_first).sum(),
            may_be_again: cut_off,
            untold: events.iter().filter(|id| told.get(*id) != Some(&1)).count(),
            lost: all
                .iter()
                .filter(|all| !all.iter().any(is_accepted))
                .count(),
        }
    }

    pub const HEAD: &str = "| fault | events | attempts | deliveries | late or lost 2xx | \
        delivered again after a 2xx | answers that the fault could cut off | lost |\n\
        |---|---|---|---|---|---|---|---|";

    #[track_caller]
    pub fn check(&self) {
        assert_eq!(self.lost, 0, "lost: {self}");
        assert_eq!(self.untold, 0, "somebody was not told 2xx: {self}");
        assert!(self.again <= self.may_be_again, "delivered again: {self}");
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.fault,
            self.events,
            self.attempts,
            self.deliveries,
            self.unseen,
            self.again,
            self.may_be_again,
            self.lost
        )
    }
}
