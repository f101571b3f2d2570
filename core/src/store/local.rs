//! The local store: events in the proxy's shared data, in a fixed number of buckets.
//!
//! Envoy's shared data has no delete, no list and no time to live, so a key per event would grow
//! for ever. A fixed number of buckets, each a packed list with the ends of its records, does not.
//! Compare-and-swap orders two workers that change one bucket at the same time.

use crate::event::IdKey;
use crate::store::bucket::{Bucket, Change, Claimed, Limits};
use crate::store::{ABSENT, ClaimAnswer, ClaimRequest, Settlement, SharedData, Swap, Unavailable};
use crate::time::UnixMillis;

/// How often a compare-and-swap is tried before the store counts as unavailable.
///
/// A conflict means that another worker got its change in, so among `n` workers on one bucket `n`
/// tries are enough for everybody; Envoy runs one worker per core.
const TRIES: usize = 1024;

/// Average records in a bucket when the store holds `capacity` events.
const MEAN: u32 = 64;

/// Most records in a bucket, in addition to room for all events of one message id.
///
/// All events of an id are in one bucket, so that they can be counted; which one depends on the
/// store's salt. With 64 records on average (and, where an id makes several events, more spread), 80
/// slots and those of one id keep 99 % of the youngest `capacity` events, the youngest half of them
/// always: with one event an id, a bucket would need 145 of the youngest half, 32 on average, to
/// lose one. An id that has as many events as it may takes the slots that are kept for it, and pushes
/// out none that are younger than `capacity` others.
const SLOTS: usize = 80;

/// How many events one message id may make, where the configuration says nothing.
pub const EVENTS_PER_ID: u16 = 64;
/// The most events that one message id may be allowed to make.
pub const MOST_EVENTS_PER_ID: u16 = 256;

/// The smallest `store.capacity`.
pub const LEAST_CAPACITY: u32 = 1_000;
/// The largest `store.capacity`.
pub const MOST_CAPACITY: u32 = 4_000_000;

/// The geometry of the local store: which events are in which buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalStore {
    buckets: u64,
    slots: usize,
}

impl LocalStore {
    /// For `capacity` events, [`LEAST_CAPACITY`] to [`MOST_CAPACITY`], of ids with [`EVENTS_PER_ID`]
    /// at most.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self::of_ids(capacity, EVENTS_PER_ID)
    }

    /// For `capacity` events, of ids with `events_per_id` at most.
    #[must_use]
    pub(crate) fn of_ids(capacity: u32, events_per_id: u16) -> Self {
        Self {
            buckets: u64::from(capacity.div_ceil(MEAN).max(1)),
            slots: SLOTS.saturating_add(events_per_id.into()),
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
        let limits = Limits {
            slots: self.slots,
            per_id: request.events_per_id.into(),
        };
        let result = self.update(shared, request.id, |bucket| {
            let (key, id, owner) = (&request.key, request.id, request.owner);
            match bucket.claim(key, id, owner, lease_end, limits, now) {
                Claimed::Granted => (ClaimAnswer::Granted, true),
                Claimed::ByAnother => (ClaimAnswer::ClaimedByAnother, false),
                Claimed::ByAnotherFromAhead => (ClaimAnswer::ClaimedByAnother, true),
                Claimed::Delivered(fingerprint) => (ClaimAnswer::Delivered(fingerprint), false),
                Claimed::Full => (ClaimAnswer::Full, false),
                Claimed::TooMany => (ClaimAnswer::TooMany, false),
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
        let (Settlement::Deliver { id, .. } | Settlement::Release { id, .. }) = settlement;
        self.update(shared, *id, |bucket| {
            let changed = match *settlement {
                Settlement::Deliver {
                    key,
                    id,
                    owner,
                    fingerprint,
                    window_seconds,
                } => {
                    let window_end = now.plus_seconds(window_seconds);
                    bucket.deliver(&key, id, owner, fingerprint, window_end, self.slots, now)
                }
                Settlement::Release { key, owner, .. } => bucket.release(&key, owner),
            };
            (changed, changed)
        })
    }

    /// Reads the bucket of `id`, lets `change` work on it and writes it back where that says so;
    /// again from the start if another worker was faster.
    fn update<T>(
        self,
        shared: &mut impl SharedData,
        id: IdKey,
        mut change: impl FnMut(&mut Bucket) -> (T, bool),
    ) -> Result<(T, Change), Unavailable> {
        let name = self.bucket_name(id);
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
    fn bucket_name(self, id: IdKey) -> String {
        let mut name = String::with_capacity(24);
        // The second form of a record.
        name.push_str("events2/");
        push_hex(&mut name, self.buckets);
        name.push('/');
        // The other half tells ids apart in the bucket.
        let selector = id.local & 0xffff_ffff;
        push_hex(&mut name, selector % self.buckets);
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

/// The store's salt: created by the first worker, then the same for all.
///
/// # Errors
///
/// [`Unavailable`] if the host refuses.
pub(crate) fn salt(shared: &mut impl SharedData, fresh: [u8; 16]) -> Result<[u8; 16], Unavailable> {
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
        let id = IdKey {
            local: 0xffff_ffff_0000_0298,
            ..IdKey::default()
        };
        assert_eq!(LocalStore::new(100_000).bucket_name(id), "events2/61b/298");
    }
}
