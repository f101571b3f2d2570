//! What the figures have to be, and what they are.

use std::fmt::Write as _;

use crate::plan::SMALL;
use crate::report::{Results, Row, Spread, bytes};
use crate::setups::{AGAIN, BEFORE, FLOOR, GUARD, LUA, NATIVE, NATIVE_REDIS, PLAIN, WEBDIS};

/// How a figure is compared with its limit.
#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// Two figures, or one, and what is asked of them.
struct Target {
    what: String,
    limit: Limit,
    /// The unit of the limit: none for a ratio.
    unit: &'static str,
    seen: Option<Seen>,
}

struct Seen {
    value: f64,
    /// What it is made of.
    from: String,
}

/// Figures of the targets, as Markdown.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::from("| target | asked | seen | from | met |\n|---|--:|--:|---|---|\n");
    for target in targets(results) {
        let asked = match target.limit {
            Limit::AtMost(limit) => format!("<= {limit}{}", target.unit),
            Limit::AtLeast(limit) => format!(">= {limit}{}", target.unit),
        };
        let (seen, from, is_met) = match &target.seen {
            Some(seen) if seen.value.is_nan() => {
                (String::new(), seen.from.as_str(), "lost in the noise")
            }
            Some(seen) => (
                format!("{:.2}{}", seen.value, target.unit),
                seen.from.as_str(),
                if target.limit.is_met(seen.value) {
                    "yes"
                } else {
                    "no"
                },
            ),
            None => (String::new(), "not measured in this run", ""),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {asked} | {seen} | {from} | {is_met} |",
            target.what
        );
    }
    text + &noise(results)
}

impl Limit {
    fn is_met(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }
}

fn targets(results: &Results) -> Vec<Target> {
    let row = |setup, traffic, size| results.row(setup, traffic, size);
    let new = |setup| row(setup, "new", SMALL);
    let mut list = Vec::new();
    let mut ask = |what: String, limit, unit, seen| {
        list.push(Target {
            what,
            limit,
            unit,
            seen,
        });
    };

    let added = |setup| added(results, new(setup)?);
    for (base, name, limit) in [
        (FLOOR, "the wasm filter that does nothing (floor)", 1.1),
        (LUA, "Envoy's Lua filter", 0.45),
    ] {
        ask(
            format!("native, new event of 130 B: CPU added, to that of {name}"),
            Limit::AtMost(limit),
            "",
            ratio("µs", added(NATIVE), added(base)),
        );
    }
    for hashing in &results.hashing {
        let size = hashing.size;
        let seen = row(NATIVE, "new, body signed", size).and_then(|row| self::added(results, row));
        let base = Spread::of(hashing.micros.iter().copied());
        ask(
            format!(
                "native, {}, body signed: CPU added, to SHA-256 and a copy",
                bytes(size)
            ),
            Limit::AtMost(1.35),
            "",
            ratio("µs", seen, Some(base.middle)),
        );
    }
    ask(
        "native: resident memory above plain Envoy, 100,000 events of capacity unused".to_owned(),
        Limit::AtMost(10.0),
        " MB",
        memory(results),
    );
    let at_two = |setup| {
        let row = results.find(2, setup, "new", SMALL)?;
        Some(row.per_second().middle)
    };
    ask(
        "native, two workers: requests/s, to those of the floor".to_owned(),
        Limit::AtLeast(0.9),
        "",
        ratio("/s", at_two(NATIVE), at_two(FLOOR)),
    );
    ask(
        "module, new event of 130 B: CPU added, to that of the module of 0.1".to_owned(),
        Limit::AtMost(0.85),
        "",
        ratio("µs", added(GUARD), added(BEFORE)),
    );
    for kind in ["duplicate", "forged", "unsigned"] {
        let total = |setup| Some(row(setup, kind, SMALL)?.total().middle);
        ask(
            format!("module, {kind}: CPU in all, to that of the module of 0.1"),
            Limit::AtMost(0.9),
            "",
            ratio("µs", total(GUARD), total(BEFORE)),
        );
    }
    ask(
        "native, Redis: CPU of all processes, to that of the way through Webdis".to_owned(),
        Limit::AtMost(0.5),
        "",
        redis_cpu(results),
    );
    ask(
        format!(
            "native, Redis: p50 added at {} requests/s, to that through Webdis",
            results.rate
        ),
        Limit::AtMost(0.4),
        "",
        redis_p50(results),
    );
    list
}

