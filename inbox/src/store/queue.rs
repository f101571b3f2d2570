//! Claims and settlements: the statements that keep [`Delivery`] in the store.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::dialect::Dialect;
use super::open::Store;
use crate::delivery::{Delivery, Outcome, State};
use crate::moment::Moment;
use crate::schedule::Schedule;

/// Which events may be claimed, and how.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The claim's number: never given twice.
    pub claim: i64,
    /// At most so many.
    pub most: usize,
    /// Whether an event waits for the earlier ones of its source and id.
    pub in_order: bool,
    /// How long the claim holds.
    pub lease: Duration,
    /// The time of people, for the record of attempts.
    pub wall: Moment,
}

/// An event under a claim of this inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Its number in the store.
    pub event: i64,
    /// Its key.
    pub key: String,
    /// The sender's name.
    pub source: String,
    /// The message id.
    pub id: String,
    /// When it came, by the wall clock.
    pub received_at: Moment,
    /// Attempts recorded so far, over all series.
    pub tries: i64,
    /// The claim.
    pub claim: i64,
    /// Attempts of this series.
    pub attempts: u32,
    /// What it takes up in the backlog.
    pub bytes: u64,
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The event, as it was claimed.
    pub claimed: Claimed,
    /// How it ended.
    pub outcome: Outcome,
    /// Why there was no answer.
    pub error: Option<String>,
    /// When it began, by the wall clock.
    pub at: Moment,
    /// What it took.
    pub took: Duration,
    /// The pauses between attempts.
    pub schedule: Schedule,
    /// 0 to 1.
    pub jitter: f64,
}

/// A claim given back.
#[derive(Clone, Debug)]
pub struct Release {
    /// The event, as it was claimed.
    pub claimed: Claimed,
    /// When its attempt began, if it had.
    pub began: Option<Moment>,
}

/// What an attempt sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Path and query.
    pub target: String,
    /// The stored headers, as lines.
    pub headers: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is in the store, for limits and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events still to be delivered.
    pub backlog: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dead events.
    pub dead: u64,
    /// When the oldest event of the backlog came.
    pub oldest: Option<Moment>,
    /// Whether all deliveries are paused.
    pub is_paused: bool,
}

/// What is in the column `state`; `< 2` is still to be delivered, as the partial indexes say.
pub(super) fn number(state: State) -> i64 {
    match state {
        State::Waiting => 0,
        State::Delivering { .. } => 1,
        State::Delivered => 2,
        State::Dead => 3,
    }
}

/// The words of an attempt of which nothing is known, as its inbox has died or was stopped.
const UNKNOWN: &str = "outcome unknown: the inbox stopped during the attempt";

/// In `claim` of a waiting event: it is set aside until the events of its id before it have ended.
///
/// So no claim reads it again and again, however many of them wait for one. Whatever ends an event
/// calls [`wake_next`] for its id.
pub(super) const SET_ASIDE: i64 = -1;

/// How long an event is set aside at most: should it never be woken, as by a program of an older
/// version, it is looked at again then.
pub(super) const SET_ASIDE_FOR: Duration = Duration::from_secs(3600);

/// The most rows that one look at the queue reads, once the first ones were not enough.
const LOOK: usize = 512;

/// The most looks of one claim: what accepts wait for behind it stays short.
const LOOKS: usize = 4;

/// What a claim has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The events, in the order of their arrival.
    pub events: Vec<Claimed>,
    /// Whether more may be due.
    pub is_more: bool,
}

/// A row that is due, as a claim has read it.
struct Due {
    due: i64,
    turn: i64,
    /// The first live event of its id.
    head: i64,
    /// When an attempt began whose lease is over.
    lost_at: Option<Moment>,
    claimed: Claimed,
}

