//! The memory store against Envoy's shared data, as a fake: bounds, evictions, races.

use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::store::bucket::{Bucket, Claimed, Fingerprint, Limits, OwnerToken};
use callback_guard_core::store::local::LocalStore;
use callback_guard_core::store::{
    ClaimAnswer, ClaimRequest, Settlement, SharedData, Swap, Unavailable,
};
use callback_guard_core::time::UnixMillis;
use sha2::{Digest, Sha256};

use crate::support::MapShared;

const NOW: UnixMillis = UnixMillis::from_seconds(1_000_000);

fn key(number: u64) -> EventKey {
    EventKey::from_bytes(Sha256::digest(number.to_le_bytes()).into())
}

/// Every event has an id of its own.
fn id(number: u64) -> IdKey {
    IdKey::new("suno", &number.to_string(), &[7; 16], false)
}

fn limits(slots: usize) -> Limits {
    Limits { slots, per_id: 64 }
}

fn request(number: u64, owner: u64) -> ClaimRequest {
    ClaimRequest {
        key: key(number),
        id: id(number),
        events_per_id: 64,
        owner: OwnerToken::new(owner),
        lease_seconds: 30,
    }
}

fn delivered(number: u64, owner: u64) -> Settlement {
    Settlement::Deliver {
        key: key(number),
        id: id(number),
        owner: OwnerToken::new(owner),
        fingerprint: Fingerprint::new(number),
        window_seconds: 86_400,
    }
}

#[test]
fn an_event_is_claimed_once_settled_once_and_then_known() {
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    let claim = |shared: &mut MapShared, owner, now| store.claim(shared, &request(1, owner), now).0;
    assert_eq!(claim(&mut shared, 1, NOW), ClaimAnswer::Granted);
    assert_eq!(claim(&mut shared, 2, NOW), ClaimAnswer::ClaimedByAnother);
    // Only the owner settles.
    let stranger = Settlement::Release {
        key: key(1),
        id: id(1),
        owner: OwnerToken::new(2),
    };
    assert!(!store.settle(&mut shared, &stranger, NOW).unwrap().0);
    assert!(!store.settle(&mut shared, &delivered(1, 2), NOW).unwrap().0);
    let owner = Settlement::Release {
        key: key(1),
        id: id(1),
        owner: OwnerToken::new(1),
    };
    assert!(store.settle(&mut shared, &owner, NOW).unwrap().0);
    assert_eq!(claim(&mut shared, 3, NOW), ClaimAnswer::Granted);
    assert!(store.settle(&mut shared, &delivered(1, 3), NOW).unwrap().0);
    assert_eq!(
        claim(&mut shared, 4, NOW),
        ClaimAnswer::Delivered(Fingerprint::new(1))
    );
    // To the end of the window, and not beyond.
    let end = NOW.plus_seconds(86_400);
    let before = UnixMillis::new(end.as_millis() - 1);
    assert_eq!(
        claim(&mut shared, 4, before),
        ClaimAnswer::Delivered(Fingerprint::new(1))
    );
    assert_eq!(claim(&mut shared, 4, end), ClaimAnswer::Granted);
}

/// Found by the model: with the clock set back by a day, a claim of a dead worker kept its event
/// out of reach for a day.
#[test]
fn a_claim_from_a_time_when_the_clock_was_ahead_lives_one_lease_more() {
    let day = |now: UnixMillis| UnixMillis::new(now.as_millis() + 86_400_000);
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    let mut claim = |owner, now| store.claim(&mut shared, &request(1, owner), now).0;
    assert_eq!(claim(1, day(NOW)), ClaimAnswer::Granted);
    assert_eq!(claim(2, NOW), ClaimAnswer::ClaimedByAnother);
    let end = NOW.plus_seconds(30);
    let before = UnixMillis::new(end.as_millis() - 1);
    assert_eq!(claim(3, before), ClaimAnswer::ClaimedByAnother);
    assert_eq!(claim(4, end), ClaimAnswer::Granted);
}

