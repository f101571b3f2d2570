//! Figures of many rounds, as a Markdown table and a chart.

use std::fmt::Write as _;

use crate::pace::Paced;
use crate::setups::{PLAIN, Setup};

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The round that it belongs to.
    pub(crate) round: usize,
    pub(crate) per_second: f64,
    /// CPU microseconds per request, of each process of the row: first the proxy or application.
    pub(crate) processes: Vec<f64>,
    /// And of the upstream.
    pub(crate) upstream: f64,
}

impl Sample {
    /// CPU microseconds of all processes but the upstream.
    fn total(&self) -> f64 {
        self.processes.iter().sum()
    }

    fn proxy(&self) -> f64 {
        self.processes.first().copied().unwrap_or(f64::NAN)
    }
}

/// All runs of one row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) setup: String,
    pub(crate) workers: usize,
    pub(crate) traffic: String,
    pub(crate) size: usize,
    /// What its processes are.
    pub(crate) roles: Vec<&'static str>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) latency: Vec<Paced>,
    /// After the last run.
    pub(crate) resident_kib: u64,
}

/// Resident memory of a row before any load, process by process.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) setup: String,
    pub(crate) workers: usize,
    pub(crate) processes: Vec<(&'static str, u64)>,
}

/// SHA-256 and a copy of a body, in this program.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    pub(crate) size: usize,
    /// Of each round.
    pub(crate) micros: Vec<f64>,
}

/// All that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) hashing: Vec<Hashing>,
    /// Requests a second of the latencies.
    pub(crate) rate: u64,
    /// What was not as it should be.
    pub(crate) notes: Vec<String>,
}

/// The middle of some values, and the first and third quarter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |quarters: u8| {
            let place = values.len().saturating_sub(1) * usize::from(quarters);
            let value = |place: usize| values.get(place).copied();
            let low = value(place / 4).unwrap_or(f64::NAN);
            let high = value(place / 4 + 1).unwrap_or(low);
            // Between two values, as far as the quarter lies between them.
            let part = u8::try_from(place % 4).map_or(0.0, f64::from) / 4.0;
            low + (high - low) * part
        };
        Self {
            low: at(1),
            middle: at(2),
            high: at(3),
        }
    }

    fn signed(self) -> String {
        format!("{:+.1} ({:.1} to {:.1})", self.middle, self.low, self.high)
    }
}

impl Row {
    pub(crate) fn new(setup: &Setup, traffic: String, size: usize) -> Self {
        Self {
            setup: setup.name.clone(),
            workers: setup.workers,
            traffic,
            size,
            roles: setup.processes.iter().map(|process| process.role).collect(),
            samples: Vec::new(),
            latency: Vec::new(),
            resident_kib: 0,
        }
    }

    fn of(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(value))
    }

    pub(crate) fn per_second(&self) -> Spread {
        self.of(|sample| sample.per_second)
    }

    /// Of the proxy or application.
    pub(crate) fn proxy(&self) -> Spread {
        self.of(Sample::proxy)
    }

    /// Of all its processes.
    pub(crate) fn total(&self) -> Spread {
        self.of(Sample::total)
    }

    /// Of the processes with this role.
    pub(crate) fn role(&self, role: &str) -> Option<Spread> {
        let place = self.roles.iter().position(|name| *name == role)?;
        Some(self.of(|sample| sample.processes.get(place).copied().unwrap_or(f64::NAN)))
    }

    /// What this row takes more than `base` in the same round. Rounds are compared one by one, so that
    /// what slows the machine for a while does not count.
    pub(crate) fn added_to(&self, base: &Row) -> Spread {
        let pairs = self.samples.iter().filter_map(|sample| {
            let same = |other: &&Sample| other.round == sample.round;
            Some(sample.total() - base.samples.iter().find(same)?.total())
        });
        Spread::of(pairs)
    }

    /// By how many microseconds half of the requests are later than those of `base` at the same rate.
    pub(crate) fn added_p50(&self, base: &Row) -> Spread {
        let pairs = self.latency.iter().zip(&base.latency);
        Spread::of(pairs.map(|(own, base)| own.p50 - base.p50))
    }
}

