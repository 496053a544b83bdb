//! When a worker's answer is large, the session is woken for a good part of it at once instead of for each 8 KiB that the
//! worker sends: a wake-up costs the worker, who has to make it, as much as the bytes. Must not keep anything back of
//! a small answer, nor of a large one for longer than [`GATHERS_FOR`].

use std::time::Duration;

use tokio::time::Instant;

use super::Relay;
use crate::buffer::Size;

/// An answer of which so much has come is large, bytes. It took the worker ten milliseconds or more.
const LARGE_BYTES: usize = 16 << 20;
/// So much of it wakes the session, bytes; its end does, too.
const GATHERED_BYTES: u32 = 256 << 10;
/// What is less, and of it the end of the answer, wakes it so long after what came before. From then on each byte does
/// again, until the answer has once more become large: whoever sends slowly is kept waiting once.
const GATHERS_FOR: Duration = Duration::from_millis(1);

/// How much of an answer has come, and what the session is woken for.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    answer_bytes: usize,
    gathers: bool,
    /// Until when what has come since is waited for, whatever else wakes the session meanwhile.
    until: Option<Instant>,
}

impl Bulk {
    /// More has come, and so many requests are not answered. How many bytes the session is to be woken for from now on, if
    /// that changes. Where more than one is asked for, nobody knows whose answer comes next.
    fn came(&mut self, bytes: usize, awaited: usize) -> Option<u32> {
        self.until = None;
        if awaited != 1 {
            return self.end();
        }
        self.answer_bytes = self.answer_bytes.saturating_add(bytes);
        let begins = self.answer_bytes >= LARGE_BYTES && !self.gathers;
        begins.then(|| {
            self.gathers = true;
            GATHERED_BYTES
        })
    }

    /// Nothing more is waited for together. As above.
    fn end(&mut self) -> Option<u32> {
        *self = Self { gathers: self.gathers, ..Self::default() };
        std::mem::take(&mut self.gathers).then_some(1)
    }

    /// How much of it is read at once.
    pub(super) fn room(&self) -> Size {
        if self.gathers { Size::Large } else { Size::Usual }
    }

    /// More is waited for from now on, if it is not yet: until when.
    fn until(&mut self, now: Instant) -> Option<Instant> {
        self.gathers.then(|| *self.until.get_or_insert(now + GATHERS_FOR))
    }
}

impl Relay<'_> {
    /// The worker has sent something.
    pub(super) fn note_bulk(&mut self) {
        if let Some(bytes) = self.bulk.came(self.downstream.pending().len(), self.tracker.awaited()) {
            self.worker.wake_for(bytes);
        }
    }

    /// Until when more of an answer is waited for, where less than all of it does not wake the session.
    pub(super) fn gathers_until(&mut self) -> Option<Instant> {
        // A look at the clock, which nobody pays for whose answers are small.
        if self.bulk.gathers && self.downstream.is_empty() { self.bulk.until(Instant::now()) } else { None }
    }

    /// What is there of an answer, or comes, is taken at once.
    pub(super) fn gather_no_more(&mut self) {
        if let Some(bytes) = self.bulk.end() {
            // The network tells at once of what is there.
            self.worker.wake_for(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_is_gathered_until_its_end_or_until_it_is_slow() {
        let mut bulk = Bulk::default();
        assert_eq!(bulk.came(LARGE_BYTES - 1, 1), None);
        assert_eq!(bulk.came(5, 0), None, "it was not large");
        assert_eq!(bulk.came(LARGE_BYTES - 1, 1), None, "nor is the next one yet");
        assert_eq!(bulk.came(1, 1), Some(GATHERED_BYTES));
        assert_eq!(bulk.came(1, 1), None, "it is gathered already");
        assert_eq!(bulk.came(1, 0), Some(1), "it has ended");
        assert_eq!(bulk.end(), None);
        assert_eq!(bulk.came(LARGE_BYTES, 1), Some(GATHERED_BYTES));
        assert_eq!(bulk.end(), Some(1), "it was slow");
        assert_eq!(bulk.came(LARGE_BYTES - 1, 1), None, "whoever was slow has to become large again");
    }

    #[test]
    fn small_answers_of_a_pipeline_are_never_gathered() {
        let mut bulk = Bulk::default();
        for _ in 0..100 {
            assert_eq!(bulk.came(LARGE_BYTES / 2, 2), None);
        }
        assert_eq!(bulk.came(LARGE_BYTES, 1), Some(GATHERED_BYTES));
        assert_eq!(bulk.came(10, 2), Some(1), "more was asked for");
    }

    #[test]
    fn what_wakes_the_session_meanwhile_does_not_make_it_wait_longer() {
        let (mut bulk, now) = (Bulk::default(), Instant::now());
        assert_eq!(bulk.until(now), None);
        bulk.came(LARGE_BYTES, 1);
        assert_eq!(bulk.until(now), Some(now + GATHERS_FOR));
        assert_eq!(bulk.until(now + GATHERS_FOR / 2), Some(now + GATHERS_FOR));
        bulk.came(1, 1);
        assert_eq!(bulk.until(now + GATHERS_FOR), Some(now + 2 * GATHERS_FOR), "something came");
    }
}
