//! One running inbox: everything started, and stopped in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::admin;
use crate::application::Application;
use crate::backlog::Backlog;
use crate::deliver::Deliverer;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::server::{self, Intake};
use crate::settings::Settings;
use crate::store::{Store, Writer};

/// How often the store is counted, at least; a count that takes long is made less often.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Delivered events that one step removes.
const PURGE_STEP: i64 = 500;

/// How often it is looked whether there is something to remove, unless `--keep` is shorter.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// An inbox whose ports are open and whose store is ready.
#[derive(Debug)]
pub struct Inbox {
    settings: Settings,
    store: Store,
    listener: TcpListener,
    admin: TcpListener,
}

impl Inbox {
    /// Opens the store and the ports.
    ///
    /// # Errors
    ///
    /// One of them cannot be opened: which, and why.
    pub async fn open(settings: Settings) -> Result<Self> {
        let store = Store::open(&settings.store).await?;
        if !settings.in_order {
            store.end_order().await?;
        }
        let listen = |address| async move {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self {
            listener: listen(settings.listen).await?,
            admin: listen(settings.admin).await?,
            settings,
            store,
        })
    }

    /// Where callbacks are taken.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Where metrics and health are shown.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        Ok(self.admin.local_addr()?)
    }

    /// Takes and delivers callbacks until `stop` says true, then ends in order: nothing new is
    /// taken, attempts end, what is left is claimed by nobody.
    ///
    /// # Errors
    ///
    /// The client of the application cannot be set up.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let settings = self.settings;
        let metrics = Arc::new(Metrics::new());
        metrics.store_up.set(1);
        let backlog = Arc::new(Backlog::new(
            settings.max_backlog,
            settings.max_backlog_bytes,
        ));
        count(&self.store, &backlog, &metrics).await;
        let wake = Arc::new(Notify::new());
        let (writer, writers) = Writer::start(&self.store);
        let application = Application::new(settings.to, settings.timeout, settings.signing_key)?;
        let intake = Arc::new(Intake {
            token: settings.token,
            drop_headers: settings.drop_headers,
            backlog: Arc::clone(&backlog),
            store: self.store.clone(),
            writer: writer.clone(),
            wake: Arc::clone(&wake),
            metrics: Arc::clone(&metrics),
            stop: stop.clone(),
            held: AtomicU64::new(0),
        });
        let deliverer = Deliverer {
            store: self.store.clone(),
            writer: writer.clone(),
            application,
            backlog: Arc::clone(&backlog),
            metrics: Arc::clone(&metrics),
            wake,
            schedule: settings.schedule,
            concurrency: settings.concurrency,
            timeout: settings.timeout,
            rate: settings.rate,
            in_order: settings.in_order,
            grace: settings.grace,
        };
        let beside = [
            tokio::spawn(admin::serve(
                self.admin,
                self.store.clone(),
                Arc::clone(&metrics),
            )),
            tokio::spawn(watch_store(
                self.store.clone(),
                backlog,
                Arc::clone(&metrics),
            )),
            tokio::spawn(purge(writer, settings.keep, metrics)),
        ];
        tokio::join!(
            server::serve(self.listener, intake, settings.grace),
            deliverer.run(stop)
        );
        for task in beside {
            task.abort();
            // Only its writer is waited for: the writers end with the last.
            let _ = task.await;
        }
        for task in writers {
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        self.store.close().await;
        Ok(())
    }
}

/// Asks the store what waits; returns how long that took.
async fn count(store: &Store, backlog: &Backlog, metrics: &Metrics) -> Duration {
    let began = Instant::now();
    backlog.begin_count();
    match store.counts().await {
        Ok(counts) => {
            backlog.correct(&counts);
            metrics.store_up.set(1);
            metrics
                .dead_events
                .set(i64::try_from(counts.dead).unwrap_or(i64::MAX));
            metrics.paused.set(i64::from(counts.is_paused));
            let age = counts
                .oldest
                .map_or(Duration::ZERO, |oldest| Moment::wall().since(oldest));
            metrics.oldest_seconds.set(age.as_secs_f64());
        }
        Err(error) => {
            metrics.store_up.set(0);
            tracing::error!(%error, "the store does not answer");
        }
    }
    show_amount(backlog, metrics);
    began.elapsed()
}

fn show_amount(backlog: &Backlog, metrics: &Metrics) {
    let (events, bytes) = backlog.amount();
    metrics
        .backlog
        .set(i64::try_from(events).unwrap_or(i64::MAX));
    metrics
        .backlog_bytes
        .set(i64::try_from(bytes).unwrap_or(i64::MAX));
}

async fn watch_store(store: Store, backlog: Arc<Backlog>, metrics: Arc<Metrics>) {
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let took = count(&store, &backlog, &metrics).await;
            next = Instant::now() + COUNT_EVERY.max(took * 20);
        }
        show_amount(&backlog, &metrics);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn purge(writer: Writer, keep: Duration, metrics: Arc<Metrics>) {
    loop {
        match writer.purge(keep, PURGE_STEP).await {
            Ok(count) => {
                metrics.purged.inc_by(count);
                if count >= u64::try_from(PURGE_STEP).unwrap_or(u64::MAX) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
            Err(error) => tracing::error!(%error, "delivered events cannot be removed"),
        }
        tokio::time::sleep(keep.clamp(Duration::from_secs(1), PURGE_EVERY)).await;
    }
}
