//! A real Envoy with the repository's own `envoy.yaml`, between a client that decides which bytes
//! leave when and an upstream that records what arrives.
//!
//! The demo and the end-to-end tests are written with it. It knows how to run the guard, and
//! nothing of what the guard decides.
//!
//! ```no_run
//! use callback_guard_harness::{Answer, Body, Protocol, Request, Setup};
//!
//! fn main() -> anyhow::Result<()> {
//!     // Finds or installs Envoy, builds the filter, starts both ends on free ports.
//!     let stack = Setup::new()
//!         .guard(|config| config["sources"][0]["max_body_bytes"] = 4096.into())
//!         .workers(2)
//!         .start()?;
//!
//!     // The upstream fails once, then answers 200.
//!     stack.upstream.answer_in_turn([Answer::status(500), Answer::status(200)]);
//!
//!     let request = Request::post("/callbacks/suno")
//!         .header("x-webhook-timestamp", "1769670760")
//!         .json(Body::halves(r#"{"code":200}"#))
//!         .protocol(Protocol::Http2);
//!     let response = stack.send(&request)?;
//!
//!     assert_eq!(response.status, 401);
//!     assert_eq!(stack.upstream.heads(), 0); // Not even the headers arrived.
//!     Ok(())
//! } // Envoy ends here.
//! ```
//!
//! | to | take |
//! |---|---|
//! | start everything | [`Setup`], then [`Stack`] |
//! | start several Envoys that share a Redis | [`FleetSetup`], then [`Fleet`] |
//! | start an inbox, or a PostgreSQL for it | [`InboxSetup`], then [`Inbox`]; [`Postgres`] |
//! | run the native build in place of the module | [`Setup::filter`], or `CALLBACK_GUARD_FILTER=native` |
//! | change `envoy.yaml` | [`Render`] |
//! | write requests, bodies, floods, raw bytes | [`client`] |
//! | script the application's answers, and see what it received | [`upstream`] |
//! | read logs and statistics, change the listener, kill Envoy | [`Envoy`] |
//! | run what a page of the documentation prints | [`page`] |
//! | set the wall clock of Envoy or of an inbox | [`Clock`] |
//! | wait for something | [`wait`] |
//!
//! Nothing here sleeps for a fixed time in the hope that something has happened by then, and no
//! Envoy outlives the process that started it (on Linux however it ends; elsewhere if it ends
//! by itself).

mod body;
mod child;
pub mod client;
pub mod clock;
pub mod envoy;
pub mod envoy_binary;
pub mod filter;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod inbox;
pub mod native;
pub mod page;
pub mod places;
pub mod program;
pub mod render;
pub mod stack;
pub mod upstream;
pub mod wait;
pub mod wasm;

pub use client::{Body, Gate, Load, Piece, Protocol, RawConnection, Request, Response};
pub use clock::Clock;
pub use envoy::{Envoy, Update};
pub use filter::Filter;
#[cfg(feature = "fleet")]
pub use fleet::{Fleet, FleetSetup, Network, Way};
pub use inbox::{Inbox, InboxSetup, Postgres};
pub use page::Reader;
pub use render::Render;
pub use stack::{SECRET, SECRET_VARIABLE, Setup, Stack};
pub use upstream::{Answer, BodyState, Outcome, Recorded, Upstream};
