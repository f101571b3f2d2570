//! The secrets that Envoy delivers (SDS), and the policy that they make.
//!
//! Envoy calls nothing when a secret changes: each of its threads has the current one, and is asked for it with
//! the head of each request. If it is another one, the configuration is read again with it, by the same rules as
//! when it was loaded. A secret that they refuse is not taken, and the last good one stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use callback_guard_config as config;
use callback_guard_core::log::{missing_secrets_line, secret_line};
use callback_guard_core::metrics::Metric;
use callback_guard_core::policy::{Policy, Subscription, Warning};
use callback_guard_core::scheme::keys::native;

use crate::abi::LogLevel;
use crate::envoy;

/// The secrets of a configuration.
pub(crate) struct Secrets {
    /// The configuration.
    text: Box<[u8]>,
    subscribed: Box<[Subscribed]>,
    latest: Mutex<Arc<Snapshot>>,
    /// Whether it has been said that a secret is missing.
    has_told: AtomicBool,
}

/// A secret, and its number with Envoy.
struct Subscribed {
    subscription: Subscription,
    id: usize,
}

/// Secrets at one time, and the policy that they make.
pub(crate) struct Snapshot {
    /// What Envoy had, by subscription; nothing is empty.
    had: Box<[Vec<u8>]>,
    /// What of it is in use.
    used: Box<[Option<Vec<u8>>]>,
    pub(crate) policy: Arc<Policy>,
}

/// A secret that Envoy has delivered, and whether it is in use.
pub(crate) struct Update {
    index: usize,
    /// What it made worth a warning, or why it is not taken.
    taken: Result<Vec<Warning>, String>,
}

