//! What an inbox writes, many operations in one transaction: they share its fsync, and none is
//! answered before it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use sqlx::{AnyConnection, Connection as _, Row as _};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::dialect::Dialect;
use super::open::{POSTGRES_WRITERS, Store};
use super::queue::{self, ClaimRequest, Claims, Release, Settlement};
use crate::delivery::Delivery;
use crate::moment::Moment;

/// The most operations in one transaction.
const MOST: usize = 512;

/// Bytes of bodies after which a transaction takes no more.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The longest that an operation is waited for. It may still succeed: an event is then known when
/// the sender tries again, and a settlement is repeated.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event to store.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// 64 hexadecimal digits.
    pub key: String,
    /// The sender's name.
    pub source: String,
    /// The message id.
    pub id: String,
    /// Path and query.
    pub target: String,
    /// The stored headers, as lines.
    pub headers: Vec<u8>,
    /// The body.
    pub body: Bytes,
    /// When it came, by the wall clock.
    pub received_at: Moment,
}

impl NewEvent {
    /// What it takes up, in bytes, without the store's own.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let all = [&self.key, &self.source, &self.id, &self.target].map(String::len);
        let sum = all.iter().sum::<usize>() + self.headers.len() + self.body.len();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }
}

/// That an event is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is new.
    New,
    /// It was there already.
    Known,
}

type Reply<T> = oneshot::Sender<T>;

enum Operation {
    Accept(Arc<NewEvent>, Reply<Accepted>),
    Claim(ClaimRequest, Reply<Claims>),
    Settle(Arc<Settlement>, Reply<bool>),
    Release(Release, Reply<bool>),
    Purge {
        keep: Duration,
        most: i64,
        reply: Reply<u64>,
    },
}

enum Done {
    Accept(Accepted),
    Claim(Claims),
    Settle(bool),
    Purge(u64),
}

/// Hands operations to the tasks that write.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<Operation>);

impl Writer {
    /// Starts the tasks. They end, after what was handed to them, with the last clone of the value.
    #[must_use]
    pub fn start(store: &Store) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        let (sender, receiver) = mpsc::channel(4096);
        let receiver = Arc::new(Mutex::new(receiver));
        let tasks = match store.dialect {
            Dialect::Sqlite => 1,
            Dialect::Postgres => POSTGRES_WRITERS,
        };
        let tasks = (0..tasks)
            .map(|_| tokio::spawn(write(store.clone(), Arc::clone(&receiver))))
            .collect();
        (Self(sender), tasks)
    }

    /// Stores an event durably.
    ///
    /// # Errors
    ///
    /// It is not known to be stored.
    pub async fn accept(&self, event: NewEvent) -> Result<Accepted> {
        self.ask(|reply| Operation::Accept(Arc::new(event), reply))
            .await
    }

    /// Claims events that are due.
    ///
    /// # Errors
    ///
    /// The store has not answered: what it may have claimed comes back with the lease.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Claims> {
        self.ask(|reply| Operation::Claim(request, reply)).await
    }

    /// Records an attempt and what follows from it; `false` if the claim is no longer held.
    ///
    /// # Errors
    ///
    /// The store has not answered.
    pub async fn settle(&self, settlement: Arc<Settlement>) -> Result<bool> {
        self.ask(|reply| Operation::Settle(settlement, reply)).await
    }

    /// Gives a claim back without an outcome; `false` if it is no longer held.
    ///
    /// # Errors
    ///
    /// The store has not answered.
    pub async fn release(&self, release: Release) -> Result<bool> {
        self.ask(|reply| Operation::Release(release, reply)).await
    }

    /// Removes at most `most` events that were delivered longer than `keep` ago; returns how many.
    ///
    /// # Errors
    ///
    /// The store has not answered.
    pub async fn purge(&self, keep: Duration, most: i64) -> Result<u64> {
        self.ask(|reply| Operation::Purge { keep, most, reply })
            .await
    }

    async fn ask<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            if self.0.send(operation(reply)).await.is_err() {
                bail!("the store is closed");
            }
            match answer.await {
                Ok(answer) => Ok(answer),
                Err(_) => bail!("the store has not written it"),
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => bail!("the store has not answered within {} s", PATIENCE.as_secs()),
        }
    }
}

