//! `demo --inbox`: the application is down, and nothing is lost.

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use callback_guard_harness::fleet::Relay;
use callback_guard_harness::{Answer, Inbox, InboxSetup, Network, SECRET, Setup, Stack, inbox};
use serde_json::Value;

use super::envoy::find_envoy;
use super::interrupt::stop_if;
use super::screen::{Row, Screen};
use super::story::{self, Signer};
use super::words::{answers, callbacks, words};
use crate::time;

/// Short enough to watch: the default's pauses last three days.
const SCHEDULE: &str = "200ms,400ms,800ms,1s,1s";

/// Attempts that follow from it.
const ATTEMPTS: u64 = 6;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do after the demo.
const NEXT: &[(&str, &str)] = &[
    ("docs/inbox.md", "what it promises, and how to run it"),
    (
        "docker compose --profile inbox up",
        "the same with your application",
    ),
];

struct Show {
    screen: Screen,
    stack: Stack,
    inbox: Inbox,
    /// Between inbox and application: cut while the application is down.
    line: Relay,
    signer: Signer,
}

/// Starts Envoy, an inbox and an application, and takes the application away for a while.
///
/// # Errors
///
/// Something of it cannot be had, or does not come up: nothing could be shown.
pub(super) fn show(interrupted: &AtomicBool) -> anyhow::Result<ExitCode> {
    let screen = Screen::new("the application is down, and nothing is lost");
    let detail = |line: &str| screen.detail(line);
    screen.working("building the inbox (the first build takes a few minutes)");
    let program = inbox::program(false, &detail)?;
    find_envoy(&screen)?;
    screen.working("building the filter, starting Envoy");
    let started = RefCell::new(None);
    let stack = Setup::new()
        .progress(&detail)
        .between(|application| {
            let line = Relay::start(application)?;
            let inbox = InboxSetup::new(&program, &format!("http://{}", line.address()))?
                .arguments(["--schedule", SCHEDULE])
                .start()?;
            let address = inbox.address();
            started.replace(Some((line, inbox)));
            Ok(address)
        })
        .start()?;
    let (line, inbox) = started.into_inner().context("no inbox was started")?;
    let envoy = format!("http://{}{}", stack.address(), story::PATH);
    screen.fact("listens on", &envoy);
    screen.fact("inbox", &format!("http://{}", inbox.address()));
    screen.fact("store", "SQLite, every event on the disk before its 200");
    let mut show = Show {
        screen,
        stack,
        inbox,
        line,
        signer: Signer::new(SECRET)?,
    };
    show.outage(interrupted)?;
    show.poison(interrupted)?;
    Ok(show.screen.end(NEXT))
}

impl Show {
    /// Sends a callback for each body and says what the sender got.
    fn send(&self, bodies: &[Vec<u8>]) -> anyhow::Result<Vec<String>> {
        let now = time::now();
        bodies
            .iter()
            .map(|body| {
                let response = self.stack.send(&self.signer.request(body, now)?)?;
                let code = response.header("x-callback-guard");
                Ok(words(response.status, code.as_deref()))
            })
            .collect()
    }

    /// The bodies that the application has got, in order.
    fn seen(&self) -> Vec<Vec<u8>> {
        let all = self.stack.upstream.recorded();
        all.into_iter().map(|one| one.body).collect()
    }

    fn stats(&self) -> anyhow::Result<Value> {
        self.inbox.setup.json("stats", &[])
    }

