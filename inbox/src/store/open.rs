//! The store: opened, reached and closed.

use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Executor as _, Row as _};

use super::dialect::Dialect;
use super::place::{self, Place};
use super::schema;
use crate::moment::{Moment, SteadyClock};

/// How long a connection of the pool is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections of an inbox that read.
const READERS: u32 = 4;

/// Connections of an inbox that write to PostgreSQL: while one waits for its fsync, the next
/// collects. SQLite has one writer.
pub(super) const POSTGRES_WRITERS: u32 = 4;

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) dialect: Dialect,
    place: Place,
    pub(super) readers: AnyPool,
    pub(super) writers: AnyPool,
    clock: SteadyClock,
    _lock: Option<Arc<place::Lock>>,
}

impl Store {
    /// Opens the store as an inbox does: makes it if it is not there, brings it up to date, and
    /// keeps other inboxes off a file.
    ///
    /// # Errors
    ///
    /// It cannot be reached or written, is of a newer version, or is another inbox's.
    pub async fn open(place: &Place) -> Result<Self> {
        Self::open_at(place, SteadyClock::start()).await
    }

    /// The same with another clock. PostgreSQL has its own.
    ///
    /// # Errors
    ///
    /// As of [`Store::open`].
    pub async fn open_at(place: &Place, clock: SteadyClock) -> Result<Self> {
        Self::open_in(place, clock, true)
            .await
            .with_context(|| format!("store {place}"))
    }

    /// Opens an existing store beside its inboxes, for one command.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or is none of this version.
    pub async fn open_beside(place: &Place) -> Result<Self> {
        Self::open_in(place, SteadyClock::start(), false)
            .await
            .with_context(|| format!("store {place}"))
    }

    async fn open_in(place: &Place, clock: SteadyClock, is_inbox: bool) -> Result<Self> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let lock = match place {
            Place::Sqlite(file) if is_inbox => Some(Arc::new(place::prepare(file)?)),
            Place::Sqlite(file) => {
                std::fs::metadata(file).context("cannot open the file")?;
                None
            }
            Place::Postgres(_) => None,
        };
        let (dialect, writers) = match place {
            Place::Sqlite(_) => (Dialect::Sqlite, 1),
            Place::Postgres(_) => (Dialect::Postgres, POSTGRES_WRITERS),
        };
        let store = Self {
            dialect,
            place: place.clone(),
            readers: pool(place, dialect, READERS).await?,
            writers: pool(place, dialect, writers).await?,
            clock,
            _lock: lock,
        };
        let mut connection = store.writers.acquire().await?;
        if is_inbox {
            schema::migrate(&mut connection, dialect).await?;
            store.repair_clock(&mut connection).await?;
        } else {
            schema::check(&mut connection, dialect).await?;
        }
        drop(connection);
        Ok(store)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Closes all connections; the last one to a file leaves no write-ahead log behind.
    pub async fn close(&self) {
        let closed = async { tokio::join!(self.readers.close(), self.writers.close()) };
        let _ = tokio::time::timeout(PATIENCE, closed).await;
    }

    /// Whether it answers.
    pub async fn is_reachable(&self) -> bool {
        let ask = sqlx::query("SELECT value FROM inbox_meta WHERE name = 'version'");
        let answer = tokio::time::timeout(Duration::from_secs(2), ask.fetch_one(&self.readers));
        matches!(answer.await, Ok(Ok(_)))
    }

    /// The store's time: that of the database where several inboxes share it.
    pub(super) async fn now(&self, connection: &mut AnyConnection) -> sqlx::Result<Moment> {
        match self.dialect {
            Dialect::Sqlite => Ok(self.clock.now()),
            Dialect::Postgres => {
                let row = sqlx::query(
                    "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
                )
                .fetch_one(connection)
                .await?;
                Ok(Moment(row.try_get(0)?))
            }
        }
    }

    /// Moves due times that were written while the clock was ahead: with it set back a day, events
    /// would wait a day longer.
    ///
    /// What waits is due when it was changed or later, so the index of due times finds it.
    async fn repair_clock(&self, connection: &mut AnyConnection) -> Result<()> {
        let now = self.now(connection).await?;
        let mut repaired = 0;
        // Each begins with the condition of a partial index, or the planner does not take it.
        for of_index in [
            "state < 2 AND due > $2",
            "state >= 2 AND state = 2",
            "state >= 2 AND state = 3",
        ] {
            let statement = format!(
                "UPDATE inbox_events SET due = due - (changed_at - $1), changed_at = $1 \
                 WHERE {of_index} AND changed_at > $2"
            );
            repaired += sqlx::query(AssertSqlSafe(statement))
                .bind(now.0)
                // Several inboxes may differ by a little.
                .bind(now.after(Duration::from_secs(5)).0)
                .execute(&mut *connection)
                .await?
                .rows_affected();
        }
        if repaired > 0 {
            tracing::warn!(
                events = repaired,
                "the clock has been set back since the last run"
            );
        }
        Ok(())
    }
}

async fn pool(place: &Place, dialect: Dialect, size: u32) -> Result<AnyPool> {
    let pool = AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(PATIENCE)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                match dialect {
                    Dialect::Sqlite => {
                        connection
                            .execute(
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                                 PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; \
                                 PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -8192;",
                            )
                            .await?;
                    }
                    Dialect::Postgres => {
                        // Statements read a few rows of a table that may be large: compiling one
                        // takes longer than running it.
                        connection.execute("SET jit = off").await?;
                        // An answer of 200 must not depend on how somebody has set the server up.
                        sqlx::query(
                            "SELECT set_config('synchronous_commit', 'on', false) \
                             WHERE current_setting('synchronous_commit') = 'off'",
                        )
                        .execute(connection)
                        .await?;
                    }
                }
                Ok(())
            })
        })
        .connect(&place.url())
        .await?;
    Ok(pool)
}
