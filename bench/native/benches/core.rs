//! The core by itself, on the host: `cargo bench -p callback-guard-bench-native --bench core`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "benches"
)]

mod callback;

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback::{INPUTS, KEY, NOW, TIMESTAMP, head, policy};
use callback_guard_core::event::{EventKey, IdKey};
use callback_guard_core::guard::{Guard, Step};
use callback_guard_core::json::Scratch;
use callback_guard_core::request::RequestHead;
use callback_guard_core::scheme::keys::{Algorithm, Key};
use callback_guard_core::store::ClaimAnswer;
use callback_guard_core::store::bucket::{Bucket, Fingerprint, Limits, OwnerToken};
use callback_guard_core::time::UnixMillis;
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

/// Head, body and claim of one event: all that the guard computes before a request is forwarded.
fn guard(criterion: &mut Criterion) {
    let policy = policy();
    let key = Key::secret(Algorithm::HmacSha256, KEY.as_bytes()).unwrap();
    let mac = key.mac(&[ID.as_bytes(), b".", TIMESTAMP.as_bytes()]);
    let signature = STANDARD.encode(mac.unwrap().as_slice());
    let pairs = head(&signature);
    let track = r#"{"id":"8551662c","audio_url":"https://cdn.example.com/a.mp3","prompt":"[Verse] Night city lights\nwe run","title":"Iron Man","duration":198.44}"#;
    let mut group = criterion.benchmark_group("guard: a new event");
    for tracks in [0_usize, 25, 450, 7000] {
        let list = vec![track; tracks].join(",");
        let body = format!(
            r#"{{"code":200,"msg":"ok","data":{{"callbackType":"complete","task_id":"{ID}","data":[{list}]}}}}"#
        );
        group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap()));
        let mut scratch = Scratch::default();
        group.bench_with_input(
            BenchmarkId::from_parameter(body.len()),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    let head = RequestHead::new(black_box(&pairs));
                    let (mut guard, _) = Guard::open(&policy, &head, false, NOW).unwrap();
                    let body = black_box(body.as_bytes());
                    let step = guard.body_ended(body, &INPUTS, &mut scratch);
                    assert!(matches!(step, Step::Claim(_)));
                    guard.answered(ClaimAnswer::Granted, NOW)
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, mac, bucket, guard);
criterion_main!(benches);
