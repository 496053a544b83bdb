//! The sessions that are open, as the control plane sees them. It knows nothing of connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
};

use atomic_waker::AtomicWaker;

use crate::capture::exchange::SessionId;

/// The sessions that are open. Locked for an insertion or a removal, and for a copy of the list.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<SessionId, Arc<SessionState>>>,
    next: AtomicU64,
}

/// What the control plane sees of an open session.
#[derive(Debug)]
pub struct SessionState {
    /// Which session.
    pub id: SessionId,
    /// Process id of its backend; 0 before the login.
    pub backend_pid: AtomicI32,
    /// Exchanges begun and not ended.
    pub in_flight: AtomicU32,
    /// In a transaction block at the last ReadyForQuery.
    pub in_block: AtomicBool,
    /// It is mirrored.
    pub mirrored: AtomicBool,
    /// Wakes it when draining begins.
    pub drained: AtomicWaker,
}

impl Sessions {
    /// One more.
    pub(super) fn open(&self) -> Arc<SessionState> {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let state = Arc::new(SessionState {
            id,
            backend_pid: AtomicI32::new(0),
            in_flight: AtomicU32::new(0),
            in_block: AtomicBool::new(false),
            mirrored: AtomicBool::new(true),
            drained: AtomicWaker::new(),
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&state));
        state
    }

    /// It has ended.
    pub(super) fn close(&self, id: SessionId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The sessions that are open now.
    pub fn list(&self) -> Vec<Arc<SessionState>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
