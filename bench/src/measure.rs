//! Runs the rows, round by round.

use std::hint::black_box;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::load;
use crate::pace::{self, Pace};
use crate::plan::{self, Choice, SIGNED, first_of, label, small};
use crate::process::{Process, Usage, cpu_of_this_thread};
use crate::report::{Hashing, Memory, Row, Sample, bytes};
use crate::setups::{Setup, Workshop};
use crate::traffic::{Kind, Traffic};

/// Connections of the load generator at saturation.
const CONNECTIONS: usize = 16;
/// Connections at a fixed rate: enough that a request seldom waits for one.
const PACED_CONNECTIONS: usize = 64;

/// What goes with every run.
pub(crate) struct Bench<'b> {
    pub(crate) workshop: &'b Workshop,
    pub(crate) upstream: &'b Process,
    /// Length of one run.
    pub(crate) seconds: u64,
    /// What was not as it should be.
    pub(crate) notes: Vec<String>,
}

struct Job<'s> {
    setup: &'s Setup,
    traffic: Traffic,
    /// It has one turn in as many rounds.
    every: usize,
    row: Row,
}

/// Resident memory of each row, once it grows no more.
pub(crate) fn memory(setups: &[Setup]) -> Vec<Memory> {
    let read = || -> Vec<Vec<Usage>> { setups.iter().map(Setup::usage).collect() };
    let total = |all: &[Vec<Usage>]| -> u64 {
        let each = all.iter().flatten();
        each.map(|usage| usage.resident_kib).sum()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut all = read();
    loop {
        sleep(Duration::from_millis(500));
        let (before, now) = (total(&all), read());
        all = now;
        if total(&all) == before || Instant::now() > deadline {
            break;
        }
    }
    setups
        .iter()
        .zip(all)
        .map(|(setup, usage)| Memory {
            setup: setup.name.clone(),
            workers: setup.workers,
            processes: setup
                .processes
                .iter()
                .map(|process| process.role)
                .zip(usage.iter().map(|usage| usage.resident_kib))
                .collect(),
        })
        .collect()
}

impl Bench<'_> {
    /// Runs every row, and the hashing beside them, in rounds. In a round each row has at most one turn.
    pub(crate) fn rounds(
        &mut self,
        setups: &[Setup],
        choices: &[Choice],
        rounds: usize,
        hashing: &mut [Hashing],
    ) -> Result<Vec<Row>> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for setup in setups {
            for traffic in plan::chosen(setup, choices) {
                jobs.push(Job {
                    setup,
                    traffic,
                    every: match choices {
                        [] => plan::every(setup, traffic),
                        _ => 1,
                    },
                    row: Row::new(setup, label(traffic), traffic.size),
                });
            }
        }
        let (count, started) = (jobs.len(), Instant::now());
        for round in 0..rounds {
            eprintln!(
                "round {} of {rounds}, {} s",
                round + 1,
                started.elapsed().as_secs()
            );
            let first = first_of(round, rounds, count);
            for number in (first..count).chain(0..first) {
                let Some(job) = jobs.get_mut(number) else {
                    continue;
                };
                if round % job.every == 0 {
                    let sample = self.saturate(job.setup, job.traffic, round)?;
                    job.row.samples.push(sample);
                    let usage = job.setup.usage();
                    job.row.resident_kib = usage.iter().map(|usage| usage.resident_kib).sum();
                }
            }
            for hashing in hashing.iter_mut() {
                hashing.micros.push(hash(hashing.size));
            }
        }
        Ok(jobs.into_iter().map(|job| job.row).collect())
    }

    /// One run of one row, as fast as the answers come.
    pub(crate) fn saturate(
        &mut self,
        setup: &Setup,
        traffic: Traffic,
        round: usize,
    ) -> Result<Sample> {
        let records = self.workshop.folder.join("requests");
        let count = self.prepare(setup, traffic, &records)?;
        let used = || -> Vec<Duration> {
            let own = setup.usage().into_iter().map(|usage| usage.cpu);
            own.chain([self.upstream.usage().cpu]).collect()
        };
        let before = used();
        let seen = load::run(setup.port, CONNECTIONS, self.seconds, &records)?;
        let after = used();
        let name = format!(
            "{}, {}, {}",
            setup.name,
            label(traffic),
            bytes(traffic.size)
        );
        ensure!(seen.requests > 0, "{name}: no request was answered");
        if usize::try_from(seen.requests)? > count && traffic.kind != Kind::Duplicate {
            self.note(format!("{name}: the requests ran out and began again"));
        }
        let wrong = if is_refusal(setup, traffic) {
            seen.requests.saturating_sub(seen.refused)
        } else {
            seen.refused
        };
        if wrong > 0 || seen.failed > 0 {
            self.note(format!(
                "{name}: of {} requests {wrong} were answered otherwise than they should be, {} not at all",
                seen.requests, seen.failed
            ));
        }
        let mut micros: Vec<f64> = after
            .iter()
            .zip(&before)
            .map(|(after, before)| {
                let used = after.saturating_sub(*before);
                used.as_secs_f64() * 1e6 / f64::from(seen.requests)
            })
            .collect();
        let upstream = micros.pop().unwrap_or(f64::NAN);
        Ok(Sample {
            round,
            per_second: seen.per_second(),
            processes: micros,
            upstream,
        })
    }

    /// Writes the requests for a run, and makes sure that one of them is answered as it should be.
    fn prepare(&self, setup: &Setup, traffic: Traffic, records: &Path) -> Result<usize> {
        // More than any proxy can take: large bodies take longer.
        let rate = 40_000 * setup.workers * 16384 / (16384 + traffic.size);
        // To sign a large body takes long, here and there.
        let least = if label(traffic).ends_with(SIGNED) {
            1000
        } else {
            3000
        };
        let count = rate.max(least) * usize::try_from(self.seconds)?;
        traffic.write(records, count)?;
        probe(setup, traffic)?;
        Ok(count)
    }

    /// Latencies of small new events at a fixed rate, one turn a row in each round.
    pub(crate) fn latencies(
        &mut self,
        setups: &[Setup],
        rows: &mut [Row],
        rounds: usize,
        rate: u64,
        seconds: u64,
    ) -> Result<()> {
        let new = small(Kind::New);
        let started = Instant::now();
        for round in 0..rounds {
            eprintln!(
                "latencies, round {} of {rounds}, {} s",
                round + 1,
                started.elapsed().as_secs()
            );
            let first = first_of(round, rounds, rows.len());
            for number in (first..rows.len()).chain(0..first) {
                let Some(row) = rows.get_mut(number) else {
                    continue;
                };
                let setup = setups
                    .iter()
                    .filter(|_| row.traffic == label(new) && row.size == new.size)
                    .filter(|_| row.workers == 1)
                    .find(|setup| setup.workers == 1 && setup.name == row.setup);
                let Some(setup) = setup else { continue };
                probe(setup, new)?;
                let untimed = usize::try_from(rate)? / 4;
                let count = untimed + usize::try_from(rate * seconds)?;
                let requests = new.many(count);
                let paced = pace::run(Pace {
                    port: setup.port,
                    rate,
                    connections: PACED_CONNECTIONS,
                    requests: &requests,
                    untimed,
                })?;
                if paced.refused + paced.failed > 0 {
                    self.note(format!(
                        "{}, at {rate} requests/s: of {count} requests {} were refused, {} not answered",
                        setup.name, paced.refused, paced.failed
                    ));
                }
                row.latency.push(paced);
            }
        }
        Ok(())
    }

    fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }
}