/// Claims what is due, oldest first.
///
/// What it reads does not grow with the backlog: what is due and may not be claimed now is either
/// set aside, or of a paused source and not read at all.
pub(super) async fn claim(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    request: &ClaimRequest,
    now: Moment,
) -> sqlx::Result<Claims> {
    let Some(sources) = sources(transaction).await? else {
        return Ok(Claims::default());
    };
    let mut all = Vec::new();
    let mut is_more = true;
    for number in 0..LOOKS {
        let wanted = request.most.saturating_sub(all.len());
        let most = if number == 0 {
            wanted
        } else {
            LOOK.max(wanted)
        };
        let mut rows = Vec::new();
        let mut is_cut = false;
        for source in &sources {
            let found = look(dialect, transaction, request, source.as_deref(), most, now).await?;
            is_cut |= found.len() == most;
            rows.extend(found);
        }
        rows.sort_by_key(|row| (row.due, row.turn));
        let (mut taken, mut behind) = (Vec::new(), Vec::new());
        for row in rows {
            if row.head == row.claimed.event {
                taken.push(row);
            } else if row.lost_at.is_none() {
                behind.push((row.claimed.event, row.head));
            }
            if taken.len() == wanted {
                break;
            }
        }
        take(transaction, request, &taken, now).await?;
        set_aside(dialect, transaction, &behind, now).await?;
        all.append(&mut taken);
        is_more = is_cut;
        if all.len() == request.most || !is_cut {
            break;
        }
    }
    all.sort_by_key(|row| row.turn);
    let mut events = Vec::with_capacity(all.len());
    for row in all {
        events.push(after_lost(transaction, row).await?);
    }
    Ok(Claims { events, is_more })
}

/// Where a claim looks: in the whole queue, or only at sources that are not paused; `None` while all
/// deliveries are.
async fn sources(transaction: &mut AnyConnection) -> sqlx::Result<Option<Vec<Option<String>>>> {
    let pauses = sqlx::query("SELECT source FROM inbox_pauses")
        .fetch_all(&mut *transaction)
        .await?;
    if pauses.is_empty() {
        return Ok(Some(vec![None]));
    }
    for pause in &pauses {
        if pause.try_get::<String, _>(0)?.is_empty() {
            return Ok(None);
        }
    }
    // From one source to the next by the index, past all events of each.
    let rows = sqlx::query(
        "WITH RECURSIVE s (source) AS (\
         SELECT (SELECT e.source FROM inbox_events e WHERE e.state < 2 \
         ORDER BY e.source LIMIT 1) \
         UNION ALL SELECT (SELECT e.source FROM inbox_events e WHERE e.state < 2 \
         AND e.source > s.source ORDER BY e.source LIMIT 1) FROM s WHERE s.source IS NOT NULL) \
         SELECT source FROM s WHERE source IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM inbox_pauses p WHERE p.source = s.source)",
    )
    .fetch_all(transaction)
    .await?;
    let sources = rows.iter().map(|row| row.try_get(0).map(Some));
    Ok(Some(sources.collect::<sqlx::Result<_>>()?))
}

