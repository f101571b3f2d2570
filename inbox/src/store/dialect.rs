//! Which SQL the store speaks.

/// Which SQL the store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// How a transaction that writes begins: SQLite's must not find out later that another writes.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// `statement` in this dialect's words.
    pub(super) fn words(self, statement: &str) -> String {
        let (integer, bytes, sequence, lock) = match self {
            Self::Sqlite => ("INTEGER", "BLOB", "", ""),
            Self::Postgres => (
                "BIGINT",
                "BYTEA",
                "CREATE SEQUENCE inbox_turn;\n",
                "FOR UPDATE OF c SKIP LOCKED",
            ),
        };
        statement
            .replace("{integer}", integer)
            .replace("{bytes}", bytes)
            .replace("{sequence}", sequence)
            .replace("{skip_locked}", lock)
    }
}