impl Results {
    /// The row with one worker, this name, traffic and size, if it has run.
    pub(crate) fn row(&self, setup: &str, traffic: &str, size: usize) -> Option<&Row> {
        self.find(1, setup, traffic, size)
    }

    pub(crate) fn find(
        &self,
        workers: usize,
        setup: &str,
        traffic: &str,
        size: usize,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            (row.workers, &*row.setup, &*row.traffic, row.size) == (workers, setup, traffic, size)
                && !row.samples.is_empty()
        })
    }

    /// Plain Envoy with a body of the same size.
    pub(crate) fn base_of(&self, row: &Row) -> Option<&Row> {
        self.find(row.workers, PLAIN, "new", row.size)
    }
}

/// Everything, as Markdown.
pub(crate) fn tables(results: &Results, machine: &str) -> String {
    let mut text = format!("One worker. {machine}.\n\n{}", table(results, 1));
    if results.rows.iter().any(|row| row.workers == 2) {
        let _ = write!(text, "\nTwo workers.\n\n{}", table(results, 2));
    }
    if results.rows.iter().any(|row| !row.latency.is_empty()) {
        let _ = write!(text, "\n{}", latencies(results));
    }
    let _ = write!(text, "\n{}", hashing(results));
    let _ = write!(text, "\n{}", memory(results));
    if !results.notes.is_empty() {
        text += "\nNot as it should be in this run:\n\n";
        for note in &results.notes {
            let _ = writeln!(text, "- {note}");
        }
    }
    text
}

/// Throughput and CPU.
pub(crate) fn table(results: &Results, workers: usize) -> String {
    let mut text = String::from(
        "| what | traffic | body | requests/s | proxy or app, µs | services, µs | upstream, µs | added to plain, µs | RSS, MiB |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let rows = results.rows.iter().filter(|row| row.workers == workers);
    for row in rows.filter(|row| !row.samples.is_empty()) {
        let (rate, proxy) = (row.per_second(), row.proxy());
        let added = results
            .base_of(row)
            .filter(|base| !std::ptr::eq(*base, row))
            .map(|base| row.added_to(base))
            .map_or(String::new(), Spread::signed);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {:.1} ({:.1} to {:.1}) | {:.1} | {:.1} | {added} | {} |",
            row.setup,
            row.traffic,
            bytes(row.size),
            rate.middle,
            proxy.middle,
            proxy.low,
            proxy.high,
            row.of(|sample| sample.total() - sample.proxy()).middle,
            row.of(|sample| sample.upstream).middle,
            row.resident_kib / 1024,
        );
    }
    text
}

/// Latencies at a fixed rate.
fn latencies(results: &Results) -> String {
    let mut text = format!(
        "| what, at {} requests/s | p50, ms | added to plain, ms | p99, ms | p99.9, ms | answered/s |\n|---|--:|--:|--:|--:|--:|\n",
        results.rate
    );
    for row in results.rows.iter().filter(|row| !row.latency.is_empty()) {
        let of = |value: fn(&Paced) -> f64| Spread::of(row.latency.iter().map(value)).middle;
        let added = results
            .base_of(row)
            .filter(|base| !std::ptr::eq(*base, row))
            .map_or(String::new(), |base| {
                format!("{:+.3}", row.added_p50(base).middle / 1e3)
            });
        let _ = writeln!(
            text,
            "| {}, {} | {:.3} | {added} | {:.3} | {:.3} | {:.0} |",
            row.setup,
            row.traffic,
            of(|paced| paced.p50 / 1e3),
            of(|paced| paced.p99 / 1e3),
            of(|paced| paced.p999 / 1e3),
            of(|paced| paced.per_second),
        );
    }
    text
}

/// What nobody can do without who checks a signature of the body.
fn hashing(results: &Results) -> String {
    let mut text = String::from("| SHA-256 and a copy, natively, of | CPU, µs |\n|---|--:|\n");
    for hashing in &results.hashing {
        let spread = Spread::of(hashing.micros.iter().copied());
        let _ = writeln!(
            text,
            "| {} | {:.1} ({:.1} to {:.1}) |",
            bytes(hashing.size),
            spread.middle,
            spread.low,
            spread.high
        );
    }
    text
}

