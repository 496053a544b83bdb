//! What the mirror pod and an arm's agent say to each other: orders one way, a state the other.
//!
//! Data only. An order is answered at once; how it went shows in the state, so that nothing waits on a
//! connection for as long as an index takes to build.

use serde::{Deserialize, Serialize};

use crate::{
    error::UserError,
    platform::local::{base_backup::CopyProgress, cut::SequenceValue},
};

/// What an agent says (`GET /v1/arm`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSays {
    /// What the arm is made from: a candidate that was changed has another pod of the same name.
    pub revision: String,
    /// What is free on its volume, and what there is in all, bytes.
    #[serde(default)]
    pub room_bytes: Option<(u64, u64)>,
    /// Where it stands.
    #[serde(flatten)]
    pub state: AgentState,
}

/// Where an arm stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "of")]
pub enum AgentState {
    /// Nothing has been asked of it.
    Waiting,
    /// It copies the worker.
    Copying {
        /// Bytes that are here.
        done_bytes: u64,
        /// Bytes that there are.
        total_bytes: u64,
    },
    /// It follows the worker's WAL.
    Following,
    /// It follows, and replays nothing for now.
    Paused,
    /// It recovers to the cut.
    Recovering,
    /// It has left the WAL and is a server of its own, quarantined.
    Own(AtTheCut),
    /// The candidate's SQL runs.
    Applying,
    /// It is the worker plus the candidate.
    Ready,
    /// It can't go on.
    Failed(UserError),
}

impl AgentState {
    /// How far its copy is.
    pub const fn progress(&self) -> Option<CopyProgress> {
        match self {
            Self::Copying { done_bytes, total_bytes } => {
                Some(CopyProgress { done_bytes: *done_bytes, total_bytes: *total_bytes })
            }
            _ => None,
        }
    }
}

/// What a clone found at the cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtTheCut {
    /// The end of the last record that it replayed, an LSN.
    pub replayed: String,
    /// For each transaction that was asked about: its number, and whether it was committed before the cut.
    pub committed: Vec<(u64, bool)>,
}

/// What an arm is told to do (`POST /v1/arm`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "order", content = "with")]
pub enum Order {
    /// Copy the worker and follow it. WAL is kept for it.
    Seed,
    /// Replay nothing for now.
    Pause,
    /// Recover to exactly the cut, leave the WAL, go into quarantine; let in who gives this order,
    /// over mutual TLS.
    Cut {
        /// The cut, an LSN: the first position that is not replayed any more.
        lsn: String,
        /// Transactions to settle, 64-bit numbers.
        ask: Vec<u64>,
        /// Where the worker's sequences stood.
        sequences: Vec<SequenceValue>,
    },
    /// Run the candidate's SQL.
    Apply,
}
