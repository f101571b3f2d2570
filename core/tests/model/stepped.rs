//! Shared data, one step at a time: between any two steps another worker may come.

use callback_guard_core::store::{SharedData, Swap, Unavailable};
use callback_guard_core::testkit::MapShared;

/// What shared data said to a callback, one entry for each step that it has taken.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Said {
    Got(Option<Vec<u8>>, Option<u32>),
    Swapped { is_done: bool },
    Refused,
}

/// Shared data that lets a callback take a number of new steps: it is run from its start, hears again
/// what it has heard, takes its steps, and is stopped at the next.
pub(crate) struct Stepped<'s> {
    pub(crate) real: &'s mut MapShared,
    pub(crate) said: &'s mut Vec<Said>,
    /// Whether the new steps are refused by the host.
    pub(crate) refuses: bool,
    /// How many new steps are left.
    pub(crate) left: usize,
    /// Whether it has been stopped: then nothing that it did counts but what it heard.
    pub(crate) is_stopped: bool,
    at: usize,
}

impl<'s> Stepped<'s> {
    pub(crate) fn new(
        real: &'s mut MapShared,
        said: &'s mut Vec<Said>,
        left: usize,
        refuses: bool,
    ) -> Self {
        Self {
            real,
            said,
            refuses,
            left,
            is_stopped: false,
            at: 0,
        }
    }

    fn next(
        &mut self,
        step: impl FnOnce(&mut MapShared) -> Result<Said, Unavailable>,
    ) -> Option<Said> {
        if self.at == self.said.len() {
            if self.left == 0 {
                self.is_stopped = true;
                return None;
            }
            self.left -= 1;
            let said = if self.refuses {
                Said::Refused
            } else {
                step(self.real).unwrap_or(Said::Refused)
            };
            self.said.push(said);
        }
        self.at += 1;
        Some(self.said[self.at - 1].clone())
    }
}

impl SharedData for Stepped<'_> {
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        match self.next(|real| {
            real.get(key)
                .map(|(value, version)| Said::Got(value, version))
        }) {
            Some(Said::Got(value, version)) => Ok((value, version)),
            _ => Err(Unavailable),
        }
    }

    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        match self.next(|real| {
            let swap = real.set(key, value, version)?;
            let is_done = swap == Swap::Done;
            Ok(Said::Swapped { is_done })
        }) {
            Some(Said::Swapped { is_done: true }) => Ok(Swap::Done),
            Some(Said::Swapped { is_done: false }) => Ok(Swap::Conflict),
            _ => Err(Unavailable),
        }
    }
}
