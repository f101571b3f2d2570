//! What the guard does with a body, part by part: `run.mjs` beside this file calls it and counts
//! the time. Built with the guard's own profile, so that each part is the code that Envoy runs.
#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;
use std::hint::black_box;

use callback_guard_core::json::{self, Pointer, Scratch, Selector};
use callback_guard_core::scheme::keys::{self, Algorithm, Key, SignatureBytes, no_verifier};
use callback_guard_core::store::bucket::Fingerprint;
use sha2::{Digest, Sha256};

struct Bench {
    body: Vec<u8>,
    scratch: Scratch,
    secret: Option<Key>,
    selector: Selector,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench {
        body: Vec::new(),
        scratch: Scratch::default(),
        secret: Key::secret(Algorithm::HmacSha256, b"benchmark-webhook-hmac-key").ok(),
        selector: Selector::new(&pointers(), false),
    });
}

/// What the preset of Suno looks for.
fn pointers() -> Vec<Pointer> {
    let texts = [
        "/data/task_id",
        "/data/taskId",
        "/taskId",
        "/code",
        "/data/callbackType",
    ];
    texts
        .iter()
        .filter_map(|text| Pointer::parse(text).ok())
        .collect()
}

/// Makes room for a body of `size` bytes, and says where to write it.
#[unsafe(no_mangle)]
pub extern "C" fn body(size: usize) -> *mut u8 {
    BENCH.with_borrow_mut(|bench| {
        bench.body = vec![0; size];
        bench.body.as_mut_ptr()
    })
}

/// SHA-256 of the body, `times` times.
#[unsafe(no_mangle)]
pub extern "C" fn sha256(times: u32) -> u32 {
    run(times, |bench| Sha256::digest(&bench.body) != [0; 32])
}

/// The scan of the body; the result counts the scans that accepted it.
#[unsafe(no_mangle)]
pub extern "C" fn scan(times: u32) -> u32 {
    run(times, |bench| {
        json::scan(&bench.body, &bench.selector, &mut bench.scratch).is_ok()
    })
}

/// The MAC of the body, compared with a signature.
#[unsafe(no_mangle)]
pub extern "C" fn mac(times: u32) -> u32 {
    run(times, |bench| {
        let given = SignatureBytes::new(Algorithm::HmacSha256, &[0; 32]);
        let keys = bench.secret.as_slice();
        keys::verify(keys, &[&bench.body], given.as_slice(), no_verifier).is_err()
    })
}

/// The fingerprint of the body.
#[unsafe(no_mangle)]
pub extern "C" fn fingerprint(times: u32) -> u32 {
    run(times, |bench| {
        Fingerprint::of(&bench.body, [7; 16]) != Fingerprint::new(0)
    })
}

fn run(times: u32, mut part: impl FnMut(&mut Bench) -> bool) -> u32 {
    BENCH.with_borrow_mut(|bench| {
        let mut count = 0;
        for _ in 0..times {
            count += u32::from(black_box(part(black_box(bench))));
        }
        count
    })
}