/// The median of what a row adds to plain Envoy.
fn added(results: &Results, row: &Row) -> Option<f64> {
    let added = row.added_to(results.base_of(row)?).middle;
    Some(added).filter(|added| !added.is_nan())
}

fn ratio(unit: &str, seen: Option<f64>, base: Option<f64>) -> Option<Seen> {
    let (seen, base) = (seen?, base?);
    // On a machine that is busy with other things a base of a few microseconds can come out below zero.
    let value = if base > 0.0 { seen / base } else { f64::NAN };
    let digits = if seen.abs().max(base) < 1000.0 { 1 } else { 0 };
    Some(Seen {
        value,
        from: format!("{seen:.digits$} to {base:.digits$} {unit}"),
    })
}

fn memory(results: &Results) -> Option<Seen> {
    let of = |setup| {
        let mut rows = results.memory.iter();
        rows.find(|row| row.setup == setup && row.workers == 1)
    };
    let (native, plain) = (of(NATIVE)?.proxy(), of(PLAIN)?.proxy());
    Some(Seen {
        value: native - plain,
        from: format!("{native:.1} less {plain:.1} MB"),
    })
}

/// By how much a row differs from itself.
fn noise(results: &Results) -> String {
    let pair = |kind: &str| {
        let again = results.row(AGAIN, kind, SMALL)?;
        let first = results.row(GUARD, kind, SMALL)?;
        let differs = again.added_to(first);
        Some(format!(
            "{kind} {:+.1} µs ({:.1} to {:.1})",
            differs.middle, differs.low, differs.high
        ))
    };
    let kinds = ["new", "duplicate", "forged", "unsigned"];
    let pairs: Vec<String> = kinds.into_iter().filter_map(pair).collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!(
        "\nNoise: the same module in a second Envoy differs from the first, round by round, by {}.\n",
        pairs.join(", ")
    )
}

/// The two ways to Redis beside the store in memory.
pub(crate) fn redis(results: &Results) -> String {
    let mut text = format!(
        "| new event of 130 B | Envoy, µs | Webdis, µs | Redis, µs | all, µs | requests/s | p50 at {} requests/s, ms | added to plain, ms |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
        results.rate
    );
    let plain = results.row(PLAIN, "new", SMALL);
    let rows = [PLAIN, GUARD, NATIVE, WEBDIS, NATIVE_REDIS];
    for row in rows
        .iter()
        .filter_map(|name| results.row(name, "new", SMALL))
    {
        let role = |role| {
            row.role(role)
                .map_or(String::new(), |spread| format!("{:.1}", spread.middle))
        };
        let millis = |micros: f64| {
            if micros.is_nan() {
                String::new()
            } else {
                format!("{:.3}", micros / 1e3)
            }
        };
        let p50 = Spread::of(row.latency.iter().map(|paced| paced.p50)).middle;
        let later = plain
            .filter(|plain| !std::ptr::eq(*plain, row))
            .map_or(f64::NAN, |plain| row.added_p50(plain).middle);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} | {:.0} | {} | {} |",
            row.setup,
            role("Envoy"),
            role("Webdis"),
            role("Redis"),
            row.total().middle,
            row.per_second().middle,
            millis(p50),
            millis(later),
        );
    }
    let share = |value: Option<Seen>| {
        let value = value.filter(|seen| !seen.value.is_nan());
        value.map_or("not measured".to_owned(), |seen| {
            format!("{:.2}", seen.value)
        })
    };
    let _ = writeln!(
        text,
        "\nBy its own connection the native build takes {} of the CPU of all processes and {} of the added p50 of the way \
         through Webdis.",
        share(redis_cpu(results)),
        share(redis_p50(results)),
    );
    text
}