fn probe(setup: &Setup, traffic: Traffic) -> Result<()> {
    let status = setup.probe(&traffic.one())?;
    ensure!(
        is_refusal(setup, traffic) == (status >= 400),
        "{}, {}: answered with {status}",
        setup.name,
        label(traffic),
    );
    Ok(())
}

fn is_refusal(setup: &Setup, traffic: Traffic) -> bool {
    setup.refuses && traffic.kind.is_refused()
}

/// CPU microseconds for SHA-256 of a body of `size` bytes and one copy of it: what nobody who checks a
/// signature of the body can do without. One body for each connection in turn, as a proxy has them.
fn hash(size: usize) -> f64 {
    let bodies: Vec<Vec<u8>> = (0..CONNECTIONS)
        .map(|number| vec![u8::try_from(number).unwrap_or(0); size])
        .collect();
    let mut copy = Vec::with_capacity(size);
    let (mut count, start) = (0_u32, cpu_of_this_thread());
    loop {
        for body in &bodies {
            copy.clear();
            copy.extend_from_slice(black_box(body));
            black_box(Sha256::digest(black_box(&copy)));
            count += 1;
        }
        let used = cpu_of_this_thread().saturating_sub(start);
        if used > Duration::from_millis(100) {
            return used.as_secs_f64() * 1e6 / f64::from(count);
        }
    }
}
