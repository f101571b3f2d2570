//! What the commands ask and change, in small steps beside running inboxes.

use anyhow::Result;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use super::open::Store;
use super::{queue, writer};
use crate::delivery::{Delivery, State};
use crate::moment::Moment;

/// Events that one step reads or changes.
const STEP: i64 = 500;

/// A state, without what belongs to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Waiting for the next attempt.
    Waiting,
    /// An attempt is under way.
    Delivering,
    /// The application has answered 2xx.
    Delivered,
    /// No attempt left.
    Dead,
}

impl Filter {
    fn of(number: i64) -> Self {
        match number {
            0 => Self::Waiting,
            1 => Self::Delivering,
            2 => Self::Delivered,
            _ => Self::Dead,
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Waiting => 0,
            Self::Delivering => 1,
            Self::Delivered => 2,
            Self::Dead => 3,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivering => "delivering",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// Which events a command is about: those that all of it fits.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// One of these keys; with none, any.
    pub keys: Vec<String>,
    /// This message id.
    pub id: Option<String>,
    /// This sender.
    pub source: Option<String>,
    /// In this state.
    pub state: Option<Filter>,
    /// Received at this moment or later.
    pub since: Option<Moment>,
    /// Received before this moment.
    pub until: Option<Moment>,
}

enum Value {
    Number(i64),
    Text(String),
}

impl Selector {
    /// The condition, and the values of its `$2` and so on; `$1` is the last event of the step before.
    fn condition(&self) -> (String, Vec<Value>) {
        let mut sql = "event > $1".to_owned();
        let mut values = Vec::new();
        let mut add = |words: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {words} ${}", values.len() + 1));
        };
        if let Some(id) = &self.id {
            add("id =", Value::Text(id.clone()));
        }
        if let Some(source) = &self.source {
            add("source =", Value::Text(source.clone()));
        }
        if let Some(state) = self.state {
            add("state =", Value::Number(state.number()));
        }
        if let Some(since) = self.since {
            add("received_at >=", Value::Number(since.0));
        }
        if let Some(until) = self.until {
            add("received_at <", Value::Number(until.0));
        }
        if !self.keys.is_empty() {
            let mut list = Vec::with_capacity(self.keys.len());
            for key in &self.keys {
                values.push(Value::Text(key.to_ascii_lowercase()));
                list.push(format!("${}", values.len() + 1));
            }
            sql.push_str(&format!(" AND key IN ({})", list.join(", ")));
        }
        (sql, values)
    }
}

fn bind(
    mut query: Query<'_, Any, AnyArguments>,
    after: i64,
    values: Vec<Value>,
) -> Query<'_, Any, AnyArguments> {
    query = query.bind(after);
    for value in values {
        query = match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
        };
    }
    query
}

/// An event as `list` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Listed {
    /// Its number in the store.
    #[serde(skip)]
    pub event: i64,
    /// 64 hexadecimal digits.
    pub key: String,
    /// The sender's name.
    pub source: String,
    /// The message id.
    pub id: String,
    /// Where it is.
    pub state: Filter,
    /// When it came, RFC 3339.
    pub received_at: String,
    /// Attempts of this series whose outcome is known.
    pub attempts: i64,
    /// When the next attempt is due, RFC 3339, while it waits for that, and not for another event.
    pub next_attempt_at: Option<String>,
    /// The status of the last attempt.
    pub last_status: Option<i64>,
    /// Why the last attempt had no answer.
    pub last_error: Option<String>,
}

/// One attempt.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Try {
    /// When it began, RFC 3339.
    pub at: String,
    /// The status of the answer.
    pub status: Option<i64>,
    /// Why there was none.
    pub error: Option<String>,
    /// What it took.
    pub milliseconds: Option<i64>,
}

/// How many events are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Waiting for their next attempt.
    pub waiting: i64,
    /// Under way.
    pub delivering: i64,
    /// Delivered, and not purged yet.
    pub delivered: i64,
    /// Without attempts left.
    pub dead: i64,
    /// The age of the oldest that is still to be delivered; 0 if there is none.
    pub oldest_seconds: u64,
}

