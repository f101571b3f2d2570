//! `demo --fleet`: two Envoys that share their events through one Redis.

use anyhow::Context;
use callback_guard_harness::client::{self, InFlight};
use callback_guard_harness::{Answer, FleetSetup, Request, Response, SECRET};

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use super::envoy::find_envoy;
use super::interrupt::stop_if;
use super::screen::{Row, Screen};
use super::story::{self, Signer};
use super::words::{self, answers, callbacks};
use crate::time;

/// Starts Redis, its HTTP front and the Envoys, and sends each event to both.
///
/// # Errors
///
/// Something of it cannot be had, or does not come up: nothing could be shown.
pub(super) fn show(interrupted: &AtomicBool) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new("two Envoys that share their events through one Redis");
    find_envoy(&screen)?;
    screen.working("building the filter, starting Redis, Webdis and two Envoys");
    let detail = |line: &str| screen.detail(line);
    let fleet = FleetSetup::new(2).progress(&detail).start()?;
    for (number, envoy) in fleet.envoys.iter().enumerate() {
        screen.fact(
            &format!("Envoy {}", number.saturating_add(1)),
            &format!("http://{}{}", envoy.listener_address(), story::PATH),
        );
    }
    screen.chapter("An event is delivered once, whichever Envoy gets it");

    let signer = Signer::new(SECRET)?;
    let now = time::now();
    let event = |name: &str| {
        let body = story::body(&format!("{name}-{}", now.as_millis()), "complete");
        signer.request(&body, now)
    };
    let mut row = |what: &str,
                   got: Vec<Response>,
                   expected: &[&str],
                   delivered: usize|
     -> anyhow::Result<()> {
        stop_if(interrupted)?;
        let mut got: Vec<String> = got.iter().map(words).collect();
        let sender = answers(got.iter().cloned());
        // Of two that come at once either may be the first.
        got.sort();
        let seen = fleet.upstream.heads();
        screen.row(&Row {
            what: what.to_owned(),
            sender,
            application: callbacks(seen),
            is_as_promised: got == expected && seen == delivered,
        });
        fleet.upstream.clear();
        fleet.upstream.answer(Answer::status(200));
        Ok(())
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
    )?;
    let again = vec![fleet.send(0, &same)?, fleet.send(1, &same)?];
    row(
        "the same to each again",
        again,
        &["200 duplicate", "200 duplicate"],
        0,
    )?;

    let turn = event("in-turn")?;
    let in_turn = vec![fleet.send(0, &turn)?, fleet.send(1, &turn)?];
    row(
        "one event to each in turn",
        in_turn,
        &["200", "200 duplicate"],
        1,
    )?;

    fleet
        .upstream
        .answer_in_turn([Answer::status(500), Answer::status(200)]);
    let fails = event("fails")?;
    let failed = vec![fleet.send(0, &fails)?, fleet.send(1, &fails)?];
    row("one whose first delivery fails", failed, &["200", "500"], 2)?;

    let body = story::body("forged", "complete");
    let forged = Signer::new("somebody-elses-key")?.request(&body, now)?;
    let forged = vec![fleet.send(0, &forged)?, fleet.send(1, &forged)?];
    let mismatch = "401 signature_mismatch";
    row("a forged one to both", forged, &[mismatch, mismatch], 0)?;
    Ok(screen.end(&[("docs/redis.md", "more than one Envoy")]))
}

fn words(response: &Response) -> String {
    words::words(
        response.status,
        response.header("x-callback-guard").as_deref(),
    )
}