/// CPU of all processes: the native build's connection, to the way through Webdis.
fn redis_cpu(results: &Results) -> Option<Seen> {
    let total = |setup| Some(results.row(setup, "new", SMALL)?.total().middle);
    ratio("µs", total(NATIVE_REDIS), total(WEBDIS))
}

/// How much later half of the answers are than plain Envoy's: likewise.
fn redis_p50(results: &Results) -> Option<Seen> {
    let plain = results.row(PLAIN, "new", SMALL)?;
    let later = |setup| {
        let added = results.row(setup, "new", SMALL)?.added_p50(plain).middle;
        Some(added).filter(|added| !added.is_nan())
    };
    ratio("µs", later(NATIVE_REDIS), later(WEBDIS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Memory, Sample};

    fn row(setup: &str, micros: &[f64]) -> Row {
        Row {
            setup: setup.to_owned(),
            workers: 1,
            traffic: "new".to_owned(),
            size: SMALL,
            roles: vec!["Envoy"],
            samples: (0..)
                .zip(micros)
                .map(|(round, micros)| Sample {
                    round,
                    per_second: 1000.0,
                    processes: vec![*micros],
                    upstream: 1.0,
                })
                .collect(),
            latency: Vec::new(),
            resident_kib: 0,
        }
    }

    fn results(rows: Vec<Row>) -> Results {
        Results {
            rows,
            memory: vec![],
            hashing: vec![],
            rate: 2000,
            notes: vec![],
        }
    }

    fn line(results: &Results, start: &str) -> String {
        let table = table(results);
        let found = table.lines().find(|line| line.starts_with(start));
        found.unwrap_or_default().to_owned()
    }

    const TO_FLOOR: &str = "| native, new event of 130 B: CPU added, to that of the wasm filter";

    #[test]
    fn a_target_is_met_by_what_was_added_and_no_other() {
        // The machine is slower in the second round: 10 and 9 µs are added in each.
        let rows = |native: f64| {
            vec![
                row(PLAIN, &[30.0, 60.0]),
                row(FLOOR, &[40.0, 70.0]),
                row(NATIVE, &[30.0 + native, 60.0 + native]),
            ]
        };
        let met = line(&results(rows(9.0)), TO_FLOOR);
        assert!(
            met.ends_with("| <= 1.1 | 0.90 | 9.0 to 10.0 µs | yes |"),
            "{met}"
        );
        let missed = line(&results(rows(12.0)), TO_FLOOR);
        assert!(
            missed.ends_with("| 1.20 | 12.0 to 10.0 µs | no |"),
            "{missed}"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let missing = line(&results(vec![row(PLAIN, &[30.0])]), TO_FLOOR);
        assert!(
            missing.ends_with("| not measured in this run |  |"),
            "{missing}"
        );
        let swallowed = vec![
            row(PLAIN, &[30.0]),
            row(FLOOR, &[29.0]),
            row(NATIVE, &[31.0]),
        ];
        let swallowed = line(&results(swallowed), TO_FLOOR);
        assert!(swallowed.ends_with("| lost in the noise |"), "{swallowed}");
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        let mut seldom = row(NATIVE, &[31.0, 61.0]);
        if let Some(last) = seldom.samples.last_mut() {
            last.round = 3;
        }
        let plain = row(PLAIN, &[30.0, 90.0, 90.0, 60.0]);
        let added = seldom.added_to(&plain);
        assert_eq!((added.low, added.high), (1.0, 1.0));
    }

    #[test]
    fn memory_is_that_of_envoy_alone() {
        let memory = |setup: &str, kib| Memory {
            setup: setup.to_owned(),
            workers: 1,
            processes: vec![("Envoy", kib), ("Redis", 9_000_000)],
        };
        let mut results = results(vec![]);
        results.memory = vec![memory(PLAIN, 60_000), memory(NATIVE, 63_000)];
        let met = line(&results, "| native: resident memory");
        assert!(
            met.ends_with("| 3.07 MB | 64.5 less 61.4 MB | yes |"),
            "{met}"
        );
    }
}