/// What a command did to the events it was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Changed.
    pub done: u64,
    /// Left alone, as an attempt was under way.
    pub under_way: u64,
}

#[derive(Clone, Copy)]
enum Change {
    Replay,
    Discard,
}

impl Store {
    /// The next events of the selection after `after` (0 for the first), in the order of arrival.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn list(&self, selector: &Selector, after: i64) -> Result<Vec<Listed>> {
        let (condition, values) = selector.condition();
        let statement = format!(
            "SELECT event, key, source, id, state, received_at, attempts, due, last_status, \
             last_error, claim FROM inbox_events WHERE {condition} ORDER BY event LIMIT {STEP}"
        );
        let query = bind(sqlx::query(AssertSqlSafe(statement)), after, values);
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(listed).collect()
    }

    /// Those of the keys that are not in the store.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn unknown<'a>(&self, keys: &'a [String]) -> Result<Vec<&'a str>> {
        let mut unknown = Vec::new();
        for key in keys {
            if !self.knows(&key.to_ascii_lowercase()).await? {
                unknown.push(key.as_str());
            }
        }
        Ok(unknown)
    }

    /// All attempts for an event, of all its series.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn tries(&self, event: i64) -> Result<Vec<Try>> {
        let rows = sqlx::query(
            "SELECT at, status, error, milliseconds FROM inbox_tries WHERE event = $1 \
             ORDER BY number",
        )
        .bind(event)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Try {
                    at: Moment(row.try_get(0)?).to_string(),
                    status: row.try_get(1)?,
                    error: row.try_get(2)?,
                    milliseconds: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Counts the events by state.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn stats(&self) -> Result<Stats> {
        // Two, so that each reads an index and not the rows.
        let rows = sqlx::query(
            "SELECT state, count(*), min(received_at) FROM inbox_events WHERE state < 2 \
             GROUP BY state \
             UNION ALL SELECT state, count(*), 0 FROM inbox_events WHERE state >= 2 \
             GROUP BY state",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut stats = Stats::default();
        let wall = Moment::wall();
        for row in rows {
            let count: i64 = row.try_get(1)?;
            let state = Filter::of(row.try_get(0)?);
            match state {
                Filter::Waiting => stats.waiting = count,
                Filter::Delivering => stats.delivering = count,
                Filter::Delivered => stats.delivered = count,
                Filter::Dead => stats.dead = count,
            }
            if matches!(state, Filter::Waiting | Filter::Delivering) {
                let age = wall.since(Moment(row.try_get(2)?)).as_secs();
                stats.oldest_seconds = stats.oldest_seconds.max(age);
            }
        }
        Ok(stats)
    }

    /// Begins a new series of attempts for each event of the selection.
    ///
    /// An event that had ended takes its place after all that have come since, so that still only
    /// one event of an id is under way.
    ///
    /// # Errors
    ///
    /// The store does not answer; steps done before that stay.
    pub async fn replay(&self, selector: &Selector) -> Result<Changed> {
        self.change(selector, Change::Replay).await
    }

    /// Removes each event of the selection.
    ///
    /// # Errors
    ///
    /// The store does not answer; steps done before that stay.
    pub async fn discard(&self, selector: &Selector) -> Result<Changed> {
        self.change(selector, Change::Discard).await
    }

    async fn change(&self, selector: &Selector, change: Change) -> Result<Changed> {
        let mut changed = Changed::default();
        let mut after = 0;
        let (condition, _) = selector.condition();
        let statement = format!(
            "SELECT event, source, id, state FROM inbox_events WHERE {condition} \
             ORDER BY event LIMIT {STEP}"
        );
        let mut connection = self.writers.acquire().await?;
        loop {
            // Before the transaction: inboxes can write while a large store is searched.
            let (_, values) = selector.condition();
            let query = bind(sqlx::query(AssertSqlSafe(statement.clone())), after, values);
            let rows = query.fetch_all(&mut *connection).await?;
            let mut transaction = connection.begin_with(self.dialect.begin()).await?;
            let now = self.now(&mut transaction).await?;
            for row in &rows {
                after = row.try_get(0)?;
                if self.change_one(&mut transaction, row, change, now).await? {
                    changed.done += 1;
                } else {
                    changed.under_way += 1;
                }
            }
            transaction.commit().await?;
            if i64::try_from(rows.len()).unwrap_or(STEP) < STEP {
                return Ok(changed);
            }
        }
    }

    async fn change_one(
        &self,
        transaction: &mut AnyConnection,
        row: &AnyRow,
        change: Change,
        now: Moment,
    ) -> Result<bool> {
        let event: i64 = row.try_get(0)?;
        let state = Filter::of(row.try_get(3)?);
        let was = Delivery {
            state: match state {
                Filter::Waiting => State::Waiting,
                Filter::Delivering => State::Delivering { claim: 0 },
                Filter::Delivered => State::Delivered,
                Filter::Dead => State::Dead,
            },
            attempts: 0,
            due: now,
        };
        let Some(next) = was.replay(now) else {
            return Ok(false);
        };
        let done = match change {
            Change::Replay => {
                let turn = match state {
                    Filter::Waiting => None,
                    _ => writer::take_turns(self.dialect, transaction, 1)
                        .await?
                        .first()
                        .copied(),
                };
                sqlx::query(
                    "UPDATE inbox_events SET state = $2, attempts = $3, due = $4, \
                     changed_at = $5, claim = 0, turn = coalesce($6, turn) \
                     WHERE event = $1 AND state = $7",
                )
                .bind(event)
                .bind(queue::number(next.state))
                .bind(i64::from(next.attempts))
                .bind(next.due.0)
                .bind(now.0)
                .bind(turn)
            }
            Change::Discard => {
                sqlx::query("DELETE FROM inbox_events WHERE event = $1 AND state = $2").bind(event)
            }
        };
        // The state may have changed since it was read.
        let done = done.bind(state.number()).execute(&mut *transaction).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        if matches!((change, state), (Change::Discard, Filter::Waiting)) {
            let (source, id): (String, String) = (row.try_get(1)?, row.try_get(2)?);
            queue::wake_next(transaction, &[(source.as_str(), id.as_str())], now).await?;
        }
        Ok(true)
    }

    /// Pauses deliveries, of one source or of all, until they are resumed.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn pause(&self, source: Option<&str>) -> Result<()> {
        sqlx::query(
            "INSERT INTO inbox_pauses (source, since) VALUES ($1, $2) \
             ON CONFLICT (source) DO NOTHING",
        )
        .bind(source.unwrap_or_default())
        .bind(Moment::wall().0)
        .execute(&self.writers)
        .await?;
        Ok(())
    }

    /// Ends the pause of one source; without a source, all pauses. Returns how many ended.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn resume(&self, source: Option<&str>) -> Result<u64> {
        let query = match source {
            Some(source) => sqlx::query("DELETE FROM inbox_pauses WHERE source = $1").bind(source),
            None => sqlx::query("DELETE FROM inbox_pauses"),
        };
        Ok(query.execute(&self.writers).await?.rows_affected())
    }

    /// What is paused: sources, or an empty name for all.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn pauses(&self) -> Result<Vec<String>> {
        let rows = sqlx::query("SELECT source FROM inbox_pauses ORDER BY source")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

fn listed(row: &AnyRow) -> Result<Listed> {
    let state = Filter::of(row.try_get(4)?);
    let due = Moment(row.try_get(7)?);
    let is_set_aside = row.try_get::<i64, _>(10)? == queue::SET_ASIDE;
    Ok(Listed {
        event: row.try_get(0)?,
        key: row.try_get(1)?,
        source: row.try_get(2)?,
        id: row.try_get(3)?,
        state,
        received_at: Moment(row.try_get(5)?).to_string(),
        attempts: row.try_get(6)?,
        next_attempt_at: (state == Filter::Waiting && !is_set_aside).then(|| due.to_string()),
        last_status: row.try_get(8)?,
        last_error: row.try_get(9)?,
    })
}