/// Resident memory before any load.
fn memory(results: &Results) -> String {
    let plain = |workers| {
        let row = |row: &&Memory| row.setup == PLAIN && row.workers == workers;
        results.memory.iter().find(row).map(Memory::proxy)
    };
    let mut text = String::from(
        "| resident before any load | workers | proxy or app, MB | more than plain, MB | services, MB |\n|---|--:|--:|--:|--:|\n",
    );
    for row in &results.memory {
        let more = plain(row.workers)
            .filter(|_| row.setup != PLAIN)
            .map_or(String::new(), |plain| {
                format!("{:+.1}", row.proxy() - plain)
            });
        let services: Vec<String> = row
            .processes
            .iter()
            .skip(1)
            .map(|(role, kib)| format!("{role} {:.1}", megabytes(*kib)))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {more} | {} |",
            row.setup,
            row.workers,
            row.proxy(),
            services.join(", "),
        );
    }
    text
}

impl Memory {
    /// Of the proxy or application, in MB.
    pub(crate) fn proxy(&self) -> f64 {
        self.processes
            .first()
            .map_or(f64::NAN, |(_, kib)| megabytes(*kib))
    }
}

/// KiB as millions of bytes.
fn megabytes(kib: u64) -> f64 {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    f64::from(kib) * 1024.0 / 1e6
}

pub(crate) fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// Colours of the chart, in a light and in a dark page.
const STYLE: &str = "text{fill:#222}.faint{fill:#666}.page{fill:#fff}.guard{fill:#0b7a75}.plain{fill:#8a8f98}\
    .floor{fill:#5b6270}.other{fill:#c2703d}.service{fill:#e2b08c}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.faint{fill:#999}.page{fill:#0d1117}\
    .guard{fill:#2aa79f}.floor{fill:#7c8494}}";

/// Bars: CPU per request of all processes but the upstream, for the smallest body.
pub(crate) fn chart(results: &Results, machine: &str) -> String {
    let shown: Vec<(&Row, f64, f64)> = results
        .rows
        .iter()
        .filter(|row| !row.samples.is_empty() && row.size < 1024 && row.workers == 1)
        .map(|row| {
            let services = row.of(|sample| sample.total() - sample.proxy());
            (row, row.proxy().middle, services.middle)
        })
        .collect();
    let most = shown
        .iter()
        .map(|(_, proxy, service)| proxy + service)
        .fold(1.0, f64::max);
    let scale = 420.0 / most;
    let mut y = 80;
    let mut bars = String::new();
    for (row, proxy, service) in &shown {
        let class = match row.setup.as_str() {
            name if name.starts_with("guard") => "guard",
            PLAIN | "buffer filter" => "plain",
            name if name.starts_with("floor") => "floor",
            _ => "other",
        };
        let _ = writeln!(
            bars,
            "<text x=\"378\" y=\"{}\" text-anchor=\"end\">{}, {}</text>\
             <rect x=\"386\" y=\"{y}\" width=\"{:.1}\" height=\"16\" class=\"{class}\"/>\
             <rect x=\"{:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" class=\"service\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1}</text>",
            y + 13,
            row.setup,
            row.traffic,
            proxy * scale,
            386.0 + proxy * scale,
            service * scale,
            392.0 + (proxy + service) * scale,
            y + 13,
            proxy + service,
        );
        y += 23;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 870 {}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <style>{STYLE}</style>\n\
         <rect width=\"870\" height=\"{}\" class=\"page\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"17\" font-weight=\"600\">CPU microseconds per 130-byte callback, one worker</text>\n\
         <text x=\"16\" y=\"46\" class=\"faint\">{machine}</text>\n\
         <text x=\"16\" y=\"62\" class=\"faint\">the proxy or application and, in a lighter tone, the services next to it; upstream not counted</text>\n\
         {bars}</svg>\n",
        y + 12,
        y + 12,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!((spread.low, spread.middle, spread.high), (1.75, 2.5, 3.25));
        let one = Spread::of([7.0].into_iter());
        assert_eq!((one.low, one.middle, one.high), (7.0, 7.0, 7.0));
    }
}
