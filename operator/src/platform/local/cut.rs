//! Decides whether a cut holds, and what becomes of the exchanges that were in flight.
//!
//! Pure. The cut is a position *L* in the worker's WAL: what was committed before it is on the
//! clones, everything else is played to them. Both twice and not at all would be wrong, so whatever
//! is not certain means: open the gate and try again.
//!
//! ```text
//!  backend of an exchange in flight         before L → after L                 decision
//!  ───────────────────────────────────────  ─────────────────────────────────  ──────────────
//!  same transaction, no number, a snapshot  none → none                        not committed
//!  same transaction, with a number          any                                ask the clone
//!  finishes or makes a prepared transaction any                                retry
//!  began its transaction inside a statement any (CALL with COMMIT)             retry
//!  between transactions, or another one     any                                retry
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// One client's backend on the worker, as `pg_stat_activity` shows it. Times are µs since 1970 on the
/// worker's clock; they are only compared with one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The backend's process number.
    pub pid: i32,
    /// Its transaction's number, 64 bits; `None` until it writes.
    pub xid: Option<u64>,
    /// When its transaction began; `None` between transactions.
    pub xact_start_us: Option<i64>,
    /// When its statement began.
    pub query_start_us: Option<i64>,
    /// When its state last changed.
    pub state_change_us: Option<i64>,
    /// It holds a snapshot, or waits for a lock: it is in the middle of something. Whoever has committed holds none, and may
    /// still be at removing files, with a transaction that seems to be open.
    pub runs: bool,
    /// Whether its statement names a prepared transaction (`COMMIT PREPARED`): it commits under
    /// another number than its own.
    pub prepared: bool,
}

/// What was read from the worker around the cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutProbe {
    /// Backends before the cut was taken.
    pub before: Vec<Activity>,
    /// The cut: everything that begins before this position is on the clones.
    pub lsn: Lsn,
    /// Backends after the cut was taken.
    pub after: Vec<Activity>,
    /// Sequences of all databases, read after the cut.
    pub sequences: Vec<SequenceValue>,
}

/// Where a sequence stood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequenceValue {
    /// Its database.
    pub database: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The last value that was drawn.
    pub last_value: i64,
}

/// What becomes of an exchange that was in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its transaction was not committed at the cut: it is played from its beginning.
    NotCommitted,
    /// Its transaction has this number: the clone knows whether it was committed before the cut.
    Ask(u64),
}

/// Why a cut does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// An exchange ended while the worker was asked.
    ExchangeEnded,
    /// A backend with an exchange in flight is not there.
    BackendGone(i32),
    /// A backend was between transactions: its exchange has not reached it, or is already over.
    BetweenTransactions(i32),
    /// A backend went on to another transaction.
    TransactionChanged(i32),
    /// A statement commits in the middle of itself.
    CommitsInside(i32),
    /// A statement finishes or makes a prepared transaction.
    Prepared(i32),
}

/// Whether the cut holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutDecision {
    /// It holds; the fate of each backend's exchange in flight.
    Holds(BTreeMap<i32, Fate>),
    /// It does not; open the gate and try again.
    Retry(RetryReason),
}

/// Decides a cut. `in_flight` are the worker's backends that had an exchange in flight when the gate
/// was closed and drained; `exchanges_ended` whether any exchange ended between then and now.
pub fn decide(in_flight: &[i32], before: &[Activity], after: &[Activity], exchanges_ended: bool) -> CutDecision {
    if exchanges_ended {
        return CutDecision::Retry(RetryReason::ExchangeEnded);
    }
    let mut fates = BTreeMap::new();
    for pid in in_flight {
        let find = |all: &[Activity]| all.iter().find(|activity| activity.pid == *pid).cloned();
        let (Some(before), Some(after)) = (find(before), find(after)) else {
            return CutDecision::Retry(RetryReason::BackendGone(*pid));
        };
        match fate(&before, &after) {
            Ok(fate) => fates.insert(*pid, fate),
            Err(reason) => return CutDecision::Retry(reason),
        };
    }
    CutDecision::Holds(fates)
}

fn fate(before: &Activity, after: &Activity) -> Result<Fate, RetryReason> {
    let pid = before.pid;
    if before.prepared || after.prepared {
        return Err(RetryReason::Prepared(pid));
    }
    let (began, still) = match (before.xact_start_us, after.xact_start_us) {
        (Some(began), Some(still)) => (began, still),
        (None, _) => return Err(RetryReason::BetweenTransactions(pid)),
        (Some(_), None) => return Err(RetryReason::TransactionChanged(pid)),
    };
    if began != still || (before.xid.is_some() && before.xid != after.xid) {
        return Err(RetryReason::TransactionChanged(pid));
    }
    // A transaction begins with a statement, or before it; later only where a statement commits
    // on its way, and then an earlier part of it may be on the clone already.
    if [before, after].iter().any(|a| a.query_start_us.is_some_and(|query| began > query)) {
        return Err(RetryReason::CommitsInside(pid));
    }
    if [before, after].iter().any(|a| a.xid.is_none() && !a.runs) {
        return Err(RetryReason::BetweenTransactions(pid));
    }
    Ok(after.xid.map_or(Fate::NotCommitted, Fate::Ask))
}

