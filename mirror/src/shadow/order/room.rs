//! Room for sessions on the arm: it has no more of them at a time than production had. Clients that come and go would
//! else be let in as soon as they are told of, beside all those that the arm, which lives behind production, has not
//! played to their end: more than its `max_connections`, and more than production's server ever had to serve.
//!
//! Nobody waits in a circle for it: of those that production had let in before and that are not counted any more, all
//! had ended there before the one that waits began, so nothing of them waits for anything of it.

use std::{collections::VecDeque, sync::Arc};

use crate::capture::exchange::SessionInfo;

/// How many sessions there are, and who waits to be one.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Sessions that production has, as far as it was told.
    on_production: usize,
    /// Sessions that the arm has.
    on_arm: usize,
    /// In the order in which production let them in: who, and how many there were then.
    waiting: VecDeque<(Arc<SessionInfo>, usize)>,
}

impl Room {
    /// Production has let a session in.
    pub(super) fn opened(&mut self, info: Arc<SessionInfo>) {
        self.on_production += 1;
        self.waiting.push_back((info, self.on_production));
    }

    /// A session that both had before anything was told.
    pub(super) fn taken_over(&mut self) {
        self.on_production += 1;
        self.on_arm += 1;
    }

    /// Production has ended a session.
    pub(super) fn closed(&mut self) {
        self.on_production = self.on_production.saturating_sub(1);
    }

    /// The arm has.
    pub(super) fn left(&mut self) {
        self.on_arm = self.on_arm.saturating_sub(1);
    }

    /// Who comes in now.
    pub(super) fn next(&mut self) -> Option<Arc<SessionInfo>> {
        let (info, _) = self.waiting.pop_front_if(|(_, there)| self.on_arm < *there)?;
        self.on_arm += 1;
        Some(info)
    }
}
