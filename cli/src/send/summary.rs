//! The results of all callbacks, summed up.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::plan::Guise;
use crate::http::Reply;

/// The result of one callback.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) guise: Guise,
    /// The last reply, or why there is none.
    pub(super) last: Result<Reply, String>,
    pub(super) is_accepted: bool,
    pub(super) attempts: u32,
    /// How long the last attempt took.
    pub(super) took: Duration,
}

/// The results of a run.
pub(super) struct Summary {
    sent: Vec<Sent>,
    took: Duration,
}

/// A reply in a few words.
pub(super) fn answer(reply: &Reply) -> String {
    match &reply.verdict {
        Some(verdict) => format!("{} {verdict}", reply.status),
        None => reply.status.to_string(),
    }
}

impl Summary {
    pub(super) fn new(sent: Vec<Sent>, took: Duration) -> Self {
        Self { sent, took }
    }

    pub(super) fn all_accepted(&self) -> bool {
        self.sent.iter().all(|sent| sent.is_accepted)
    }

    /// The reply to a single callback, in full.
    pub(super) fn reply(&self) -> String {
        let mut text = String::new();
        for sent in &self.sent {
            match &sent.last {
                Ok(reply) => {
                    text.push_str(&format!("status: {}\n", reply.status));
                    if let Some(verdict) = &reply.verdict {
                        text.push_str(&format!("x-callback-guard: {verdict}\n"));
                    }
                    if !reply.body.is_empty() {
                        text.push_str(&format!("\n{}\n", reply.body.trim_end()));
                    }
                }
                Err(error) => eprintln!("{error}"),
            }
        }
        text
    }

    /// A table: what was sent, what it got, how often.
    pub(super) fn table(&mut self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["sent", "answer", "callbacks", "attempts"]);
        for ((guise, answer), (count, attempts)) in self.outcomes() {
            table.add_row([
                guise.name().to_owned(),
                answer,
                count.to_string(),
                attempts.to_string(),
            ]);
        }
        for column in [2, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let accepted = self.sent.iter().filter(|sent| sent.is_accepted).count();
        let (sent, took) = (self.sent.len(), self.took.as_secs_f64());
        let [median, most, last] = self.latencies();
        format!(
            "{}\n\n{accepted} of {sent} accepted in {took:.1} s; latency {} median, {} p99, {} most\n",
            table.trim_fmt(),
            milliseconds(median),
            milliseconds(most),
            milliseconds(last),
        )
    }

    /// The same for machines.
    pub(super) fn json(&mut self) -> String {
        let outcomes: Vec<Value> = self
            .outcomes()
            .into_iter()
            .map(|((guise, answer), (count, attempts))| {
                json!({
                    "sent": guise.name(),
                    "answer": answer,
                    "callbacks": count,
                    "attempts": attempts,
                })
            })
            .collect();
        let [median, most, last] = self
            .latencies()
            .map(|took| rounded(took.as_secs_f64() * 1000.0));
        let mut value = json!({
            "accepted": self.sent.iter().filter(|sent| sent.is_accepted).count(),
            "callbacks": self.sent.len(),
            "seconds": rounded(self.took.as_secs_f64()),
            "outcomes": outcomes,
            "latency_milliseconds": { "median": median, "p99": most, "max": last },
        });
        if let ([sent], Some(value)) = (self.sent.as_slice(), value.as_object_mut()) {
            value.insert(
                "reply".to_owned(),
                match &sent.last {
                    Ok(reply) => json!({
                        "status": reply.status,
                        "x-callback-guard": reply.verdict,
                        "body": reply.body,
                    }),
                    Err(error) => json!({ "error": error }),
                },
            );
        }
        format!("{value:#}\n")
    }

    /// Callbacks and attempts, by what was sent and what it got in the end.
    fn outcomes(&self) -> BTreeMap<(Guise, String), (u64, u64)> {
        let mut outcomes: BTreeMap<(Guise, String), (u64, u64)> = BTreeMap::new();
        for sent in &self.sent {
            let answer = match &sent.last {
                Ok(reply) => answer(reply),
                Err(error) => error.clone(),
            };
            let entry = outcomes.entry((sent.guise, answer)).or_default();
            entry.0 += 1;
            entry.1 += u64::from(sent.attempts);
        }
        outcomes
    }

    /// Median, 99th percentile and maximum of the last attempts.
    fn latencies(&mut self) -> [Duration; 3] {
        self.sent.sort_by_key(|sent| sent.took);
        let last = self.sent.len().saturating_sub(1);
        [50, 99, 100].map(|percent| {
            let sent = self.sent.get(last.saturating_mul(percent) / 100);
            sent.map_or(Duration::ZERO, |sent| sent.took)
        })
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
