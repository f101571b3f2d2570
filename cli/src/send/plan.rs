//! What is to be sent.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use callback_guard_core::policy::{Policy, Source};
use callback_guard_core::scheme::keys::SigningKey;
use callback_guard_core::scheme::{IdAt, Proof};
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::time::UnixMillis;
use hyper::Uri;

use super::args::SendArgs;
use crate::samples::{self, Kind};
use crate::{body, source};

/// The kind that is sent where none is named.
const DEFAULT_KIND: &str = "suno_generate.success";

/// How far beyond the tolerance a stale timestamp lies, in seconds.
const STALE_BY: u64 = 60;

/// Everything that is known before the first callback.
pub(super) struct Plan {
    pub(super) count: u64,
    pub(super) concurrency: u16,
    pub(super) retries: u32,
    pub(super) retry_wait: Duration,
    policy: Policy,
    url: String,
    /// Whether a body that is made is the only item of an array.
    is_array: bool,
    bodies: Bodies,
    id: Option<String>,
    timestamp: Option<UnixMillis>,
    headers: Vec<(String, String)>,
    rate: Option<f64>,
    forge: u64,
    stale: u64,
    /// A key that nobody has; where the sender's is private, another body is signed.
    forger: Option<SigningKey>,
}

enum Bodies {
    Given(Vec<u8>),
    Kinds(Vec<Kind>),
    /// Made for a sender of whom there is no sample.
    Made,
}

/// What a callback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guise {
    Genuine,
    Forged,
    Stale,
}

impl Guise {
    pub(super) fn name(self) -> &'static str {
        match self {
            Guise::Genuine => "genuine",
            Guise::Forged => "forged",
            Guise::Stale => "stale",
        }
    }
}

/// One callback, to be signed before each attempt.
pub(super) struct Callback {
    pub(super) guise: Guise,
    pub(super) body: Vec<u8>,
    id: String,
}

impl Plan {
    pub(super) fn new(args: &SendArgs) -> anyhow::Result<Self> {
        let url = args.url.as_ref().context("there is no URL")?.to_string();
        let policy = args.source.policy(Some(&url))?;
        let (source, _) = source::only(&policy)?;
        let forger = forger(source)?;
        let headers = args.header.clone();
        let (forge, stale) = (args.forge.unwrap_or(0), args.stale.unwrap_or(0));
        if forge + stale > 100 {
            bail!(
                "--forge and --stale together are {} %, expected at most 100",
                forge + stale
            );
        }
        let bodies = match &args.body {
            Some(path) => Bodies::Given(body::read(path)?),
            None if args.kind.is_empty() && !has_samples(source) => Bodies::Made,
            None => Bodies::Kinds(kinds(&args.kind)?),
        };
        let each = match &bodies {
            Bodies::Kinds(kinds) => u64::try_from(kinds.len()).unwrap_or(1),
            Bodies::Given(_) | Bodies::Made => 1,
        };
        Ok(Self {
            url,
            is_array: args.source.sends_arrays(),
            count: args.repeat.unwrap_or(each),
            concurrency: args.concurrency,
            retries: args.retries,
            retry_wait: Duration::from_secs_f64(args.retry_wait),
            policy,
            bodies,
            id: args.id.clone(),
            timestamp: args.timestamp,
            headers,
            rate: args.rate,
            forge,
            stale,
            forger,
        })
    }

    /// When the callback `index` is due, from the start; `None` if it is due at once.
    pub(super) fn due(&self, index: u64) -> Option<Duration> {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let rate = self.rate?;
        Duration::try_from_secs_f64(f64::from(index) / rate).ok()
    }

    /// The callback `index`.
    pub(super) fn callback(&self, index: u64, now: UnixMillis) -> anyhow::Result<Callback> {
        let id = self.id.clone().unwrap_or_else(body::fresh_id);
        let guise = self.guise(index);
        let body = match &self.bodies {
            Bodies::Given(body) => body.clone(),
            Bodies::Kinds(kinds) => {
                let index = usize::try_from(index).unwrap_or(0);
                let kind = kinds.get(index.checked_rem(kinds.len()).unwrap_or(0));
                kind.context("there is no kind")?.body_for(&id)
            }
            Bodies::Made => {
                let (source, _) = source::only(&self.policy)?;
                let now = self.moment(source, guise, now);
                let body = match source::content_type(source) {
                    kind if kind.ends_with("json") => samples::made_for(source, &id, now),
                    _ => format!("id={id}&type=callback-guard.test").into_bytes(),
                };
                match self.is_array {
                    true => [&b"["[..], &body, b"]"].concat(),
                    false => body,
                }
            }
        };
        Ok(Callback { guise, body, id })
    }

