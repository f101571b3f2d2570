//! A wall clock for Envoy that a test sets.
//!
//! Envoy asks glibc for the time, so a small library before it (`clock.c`) can answer. libfaketime
//! cannot: Envoy's allocator calls `poll` while it makes itself ready, libfaketime answers that by
//! looking up functions, which allocates, and both wait for each other for ever.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::Builder;

pub struct Clock {
    directory: TempDir,
    ahead: File,
}

impl Clock {
    /// The right time. The library is built by the C compiler that Rust links with.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/faults/clock.c");
        let built = Command::new("cc")
            .args([
                "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o",
            ])
            .arg(directory.path().join("clock.so"))
            .arg(source)
            .status();
        assert!(built.unwrap().success());
        let ahead = File::create(directory.path().join("ahead")).unwrap();
        let clock = Self { directory, ahead };
        clock.set(0);
        clock
    }

    /// Envoy under this clock.
    pub fn of(&self, builder: Builder) -> Builder {
        let path = |name| self.directory.path().join(name).display().to_string();
        builder.map(|setup| {
            setup
                .env("LD_PRELOAD", &path("clock.so"))
                .env("CLOCK_AHEAD", &path("ahead"))
        })
    }

    /// Sets it to so many seconds ahead of the right time, at once.
    pub fn set(&self, seconds: i64) {
        self.ahead.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
