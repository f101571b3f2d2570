//! `demo --fleet`: two Envoys that share their events through one Redis.

use anyhow::Context;
use callback_guard_harness::client::{self, InFlight};
use callback_guard_harness::{Answer, FleetSetup, Request, Response, SECRET};

use super::story::{self, Signer};
use super::{Progress, Row};
use crate::time;

/// Starts Redis, its HTTP front and the Envoys, and sends each event to both.
///
/// # Errors
///
/// Something of it cannot be had, or does not come up: nothing could be shown.
pub(super) fn show(progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let report = |line: &str| progress.report(line);
    let fleet = FleetSetup::new(2).progress(&report).start()?;
    progress.done();
    println!("two Envoys, one Redis behind Webdis, one upstream");

    let signer = Signer::new(SECRET)?;
    let now = time::now();
    let event = |name: &str| {
        let body = story::body(&format!("{name}-{}", now.as_millis()), "complete");
        signer.request(&body, now)
    };
    let mut rows = Vec::new();
    let mut row = |what: &str, got: Vec<Response>, expected: &[&str], delivered: usize| {
        let mut got: Vec<String> = got.iter().map(words).collect();
        let sender = got.join(", ");
        // Of two that come at once either may be the first.
        got.sort();
        let seen = fleet.upstream.heads();
        rows.push(Row {
            what: what.to_owned(),
            sender,
            upstream: super::callbacks(seen),
            is_as_promised: got == expected && seen == delivered,
        });
        fleet.upstream.clear();
        fleet.upstream.answer(Answer::status(200));
    };
    let at = |envoy: usize, request: &Request| -> anyhow::Result<InFlight> {
        let envoy = fleet.envoys.get(envoy).context("there is no such Envoy")?;
        client::begin(envoy.listener_address(), request.clone())
    };
    fleet.upstream.answer(Answer::status(200));

    let same = event("at-once")?;
    let both = [at(0, &same)?, at(1, &same)?];
    let both: Result<Vec<Response>, _> = both.into_iter().map(InFlight::finish).collect();
    row(
        "one event to both at once",
        both?,
        &["200", "200 duplicate"],
        1,
    );
    let again = vec![fleet.send(0, &same)?, fleet.send(1, &same)?];
    row(
        "the same to each again",
        again,
        &["200 duplicate", "200 duplicate"],
        0,
    );

    let turn = event("in-turn")?;
    let in_turn = vec![fleet.send(0, &turn)?, fleet.send(1, &turn)?];
    row(
        "one event to each in turn",
        in_turn,
        &["200", "200 duplicate"],
        1,
    );

    fleet
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    let fails = event("fails")?;
    let failed = vec![fleet.send(0, &fails)?, fleet.send(1, &fails)?];
    row("one that gets 500 at the first", failed, &["200", "500"], 2);

    let body = story::body("forged", "complete");
    let forged = Signer::new("somebody-elses-key")?.request(&body, now)?;
    let forged = vec![fleet.send(0, &forged)?, fleet.send(1, &forged)?];
    let mismatch = "401 signature_mismatch";
    row("a forged one to both", forged, &[mismatch, mismatch], 0);
    Ok(rows)
}

fn words(response: &Response) -> String {
    super::words(
        response.status,
        response.header("x-callback-guard").as_deref(),
    )
}
