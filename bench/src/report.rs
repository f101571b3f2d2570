//! Figures of many rounds, as a Markdown table and a chart.

use std::fmt::Write as _;

use crate::load::Seen;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// CPU microseconds per request: of the proxy or application, of a service beside it, and of the
    /// upstream.
    pub(crate) proxy: f64,
    pub(crate) service: f64,
    pub(crate) upstream: f64,
}

/// All runs of one row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) setup: String,
    pub(crate) traffic: String,
    pub(crate) size: usize,
    pub(crate) samples: Vec<Sample>,
    pub(crate) latency: Vec<Seen>,
    pub(crate) resident_kib: u64,
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
        let at = |numerator: usize| {
            let place = values.len().saturating_sub(1) * numerator / 4;
            values.get(place).copied().unwrap_or(f64::NAN)
        };
        Self {
            low: at(1),
            middle: at(2),
            high: at(3),
        }
    }
}

impl Row {
    pub(crate) fn per_second(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.per_second))
    }

    pub(crate) fn proxy(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.proxy))
    }

    /// The median of what this row takes more than `base` in the same round. Rounds are compared
    /// one by one, so that what slows the machine for a while does not count.
    pub(crate) fn added_to(&self, base: &Row) -> Spread {
        let own = |sample: &Sample| sample.proxy + sample.service;
        let pairs = self.samples.iter().zip(&base.samples);
        Spread::of(pairs.map(|(sample, base)| own(sample) - own(base)))
    }

    fn is_in_table(&self) -> bool {
        !self.samples.is_empty()
    }
}

/// The first row of this name, traffic and size.
pub(crate) fn find<'r>(
    rows: &'r [Row],
    setup: &str,
    traffic: &str,
    size: usize,
) -> Option<&'r Row> {
    rows.iter()
        .find(|row| row.setup == setup && row.traffic == traffic && row.size == size)
}

/// Throughput and CPU.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | traffic | body | requests/s | proxy or app, µs | service, µs | upstream, µs | added to plain, µs | RSS, MiB |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows.iter().filter(|row| row.is_in_table()) {
        let (rate, proxy) = (row.per_second(), row.proxy());
        let middle = |of: fn(&Sample) -> f64| Spread::of(row.samples.iter().map(of)).middle;
        let added = find(rows, "plain", "new", row.size)
            .filter(|base| !std::ptr::eq(*base, row))
            .map(|base| row.added_to(base))
            .map_or(String::new(), |added| {
                format!(
                    "{:+.1} ({:.1} to {:.1})",
                    added.middle, added.low, added.high
                )
            });
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
            middle(|sample| sample.service),
            middle(|sample| sample.upstream),
            row.resident_kib / 1024,
        );
    }
    text
}

/// Latencies at a fixed rate.
pub(crate) fn latencies(rows: &[Row], rate: u64) -> String {
    let mut text = format!(
        "| what, at {rate} requests/s | p50, ms | p99, ms | p99.9, ms | answered/s |\n|---|--:|--:|--:|--:|\n"
    );
    for row in rows.iter().filter(|row| !row.latency.is_empty()) {
        let of = |value: fn(&Seen) -> u32| {
            Spread::of(
                row.latency
                    .iter()
                    .map(|seen| f64::from(value(seen)) / 1000.0),
            )
            .middle
        };
        let answered = Spread::of(row.latency.iter().map(Seen::per_second)).middle;
        let _ = writeln!(
            text,
            "| {}, {} | {:.2} | {:.2} | {:.2} | {answered:.0} |",
            row.setup,
            row.traffic,
            of(|seen| seen.p50),
            of(|seen| seen.p99),
            of(|seen| seen.p999),
        );
    }
    text
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
pub(crate) fn chart(rows: &[Row], machine: &str) -> String {
    let shown: Vec<(&Row, f64, f64)> = rows
        .iter()
        .filter(|row| row.is_in_table() && row.size < 1024)
        .map(|row| {
            let service = Spread::of(row.samples.iter().map(|sample| sample.service)).middle;
            (row, row.proxy().middle, service)
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
            "plain" | "buffer filter" => "plain",
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
         <text x=\"16\" y=\"62\" class=\"faint\">the proxy or application and, in a lighter tone, a service next to it; upstream not counted</text>\n\
         {bars}</svg>\n",
        y + 12,
        y + 12,
    )
}
