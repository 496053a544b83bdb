//! One session on the arm, as far as the order goes by it. Plain data: must not decide what starts.

use std::{collections::VecDeque, sync::Arc};

use crate::shadow::entry::Entry;

/// How far a session is on the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stands {
    /// It waits for [`Room`]: nothing of it starts.
    Outside,
    /// It is still to log in: what runs has not begun.
    AtTheDoor,
    /// It has logged in.
    #[default]
    Inside,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Arc<Entry>>,
    /// What runs on the arm, and since when, ns.
    pub(super) running: Option<(Arc<Entry>, u64)>,
    pub(super) stands: Stands,
    pub(super) closing: bool,
    /// Number of what was played last.
    pub(super) played: u64,
    /// A transaction of it is open on the arm.
    pub(super) in_block: bool,
    /// Its transaction, open on the arm, has written: others may wait for its locks there.
    pub(super) holds: bool,
    /// What came last, whether or not it has been played.
    pub(super) last: Option<Arc<Entry>>,
    /// Writes of the transaction that is open after it on production, which have locked rows.
    pub(super) locks: Vec<Arc<Entry>>,
    /// All that was answered before has been held against them, or will be, ns.
    pub(super) settled_ns: u64,
}