/// Workers read the clock at different moments: a second of difference changes nothing.
#[test]
fn a_lease_is_not_cut_for_a_second_of_difference() {
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    let later = NOW.plus_seconds(1);
    let (answer, _) = store.claim(&mut shared, &request(1, 1), later);
    assert_eq!(answer, ClaimAnswer::Granted);
    let before = shared.clone();
    let (answer, _) = store.claim(&mut shared, &request(1, 2), NOW);
    assert_eq!(answer, ClaimAnswer::ClaimedByAnother);
    assert_eq!(shared.sorted(), before.sorted());
    let (answer, _) = store.claim(
        &mut shared,
        &request(1, 2),
        UnixMillis::new(NOW.as_millis() - 1),
    );
    assert_eq!(answer, ClaimAnswer::ClaimedByAnother);
    assert_ne!(shared.sorted(), before.sorted());
}

#[test]
fn a_claim_lives_to_the_end_of_its_lease() {
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    assert_eq!(
        store.claim(&mut shared, &request(1, 1), NOW).0,
        ClaimAnswer::Granted
    );
    let end = NOW.plus_seconds(30);
    let before = UnixMillis::new(end.as_millis() - 1);
    assert_eq!(
        store.claim(&mut shared, &request(1, 2), before).0,
        ClaimAnswer::ClaimedByAnother
    );
    assert_eq!(
        store.claim(&mut shared, &request(1, 2), end).0,
        ClaimAnswer::Granted
    );
    // The first owner's late answer settles nothing of the second's claim.
    assert!(!store.settle(&mut shared, &delivered(1, 1), end).unwrap().0);
    assert_eq!(
        store.claim(&mut shared, &request(1, 3), end).0,
        ClaimAnswer::ClaimedByAnother
    );
}

#[test]
fn a_delivery_after_the_lease_is_remembered_if_nobody_else_has_claimed() {
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    store.claim(&mut shared, &request(1, 1), NOW);
    let late = NOW.plus_seconds(31);
    assert!(store.settle(&mut shared, &delivered(1, 1), late).unwrap().0);
    assert_eq!(
        store.claim(&mut shared, &request(1, 2), late).0,
        ClaimAnswer::Delivered(Fingerprint::new(1))
    );
}

/// Shared data that stay as they are, whatever is written to them.
struct AsIs<'s>(&'s mut MapShared);

impl SharedData for AsIs<'_> {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        self.0.get(key)
    }

    fn set(&mut self, _: &str, _: &[u8], _: u32) -> Result<Swap, Unavailable> {
        Ok(Swap::Done)
    }
}

#[test]
fn the_youngest_half_is_always_known_and_almost_all_of_the_rest() {
    for capacity in [1_000_u32, 8_000] {
        let (store, mut shared) = (LocalStore::new(capacity), MapShared::default());
        let events = u64::from(capacity) * 3;
        let mut evicted = 0;
        for number in 0..events {
            let now = UnixMillis::new(NOW.as_millis() + number);
            let (answer, change) = store.claim(&mut shared, &request(number, number), now);
            assert_eq!(answer, ClaimAnswer::Granted);
            evicted += u64::from(change.evicted);
            store
                .settle(&mut shared, &delivered(number, number), now)
                .unwrap();
        }
        let now = UnixMillis::new(NOW.as_millis() + events);
        let mut known = |number| {
            let mut as_is = AsIs(&mut shared);
            matches!(
                store.claim(&mut as_is, &request(number, 1), now).0,
                ClaimAnswer::Delivered(_)
            )
        };
        let youngest = events - u64::from(capacity);
        let half = events - u64::from(capacity) / 2;
        assert!((half..events).all(&mut known), "capacity {capacity}");
        let all = (youngest..events).step_by(7).collect::<Vec<_>>();
        let remembered = all.iter().filter(|number| known(**number)).count();
        assert!(
            remembered * 100 >= all.len() * 99,
            "{remembered} of {}",
            all.len()
        );
        assert!(evicted > 0, "older ones had to go");
        // Bounded, however many events there were.
        assert!(
            shared.size() <= capacity as usize * 96,
            "{} bytes",
            shared.size()
        );
    }
}

