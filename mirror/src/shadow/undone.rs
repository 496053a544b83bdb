//! COMMITs that came to nothing on production for a reason of the moment, which an arm need not have: there they would
//! commit what production has rolled back. Pure.

use understudy_crds::experiment::StatementClass;

use super::entry::{Entry, PlannedStatement};
use crate::{
    capture::exchange::{Outcome, is_circumstance},
    wire::backend::TransactionStatus,
};

/// What production did not commit of an exchange that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// Nothing of it.
    All,
    /// What came after another COMMIT in it.
    Partly,
}

/// Whether a COMMIT of production's came to nothing by a failure that the arm need not have (a serialization failure, a
/// deadlock of a statement before it in the same request): it would be committed there.
pub fn undone_commit(entry: &Entry, production: &Outcome) -> Option<Undone> {
    production.error().filter(|sqlstate| is_circumstance(*sqlstate))?;
    let failed_at = production.statements.iter().position(|statement| statement.error.is_some())?;
    let commits = |statements: &[PlannedStatement]| statements.iter().any(|s| s.class == StatementClass::Commit);
    let (before, behind) = entry.statements.split_at(failed_at.min(entry.statements.len()));
    let over = production.before == TransactionStatus::InTransaction && production.after == TransactionStatus::Idle;
    let undone = commits(behind) || over && !production.broken;
    undone.then(|| if commits(before) { Undone::Partly } else { Undone::All })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use bytes::Bytes;

    use super::*;
    use crate::{
        capture::exchange::{Exchange, SessionId, StatementOutcome},
        measure::interval::Fingerprint,
        shadow::entry::Answer,
        wire::backend::SqlState,
    };

    const DEADLOCK: SqlState = *b"40P01";

    /// An exchange of statements: `w` writes, `c` commits, `u` does neither.
    fn entry(classes: &str) -> Entry {
        let planned = |class: char| PlannedStatement {
            class: match class {
                'w' => StatementClass::Write,
                'c' => StatementClass::Commit,
                _ => StatementClass::Utility,
            },
            fingerprint: Fingerprint(1),
            answer: Answer::Definite,
        };
        let (session, outcome) = (SessionId(1), OnceLock::new());
        let exchange = Exchange { session, sequence: 0, begun_ns: 0, request: Bytes::new(), outcome };
        Entry { statements: classes.chars().map(planned).collect(), ..Entry::unplanned(exchange) }
    }

    #[test]
    fn a_commit_that_production_did_not_come_to_or_failed_is_undone() {
        use TransactionStatus::{Failed, Idle, InTransaction};
        let unique = *b"23505";
        for (statements, done, error, before, after, broken, expected) in [
            // BEGIN; UPDATE; COMMIT at once, and what is before the one that fails.
            ("uwc", 1, Some(DEADLOCK), Idle, Failed, false, Some(Undone::All)),
            ("wc", 0, Some(DEADLOCK), InTransaction, Failed, false, Some(Undone::All)),
            ("c", 0, Some(*b"40001"), InTransaction, Idle, false, Some(Undone::All)),
            ("c", 0, Some(*b"57P01"), InTransaction, Idle, true, Some(Undone::All)),
            ("uwcuwc", 4, Some(DEADLOCK), Idle, Failed, false, Some(Undone::Partly)),
            // A COMMIT that the text does not show.
            ("u", 0, Some(*b"40001"), InTransaction, Idle, false, Some(Undone::All)),
            // It had committed before, or asks for none.
            ("uwcw", 3, Some(DEADLOCK), Idle, Idle, false, None),
            ("ww", 1, Some(DEADLOCK), Idle, Idle, false, None),
            ("w", 0, Some(DEADLOCK), InTransaction, Failed, false, None),
            // The arm fails by itself; production did not.
            ("uwc", 1, Some(unique), Idle, Failed, false, None),
            ("uwc", 3, None, Idle, Idle, false, None),
        ] {
            let one = |error| StatementOutcome { error, ..StatementOutcome::default() };
            let outcomes = (0..done).map(|_| one(None)).chain(error.map(|error| one(Some(error)))).collect();
            let production = Outcome { statements: outcomes, before, after, broken, ..Outcome::default() };
            assert_eq!(undone_commit(&entry(statements), &production), expected, "{statements} {done} {error:?}");
        }
    }
}
