//! Claims and settlements: the statements that keep [`Delivery`] in the store.

use std::time::Duration;

use anyhow::Result;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{Dialect, Store};
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
    /// Whether later events of the id wait for this one.
    pub in_order: bool,
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

/// Claims what is due, oldest first.
///
/// `head` is no join: the planner must not turn it into a scan of the whole backlog.
pub(super) async fn claim(
    dialect: Dialect,
    transaction: &mut AnyConnection,
    request: &ClaimRequest,
    now: Moment,
) -> sqlx::Result<Vec<Claimed>> {
    let head = match request.in_order {
        true => {
            "AND c.event = (SELECT e.event FROM inbox_events e WHERE e.source = c.source \
             AND e.id = c.id AND e.state < 2 ORDER BY e.turn LIMIT 1)"
        }
        false => "",
    };
    let statement = format!(
        "WITH picked AS MATERIALIZED (SELECT c.event FROM inbox_events c \
         WHERE c.state < 2 AND c.due <= $1 {head} \
         AND NOT EXISTS (SELECT 1 FROM inbox_pauses p WHERE p.source = '' OR p.source = c.source) \
         ORDER BY c.due, c.turn LIMIT $2 {{skip_locked}}) \
         UPDATE inbox_events SET lost_at = CASE WHEN state = 1 THEN claimed_at ELSE 0 END, \
         state = 1, claim = $3, claimed_at = $4, due = $5, changed_at = $1 \
         FROM picked WHERE inbox_events.event = picked.event \
         RETURNING inbox_events.event, key, source, id, received_at, tries, attempts, lost_at, turn, bytes"
    );
    let rows = sqlx::query(AssertSqlSafe(dialect.words(&statement)))
        .bind(now.0)
        .bind(i64::try_from(request.most).unwrap_or(i64::MAX))
        .bind(request.claim)
        .bind(request.wall.0)
        .bind(now.after(request.lease).0)
        .fetch_all(&mut *transaction)
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let attempts: i64 = row.try_get(6)?;
        let turn: i64 = row.try_get(8)?;
        let mut claimed = Claimed {
            event: row.try_get(0)?,
            key: row.try_get(1)?,
            source: row.try_get(2)?,
            id: row.try_get(3)?,
            received_at: Moment(row.try_get(4)?),
            tries: row.try_get(5)?,
            claim: request.claim,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            bytes: u64::try_from(row.try_get::<i64, _>(9)?).unwrap_or(0),
        };
        let lost_at: i64 = row.try_get(7)?;
        if lost_at > 0 {
            claimed.tries += 1;
            record(
                transaction,
                &claimed,
                Moment(lost_at),
                None,
                Some(UNKNOWN),
                None,
            )
            .await?;
            sqlx::query("UPDATE inbox_events SET tries = $2, last_error = $3 WHERE event = $1")
                .bind(claimed.event)
                .bind(claimed.tries)
                .bind(UNKNOWN)
                .execute(&mut *transaction)
                .await?;
        }
        all.push((turn, claimed));
    }
    all.sort_by_key(|(turn, _)| *turn);
    Ok(all.into_iter().map(|(_, claimed)| claimed).collect())
}

/// Records an attempt and writes what follows from it, if its claim still holds.
pub(super) async fn settle(
    transaction: &mut AnyConnection,
    settlement: &Settlement,
    now: Moment,
) -> sqlx::Result<bool> {
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
        return Ok(false);
    };
    let status = match settlement.outcome {
        Outcome::Answered { status, .. } => Some(i64::from(status)),
        Outcome::Failed => None,
    };
    let error = settlement.error.as_deref();
    if !write(transaction, claimed, next, 1, status, error, now).await? {
        return Ok(false);
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
    if settlement.in_order && next.state == State::Waiting {
        // They wait for this one in any case: so no claim looks at each of them again and again.
        sqlx::query(
            "UPDATE inbox_events SET due = $3, changed_at = $4 \
             WHERE source = $1 AND id = $2 AND state = 0 AND due < $3",
        )
        .bind(claimed.source.as_str())
        .bind(claimed.id.as_str())
        .bind(next.due.0)
        .bind(now.0)
        .execute(transaction)
        .await?;
    }
    Ok(true)
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