#[test]
fn a_store_full_of_claims_says_so_and_keeps_them_all() {
    let (store, mut shared) = (LocalStore::new(1000), MapShared::default());
    let mut granted = Vec::new();
    let mut full = 0;
    for number in 0..4000 {
        match store.claim(&mut shared, &request(number, number), NOW).0 {
            ClaimAnswer::Granted => granted.push(number),
            ClaimAnswer::Full => full += 1,
            answer => panic!("{answer:?}"),
        }
    }
    assert!(
        granted.len() >= 1000 && full > 0,
        "{} granted, {full} refused",
        granted.len()
    );
    for number in granted {
        assert_eq!(
            store.claim(&mut shared, &request(number, 9999), NOW).0,
            ClaimAnswer::ClaimedByAnother
        );
    }
}

#[test]
fn a_bucket_evicts_the_oldest_delivered_record_and_never_a_claim() {
    let mut bucket = Bucket::default();
    let end = NOW.plus_seconds(60);
    let slots = 4;
    for number in 0..4 {
        bucket.claim(
            &key(number),
            id(number),
            OwnerToken::new(number),
            end,
            limits(slots),
            NOW,
        );
    }
    for number in [2, 1] {
        let fingerprint = Fingerprint::new(number);
        assert!(bucket.deliver(
            &key(number),
            id(number),
            OwnerToken::new(number),
            fingerprint,
            end,
            slots,
            NOW
        ));
    }
    // 2 was delivered first, so it goes first.
    assert_eq!(
        bucket.claim(&key(9), id(9), OwnerToken::new(9), end, limits(slots), NOW),
        Claimed::Granted
    );
    assert_eq!(bucket.change().evicted, 1);
    let ask = |number| {
        bucket.clone().claim(
            &key(number),
            id(number),
            OwnerToken::new(1),
            end,
            limits(5),
            NOW,
        )
    };
    assert_eq!(ask(2), Claimed::Granted);
    assert_eq!(ask(1), Claimed::Delivered(Fingerprint::new(1)));
    for number in [0, 3, 9] {
        assert_eq!(ask(number), Claimed::ByAnother, "{number}");
    }
}

#[test]
fn any_bytes_are_a_bucket() {
    let mut state = 1_u64;
    for length in 0..200 {
        let bytes = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        let mut bucket = Bucket::new(bytes);
        let end = NOW.plus_seconds(1);
        bucket.claim(&key(1), id(1), OwnerToken::new(1), end, limits(80), NOW);
        bucket.deliver(
            &key(1),
            id(1),
            OwnerToken::new(1),
            Fingerprint::new(1),
            end,
            80,
            NOW,
        );
        bucket.release(&key(1), OwnerToken::new(1));
    }
}

/// Shared data in which another worker always comes first.
struct Contended {
    inner: MapShared,
    conflicts: u32,
}

impl SharedData for Contended {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        self.inner.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return Ok(Swap::Conflict);
        }
        self.inner.set(key, value, version)
    }
}

#[test]
fn a_conflict_is_tried_again_within_bounds() {
    let store = LocalStore::new(1000);
    for (conflicts, expected) in [
        (0, ClaimAnswer::Granted),
        (1023, ClaimAnswer::Granted),
        (1024, ClaimAnswer::Unavailable),
    ] {
        let mut shared = Contended {
            inner: MapShared::default(),
            conflicts,
        };
        assert_eq!(
            store.claim(&mut shared, &request(1, 1), NOW).0,
            expected,
            "{conflicts}"
        );
    }
}

/// Shared data in which another worker claims the same event between our read and our write.
struct Raced {
    inner: MapShared,
    rival: Option<ClaimRequest>,
}

impl SharedData for Raced {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        self.inner.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        if let Some(rival) = self.rival.take() {
            let (answer, _) = LocalStore::new(1000).claim(&mut self.inner, &rival, NOW);
            assert_eq!(answer, ClaimAnswer::Granted);
        }
        self.inner.set(key, value, version)
    }
}