/// The first rows that are due, with the first live event of the id of each.
async fn look(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    request: &ClaimRequest,
    source: Option<&str>,
    most: usize,
    now: Moment,
) -> sqlx::Result<Vec<Due>> {
    let head = match request.in_order {
        true => {
            "(SELECT e.event FROM inbox_events e WHERE e.source = c.source AND e.id = c.id \
             AND e.state < 2 ORDER BY e.turn LIMIT 1)"
        }
        false => "c.event",
    };
    let of_source = if source.is_some() {
        "AND c.source = $3"
    } else {
        ""
    };
    let statement = format!(
        "SELECT c.event, c.key, c.source, c.id, c.received_at, c.tries, c.attempts, c.bytes, \
         c.due, c.turn, c.state, c.claimed_at, {head} AS head FROM inbox_events c \
         WHERE c.state < 2 AND c.due <= $1 {of_source} \
         ORDER BY c.due, c.turn LIMIT $2 {{skip_locked}}"
    );
    let mut query = sqlx::query(AssertSqlSafe(dialect.words(&statement)))
        .bind(now.0)
        .bind(i64::try_from(most).unwrap_or(i64::MAX));
    if let Some(source) = source {
        query = query.bind(source);
    }
    let rows = query.fetch_all(transaction).await?;
    rows.iter()
        .map(|row| {
            let attempts: i64 = row.try_get(6)?;
            let event: i64 = row.try_get(0)?;
            let is_lost = row.try_get::<i64, _>(10)? == 1;
            Ok(Due {
                due: row.try_get(8)?,
                turn: row.try_get(9)?,
                head: row.try_get::<Option<i64>, _>(12)?.unwrap_or(event),
                lost_at: is_lost.then_some(Moment(row.try_get(11)?)),
                claimed: Claimed {
                    event,
                    key: row.try_get(1)?,
                    source: row.try_get(2)?,
                    id: row.try_get(3)?,
                    received_at: Moment(row.try_get(4)?),
                    tries: row.try_get(5)?,
                    claim: request.claim,
                    attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
                    bytes: u64::try_from(row.try_get::<i64, _>(7)?).unwrap_or(0),
                },
            })
        })
        .collect()
}

/// Puts `rows` under the claim.
async fn take(
    transaction: &mut AnyConnection,
    request: &ClaimRequest,
    rows: &[Due],
    now: Moment,
) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let events = numbers(rows.iter().map(|row| row.claimed.event));
    let statement = format!(
        "UPDATE inbox_events SET lost_at = CASE WHEN state = 1 THEN claimed_at ELSE 0 END, \
         state = 1, claim = $1, claimed_at = $2, due = $3, changed_at = $4 \
         WHERE event IN ({events})"
    );
    sqlx::query(AssertSqlSafe(statement))
        .persistent(false)
        .bind(request.claim)
        .bind(request.wall.0)
        .bind(now.after(request.lease).0)
        .bind(now.0)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Sets aside waiting events that are `behind` another: pairs of the event and the one before it.
