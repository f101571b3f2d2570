//! A wall clock for a program that a test sets.
//!
//! Envoy and the inbox ask glibc for the time, so a small library before it (`clock.c`) can answer.
//! libfaketime cannot: Envoy's allocator calls `poll` while it makes itself ready, libfaketime answers
//! that by looking up functions, which allocates, and both wait for each other for ever.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::places;

/// A clock that is so many seconds ahead of the right time.
#[derive(Debug)]
pub struct Clock {
    directory: TempDir,
    ahead: File,
}

impl Clock {
    /// The right time. The library is built by the C compiler that Rust links with.
    ///
    /// # Errors
    ///
    /// If there is no C compiler, or no directory can be made.
    pub fn new() -> Result<Self> {
        let directory = places::run()?;
        let source = directory.path().join("clock.c");
        fs::write(&source, include_str!("clock.c"))?;
        let built = Command::new("cc")
            .args([
                "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o",
            ])
            .arg(directory.path().join("clock.so"))
            .arg(source)
            .status()
            .context("cannot run cc, the C compiler")?;
        ensure!(built.success(), "cc cannot build clock.c");
        let ahead = File::create(directory.path().join("ahead"))?;
        let clock = Self { directory, ahead };
        clock.set(0)?;
        Ok(clock)
    }

    /// The environment of a program that shall have this clock.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name| self.directory.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", path("clock.so")),
            ("CLOCK_AHEAD", path("ahead")),
        ]
    }

    /// Sets it to so many seconds ahead of the right time, at once.
    ///
    /// # Errors
    ///
    /// If the file that the program looks into cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        self.ahead.write_all_at(&seconds.to_ne_bytes(), 0)?;
        Ok(())
    }
}