#[test]
fn of_two_workers_that_claim_at_once_one_is_granted() {
    let store = LocalStore::new(1000);
    // In a bucket that nobody has written, in one that was emptied, and in one with other events.
    for prepare in 0..3 {
        let mut inner = MapShared::default();
        if prepare == 1 {
            store.claim(&mut inner, &request(1, 1), NOW);
            let owner = OwnerToken::new(1);
            store
                .settle(
                    &mut inner,
                    &Settlement::Release {
                        key: key(1),
                        id: id(1),
                        owner,
                    },
                    NOW,
                )
                .unwrap();
        }
        if prepare == 2 {
            for number in 2..500 {
                store.claim(&mut inner, &request(number, 1), NOW);
            }
        }
        let mut shared = Raced {
            inner,
            rival: Some(request(1, 7)),
        };
        let (answer, _) = store.claim(&mut shared, &request(1, 8), NOW);
        assert_eq!(answer, ClaimAnswer::ClaimedByAnother, "{prepare}");
    }
}

/// Row by row what an attacker who has captured one signature could do: events of one id without end.
#[test]
fn an_id_pushes_out_no_event_of_another_and_none_of_its_own() {
    for capacity in [1_000, 8_000] {
        let (store, mut shared) = (LocalStore::new(capacity), MapShared::default());
        // A store that holds what it promises to hold.
        for number in 0..u64::from(capacity) {
            let now = UnixMillis::new(NOW.as_millis() + number);
            store.claim(&mut shared, &request(number, number), now);
            let settlement = delivered(number, number);
            store.settle(&mut shared, &settlement, now).unwrap();
        }
        let now = NOW.plus_seconds(3600);
        let of_one_id = |number: u64| ClaimRequest {
            id: id(5),
            ..request(number, number)
        };
        let (mut granted, mut refused) = (Vec::new(), 0);
        for number in 1_000_000..1_000_300 {
            match store.claim(&mut shared, &of_one_id(number), now).0 {
                ClaimAnswer::Granted => granted.push(number),
                ClaimAnswer::TooMany => {
                    refused += 1;
                    continue;
                }
                answer => panic!("{answer:?}"),
            }
            let settlement = Settlement::Deliver {
                key: key(number),
                id: id(5),
                owner: OwnerToken::new(number),
                fingerprint: Fingerprint::new(number),
                window_seconds: 86_400,
            };
            store.settle(&mut shared, &settlement, now).unwrap();
        }
        // One event of the id was there before.
        assert_eq!((granted.len(), refused), (63, 237), "capacity {capacity}");
        let mut known = |request: &ClaimRequest| {
            let (answer, _) = store.claim(&mut AsIs(&mut shared), request, now);
            matches!(answer, ClaimAnswer::Delivered(_))
        };
        for number in granted {
            assert!(known(&of_one_id(number)), "{number}");
        }
        let lost = (0..u64::from(capacity))
            .filter(|number| !known(&request(*number, 1)))
            .count();
        assert_eq!(lost, 0, "capacity {capacity}");
    }
}

#[test]
fn ids_with_several_events_are_kept_as_well() {
    let capacity = 8_000;
    let (store, mut shared) = (LocalStore::new(capacity), MapShared::default());
    // Five events an id, as a task that tells its stages.
    let event = |number: u64| ClaimRequest {
        id: id(number / 5),
        ..request(number, number)
    };
    let events = u64::from(capacity) * 3;
    for number in 0..events {
        let now = UnixMillis::new(NOW.as_millis() + number);
        store.claim(&mut shared, &event(number), now);
        let settlement = Settlement::Deliver {
            key: key(number),
            id: id(number / 5),
            owner: OwnerToken::new(number),
            fingerprint: Fingerprint::new(number),
            window_seconds: 86_400,
        };
        store.settle(&mut shared, &settlement, now).unwrap();
    }
    let now = UnixMillis::new(NOW.as_millis() + events);
    let mut known = |number| {
        let (answer, _) = store.claim(&mut AsIs(&mut shared), &event(number), now);
        matches!(answer, ClaimAnswer::Delivered(_))
    };
    let (youngest, half) = (
        events - u64::from(capacity),
        events - u64::from(capacity) / 2,
    );
    assert!((half..events).step_by(11).all(&mut known));
    let all: Vec<u64> = (youngest..events).step_by(17).collect();
    let remembered = all.iter().filter(|number| known(**number)).count();
    assert!(
        remembered * 100 >= all.len() * 99,
        "{remembered} of {}",
        all.len()
    );
}
