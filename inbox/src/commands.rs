//! The commands beside a running inbox.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::args::{ChangeArgs, ListArgs, PauseArgs, SelectArgs, ShowArgs, StatsArgs};
use crate::callback;
use crate::store::{Listed, Store, Try};

/// Whether a command did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Yes: exit code 0.
    Yes,
    /// No such event: exit code 1.
    No,
}

/// An event as `show` shows it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    event: Listed,
    headers: BTreeMap<String, String>,
    tries: Vec<Try>,
}

/// Lists events.
///
/// # Errors
///
/// The store or the output cannot be reached.
pub async fn list(args: &ListArgs) -> Result<Said> {
    let store = Store::open_beside(&args.store.store).await?;
    let selector = args.select.selector();
    let mut out = io::stdout().lock();
    let (mut after, mut count) = (0, 0_u64);
    loop {
        let events = store.list(&selector, after).await?;
        let Some(last) = events.last() else { break };
        after = last.event;
        for event in &events {
            if args.json {
                out.write_all(if count == 0 { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut out, event)?;
            } else {
                if count == 0 {
                    writeln!(
                        out,
                        "{:<64}  {:<10}  {:<24}  {:>8}  {:<24}  {:<6}  source id",
                        "key", "state", "received", "attempts", "next attempt", "status"
                    )?;
                }
                line(&mut out, event)?;
            }
            count += 1;
        }
    }
    if args.json {
        out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })?;
    }
    drop(out);
    unknown_keys(&store, &args.select).await
}

fn line(out: &mut impl Write, event: &Listed) -> io::Result<()> {
    let status = match (event.last_status, &event.last_error) {
        (Some(status), _) => status.to_string(),
        (None, Some(_)) => "error".to_owned(),
        (None, None) => "-".to_owned(),
    };
    writeln!(
        out,
        "{:<64}  {:<10}  {:<24}  {:>8}  {:<24}  {:<6}  {} {}",
        event.key,
        event.state.word(),
        event.received_at,
        event.attempts,
        event.next_attempt_at.as_deref().unwrap_or("-"),
        status,
        event.source,
        event.id.escape_debug()
    )
}