async fn set_aside(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    behind: &[(i64, i64)],
    now: Moment,
) -> sqlx::Result<()> {
    if behind.is_empty() {
        return Ok(());
    }
    let mut events: Vec<i64> = behind.iter().map(|(event, _)| *event).collect();
    if dialect == Dialect::Postgres {
        // The one before may be ending at this moment, in a transaction that cannot see what is
        // written here, and so would not wake it. Where its row is free it is kept from that until
        // this one is committed; where it is not, the event stays due.
        let heads = numbers(behind.iter().map(|(_, head)| *head));
        let statement = format!(
            "SELECT event FROM inbox_events WHERE event IN ({heads}) AND state < 2 \
             FOR SHARE SKIP LOCKED"
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .persistent(false)
            .fetch_all(&mut *transaction)
            .await?;
        let held = rows.iter().map(|row| row.try_get(0));
        let held = held.collect::<sqlx::Result<HashSet<i64>>>()?;
        let kept = behind.iter().filter(|(_, head)| held.contains(head));
        events = kept.map(|(event, _)| *event).collect();
        if events.is_empty() {
            return Ok(());
        }
    }
    let events = numbers(events);
    let statement = format!(
        "UPDATE inbox_events SET due = $1, claim = {SET_ASIDE}, changed_at = $2 \
         WHERE event IN ({events}) AND state = 0"
    );
    sqlx::query(AssertSqlSafe(statement))
        .persistent(false)
        .bind(now.after(SET_ASIDE_FOR).0)
        .bind(now.0)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Makes the first live event of each id due if it was set aside: pairs of source and id of which
/// an event has ended in this transaction.
pub(super) async fn wake_next(
    transaction: &mut AnyConnection,
    ended: &[(&str, &str)],
    now: Moment,
) -> sqlx::Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let pairs: Vec<String> = (0..ended.len())
        .map(|index| format!("(${}, ${})", 2 * index + 1, 2 * index + 2))
        .collect();
    let statement = format!(
        "SELECT (SELECT CASE WHEN e.state = 0 AND e.claim = {SET_ASIDE} THEN e.event END \
         FROM inbox_events e WHERE e.source = v.column1 AND e.id = v.column2 AND e.state < 2 \
         ORDER BY e.turn LIMIT 1) FROM (VALUES {}) v",
        pairs.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
    for (source, id) in ended {
        query = query.bind(*source).bind(*id);
    }
    let rows = query.fetch_all(&mut *transaction).await?;
    let mut events = Vec::new();
    for row in rows {
        events.extend(row.try_get::<Option<i64>, _>(0)?);
    }
    if events.is_empty() {
        return Ok(());
    }
    let events = numbers(events);
    let statement = format!(
        "UPDATE inbox_events SET due = $1, claim = 0, changed_at = $1 \
         WHERE event IN ({events}) AND state = 0 AND claim = {SET_ASIDE}"
    );
    sqlx::query(AssertSqlSafe(statement))
        .persistent(false)
        .bind(now.0)
        .execute(transaction)
        .await?;
    Ok(())
}

/// A list for `IN (…)`.
fn numbers(all: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::new();
    for number in all {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text
}

/// Records the attempt of a claim whose lease is over.
async fn after_lost(transaction: &mut AnyConnection, row: Due) -> sqlx::Result<Claimed> {
    let mut claimed = row.claimed;
    let Some(lost_at) = row.lost_at else {
        return Ok(claimed);
    };
    claimed.tries += 1;
    record(transaction, &claimed, lost_at, None, Some(UNKNOWN), None).await?;
    sqlx::query("UPDATE inbox_events SET tries = $2, last_error = $3 WHERE event = $1")
        .bind(claimed.event)
        .bind(claimed.tries)
        .bind(UNKNOWN)
        .execute(transaction)
        .await?;
    Ok(claimed)
}

/// Records an attempt and writes what follows from it, if its claim still holds; returns that.
pub(super) async fn settle(
    transaction: &mut AnyConnection,
    settlement: &Settlement,
    now: Moment,
) -> sqlx::Result<Option<State>> {
    let claimed = &settlement.claimed;
    let held = Delivery {
        state: State::Delivering {
            claim: claimed.claim,
        },
        attempts: claimed.attempts,
        due: now,
    };
    let Some(next) = held.settle(
        claimed.claim,
        &settlement.outcome,
        now,
        &settlement.schedule,
        settlement.jitter,
    ) else {
        return Ok(None);
    };
    let status = match settlement.outcome {
        Outcome::Answered { status, .. } => Some(i64::from(status)),
        Outcome::Failed => None,
    };
    let error = settlement.error.as_deref();
    if !write(transaction, claimed, next, 1, status, error, now).await? {
        return Ok(None);
    }
    let number = Claimed {
        tries: claimed.tries + 1,
        ..claimed.clone()
    };
    let took = i64::try_from(settlement.took.as_millis()).unwrap_or(i64::MAX);
    record(
        transaction,
        &number,
        settlement.at,
        status,
        error,
        Some(took),
    )
    .await?;
    Ok(Some(next.state))
}

/// Gives a claim back; an attempt that had begun is recorded, as it may have reached the
/// application.
pub(super) async fn release(
    transaction: &mut AnyConnection,
    release: &Release,
    now: Moment,
) -> sqlx::Result<bool> {
    let claimed = &release.claimed;
    let next = Delivery {
        state: State::Waiting,
        attempts: claimed.attempts,
        due: now,
    };
    let Some(began) = release.began else {
        return write(transaction, claimed, next, 0, None, None, now).await;
    };
    if !write(transaction, claimed, next, 1, None, Some(UNKNOWN), now).await? {
        return Ok(false);
    }
    let number = Claimed {
        tries: claimed.tries + 1,
        ..claimed.clone()
    };
    record(transaction, &number, began, None, Some(UNKNOWN), None).await?;
    Ok(true)
}

async fn write(
    transaction: &mut AnyConnection,
    claimed: &Claimed,
    next: Delivery,
    tries: i64,
    status: Option<i64>,
    error: Option<&str>,
    now: Moment,
) -> sqlx::Result<bool> {
    let written = sqlx::query(
        "UPDATE inbox_events SET state = $3, attempts = $4, tries = tries + $5, due = $6, \
         changed_at = $7, claim = 0, lost_at = 0, \
         last_status = CASE WHEN $5 = 1 THEN $8 ELSE last_status END, \
         last_error = CASE WHEN $5 = 1 THEN $9 ELSE last_error END \
         WHERE event = $1 AND state = 1 AND claim = $2",
    )
    .bind(claimed.event)
    .bind(claimed.claim)
    .bind(number(next.state))
    .bind(i64::from(next.attempts))
    .bind(tries)
    .bind(next.due.0)
    .bind(now.0)
    .bind(status)
    .bind(error)
    .execute(transaction)
    .await?;
    Ok(written.rows_affected() == 1)
}

async fn record(
    transaction: &mut AnyConnection,
    claimed: &Claimed,
    at: Moment,
    status: Option<i64>,
    error: Option<&str>,
    milliseconds: Option<i64>,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO inbox_tries (event, number, at, status, error, milliseconds) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(claimed.event)
    .bind(claimed.tries)
    .bind(at.0)
    .bind(status)
    .bind(error)
    .bind(milliseconds)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Removes events that were delivered before `before`, and with them all that belongs to them.
pub(super) async fn purge(
    transaction: &mut AnyConnection,
    before: Moment,
    most: i64,
) -> sqlx::Result<u64> {
    let purged = sqlx::query(
        "DELETE FROM inbox_events WHERE event IN (SELECT event FROM inbox_events \
         WHERE state = 2 AND state >= 2 AND changed_at < $1 ORDER BY changed_at LIMIT $2)",
    )
    .bind(before.0)
    .bind(most)
    .execute(transaction)
    .await?;
    Ok(purged.rows_affected())
}

impl Store {
    /// Makes due what was set aside for an earlier event of its id: for an inbox without order.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn end_order(&self) -> Result<()> {
        let mut connection = self.writers.acquire().await?;
        let now = self.now(&mut connection).await?;
        let statement = format!(
            "UPDATE inbox_events SET due = $1, claim = 0, changed_at = $1 \
             WHERE state < 2 AND due > $1 AND state = 0 AND claim = {}",
            SET_ASIDE
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(now.0)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// What an attempt for `event` sends; `None` if it has been discarded meanwhile.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn payload(&self, event: i64) -> Result<Option<Payload>> {
        let row = sqlx::query("SELECT target, headers, body FROM inbox_payloads WHERE event = $1")
            .bind(event)
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Payload {
            target: row.try_get(0)?,
            headers: row.try_get(1)?,
            body: row.try_get(2)?,
        }))
    }

    /// Whether an event with this key is stored.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn knows(&self, key: &str) -> Result<bool> {
        let row = sqlx::query("SELECT 1 FROM inbox_events WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// Counts what is in the store; it reads the whole backlog's rows.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn counts(&self) -> Result<Counts> {
        let row = sqlx::query(
            "SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT), \
             coalesce(min(received_at), -1), \
             (SELECT count(*) FROM inbox_events WHERE state = 3 AND state >= 2), \
             (SELECT count(*) FROM inbox_pauses WHERE source = '') \
             FROM inbox_events WHERE state < 2",
        )
        .fetch_one(&self.readers)
        .await?;
        let count = |index: usize| -> Result<u64> {
            Ok(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or(0))
        };
        let oldest: i64 = row.try_get(2)?;
        Ok(Counts {
            backlog: count(0)?,
            bytes: count(1)?,
            oldest: (oldest >= 0).then_some(Moment(oldest)),
            dead: count(3)?,
            is_paused: count(4)? > 0,
        })
    }
}
