//! The one schema of both kinds of store, and the way to it from older ones.

use anyhow::{Context as _, bail};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use super::dialect::Dialect;

/// The schema's version, as the store names it.
pub const VERSION: i64 = 2;

/// What makes version n + 1 of version n, first the one that makes version 1 of nothing.
///
/// What is published is never changed: a change is a further step.
const STEPS: [&str; 2] = [include_str!("schema-1.sql"), include_str!("schema-2.sql")];

/// Brings the store to [`VERSION`]. Of several that try at once, one does it.
///
/// # Errors
///
/// The store is of a newer version, or cannot be written.
pub(super) async fn migrate(
    connection: &mut AnyConnection,
    dialect: Dialect,
) -> anyhow::Result<()> {
    let mut transaction = connection.begin_with(dialect.begin()).await?;
    if dialect == Dialect::Postgres {
        // The number is the program's alone: the first bytes of "callback-guard-inbox".
        sqlx::query("SELECT pg_advisory_xact_lock(7161116474571776361)")
            .execute(&mut *transaction)
            .await?;
    }
    let found = version(&mut transaction, dialect).await?;
    check_not_newer(found)?;
    let done = usize::try_from(found).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        for statement in dialect.words(step).split(";\n") {
            if statement.trim().is_empty() {
                continue;
            }
            sqlx::query(AssertSqlSafe(statement.to_owned()))
                .execute(&mut *transaction)
                .await
                .with_context(|| format!("cannot bring the store to schema version {VERSION}"))?;
        }
    }
    if found < VERSION {
        sqlx::query("UPDATE inbox_meta SET value = $1 WHERE name = 'version'")
            .bind(VERSION)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Refuses any version but this program's.
///
/// # Errors
///
/// The store has another version, or is none of an inbox.
pub(super) async fn check(connection: &mut AnyConnection, dialect: Dialect) -> anyhow::Result<()> {
    let found = version(connection, dialect).await?;
    check_not_newer(found)?;
    match found {
        VERSION => Ok(()),
        0 => bail!("this is no inbox's store: `callback-guard-inbox run` makes one"),
        _ => bail!(
            "the store has schema version {found}, this program has {VERSION}: \
             `callback-guard-inbox run` brings it up to date"
        ),
    }
}

fn check_not_newer(found: i64) -> anyhow::Result<()> {
    if found > VERSION {
        bail!(
            "the store has schema version {found}, this program knows up to {VERSION}: \
             run the newer callback-guard-inbox that has written it"
        );
    }
    Ok(())
}

/// The store's version; 0 if there is nothing of an inbox in it.
async fn version(connection: &mut AnyConnection, dialect: Dialect) -> anyhow::Result<i64> {
    let table = match dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE name = 'inbox_meta'",
        Dialect::Postgres => "SELECT 'found' AS name WHERE to_regclass('inbox_meta') IS NOT NULL",
    };
    let found = sqlx::query(table).fetch_optional(&mut *connection).await?;
    if found.is_none() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT value FROM inbox_meta WHERE name = 'version'")
        .fetch_one(connection)
        .await?;
    Ok(row.try_get(0)?)
}