    /// Watches the store until it is as `is` says, and shows what waits.
    fn watch(
        &self,
        interrupted: &AtomicBool,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            stop_if(interrupted)?;
            let stats = self.stats()?;
            self.screen.detail(&view(what, &stats, self.attempts()));
            if is(&stats) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("waited in vain: {what}; the inbox has {stats}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Attempts so far, whatever their result.
    fn attempts(&self) -> f64 {
        ["delivered", "refused", "gone", "failed"]
            .iter()
            .map(|outcome| format!("callback_guard_inbox_attempts_total{{outcome=\"{outcome}\"}}"))
            .filter_map(|name| self.inbox.metric(&name).ok())
            .sum()
    }

    fn row(&mut self, what: &str, sender: String, application: String, is_as_promised: bool) {
        self.screen.row(&Row {
            what: what.to_owned(),
            sender,
            application,
            is_as_promised,
        });
    }

    fn outage(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        self.screen
            .chapter("1. The application is down; the sender has its 200s");
        self.line.set(Network::Refusing);
        self.stack.upstream.answer(Answer::status(200));
        let (one, two) = (task("one"), task("two"));
        let all: Vec<Vec<u8>> = one
            .iter()
            .zip(&two)
            .flat_map(|(one, two)| [one.clone(), two.clone()])
            .collect();
        let got = self.send(&all)?;
        let is_taken = got.iter().all(|answer| answer == "200");
        let nothing = self.seen().is_empty();
        self.row(
            "3 callbacks each of 2 tasks",
            answers(got.into_iter()),
            callbacks(self.seen().len()),
            is_taken && nothing,
        );
        let again = self.send(all.get(..1).unwrap_or_default())?;
        let is_known = again == ["200 duplicate"];
        self.row(
            "one of them again",
            answers(again.into_iter()),
            callbacks(self.seen().len()),
            is_known && self.seen().is_empty(),
        );
        // The first of each task is tried again and again, the others wait behind it.
        self.watch(interrupted, "the application is down", |_| {
            self.attempts() >= 4.0
        })?;
        let stats = self.stats()?;
        let waits = count(&stats, "waiting").saturating_add(count(&stats, "delivering"));
        self.row(
            "(the inbox: 6 wait, none is lost)",
            String::new(),
            callbacks(self.seen().len()),
            waits == 6 && self.seen().is_empty(),
        );

        self.screen
            .chapter("2. It comes back: each event once, in order per task");
        self.line.set(Network::Up);
        self.watch(interrupted, "the application is back", |stats| {
            count(stats, "delivered") == 6
        })?;
        let seen = self.seen();
        for (name, bodies) in [("task 1", &one), ("task 2", &two)] {
            let of_task: Vec<&Vec<u8>> = seen.iter().filter(|body| bodies.contains(body)).collect();
            let in_order = of_task.iter().copied().eq(bodies.iter());
            self.row(
                &format!("{name}: text, first, complete"),
                "-".to_owned(),
                callbacks(of_task.len()),
                in_order,
            );
        }
        Ok(())
    }

    fn poison(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        self.screen
            .chapter("3. An event that the application cannot take");
        self.stack.upstream.clear();
        let bodies = task("three");
        let (poison, next) = match bodies.as_slice() {
            [poison, next, ..] => (poison.clone(), next.clone()),
            _ => bail!("a task has three callbacks"),
        };
        // The first event of the task fails as often as it is tried; then comes the next one.
        self.stack.upstream.answer_with(|head| {
            let is_next = head.number >= FIRST_OF_POISON.saturating_add(ATTEMPTS);
            Answer::status(if is_next { 200 } else { 422 })
        });
        let got = self.send(&[poison.clone(), next.clone()])?;
        self.watch(interrupted, "one event fails", |stats| {
            count(stats, "dead") == 1 && count(stats, "delivered") == 7
        })?;
        let seen = self.seen();
        let tries = seen.iter().filter(|body| **body == poison).count();
        let is_taken = got.iter().all(|answer| answer == "200");
        self.row(
            &format!("one that fails {ATTEMPTS} times: dead"),
            answers(got.into_iter().take(1)),
            callbacks(tries),
            is_taken && u64::try_from(tries).is_ok_and(|tries| tries == ATTEMPTS),
        );
        let after = seen.iter().filter(|body| **body == next).count();
        self.row(
            "the next of its task goes on",
            "200".to_owned(),
            callbacks(after),
            after == 1 && seen.last() == Some(&next),
        );

        self.screen
            .chapter("4. It is fixed: the dead event is replayed");
        self.stack.upstream.clear();
        self.stack.upstream.answer(Answer::status(200));
        let listed = self.inbox.setup.json("list", &["--state", "dead"])?;
        let key = listed
            .pointer("/0/key")
            .and_then(Value::as_str)
            .context("there is no dead event")?;
        let short = key.get(..8).unwrap_or(key).to_owned();
        let replayed = self.inbox.setup.tool("replay", &[key])?;
        self.watch(interrupted, "replayed", |stats| {
            count(stats, "delivered") == 8
        })?;
        let seen = self.seen();
        self.row(
            &format!("inbox replay {short}..."),
            "-".to_owned(),
            callbacks(seen.len()),
            replayed.status.success() && seen == [poison],
        );
        Ok(())
    }
}

/// The number of the application's first request in the chapter of the poisoned event: six came
/// before.
const FIRST_OF_POISON: u64 = 6;

/// The three callbacks of one task, in their order.
fn task(name: &str) -> Vec<Vec<u8>> {
    let id = format!("{name}-{}", time::now().as_millis());
    ["text", "first", "complete"]
        .iter()
        .map(|kind| story::body(&id, kind))
        .collect()
}

fn count(stats: &Value, state: &str) -> u64 {
    stats.get(state).and_then(Value::as_u64).unwrap_or(0)
}

/// What is in the inbox, in one line that moves.
fn view(what: &str, stats: &Value, attempts: f64) -> String {
    let waits = count(stats, "waiting").saturating_add(count(stats, "delivering"));
    let (delivered, dead) = (count(stats, "delivered"), count(stats, "dead"));
    let all = waits.saturating_add(delivered).saturating_add(dead);
    let bar: String = (0..all)
        .map(|index| match index {
            index if index < delivered => '#',
            index if index < delivered.saturating_add(dead) => 'x',
            _ => '.',
        })
        .collect();
    format!("{what}  [{bar}] {delivered} delivered, {waits} wait, {dead} dead; {attempts} attempts")
}
