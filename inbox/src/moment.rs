//! Moments: milliseconds since the Unix epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// The time since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The wall clock's time.
    #[must_use]
    pub fn wall() -> Self {
        Self::from_system(SystemTime::now())
    }

    /// A moment of the system's clock.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }

    /// The same for the system's clock.
    #[must_use]
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH + self.since(Self(0))
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl std::fmt::Display for Moment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}",
            humantime::format_rfc3339_millis(self.to_system())
        )
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that starts at the wall clock's time and then only goes forward, at the pace of time.
///
/// Due times and leases follow it, so a wall clock that is set neither delays nor repeats an attempt.
/// What people read (`received_at`, `tries[].at`) is [`Moment::wall`].
#[derive(Clone, Debug)]
pub struct SteadyClock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Running { base: Moment, started: Instant },
    ByHand(Arc<AtomicI64>),
}

impl SteadyClock {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self(Kind::Running {
            base: Moment::wall(),
            started: Instant::now(),
        })
    }

    /// A clock that shows what `milliseconds` says, for tests.
    #[must_use]
    pub fn by_hand(milliseconds: Arc<AtomicI64>) -> Self {
        Self(Kind::ByHand(milliseconds))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::Running { base, started } => base.after(started.elapsed()),
            Kind::ByHand(milliseconds) => Moment(milliseconds.load(Ordering::Relaxed)),
        }
    }
}