impl Secrets {
    /// Reads a configuration, and subscribes to its secrets. While the configuration is loaded.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub(crate) fn subscribe(
        envoy: envoy::Config,
        text: &[u8],
    ) -> Result<(Self, Vec<Update>), String> {
        let policy = read(text, &|_| None)?;
        let mut subscribed = Vec::with_capacity(policy.subscriptions.len());
        for one in &policy.subscriptions {
            let id = envoy.subscribe(&one.name, one.config_source.as_deref());
            let id = id.ok_or_else(|| not_subscribed(one))?;
            subscribed.push(Subscribed {
                subscription: one.clone(),
                id,
            });
        }
        let nothing = Snapshot {
            had: vec![Vec::new(); subscribed.len()].into(),
            used: vec![None; subscribed.len()].into(),
            policy: Arc::new(policy),
        };
        let had: Box<[Vec<u8>]> = subscribed.iter().map(|one| envoy.secret(one.id)).collect();
        let secrets = Self {
            text: text.into(),
            subscribed: subscribed.into(),
            latest: Mutex::new(Arc::new(nothing)),
            has_told: AtomicBool::new(false),
        };
        let (first, updates) = secrets.next(&secrets.latest(), had);
        // A static secret never changes: one that is wrong is a mistake of the configuration.
        let is_static = |one: &Subscribed| one.subscription.config_source.is_none();
        for update in &updates {
            if let Err(problem) = &update.taken
                && secrets.subscribed.get(update.index).is_some_and(is_static)
            {
                return Err(problem.clone());
            }
        }
        for (one, had) in secrets.subscribed.iter().zip(&first.had) {
            if is_static(one) && had.is_empty() {
                return Err(format!("{}: the secret is empty", one.subscription.path));
            }
        }
        *lock(&secrets.latest) = Arc::new(first);
        Ok((secrets, updates))
    }

    /// What was found last.
    pub(crate) fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.latest))
    }

    /// The secrets that `filter`'s thread has now, if they are not those of `known`.
    pub(crate) fn changed(
        &self,
        known: &Snapshot,
        filter: &envoy::Filter,
    ) -> Option<(Arc<Snapshot>, Vec<Update>)> {
        let now = || self.subscribed.iter().map(|one| filter.secret(one.id));
        if now().eq(known.had.iter().map(Vec::as_slice)) {
            return None;
        }
        let mut latest = lock(&self.latest);
        if now().eq(latest.had.iter().map(Vec::as_slice)) {
            return Some((Arc::clone(&latest), Vec::new()));
        }
        let (next, updates) = self.next(&latest, now().map(<[u8]>::to_vec).collect());
        *latest = Arc::new(next);
        Some((Arc::clone(&latest), updates))
    }

    /// What `had` makes of `before`: each secret that is another one is tried by itself.
    fn next(&self, before: &Snapshot, had: Box<[Vec<u8>]>) -> (Snapshot, Vec<Update>) {
        let mut used = before.used.to_vec();
        let mut policy = Arc::clone(&before.policy);
        let mut updates = Vec::new();
        let changes = had.iter().zip(&before.had).enumerate();
        for (index, (value, _)) in changes.filter(|(_, (value, known))| value != known) {
            if used.get(index).and_then(Option::as_ref) == Some(value) {
                // One that was not taken is gone, and the one in use is back.
                continue;
            }
            let mut tried = used.clone();
            if let Some(place) = tried.get_mut(index) {
                *place = Some(value.clone());
            }
            let taken = self.read(&tried).map(|next| {
                let is_new = |warning: &&Warning| !policy.warnings.contains(warning);
                let warnings = next.warnings.iter().filter(is_new).cloned().collect();
                (used, policy) = (tried, Arc::new(next));
                warnings
            });
            updates.push(Update { index, taken });
        }
        let next = Snapshot {
            had,
            used: used.into(),
            policy,
        };
        (next, updates)
    }

    fn read(&self, used: &[Option<Vec<u8>>]) -> Result<Policy, String> {
        read(&self.text, &|wanted| {
            let all = self.subscribed.iter();
            let index = all.clone().position(|one| one.subscription.is_same(wanted));
            used.get(index?).cloned().flatten()
        })
    }

    /// Logs each update, and counts it.
    pub(crate) fn tell(&self, updates: Vec<Update>, count: impl Fn(Metric)) {
        for Update { index, taken } in updates {
            let Some(one) = self.subscribed.get(index) else {
                continue;
            };
            let (metric, level) = match &taken {
                Ok(warnings) if warnings.is_empty() => (Metric::SecretUpdates, LogLevel::Info),
                Ok(_) => (Metric::SecretUpdates, LogLevel::Warn),
                Err(_) => (Metric::SecretUpdateFailures, LogLevel::Error),
            };
            count(metric);
            envoy::say(level, || secret_line(&one.subscription.name, &taken));
        }
    }

    /// Says, once for a configuration, which secrets of `snapshot` are missing.
    pub(crate) fn tell_missing(&self, snapshot: &Snapshot) {
        if snapshot.used.iter().all(Option::is_some) || self.has_told.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let all = self.subscribed.iter().zip(&snapshot.used);
        let missing = all.filter(|(_, used)| used.is_none());
        let names: Vec<&str> = missing.map(|(one, _)| &*one.subscription.name).collect();
        envoy::say(LogLevel::Warn, || missing_secrets_line(&names));
    }
}

fn lock(latest: &Mutex<Arc<Snapshot>>) -> std::sync::MutexGuard<'_, Arc<Snapshot>> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(text: &[u8], delivered: config::Delivered<'_>) -> Result<Policy, String> {
    let environment =
        |name: &str| std::env::var_os(name).map(|value| value.as_encoded_bytes().to_vec());
    let mut policy = config::parse_delivered(text, &environment, delivered)
        .map_err(|error| error.to_string())?;
    policy.host_verify = native::verify;
    Ok(policy)
}

fn not_subscribed(one: &Subscription) -> String {
    let Subscription { path, name, .. } = one;
    match &one.config_source {
        Some(_) => format!(
            "{path}: Envoy does not subscribe to `{name}`, and says why in the line before this one; expected a \
             `ConfigSource` of Envoy in `sds_config`, such as `{{ \"path_config_source\": {{ \"path\": \
             \"/etc/envoy/suno.yaml\" }} }}` of a file that is there"
        ),
        None => format!(
            "{path}: Envoy has no static secret `{name}`, expected one under `static_resources.secrets` of its \
             configuration, or `sds_config` beside `sds`"
        ),
    }
}