async fn write(store: Store, receiver: Arc<Mutex<mpsc::Receiver<Operation>>>) {
    loop {
        let batch = {
            let mut receiver = receiver.lock().await;
            let Some(first) = receiver.recv().await else {
                return;
            };
            let mut bytes = first.body_bytes();
            let mut batch = vec![first];
            while batch.len() < MOST && bytes < MOST_BYTES {
                let Ok(next) = receiver.try_recv() else { break };
                bytes += next.body_bytes();
                batch.push(next);
            }
            batch
        };
        match transact(&store, &batch).await {
            Ok(done) => answer(batch, done),
            Err(error) if batch.len() > 1 && error.as_database_error().is_some() => {
                // One of them may be at fault: the others shall not fail with it.
                tracing::warn!(%error, operations = batch.len(), "written one by one");
                for operation in batch {
                    let one = vec![operation];
                    match transact(&store, &one).await {
                        Ok(done) => answer(one, done),
                        Err(error) => tracing::error!(%error, "the store has not written"),
                    }
                }
            }
            // Nobody is answered: each finds that its reply was dropped.
            Err(error) => {
                tracing::error!(%error, "the store has not written");
                make_room(&store).await;
            }
        }
    }
}

/// After a write that failed, as on a full disk: moves what the write-ahead log of SQLite holds to
/// the places in the file that purged events have left, and empties the log.
async fn make_room(store: &Store) {
    if store.dialect == Dialect::Sqlite {
        // Without room for that either, the next write fails as well.
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&store.writers)
            .await;
    }
}

impl Operation {
    fn body_bytes(&self) -> usize {
        match self {
            Self::Accept(event, _) => event.body.len(),
            _ => 0,
        }
    }
}

fn answer(batch: Vec<Operation>, done: Vec<Done>) {
    for (operation, done) in batch.into_iter().zip(done) {
        // Whoever no longer waits for the reply does not need it.
        let _is_read = match (operation, done) {
            (Operation::Accept(_, reply), Done::Accept(accepted)) => reply.send(accepted).is_ok(),
            (Operation::Claim(_, reply), Done::Claim(claimed)) => reply.send(claimed).is_ok(),
            (Operation::Settle(_, reply) | Operation::Release(_, reply), Done::Settle(held)) => {
                reply.send(held).is_ok()
            }
            (Operation::Purge { reply, .. }, Done::Purge(count)) => reply.send(count).is_ok(),
            _ => false,
        };
    }
}

async fn transact(store: &Store, batch: &[Operation]) -> sqlx::Result<Vec<Done>> {
    let mut connection = store.writers.acquire().await?;
    let done = transact_on(&mut connection, store, batch).await;
    if done.is_err() {
        // SQLite itself ends a transaction that finds the disk full, and sqlx does not learn of it:
        // the connection would refuse every further one.
        let _ = connection.close().await;
    }
    done
}

async fn transact_on(
    connection: &mut AnyConnection,
    store: &Store,
    batch: &[Operation],
) -> sqlx::Result<Vec<Done>> {
    let mut transaction = connection.begin_with(store.dialect.begin()).await?;
    let now = store.now(&mut transaction).await?;
    let accepted = accept_all(store.dialect, &mut transaction, batch, now).await?;
    let mut accepted = accepted.into_iter();
    let mut ended = Vec::new();
    let mut done = Vec::with_capacity(batch.len());
    for operation in batch {
        done.push(match operation {
            Operation::Accept(..) => Done::Accept(accepted.next().unwrap_or(Accepted::Known)),
            // Below.
            Operation::Claim(..) => Done::Claim(Claims::default()),
            Operation::Settle(settlement, _) => {
                let next = queue::settle(&mut transaction, settlement, now).await?;
                let claimed = &settlement.claimed;
                if next.is_some_and(|state| !state.is_live()) {
                    ended.push((claimed.source.as_str(), claimed.id.as_str()));
                }
                Done::Settle(next.is_some())
            }
            Operation::Release(release, _) => {
                Done::Settle(queue::release(&mut transaction, release, now).await?)
            }
            Operation::Purge { keep, most, .. } => {
                Done::Purge(queue::purge(&mut transaction, now.before(*keep), *most).await?)
            }
        });
    }
    queue::wake_next(&mut transaction, &ended, now).await?;
    // Claims last: they find what has become free, and, as they wait for no row, no transaction that
    // waits for theirs can be one that they wait for.
    for (operation, done) in batch.iter().zip(&mut done) {
        if let Operation::Claim(request, _) = operation {
            *done = Done::Claim(queue::claim(store.dialect, &mut transaction, request, now).await?);
        }
    }
    transaction.commit().await?;
    Ok(done)
}

