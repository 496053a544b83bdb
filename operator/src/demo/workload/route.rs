//! Where the clients should be, and which of them are there.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;
use tokio_postgres::Config;

/// Where the clients should be.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) config: Config,
    /// Counts the changes of `config`.
    pub(super) generation: u64,
    pub(super) stopping: bool,
}

/// Which sessions have followed which change of the route.
#[derive(Debug, Default)]
pub(super) struct Moves {
    generations: Mutex<HashMap<u32, u64>>,
    changed: Notify,
}

impl Moves {
    pub(super) fn done(&self, session: u32, generation: u64) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).insert(session, generation);
        self.changed.notify_waiters();
    }

    /// Sessions that have followed the change.
    pub(super) fn count(&self, generation: u64) -> usize {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.values().filter(|reached| **reached >= generation).count()
    }

    /// Waits until `sessions` sessions have followed the change.
    pub(super) async fn reached(&self, generation: u64, sessions: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count(generation) >= sessions {
                return;
            }
            changed.await;
        }
    }
}
