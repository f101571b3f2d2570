//! Where events are remembered, and what a request can ask of it.
//!
//! [`local`] is the store of one process, [`redis`] the one that many proxies share; `stores`
//! works with both.

pub mod bucket;
pub mod circuit;
pub(crate) mod fleet;
pub mod local;
pub(crate) mod owners;
pub mod queue;
pub mod redis;
pub mod retries;
pub(crate) mod stores;

use crate::event::{EventKey, IdKey};
use crate::store::bucket::{Fingerprint, OwnerToken};

/// The proxy's shared data, as the store needs it.
///
/// Source: proxy-wasm ABI 0.2.1, `proxy_get_shared_data` and `proxy_set_shared_data`.
pub trait SharedData {
    /// The value of `key` and the number of this version of it. Absent: no value and no number.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the host refuses.
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable>;

    /// Sets `key` if its version is still `version`. [`ABSENT`] inserts only where nothing is.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the host refuses.
    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable>;
}

/// The version that inserts if absent: a number that matches no present value.
///
/// Envoy inserts an absent key whatever the number, and refuses to replace a present one under a
/// number other than its own. Its counter begins at 1 and would need 4.29e9 writes to come here.
pub const ABSENT: u32 = u32::MAX;

/// The end of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The value is written.
    Done,
    /// Somebody else wrote first.
    Conflict,
}

/// The store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// What a request asks of the store once it is authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The event.
    pub key: EventKey,
    /// What it has in common with the other events of its message id.
    pub id: IdKey,
    /// How many events of that id may be known at the same time.
    pub events_per_id: u16,
    /// Who asks.
    pub owner: OwnerToken,
    /// How long the claim lives with no outcome, in seconds.
    pub lease_seconds: u64,
}

/// What the store says to a [`ClaimRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The event was absent, or the lease on it had ended; it is the asker's now.
    Granted,
    /// Another request has claimed it.
    ClaimedByAnother,
    /// It was delivered, to a body with this fingerprint.
    Delivered(Fingerprint),
    /// The store is full of live claims.
    Full,
    /// The message id has as many events as it may.
    TooMany,
    /// The shared store did not answer; the local one has granted the claim instead.
    GrantedLocally,
    /// The store did not answer.
    Unavailable,
}

/// What to do with a claim once the outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The upstream answered 2xx: remember the event.
    Deliver {
        /// The event.
        key: EventKey,
        /// As in its [`ClaimRequest`].
        id: IdKey,
        /// Who claimed it.
        owner: OwnerToken,
        /// Of the body that was delivered.
        fingerprint: Fingerprint,
        /// How long to remember it, in seconds.
        window_seconds: u64,
    },
    /// The event was not delivered: the next attempt may claim it.
    Release {
        /// The event.
        key: EventKey,
        /// As in its [`ClaimRequest`].
        id: IdKey,
        /// Who claimed it.
        owner: OwnerToken,
    },
}

impl Settlement {
    /// As in its [`ClaimRequest`].
    #[must_use]
    pub(crate) fn id(&self) -> IdKey {
        match self {
            Self::Deliver { id, .. } | Self::Release { id, .. } => *id,
        }
    }

    /// The release of the claim that `request` asked for.
    #[must_use]
    pub fn release(request: &ClaimRequest) -> Self {
        Self::Release {
            key: request.key,
            id: request.id,
            owner: request.owner,
        }
    }
}
