//! Throughput of the JSON scanner on what senders send and on what attackers might.
//!
//! `serde_json` skips the same body without looking for duplicates; SHA-256 reads the same bytes.

use std::hint::black_box;

use callback_guard_scan::json::{Pointer, Scratch, Selector, scan};
use criterion::{Criterion, Throughput};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

const MEBIBYTE: usize = 1 << 20;

const CALLBACK: &str = concat!(
    r#"{"code":200,"msg":"success","data":{"task_id":"ee9c2715375b7837f8bb51d641ff5863","#,
    r#""callbackType":"complete","wav_url":"https://example.com/c.wav"}}"#
);

fn bodies() -> Vec<(&'static str, String)> {
    let text = |line: &str| format!(r#"{{"code":200,"data":{{"text":"{}"}}}}"#, filled(line));
    let note = r#"{"pitch":73,"start":"0.036","end":0.18,"velocity":1}"#;
    let notes = filled(&format!("{note},"));
    vec![
        ("callback", CALLBACK.to_owned()),
        (
            "base64",
            text("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAx"),
        ),
        (
            "lyrics, English",
            text(r"Neon rivers under midnight rain\nEvery window keeps a name\n"),
        ),
        (
            "lyrics, Chinese",
            text(r"夜色像河流穿过城市的灯火\n我听见远方的歌声在风里漂泊\n"),
        ),
        (
            "lyrics, German",
            text(r"Über den Dächern der schlafenden Stadt\nhört man die Züge\n"),
        ),
        (
            "lyrics, Russian",
            text(r"Ночь над городом тихо плывёт\nи никто никогда не уснёт\n"),
        ),
        (
            "JSON in a string",
            text(r#"{\"title\":\"Midnight\",\"duration\":198}"#),
        ),
        (
            "notes",
            format!(r#"{{"data":{{"notes":[{notes}{note}]}}}}"#),
        ),
        ("a million keys", many_keys("")),
        (
            "many long keys",
            many_keys("the same beginning for each of the keys "),
        ),
    ]
}

fn filled(unit: &str) -> String {
    unit.repeat(MEBIBYTE / unit.len())
}

/// One object whose keys all differ, in no order.
fn many_keys(beginning: &str) -> String {
    let member = beginning.len() + 13;
    let members: Vec<_> = (0..16 * MEBIBYTE / member)
        .map(|at| {
            format!(
                "\"{beginning}{:08x}\":0",
                at.wrapping_mul(0x9e37_79b1) & 0xffff_ffff
            )
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn main() {
    let pointers: Vec<_> = [
        "/data/task_id",
        "/data/taskId",
        "/taskId",
        "/code",
        "/msg",
        "/data",
    ]
    .iter()
    .filter_map(|text| Pointer::parse(text).ok())
    .collect();
    let selector = Selector::new(&pointers, true).refusing_other_case();
    let mut scratch = Scratch::default();
    let mut criterion = Criterion::default().configure_from_args();
    for (name, body) in bodies() {
        let body = body.as_bytes();
        assert!(scan(body, &selector, &mut scratch).is_ok(), "{name}");
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.throughput(Throughput::Bytes(
            u64::try_from(body.len()).unwrap_or_default(),
        ));
        group.bench_function("scan", |bencher| {
            bencher.iter(|| scan(black_box(body), &selector, &mut scratch).is_ok());
        });
        group.bench_function("serde_json", |bencher| {
            bencher.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(body)).is_ok());
        });
        group.bench_function("SHA-256", |bencher| {
            bencher.iter(|| Sha256::digest(black_box(body)));
        });
        group.finish();
    }
    criterion.final_summary();
}
