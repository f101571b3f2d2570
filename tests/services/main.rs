//! The filter among the programs that it works with: Docker, Redis, Webdis, Prometheus, a browser, the
//! senders' own libraries, published schemas. Run by `cargo test-services`.
//!
//! What a test needs and does not find it installs: Debian's packages (as root), and packages from
//! PyPI and npm, pinned, under the build directory. If that is not possible, it fails and names the
//! package.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod applications;
mod deploy;
mod docker;
mod inbox;
mod inspector;
#[cfg(target_os = "linux")]
mod native;
mod redis;
mod senders;
