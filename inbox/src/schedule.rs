//! The pauses between an event's attempts.

use std::str::FromStr;
use std::time::Duration;

/// The pauses between attempts, in order: n of them make n + 1 attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Box<[Duration]>);

impl Schedule {
    /// The default as a flag would give it: 13 attempts over three days less 18 minutes.
    ///
    /// Source: the steps of Standard Webhooks, ended at three days.
    pub const DEFAULT: &str = "5s,30s,2m,10m,30m,1h,2h,5h,10h,14h,16h,23h";

    /// How much longer a pause may get by jitter, as a part of it.
    const JITTER: f64 = 0.2;

    /// The longest pause that is accepted.
    const LONGEST: Duration = Duration::from_secs(30 * 86_400);

    /// The most steps that are accepted.
    const MOST: usize = 100;

    /// The pause after `attempts` attempts; `None` if that was the last one.
    ///
    /// `jitter` is 0 to 1. It only lengthens, by a fifth at most: no attempt is early.
    #[must_use]
    pub fn delay(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        let index = usize::try_from(attempts).ok()?.checked_sub(1)?;
        let step = self.0.get(index)?;
        Some(step.mul_f64(1.0 + Self::JITTER * jitter.clamp(0.0, 1.0)))
    }

    /// The first pause.
    #[must_use]
    pub fn first(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    /// How many attempts a series has.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.0.len().saturating_add(1)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |seen: &str| {
            format!(
                "`{seen}` is no pause: expected 1 to {} durations of 1 ms to 30 days, \
                 separated by commas, as 5s,30s,2m,1h",
                Self::MOST
            )
        };
        let steps = text
            .split(',')
            .map(|step| {
                let pause = humantime::parse_duration(step.trim()).map_err(|_| wrong(step))?;
                let accepted = Duration::from_millis(1)..=Self::LONGEST;
                accepted
                    .contains(&pause)
                    .then_some(pause)
                    .ok_or_else(|| wrong(step))
            })
            .collect::<Result<Box<[_]>, _>>()?;
        if steps.len() > Self::MOST {
            return Err(wrong(text));
        }
        Ok(Self(steps))
    }
}
