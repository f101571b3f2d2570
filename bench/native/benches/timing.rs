//! Whether the time of a check tells where it failed: `cargo bench -p
//! callback-guard-bench-native --bench timing`.
//!
//! After dudect (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017): two classes
//! of input, which of them comes next drawn at random, and Welch's t-test on the times of both; once
//! on all of them and once on all below each of some percentiles, since what disturbs a measurement
//! only ever makes it longer. The largest |t| counts. Above 10 the times differ for certain; below
//! 4.5 nothing was found, which is no proof that there is nothing.
//!
//! The first rows show whether the test itself can be trusted: one class compared with itself must
//! stay small, and a comparison that ends at the first difference must be found out.
//!
//! The rows of `keys::verify`, of the token and of decoding call that part itself, since in a whole request
//! a difference of a nanosecond would drown. The row of a whole request drives a worker.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "benches"
)]

mod callback;

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use callback_guard_core::scheme::Encoding;
use callback_guard_core::scheme::keys::{
    Algorithm, Key, SignatureBytes, Token, no_verifier, verify,
};
use callback_guard_core::testkit::{Host, NOW, Request, Seen};
use callback_guard_core::worker::Outcome;

use callback::{KEY, MEMORY, body, policy};

const MEASUREMENTS: usize = 600_000;
/// Inputs are made ahead, so that making them is not measured, and not all at once.
const CHUNK: usize = 1_000;
/// Runs in one measurement: the clock itself takes as long as the shortest of them.
const RUNS: u32 = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    A,
    B,
}

/// Count, mean and spread of some values, one after another (Welford).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    /// The square of the standard error of the mean.
    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

fn welch(a: &Moments, b: &Moments) -> f64 {
    let error = a.error() + b.error();
    if a.count < 1000.0 || b.count < 1000.0 || error <= 0.0 {
        return 0.0;
    }
    (a.mean - b.mean) / error.sqrt()
}

/// Both classes, of the measurements up to `longest`.
fn moments(measured: &[(Class, u32)], longest: u32) -> (Moments, Moments) {
    let (mut a, mut b) = (Moments::default(), Moments::default());
    for (class, nanos) in measured.iter().filter(|(_, nanos)| *nanos <= longest) {
        match class {
            Class::A => a.add(f64::from(*nanos)),
            Class::B => b.add(f64::from(*nanos)),
        }
    }
    (a, b)
}

fn report(name: &str, measured: &[(Class, u32)]) {
    let mut sorted: Vec<u32> = measured.iter().map(|(_, nanos)| *nanos).collect();
    sorted.sort_unstable();
    let percentile = |permille: usize| {
        let place = (sorted.len() - 1) * permille / 1000;
        sorted.get(place).copied().unwrap_or(u32::MAX)
    };
    let largest = [100, 250, 500, 750, 900, 950, 990, 999, 1000]
        .into_iter()
        .map(|permille| {
            let (a, b) = moments(measured, percentile(permille));
            welch(&a, &b).abs()
        })
        .fold(0.0, f64::max);
    let (a, b) = moments(measured, percentile(900));
    let run = |moments: &Moments| moments.mean / f64::from(RUNS);
    println!(
        "| {name} | {:.1} | {:.1} | {:+.2} | {largest:.1} |",
        run(&a),
        run(&b),
        run(&b) - run(&a),
    );
}

fn compare<I>(name: &str, mut prepare: impl FnMut(Class) -> I, mut run: impl FnMut(&I)) {
    let mut measured = Vec::with_capacity(MEASUREMENTS);
    for chunk in 0..=MEASUREMENTS / CHUNK {
        let inputs: Vec<(Class, I)> = (0..CHUNK)
            .map(|_| {
                let class = if fastrand::bool() { Class::A } else { Class::B };
                (class, prepare(class))
            })
            .collect();
        for (class, input) in &inputs {
            let start = Instant::now();
            for _ in 0..RUNS {
                run(black_box(input));
            }
            let nanos = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
            // The first is for caches and branch predictors.
            if chunk > 0 {
                measured.push((*class, nanos));
            }
        }
    }
    report(name, &measured);
}

/// Changes one bit of the first or of the last byte.
fn spoil<const N: usize>(mut bytes: [u8; N], class: Class) -> [u8; N] {
    let bit = 1 << fastrand::u32(0..8);
    let byte = match class {
        Class::A => bytes.first_mut(),
        Class::B => bytes.last_mut(),
    };
    *byte.unwrap() ^= bit;
    bytes
}

fn random<const N: usize>() -> [u8; N] {
    std::array::from_fn(|_| fastrand::u8(..))
}

fn ends_at_the_first_difference(left: &[u8], right: &[u8]) -> bool {
    for (left, right) in left.iter().zip(right) {
        if black_box(*left) != *right {
            return false;
        }
    }
    true
}

