//! What a workload says about itself, a line of JSON a second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A workload's books.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// For each session the last entry whose commit was acknowledged; entries count from 1, and one that
    /// was not acknowledged is tried again under the same number.
    pub acknowledged: BTreeMap<u32, i64>,
    /// Transactions that were acknowledged.
    pub transactions: u64,
    /// Connections and statements that failed.
    pub errors: u64,
    /// What the last failure said.
    pub last_error: Option<String>,
    /// Connections that were made.
    pub connections: u64,
}
