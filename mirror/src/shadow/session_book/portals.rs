//! What a session's portals execute. Nearly all are the unnamed one, bound and executed once: it has a place of its own.
//! When they end is not known here.

use std::collections::HashMap;

use bytes::Bytes;

use crate::shadow::statement::execution::Execution;

/// One of them.
#[derive(Debug)]
pub(super) struct Portal {
    /// The exchange that bound it, by its number in the session.
    pub by: u64,
    /// What it executes.
    pub executed: Vec<Execution>,
}

/// By name.
#[derive(Debug, Default)]
pub(super) struct Portals {
    unnamed: Option<Portal>,
    named: HashMap<Bytes, Portal>,
}

impl Portals {
    /// A portal is bound, in place of one of the same name.
    pub(super) fn insert(&mut self, name: &[u8], bound: Portal) {
        if name.is_empty() {
            self.unnamed = Some(bound);
        } else {
            self.named.insert(Bytes::copy_from_slice(name), bound);
        }
    }

    /// What it executes; it is not there any more.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<Portal> {
        if name.is_empty() { self.unnamed.take() } else { self.named.remove(name) }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }

    /// None is there any more.
    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        self.named.clear();
    }
}
