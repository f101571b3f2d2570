//! The memory store: events in the proxy's shared data, in a fixed number of buckets.
//!
//! Envoy's shared data has no delete, no list and no time to live, so a key per event would grow
//! for ever. A fixed number of buckets, each a packed list with the ends of its records, does not.
//! Two workers that change one bucket at the same time are told apart by compare-and-swap.

pub mod bucket;
pub mod circuit;
pub mod redis;
pub mod retries;

use crate::event::EventKey;
use crate::store::bucket::{Bucket, Change, Claimed, Fingerprint, OwnerToken};
use crate::time::UnixMillis;

/// The proxy's shared data, as the store needs it.
///
/// Source: proxy-wasm ABI 0.2.1, `proxy_get_shared_data` and `proxy_set_shared_data`.
pub trait SharedData {
    /// The value of `key` and the number that stands for this version of it. Absent: no value and
    /// no number.
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
    /// There is no room beside live claims.
    Full,
    /// The store did not answer; the process's own store has granted the claim instead.
    GrantedHere,
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
        /// Who claimed it.
        owner: OwnerToken,
    },
}

/// How often a compare-and-swap is tried before the store counts as unavailable.
///
/// A conflict means that another worker got its change in, so among `n` workers on one bucket `n`
/// tries are enough for everybody; Envoy runs one worker per core.
const TRIES: usize = 1024;

/// Average records in a bucket when the store holds `capacity` events.
const MEAN: u32 = 64;

/// Most records in a bucket.
///
/// With 64 on average and events spread by SHA-256, 80 slots keep 99.8 % of the youngest `capacity`
/// events; a bucket would need 81 of the youngest half, 32 on average, to lose one of those: a
/// chance of about 2e-13 per bucket (Poisson).
const SLOTS: usize = 80;

/// The smallest `store.capacity`.
pub const LEAST_CAPACITY: u32 = 1_000;
/// The largest `store.capacity`.
pub const MOST_CAPACITY: u32 = 4_000_000;

/// How many events may be in which buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    buckets: u64,
}

impl Memory {
    /// For `capacity` events, [`LEAST_CAPACITY`] to [`MOST_CAPACITY`].
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self {
            buckets: u64::from(capacity.div_ceil(MEAN).max(1)),
        }
    }

    /// Asks for a claim. Returns the answer and how the numbers of the store moved.
    pub fn claim(
        self,
        shared: &mut impl SharedData,
        request: &ClaimRequest,
        now: UnixMillis,
    ) -> (ClaimAnswer, Change) {
        let lease_end = now.plus_seconds(request.lease_seconds);
        let result = self.update(shared, &request.key, |bucket| {
            match bucket.claim(&request.key, request.owner, lease_end, SLOTS, now) {
                Claimed::Granted => (ClaimAnswer::Granted, true),
                Claimed::ByAnother => (ClaimAnswer::ClaimedByAnother, false),
                Claimed::ByAnotherFromAhead => (ClaimAnswer::ClaimedByAnother, true),
                Claimed::Delivered(fingerprint) => (ClaimAnswer::Delivered(fingerprint), false),
                Claimed::Full => (ClaimAnswer::Full, false),
            }
        });
        result.unwrap_or((ClaimAnswer::Unavailable, Change::default()))
    }

    /// Settles a claim. Returns whether it was still the owner's, and how the numbers moved.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]: the claim stays until its lease ends.
    pub fn settle(
        self,
        shared: &mut impl SharedData,
        settlement: &Settlement,
        now: UnixMillis,
    ) -> Result<(bool, Change), Unavailable> {
        let (Settlement::Deliver { key, .. } | Settlement::Release { key, .. }) = settlement;
        self.update(shared, key, |bucket| {
            let changed = match *settlement {
                Settlement::Deliver {
                    key,
                    owner,
                    fingerprint,
                    window_seconds,
                } => {
                    let window_end = now.plus_seconds(window_seconds);
                    bucket.deliver(&key, owner, fingerprint, window_end, SLOTS, now)
                }
                Settlement::Release { key, owner } => bucket.release(&key, owner),
            };
            (changed, changed)
        })
    }

    /// Reads the bucket of `key`, lets `change` work on it and writes it back where that says so;
    /// again from the start if another worker was faster.
    fn update<T>(
        self,
        shared: &mut impl SharedData,
        key: &EventKey,
        mut change: impl FnMut(&mut Bucket) -> (T, bool),
    ) -> Result<(T, Change), Unavailable> {
        let name = self.bucket_name(key);
        for _ in 0..TRIES {
            let (value, version) = shared.get(&name)?;
            let mut bucket = Bucket::new(value.unwrap_or_default());
            let (answer, write) = change(&mut bucket);
            if !write {
                return Ok((answer, Change::default()));
            }
            let moved = bucket.change();
            match shared.set(&name, &bucket.into_bytes(), version.unwrap_or(ABSENT))? {
                Swap::Done => return Ok((answer, moved)),
                Swap::Conflict => {}
            }
        }
        Err(Unavailable)
    }

    /// The number of buckets is part of the name: a store of another capacity begins empty instead
    /// of looking for events where they are not.
    fn bucket_name(self, key: &EventKey) -> String {
        let mut name = String::with_capacity(24);
        name.push_str("events/");
        push_hex(&mut name, self.buckets);
        name.push('/');
        push_hex(&mut name, key.selector() % self.buckets);
        name
    }
}

/// Adds `number` in hexadecimal digits. The formatter would be the larger part of a claim's own work.
fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = u32::try_from(number >> (4 * place) & 0xf);
        text.extend(digit.ok().and_then(|digit| char::from_digit(digit, 16)));
    }
}

/// The key of the salt under which bodies are fingerprinted.
const SALT: &str = "salt";

/// The store's salt: made once by whoever comes first, then the same for every worker.
///
/// # Errors
///
/// [`Unavailable`] if the host refuses.
pub fn salt(shared: &mut impl SharedData, fresh: [u8; 16]) -> Result<[u8; 16], Unavailable> {
    for _ in 0..TRIES {
        if let (Some(value), _) = shared.get(SALT)?
            && let Some(salt) = value.first_chunk()
        {
            return Ok(*salt);
        }
        match shared.set(SALT, &fresh, ABSENT)? {
            Swap::Done => return Ok(fresh),
            Swap::Conflict => {}
        }
    }
    Err(Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_its_name_whoever_writes_it() {
        for number in [0, 1, 0xf, 0x10, 0x61b, 0xffff_ffff, u64::MAX] {
            let mut text = String::new();
            push_hex(&mut text, number);
            assert_eq!(text, format!("{number:x}"));
        }
        let key = EventKey::from_bytes([0xff; 32]);
        assert_eq!(Memory::new(100_000).bucket_name(&key), "events/61b/297");
    }
}
