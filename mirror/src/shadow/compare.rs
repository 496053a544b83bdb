//! Holds an arm's outcome against production's. Pure.

use understudy_crds::{condition::DivergenceKind, experiment::StatementClass};

use super::{
    entry::{Answer, Entry},
    statement::footprint::Footprint,
};
use crate::{
    capture::exchange::{Outcome, StatementOutcome, is_circumstance},
    wire::backend::SqlState,
};

/// `invalid_transaction_termination`.
const NO_COMMIT_HERE: SqlState = *b"2D000";

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Statements compared.
    pub statements: u64,
    /// Statements whose rows could not be compared: overlapped or overtaken by a write, volatile, or picked
    /// otherwise by another plan.
    pub ambiguous: u64,
    /// Differences.
    pub divergences: Vec<DivergenceKind>,
}

/// Compares statement by statement. `overtaken`: on the arm it may have seen what came later on production.
pub fn compare(entry: &Entry, production: &Outcome, arm: &Outcome, overtaken: bool) -> Compared {
    let mut compared = Compared::default();
    if overtaken {
        compared.statements = production.statements.len() as u64;
        compared.ambiguous = compared.statements;
        return compared;
    }
    // The connection broke before production said whether what this exchange would have made visible
    // became so. The arm has undone it, or committed it where it was a COMMIT: one of the two is wrong.
    if production.broken && production.error().is_none() && entry.publishes != Footprint::NOTHING {
        compared.statements += 1;
        compared.divergences.push(DivergenceKind::TransactionState);
        return compared;
    }
    // A procedure that commits by itself can't in the transaction that is to undo it here: what it had committed on
    // production, before it failed there for a reason of the moment, is missing.
    if arm.error() == Some(NO_COMMIT_HERE) && production.error().is_some_and(is_circumstance) {
        compared.statements += 1;
        compared.divergences.push(DivergenceKind::TransactionState);
        return compared;
    }
    // Nobody knows what production answered, or it failed for a reason of the moment.
    if production.broken || production.error().is_some_and(is_circumstance) {
        return compared;
    }
    for (index, theirs) in production.statements.iter().enumerate() {
        compared.statements += 1;
        let Some(ours) = arm.statements.get(index) else {
            compared.divergences.push(DivergenceKind::Error);
            break;
        };
        if theirs.error != ours.error {
            compared.divergences.push(DivergenceKind::Error);
            continue;
        }
        let planned = entry.statements.get(index);
        let answer = planned.map_or(Answer::Volatile, |planned| planned.answer);
        let changes = planned.is_some_and(|planned| planned.class == StatementClass::Write);
        match (answer, rows(theirs, ours)) {
            // Which rows it changed may depend on the moment, on chance, on what others had locked, and which numbers they
            // got. Where it were more or fewer than on production, the arm has other data from then on.
            _ if changes && theirs.tag_rows != ours.tag_rows => compared.divergences.push(DivergenceKind::RowCount),
            (Answer::Volatile, _) => compared.ambiguous += 1,
            _ if entry.is_ambiguous() => compared.ambiguous += 1,
            (Answer::Picked, Some(DivergenceKind::Rows)) => compared.ambiguous += 1,
            (_, difference) => compared.divergences.extend(difference),
        }
    }
    if arm.statements.len() > production.statements.len() {
        compared.divergences.push(DivergenceKind::Error);
    }
    compared
}

fn rows(production: &StatementOutcome, arm: &StatementOutcome) -> Option<DivergenceKind> {
    if production.tag_rows != arm.tag_rows || production.rows != arm.rows {
        Some(DivergenceKind::RowCount)
    } else if production.digest != arm.digest && production.lasting != arm.lasting {
        Some(DivergenceKind::Rows)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