/// Stores the batch's new events; the result is in the order of the batch.
async fn accept_all(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    batch: &[Operation],
    now: Moment,
) -> sqlx::Result<Vec<Accepted>> {
    let mut events: Vec<(usize, i64, &NewEvent)> = batch
        .iter()
        .filter_map(|operation| match operation {
            Operation::Accept(event, _) => Some(event.as_ref()),
            _ => None,
        })
        .enumerate()
        .map(|(index, event)| (index, 0, event))
        .collect();
    let mut accepted = vec![Accepted::Known; events.len()];
    if events.is_empty() {
        return Ok(accepted);
    }
    let turns = take_turns(dialect, transaction, events.len()).await?;
    for ((_, turn, _), taken) in events.iter_mut().zip(turns) {
        *turn = taken;
    }
    // Two inboxes that store the same keys take their locks in the same order.
    events.sort_by(|(_, _, left), (_, _, right)| left.key.cmp(&right.key));
    for (index, turn, event) in events {
        if insert(transaction, turn, event, now).await?
            && let Some(slot) = accepted.get_mut(index)
        {
            *slot = Accepted::New;
        }
    }
    Ok(accepted)
}

/// Takes `count` places at the end of the queue, in ascending order.
pub(super) async fn take_turns(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    count: usize,
) -> sqlx::Result<Vec<i64>> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut turns = match dialect {
        Dialect::Sqlite => {
            let row = sqlx::query(
                "UPDATE inbox_meta SET value = value + $1 WHERE name = 'turn' RETURNING value",
            )
            .bind(count)
            .fetch_one(transaction)
            .await?;
            let last: i64 = row.try_get(0)?;
            (last.saturating_sub(count).saturating_add(1)..=last).collect()
        }
        Dialect::Postgres => {
            sqlx::query("SELECT nextval('inbox_turn') FROM generate_series(1, $1)")
                .bind(count)
                .fetch_all(transaction)
                .await?
                .iter()
                .map(|row| row.try_get(0))
                .collect::<sqlx::Result<Vec<i64>>>()?
        }
    };
    turns.sort_unstable();
    Ok(turns)
}

async fn insert(
    transaction: &mut AnyConnection,
    turn: i64,
    event: &NewEvent,
    now: Moment,
) -> sqlx::Result<bool> {
    let delivery = Delivery::accepted(now);
    let inserted = sqlx::query(
        "INSERT INTO inbox_events (event, turn, key, source, id, state, attempts, tries, due, \
         claim, claimed_at, lost_at, received_at, changed_at, bytes) \
         VALUES ($1, $1, $2, $3, $4, 0, 0, 0, $5, 0, 0, 0, $6, $7, $8) \
         ON CONFLICT (key) DO NOTHING",
    )
    .bind(turn)
    .bind(event.key.as_str())
    .bind(event.source.as_str())
    .bind(event.id.as_str())
    .bind(delivery.due.0)
    .bind(event.received_at.0)
    .bind(now.0)
    .bind(i64::try_from(event.bytes()).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO inbox_payloads (event, target, headers, body) VALUES ($1, $2, $3, $4)",
    )
    .bind(turn)
    .bind(event.target.as_str())
    .bind(event.headers.as_slice())
    .bind(&event.body[..])
    .execute(transaction)
    .await?;
    Ok(true)
}