/// Shows one event.
///
/// # Errors
///
/// The store or the output cannot be reached, or more than one event is meant.
pub async fn show(args: &ShowArgs) -> Result<Said> {
    if args.select.is_empty() {
        bail!("which event? expected a key, or --id, --source, --state, --since, --until");
    }
    let store = Store::open_beside(&args.store.store).await?;
    let mut events = store.list(&args.select.selector(), 0).await?;
    if events.len() > 1 {
        bail!(
            "{} events fit: name one by its key, as `list` shows it",
            events.len()
        );
    }
    let Some(event) = events.pop() else {
        unknown_keys(&store, &args.select).await?;
        if args.select.keys.is_empty() {
            eprintln!("no event fits");
        }
        return Ok(Said::No);
    };
    let payload = store
        .payload(event.event)
        .await?
        .context("the event was discarded meanwhile")?;
    let mut out = io::stdout().lock();
    if args.body {
        out.write_all(&payload.body)?;
        return Ok(Said::Yes);
    }
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in callback::lines(&payload.headers) {
        let value = String::from_utf8_lossy(value).into_owned();
        headers
            .entry(String::from_utf8_lossy(name).into_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    let tries = store.tries(event.event).await?;
    let shown = Shown {
        event,
        headers,
        tries,
    };
    if args.json {
        serde_json::to_writer_pretty(&mut out, &shown)?;
        writeln!(out)?;
        return Ok(Said::Yes);
    }
    let event = &shown.event;
    writeln!(out, "key       {}", event.key)?;
    writeln!(out, "source    {}", event.source)?;
    writeln!(out, "id        {}", event.id.escape_debug())?;
    writeln!(out, "state     {}", event.state.word())?;
    writeln!(out, "received  {}", event.received_at)?;
    if let Some(next) = &event.next_attempt_at {
        writeln!(out, "next      {next}")?;
    }
    writeln!(out, "target    {}", payload.target.escape_debug())?;
    writeln!(
        out,
        "body      {} bytes (--body prints them)",
        payload.body.len()
    )?;
    for (name, value) in &shown.headers {
        writeln!(out, "header    {name}: {}", value.escape_debug())?;
    }
    for attempt in &shown.tries {
        let took = attempt
            .milliseconds
            .map_or(String::new(), |took| format!(" in {took} ms"));
        let what = match (attempt.status, &attempt.error) {
            (Some(status), _) => status.to_string(),
            (None, error) => error.clone().unwrap_or_default().escape_debug().to_string(),
        };
        writeln!(out, "attempt   {}  {what}{took}", attempt.at)?;
    }
    Ok(Said::Yes)
}

/// Begins new series of attempts.
///
/// # Errors
///
/// The store cannot be reached, or nothing is selected.
pub async fn replay(args: &ChangeArgs) -> Result<Said> {
    let store = selected(args).await?;
    let changed = store.replay(&args.select.selector()).await?;
    report("replayed", changed.done, changed.under_way);
    judge(&store, args, changed.under_way).await
}

/// Removes events.
///
/// # Errors
///
/// The store cannot be reached, or nothing is selected.
pub async fn discard(args: &ChangeArgs) -> Result<Said> {
    // Keys that are not there are found before they are removed.
    let store = selected(args).await?;
    let known = unknown_keys(&store, &args.select).await?;
    let changed = store.discard(&args.select.selector()).await?;
    report("discarded", changed.done, changed.under_way);
    match (known, args.select.keys.is_empty(), changed.under_way) {
        (Said::Yes, true, _) | (Said::Yes, false, 0) => Ok(Said::Yes),
        _ => Ok(Said::No),
    }
}

async fn selected(args: &ChangeArgs) -> Result<Store> {
    if args.select.is_empty() {
        bail!("which events? expected keys, or --id, --source, --state, --since, --until");
    }
    Store::open_beside(&args.store.store).await
}

async fn judge(store: &Store, args: &ChangeArgs, under_way: u64) -> Result<Said> {
    let known = unknown_keys(store, &args.select).await?;
    match args.select.keys.is_empty() || under_way == 0 {
        true => Ok(known),
        false => Ok(Said::No),
    }
}

fn report(what: &str, done: u64, under_way: u64) {
    println!("{what}: {done}");
    if under_way > 0 {
        eprintln!("left alone, as an attempt is under way: {under_way}");
    }
}

async fn unknown_keys(store: &Store, select: &SelectArgs) -> Result<Said> {
    let unknown = store.unknown(&select.keys).await?;
    for key in &unknown {
        eprintln!("no such event: {}", key.escape_debug());
    }
    Ok(if unknown.is_empty() {
        Said::Yes
    } else {
        Said::No
    })
}

/// Pauses deliveries.
///
/// # Errors
///
/// The store cannot be reached.
pub async fn pause(args: &PauseArgs) -> Result<Said> {
    let store = Store::open_beside(&args.store.store).await?;
    store.pause(args.source.as_deref()).await?;
    pauses(&store).await
}

/// Resumes deliveries.
///
/// # Errors
///
/// The store cannot be reached.
pub async fn resume(args: &PauseArgs) -> Result<Said> {
    let store = Store::open_beside(&args.store.store).await?;
    store.resume(args.source.as_deref()).await?;
    pauses(&store).await
}

async fn pauses(store: &Store) -> Result<Said> {
    let pauses = store.pauses().await?;
    match pauses.first().map(String::as_str) {
        None => println!("nothing is paused"),
        Some("") => println!("all deliveries are paused"),
        Some(_) => println!("deliveries are paused of: {}", pauses.join(", ")),
    }
    Ok(Said::Yes)
}

/// Counts events.
///
/// # Errors
///
/// The store or the output cannot be reached.
pub async fn stats(args: &StatsArgs) -> Result<Said> {
    let store = Store::open_beside(&args.store.store).await?;
    let stats = store.stats().await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &stats)?;
        writeln!(out)?;
        return Ok(Said::Yes);
    }
    writeln!(out, "waiting     {}", stats.waiting)?;
    writeln!(out, "delivering  {}", stats.delivering)?;
    writeln!(out, "delivered   {}", stats.delivered)?;
    writeln!(out, "dead        {}", stats.dead)?;
    writeln!(out, "oldest      {} s", stats.oldest_seconds)?;
    Ok(Said::Yes)
}
