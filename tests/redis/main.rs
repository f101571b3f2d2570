//! Several real Envoys with the guard, before a real Redis and a real Webdis.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod basics;
mod chaos;
mod compare;
mod deploy;
mod errors;
mod front;
mod load;
mod response;
mod support;
