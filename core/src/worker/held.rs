//! How much of the requests' bodies a worker holds.

use crate::effect::Effects;
use crate::metrics::Metric;

/// Bytes of its body that every request may have held, however many others there are.
const ALWAYS_HELD_BYTES: usize = 16 << 10;

/// By how much the held bytes change before the gauge is updated: a body in one piece costs nothing.
const HELD_STEP_BYTES: usize = 64 << 10;

/// The bytes of bodies that a worker holds for its requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    bytes: usize,
    /// What the gauge shows of them.
    shown: usize,
}

impl Held {
    /// Holds `received` bytes for a request, which has `own` of them so far. False if there is no room
    /// for more of them: `most` are held at most.
    pub(super) fn hold(
        &mut self,
        own: &mut usize,
        received: usize,
        most: usize,
        effects: &mut Effects,
    ) -> bool {
        let more = received.saturating_sub(*own);
        let total = self.bytes.saturating_add(more);
        if received > ALWAYS_HELD_BYTES && more > 0 && total > most {
            return false;
        }
        self.bytes = total;
        *own = own.saturating_add(more);
        self.show(HELD_STEP_BYTES, effects);
        true
    }

    /// A request is decided, or gone: nothing is held for it any more.
    pub(super) fn let_go(&mut self, own: &mut usize, effects: &mut Effects) {
        let held = core::mem::take(own);
        self.bytes = self.bytes.saturating_sub(held);
        self.show(HELD_STEP_BYTES, effects);
    }

    /// The worker ends, with all its requests.
    pub(super) fn close(&mut self, effects: &mut Effects) {
        self.bytes = 0;
        self.show(0, effects);
    }

    /// Updates the gauge, if the held bytes have changed by a step, or are zero.
    fn show(&mut self, step: usize, effects: &mut Effects) {
        let is_none = self.bytes == 0 && self.shown > 0;
        if !is_none && self.bytes.abs_diff(self.shown) < step.max(1) {
            return;
        }
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let by = signed(self.bytes).saturating_sub(signed(self.shown));
        self.shown = self.bytes;
        effects.add(Metric::HeldBytes, by);
    }
}
