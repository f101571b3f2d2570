//! Where a store is: `sqlite:FILE` or `postgres://…`.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// Where a store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database, which may hold a password.
    Postgres(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:") {
            Some(file) if !file.is_empty() => {
                Ok(Self::Sqlite(file.strip_prefix("//").unwrap_or(file).into()))
            }
            _ => Err("expected sqlite:FILE, as sqlite:inbox.db, \
                      or postgres://USER:PASSWORD@HOST/DATABASE"
                .to_owned()),
        }
    }
}

/// For people and logs: without user and password.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(formatter, "sqlite:{}", file.display()),
            Self::Postgres(url) => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let rest = rest.split(['?', '#']).next().unwrap_or_default();
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                write!(formatter, "postgres://{place}")
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Place {
    /// What sqlx connects to.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => {
                let mut url = "sqlite://".to_owned();
                for byte in file.as_os_str().as_encoded_bytes() {
                    match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                            url.push(char::from(*byte));
                        }
                        _ => url.push_str(&format!("%{byte:02X}")),
                    }
                }
                url.push_str("?mode=rw");
                url
            }
            Self::Postgres(url) => url.clone(),
        }
    }
}

/// That this process is the only inbox on a file; ends with the value, and with the process.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

/// Makes the file if there is none, readable by its owner alone, and locks it.
///
/// The lock is a file beside it: SQLite's own locks on the file would end if it was opened and
/// closed here.
pub(super) fn prepare(file: &Path) -> anyhow::Result<Lock> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .with_context(|| format!("cannot open {}", Path::new(&name).display()))?;
    if lock.try_lock().is_err() {
        bail!("another inbox is running on this file");
    }
    let made = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(file);
    match made {
        Ok(made) => {
            made.sync_all()?;
            let parent = file.parent().filter(|parent| *parent != Path::new(""));
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).context("cannot create the file"),
    }
    // SQLite gives what it makes beside the file the file's own permissions.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match fs::set_permissions(&name, Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("cannot make the file readable by its owner alone");
            }
            _ => {}
        }
    }
    Ok(Lock(lock))
}