/// The full number of a transaction of which 32 bits are known, `next` being a full number that is
/// near to it.
pub fn full_xid(low: u32, next: u64) -> u64 {
    let low = u64::from(low);
    let same_epoch = (next & !0xFFFF_FFFF) | low;
    if same_epoch > next && same_epoch - next > 1 << 31 {
        same_epoch.saturating_sub(1 << 32)
    } else if next > same_epoch && next - same_epoch > 1 << 31 {
        same_epoch.saturating_add(1 << 32)
    } else {
        same_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(xid: Option<u64>) -> Activity {
        Activity {
            pid: 7,
            xid,
            xact_start_us: Some(100),
            query_start_us: Some(150),
            state_change_us: Some(150),
            runs: true,
            prepared: false,
        }
    }

    fn idle() -> Activity {
        Activity { xact_start_us: None, ..busy(None) }
    }

    #[test]
    fn what_is_not_certain_is_tried_again() {
        type Case = (&'static str, Vec<Activity>, Vec<Activity>, bool, CutDecision);
        use RetryReason::{
            BackendGone, BetweenTransactions, CommitsInside, ExchangeEnded, Prepared, TransactionChanged,
        };
        let holds = |fate| CutDecision::Holds(BTreeMap::from([(7, fate)]));
        let retry = CutDecision::Retry;
        let other = |xid| Activity { xact_start_us: Some(120), ..busy(xid) };
        let call = Activity { xact_start_us: Some(160), ..busy(None) };
        let prepared = Activity { prepared: true, ..busy(None) };
        let autocommit = Activity { xact_start_us: Some(150), ..busy(Some(5)) };
        let done = Activity { runs: false, ..busy(None) };
        let cases: [Case; 16] = [
            ("removes files", vec![done.clone()], vec![done.clone()], false, retry(BetweenTransactions(7))),
            ("has committed before", vec![busy(None)], vec![done], false, retry(BetweenTransactions(7))),
            ("reads on", vec![busy(None)], vec![busy(None)], false, holds(Fate::NotCommitted)),
            ("writes on", vec![busy(Some(5))], vec![busy(Some(5))], false, holds(Fate::Ask(5))),
            ("begins to write", vec![busy(None)], vec![busy(Some(5))], false, holds(Fate::Ask(5))),
            ("autocommit", vec![autocommit.clone()], vec![autocommit], false, holds(Fate::Ask(5))),
            ("an answer came", vec![busy(None)], vec![busy(None)], true, retry(ExchangeEnded)),
            ("gone before", vec![], vec![busy(None)], false, retry(BackendGone(7))),
            ("gone after", vec![busy(None)], vec![], false, retry(BackendGone(7))),
            ("not begun", vec![idle()], vec![idle()], false, retry(BetweenTransactions(7))),
            ("begins", vec![idle()], vec![busy(None)], false, retry(BetweenTransactions(7))),
            ("ends", vec![busy(Some(5))], vec![idle()], false, retry(TransactionChanged(7))),
            ("next one", vec![busy(Some(5))], vec![other(None)], false, retry(TransactionChanged(7))),
            ("next number", vec![busy(Some(5))], vec![busy(Some(6))], false, retry(TransactionChanged(7))),
            ("CALL with COMMIT", vec![call.clone()], vec![call], false, retry(CommitsInside(7))),
            ("COMMIT PREPARED", vec![prepared.clone()], vec![prepared], false, retry(Prepared(7))),
        ];
        for (name, before, after, ended, expected) in cases {
            assert_eq!(decide(&[7], &before, &after, ended), expected, "{name}");
        }
    }

    #[test]
    fn backends_without_an_exchange_do_not_matter() {
        assert_eq!(decide(&[], &[busy(Some(5))], &[idle()], false), CutDecision::Holds(BTreeMap::new()));
    }

    #[test]
    fn one_doubt_spoils_the_cut() {
        let second = Activity { pid: 8, ..busy(None) };
        let decision = decide(&[8, 7], &[idle(), second.clone()], &[idle(), second], false);
        assert_eq!(decision, CutDecision::Retry(RetryReason::BetweenTransactions(7)));
    }

    #[test]
    fn transaction_numbers_get_their_epoch() {
        let epoch = 1_u64 << 32;
        for (low, next, expected) in [
            (700, 750, 700),
            (760, 750, 760),
            (u32::MAX, epoch + 10, u64::from(u32::MAX)),
            (5, epoch - 3, epoch + 5),
            (100, 3 * epoch + 200, 3 * epoch + 100),
        ] {
            assert_eq!(full_xid(low, next), expected, "{low} {next}");
        }
    }
}
