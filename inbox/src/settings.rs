//! What an inbox is run with.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::HeaderName;

use crate::application::Base;
use crate::schedule::Schedule;
use crate::signing::SigningKey;
use crate::store::Place;
use crate::token::BearerToken;

/// What an inbox is run with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store.
    pub store: Place,
    /// The application.
    pub to: Base,
    /// Where callbacks are taken.
    pub listen: SocketAddr,
    /// Where metrics and health are shown.
    pub admin: SocketAddr,
    /// What Envoy must send.
    pub token: Option<BearerToken>,
    /// Headers that are not stored.
    pub drop_headers: Vec<HeaderName>,
    /// The most events that may wait.
    pub max_backlog: u64,
    /// The most bytes that may wait.
    pub max_backlog_bytes: u64,
    /// The pauses between attempts.
    pub schedule: Schedule,
    /// The most attempts at once.
    pub concurrency: usize,
    /// The longest attempt.
    pub timeout: Duration,
    /// The most attempts in a second.
    pub rate: Option<u32>,
    /// Whether an event waits for the earlier ones of its id.
    pub in_order: bool,
    /// What deliveries are signed with.
    pub signing_key: Option<SigningKey>,
    /// How long delivered events are kept.
    pub keep: Duration,
    /// How long attempts may take to end once the inbox is stopped.
    pub grace: Duration,
}
