//! The memory store's data: one map for the whole process, shared by all workers and all
//! configurations.
//!
//! It lives in statics of this module, so a changed configuration finds the earlier events as
//! long as Envoy does not unload the module (`do_not_close: true`). What it holds is bounded by the
//! number of the store's buckets, that is, by `store.capacity`.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use callback_guard_core::store::{SharedData, Swap, Unavailable};

/// Parts of the map with a lock each, so that workers seldom meet.
const SHARDS: usize = 64;

/// A value and the number of its version.
struct Versioned {
    value: Vec<u8>,
    version: u32,
}

type Shard = Mutex<HashMap<Box<str>, Versioned, RandomState>>;

struct Store {
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

static STORE: LazyLock<Store> = LazyLock::new(|| {
    let hasher = RandomState::new();
    Store {
        shards: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
        hasher,
    }
});

impl Store {
    fn shard(&self, key: &str) -> Result<&Shard, Unavailable> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        self.shards.get(hash % SHARDS).ok_or(Unavailable)
    }
}

/// The process's shared data, and whether it was written to.
#[derive(Debug, Default)]
pub(crate) struct ProcessData {
    /// Whether a value was written since this was made: then somebody may have waited for it.
    pub(crate) is_changed: bool,
}

impl SharedData for ProcessData {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        let shard = STORE.shard(key)?.lock();
        // A panic under this lock is none in the middle of a change: those are single assignments.
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        Ok(match shard.get(key) {
            Some(known) => (Some(known.value.clone()), Some(known.version)),
            None => (None, None),
        })
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        let value = value.to_vec();
        let shard = STORE.shard(key)?.lock();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        match shard.entry(key.into()) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if known.version != version {
                    return Ok(Swap::Conflict);
                }
                known.value = value;
                // From 1 to one less than `ABSENT`, which matches no version.
                known.version = known.version % (u32::MAX - 1) + 1;
            }
            Entry::Vacant(place) => {
                place.insert(Versioned { value, version: 1 });
            }
        }
        self.is_changed = true;
        Ok(Swap::Done)
    }
}
