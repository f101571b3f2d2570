//! Bounds attempts per second.

use crate::moment::Moment;

/// A token bucket that holds a tenth of a second's attempts, and at least one.
#[derive(Clone, Debug)]
pub struct Rate {
    per_second: Option<u32>,
    /// Thousandths of an attempt.
    tokens: u64,
    at: Moment,
}

impl Rate {
    /// A full bucket; `None` is no bound.
    #[must_use]
    pub fn new(per_second: Option<u32>, now: Moment) -> Self {
        let mut rate = Self {
            per_second,
            tokens: 0,
            at: now,
        };
        rate.tokens = rate.capacity();
        rate
    }

    fn capacity(&self) -> u64 {
        u64::from(self.per_second.unwrap_or(0))
            .saturating_mul(100)
            .max(1000)
    }

    /// How many attempts may begin at `now`, at most `wanted`.
    pub fn available(&mut self, wanted: usize, now: Moment) -> usize {
        let Some(per_second) = self.per_second else {
            return wanted;
        };
        let elapsed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        // Per millisecond a thousandth of the attempts of a second: the units cancel out.
        let refill = elapsed.saturating_mul(u64::from(per_second));
        self.tokens = self.tokens.saturating_add(refill).min(self.capacity());
        wanted.min(usize::try_from(self.tokens / 1000).unwrap_or(usize::MAX))
    }

    /// Uses up `count` of the available ones.
    pub fn take(&mut self, count: usize) {
        let used = u64::try_from(count)
            .unwrap_or(u64::MAX)
            .saturating_mul(1000);
        self.tokens = self.tokens.saturating_sub(used);
    }
}