fn controls() {
    let expected: [u8; 32] = random();
    compare(
        "control: a class beside itself",
        |_| spoil(expected, Class::A),
        |given| {
            black_box(ends_at_the_first_difference(given, &expected));
        },
    );
    compare(
        "control: a comparison that ends early; first byte wrong, last byte wrong",
        |class| spoil(expected, class),
        |given| {
            black_box(ends_at_the_first_difference(given, &expected));
        },
    );
}

/// A message of the size of Suno's, and its MAC.
fn signed(key: &Key) -> ([u8; 43], [u8; 32]) {
    let message = random();
    (message, mac(key, &[&message]))
}

fn mac(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    key.mac(parts).unwrap().as_slice().try_into().unwrap()
}

fn sha256_key(bytes: &[u8]) -> Key {
    Key::secret(Algorithm::HmacSha256, bytes).unwrap()
}

fn signature(bytes: [u8; 32]) -> SignatureBytes {
    SignatureBytes::new(Algorithm::HmacSha256, &bytes).unwrap()
}

fn macs() {
    let secrets = [KEY.as_bytes(), b"another key"].map(sha256_key);
    let [first, second] = &secrets;
    let one = std::slice::from_ref(first);
    let check = |keys: &[Key], (message, given): &([u8; 43], SignatureBytes)| {
        let given = std::slice::from_ref(given);
        let _ = black_box(verify(keys, &[message], given, no_verifier));
    };
    compare(
        "`keys::verify`: first byte wrong, last byte wrong",
        |class| {
            let (message, mac) = signed(first);
            (message, signature(spoil(mac, class)))
        },
        |input| check(one, input),
    );
    compare(
        "`keys::verify`: wrong, right",
        |class| {
            let (message, mac) = signed(first);
            match class {
                Class::A => (message, signature(spoil(mac, Class::B))),
                Class::B => (message, signature(mac)),
            }
        },
        |input| check(one, input),
    );
    compare(
        "`keys::verify`: right under the first of two secrets, under the second",
        |class| {
            let (message, mac) = signed(match class {
                Class::A => first,
                Class::B => second,
            });
            (message, signature(mac))
        },
        |input| check(&secrets, input),
    );
    let token: [u8; 32] = random();
    let holder = Token::new(&token).unwrap();
    compare(
        "a shared token: first byte wrong, last byte wrong",
        |class| spoil(token, class),
        |given| {
            black_box(holder.matches(given));
        },
    );
}

/// A refused request, from its head to its end. Each runs in a fresh worker, so that no time depends on
/// the request before.
fn whole() {
    let policy = policy("suno", MEMORY);
    let idle = Host::new(Arc::clone(&policy));
    compare(
        "a whole request: first byte of the MAC wrong, last byte wrong",
        |class| {
            let body = body(&hex::encode(random::<16>()), 0);
            let genuine = Request::genuine(&policy, &body, NOW);
            let (_, mac) = genuine
                .headers
                .iter()
                .find(|(name, _)| name == b"x-webhook-signature")
                .unwrap();
            let mac = Encoding::Base64
                .decode(mac, Algorithm::HmacSha256)
                .expect("a signature");
            let mac = spoil::<32>(mac.as_slice().try_into().unwrap(), class);
            let forged = Encoding::Base64.encode(&signature(mac));
            let request = genuine.with("x-webhook-signature", &forged);
            (request, RefCell::new(idle.clone()))
        },
        |(request, host)| {
            let mut host = host.borrow_mut();
            let (stream, _) = host.head(request, NOW);
            let seen = host.body(stream, &request.body, NOW);
            assert!(matches!(black_box(seen), Seen::Answered(_)));
            host.end(stream, Outcome::Unknown, NOW);
        },
    );
}

fn decoding() {
    let written = |encoding: Encoding| {
        move |class| {
            let mut text = encoding.encode(&signature(random())).into_bytes();
            let letters = text.iter().take_while(|byte| **byte != b'=').count();
            let place = match class {
                Class::A => 0,
                Class::B => letters - 1,
            };
            *text.get_mut(place).unwrap() = b'!';
            text
        }
    };
    for (name, encoding) in [("base64", Encoding::Base64), ("hex", Encoding::Hex)] {
        compare(
            &format!("decoding {name}: first character bad, last character bad"),
            written(encoding),
            |text| {
                black_box(encoding.decode(text, Algorithm::HmacSha256));
            },
        );
    }
}

fn main() {
    println!("| A, B | A, ns | B, ns | B − A, ns | largest \\|t\\| |");
    println!("|---|---:|---:|---:|---:|");
    controls();
    macs();
    whole();
    decoding();
}
