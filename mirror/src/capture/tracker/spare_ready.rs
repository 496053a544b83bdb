//! One ReadyForQuery more than there are exchanges: a server answers both Syncs of a COPY that it fails before it has
//! read the first of them, and only what comes next tells whether it did. Pure.

use super::Awaiting;
use crate::wire::backend::{self, tag};

/// Whether one is to be expected, and what has been said since the last ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct SpareReady {
    /// The server has said something that answers a request.
    answered: bool,
    /// The next ReadyForQuery may be one too many.
    may_come: bool,
}

impl SpareReady {
    /// One may come.
    pub(super) fn is_due(&self) -> bool {
        self.may_come
    }

    /// The server sends such a message.
    pub(super) fn said(&mut self, tag: u8) {
        self.answered |= tag != tag::READY_FOR_QUERY && !backend::is_asynchronous(tag);
    }

    /// This exchange has been answered.
    pub(super) fn may_come(&mut self, ended: Option<&Awaiting>) {
        self.may_come |= ended.is_some_and(|ended| ended.copy.may_be_answered_twice());
    }

    /// Whether the ReadyForQuery that is here is it. It comes before anything else, and whatever asks for something is
    /// answered by more than a ReadyForQuery.
    pub(super) fn is_here(&mut self, front: Option<&Awaiting>) -> bool {
        if std::mem::take(&mut self.answered) {
            self.may_come = false;
        }
        !front.is_some_and(|front| front.is_sync_alone) && std::mem::take(&mut self.may_come)
    }
}
