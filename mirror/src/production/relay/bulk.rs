//! When a worker's answer is large, the session is woken for a good part of it at once instead of for each 8 KiB that the
//! worker sends: a wake-up costs the worker, who has to make it, as much as the bytes. Must not keep anything back of
//! a small answer, nor of a large one for longer than [`GATHERS_FOR`].

use std::time::Duration;

use super::Relay;

/// An answer of which so much has come is large, bytes. It took the worker ten milliseconds or more.
const LARGE_BYTES: usize = 16 << 20;
/// So much of it wakes the session, bytes; its end does, too.
const GATHERED_BYTES: u32 = 256 << 10;
/// What is less, and of it the end of the answer, wakes it after this time. From then on each byte does again, until the
/// answer has once more become large: whoever sends slowly is kept waiting once.
const GATHERS_FOR: Duration = Duration::from_millis(1);

/// How much of an answer has come, and what the session is woken for.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    answer_bytes: usize,
    gathers: bool,
}

impl Bulk {
    /// More of an answer has come, or of none. How many bytes the session is to be woken for from now on, if that changes.
    fn came(&mut self, bytes: usize, is_answered: bool) -> Option<u32> {
        if is_answered {
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
        self.answer_bytes = 0;
        std::mem::take(&mut self.gathers).then_some(1)
    }
}

impl Relay<'_> {
    /// The worker has sent something.
    pub(super) fn note_bulk(&mut self) {
        let (bytes, is_answered) = (self.downstream.pending().len(), self.tracker.awaited() == 0);
        if let Some(bytes) = self.bulk.came(bytes, is_answered) {
            self.worker.wake_for(bytes);
        }
    }

    /// How long more of an answer is waited for, where less than all of it does not wake the session.
    pub(super) fn gathers_for(&self) -> Option<Duration> {
        (self.bulk.gathers && self.downstream.is_empty()).then_some(GATHERS_FOR)
    }

    /// It has been waited for so long: what is there is taken.
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
        assert_eq!(bulk.came(LARGE_BYTES - 1, false), None);
        assert_eq!(bulk.came(5, true), None, "it was not large");
        assert_eq!(bulk.came(LARGE_BYTES - 1, false), None, "nor is the next one yet");
        assert_eq!(bulk.came(1, false), Some(GATHERED_BYTES));
        assert_eq!(bulk.came(1, false), None, "it is gathered already");
        assert_eq!(bulk.came(1, true), Some(1), "it has ended");
        assert_eq!(bulk.end(), None);
        assert_eq!(bulk.came(LARGE_BYTES, false), Some(GATHERED_BYTES));
        assert_eq!(bulk.end(), Some(1), "it was slow");
        assert_eq!(bulk.came(LARGE_BYTES - 1, false), None, "whoever was slow has to become large again");
    }
}