    /// What the callback `index` is: of each hundred exactly the percentages asked for, well mixed.
    fn guise(&self, index: u64) -> Guise {
        // 37 and 100 have no common divisor, so each hundred is a permutation.
        let place = (index % 100) * 37 % 100;
        if place < self.forge {
            Guise::Forged
        } else if place < self.forge.saturating_add(self.stale) {
            Guise::Stale
        } else {
            Guise::Genuine
        }
    }

    /// URL, headers and body of `callback`, signed at `now`.
    pub(super) fn sign(
        &self,
        callback: &Callback,
        now: UnixMillis,
    ) -> anyhow::Result<(Uri, sign::Headers, Vec<u8>)> {
        let (source, own) = source::only(&self.policy)?;
        let (key, body) = match (callback.guise, &self.forger) {
            (Guise::Forged, Some(forger)) => (forger, callback.body.clone()),
            (Guise::Forged, None) => (own, [callback.body.as_slice(), b" "].concat()),
            (Guise::Genuine | Guise::Stale, _) => (own, callback.body.clone()),
        };
        let now = self.moment(source, callback.guise, now);
        let kind = source::content_type(source);
        let (host, target) = source::split(&self.url);
        let draft = Draft {
            target,
            is_json: kind.ends_with("json"),
            body: &body,
            id: &callback.id,
        };
        let made = sign::callback(source, key, &draft, now)
            .map_err(|refusal| anyhow!("it cannot be signed: {refusal}"))?;
        let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
        headers.extend(made.headers);
        headers.extend(self.headers.iter().cloned());
        let url = format!("{host}{}", made.target).parse()?;
        let body = match (callback.guise, &self.forger) {
            (Guise::Forged, None) => callback.body.clone(),
            _ => made.body,
        };
        Ok((url, headers, body))
    }

    /// When a callback is signed.
    fn moment(&self, source: &Source, guise: Guise, now: UnixMillis) -> UnixMillis {
        let now = self.timestamp.unwrap_or(now);
        match guise {
            Guise::Genuine | Guise::Forged => now,
            Guise::Stale => {
                let back = source.tolerance.past.saturating_add(STALE_BY);
                UnixMillis::from_seconds(now.as_seconds().saturating_sub(back))
            }
        }
    }

    /// Whether the sender takes `status` for "received".
    pub(super) fn accepts(&self, status: u16) -> bool {
        let source = self.policy.sources.first();
        let only = source.and_then(|source| source.acknowledge_as);
        only.map_or((200..300).contains(&status), |only| status == only)
    }
}

/// Whether the senders' samples are callbacks of this source: their message id is where it looks.
fn has_samples(source: &Source) -> bool {
    match &source.scheme.id {
        IdAt::Pointers { slots, .. } => {
            let pointers = source.pointers.get(slots.clone()).unwrap_or_default();
            let is_there = |pointer: &&str| *pointer == "/data/task_id";
            pointers
                .iter()
                .map(callback_guard_core::json::Pointer::as_str)
                .any(|pointer| is_there(&pointer))
        }
        IdAt::BodyDigest | IdAt::MessageDigest | IdAt::Header(_) => false,
    }
}

fn kinds(names: &[String]) -> anyhow::Result<Vec<Kind>> {
    match names {
        [] => Ok(vec![samples::find(DEFAULT_KIND)?]),
        [all] if all == "all" => samples::all(),
        names => names.iter().map(|name| samples::find(name)).collect(),
    }
}

/// A key of the kind that `source` has, which nobody knows; `None` where its key is a private one.
fn forger(source: &Source) -> anyhow::Result<Option<SigningKey>> {
    let key = body::fresh_id();
    Ok(match &source.scheme.proof {
        Proof::Signature(rule) if rule.algorithm.is_asymmetric() => None,
        Proof::Signature(rule) => Some(SigningKey::secret(rule.algorithm, key.as_bytes())?),
        Proof::Token(_) => Some(SigningKey::token(key.as_bytes())),
    })
}
