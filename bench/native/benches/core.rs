//! The core by itself, on the host: `cargo bench -p callback-guard-bench-native --bench core`.
//!
//! Two parts of it, MACs and the records of a bucket, and whole requests through a worker.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "benches"
)]

mod callback;

use std::hint::black_box;
use std::sync::Arc;

use callback::{KEY, MEMORY, body, policy};
use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::scheme::keys::{Algorithm, Key};
use callback_guard_core::store::bucket::{Bucket, Fingerprint, Limits, OwnerToken};
use callback_guard_core::store::local::LEAST_CAPACITY;
use callback_guard_core::store::redis::Answer;
use callback_guard_core::testkit::{Host, NOW, Request, Seen};
use callback_guard_core::time::UnixMillis;
use callback_guard_core::worker::Outcome;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ID: &str = "ee9c2715375b7837f8bb51d641ff5863";

fn mac(criterion: &mut Criterion) {
    let key = Key::secret(Algorithm::HmacSha256, KEY.as_bytes()).unwrap();
    let mut group = criterion.benchmark_group("mac");
    for size in [43_usize, 4 << 10, 1 << 20] {
        let body = vec![b'x'; size];
        group.throughput(Throughput::Bytes(u64::try_from(size).unwrap()));
        group.bench_with_input(BenchmarkId::from_parameter(size), &body, |bencher, body| {
            bencher.iter(|| key.mac(&[black_box(body)]));
        });
    }
    group.finish();
}

/// As [`MEMORY`], and a Redis.
const REDIS: &str = r#"{"kind":"redis","capacity":1000,"protocol":"webdis","cluster":"redis_http","authority":"redis"}"#;

const LIMITS: Limits = Limits {
    slots: 80,
    per_id: 256,
};

fn bucket_of(records: u8) -> Bucket {
    let mut bucket = Bucket::default();
    for number in 0..records {
        let (key, owner) = (
            EventKey::from_bytes([number; 32]),
            OwnerToken::new(u64::from(number)),
        );
        bucket.claim(
            &key,
            IdKey::default(),
            owner,
            UnixMillis::new(2_000),
            LIMITS,
            UnixMillis::new(1_000),
        );
        let end = UnixMillis::new(86_400_000);
        bucket.deliver(
            &key,
            IdKey::default(),
            owner,
            Fingerprint::new(7),
            end,
            80,
            UnixMillis::new(1_000),
        );
    }
    bucket
}

fn bucket(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bucket: claim and deliver");
    for records in [1_u8, 16, 64, 80] {
        let full = bucket_of(records);
        group.bench_with_input(
            BenchmarkId::from_parameter(records),
            &full,
            |bencher, full| {
                bencher.iter_batched(
                    || full.clone(),
                    |mut bucket| {
                        let (key, owner) =
                            (EventKey::from_bytes([255; 32]), OwnerToken::new(1 << 40));
                        let now = UnixMillis::new(1_500);
                        let id = IdKey::default();
                        bucket.claim(&key, id, owner, UnixMillis::new(31_500), LIMITS, now);
                        let end = UnixMillis::new(86_400_000);
                        bucket.deliver(&key, id, owner, Fingerprint::new(9), end, 80, now);
                        bucket
                    },
                    BatchSize::SmallInput,
                );
            },
        );
    }
    group.finish();
}

/// A genuine callback, from its head to its end: it is forwarded and accepted. A shared store grants the
/// claim and records the delivery at once.
fn play(host: &mut Host, request: &Request) {
    let (stream, seen) = host.head(request, NOW);
    assert_eq!(seen, Seen::Held);
    if host.body(stream, &request.body, NOW) == Seen::Held {
        answer(host, br#"{"EVAL":null}"#);
    }
    assert!(matches!(host.seen(stream), Seen::Forwarded(_)));
    if host.settle(stream, Outcome::Accepted, NOW).is_held {
        answer(host, br#"{"EVAL":1}"#);
    }
    host.end(stream, Outcome::Accepted, NOW);
    assert!(host.calls.is_empty());
}

fn answer(host: &mut Host, body: &[u8]) {
    let &[(call, _)] = host.calls.as_slice() else {
        unreachable!("one call at a time: {:?}", host.calls)
    };
    host.call_ended(call, Ok(Answer::Http { status: 200, body }), NOW);
}

/// The whole life of a new event, from its head to its end, in a [`Worker`](callback_guard_core::worker::Worker)
/// whose local store is full. What the driver keeps of it counts as well.
fn request(criterion: &mut Criterion) {
    for (store, policy) in [
        ("memory", policy("suno", MEMORY)),
        ("redis", policy("suno", REDIS)),
    ] {
        let mut group = criterion.benchmark_group(format!("a new event: {store}"));
        let mut filler = Host::new(Arc::clone(&policy));
        for number in 0..4 * LEAST_CAPACITY {
            let body = body(&number.to_string(), 0);
            play(&mut filler, &Request::genuine(&policy, &body, NOW));
        }
        let mut full = Host::new(Arc::clone(&policy));
        full.shared = filler.shared;
        for tracks in [0_usize, 25, 450, 7000] {
            let request = Request::genuine(&policy, &body(ID, tracks), NOW);
            let size = request.body.len();
            group.throughput(Throughput::Bytes(u64::try_from(size).unwrap()));
            group.bench_with_input(
                BenchmarkId::from_parameter(size),
                &request,
                |bencher, request| {
                    bencher.iter_batched(
                        || full.clone(),
                        |mut host| {
                            play(&mut host, black_box(request));
                            host
                        },
                        BatchSize::NumIterations(64),
                    );
                },
            );
        }
        group.finish();
    }
}

criterion_group!(benches, mac, bucket, request);
criterion_main!(benches);
