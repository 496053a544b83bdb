//! Pairs of outcomes and what differs between them.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use bytes::Bytes;
use understudy_crds::experiment::StatementClass;

use super::*;
use crate::{
    capture::exchange::{Exchange, SessionId},
    measure::interval::Fingerprint,
    shadow::{
        entry::{Answer, Budget, PlannedStatement},
        statement::footprint::Footprint,
    },
};

fn entry(answer: Answer, overlapped: bool) -> Entry {
    let request = Bytes::new();
    Entry {
        id: 1,
        exchange: Arc::new(Exchange {
            session: SessionId(1),
            sequence: 0,
            begun_ns: 0,
            request,
            outcome: OnceLock::new(),
        }),
        statements: vec![PlannedStatement { class: StatementClass::Read, fingerprint: Fingerprint(1), answer }],
        writes: false,
        touches: Footprint::NOTHING,
        publishes: Footprint::NOTHING,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(overlapped),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    }
}

fn outcome(statements: &[(u64, u64, Option<&[u8; 5]>)]) -> Outcome {
    let statements = statements
        .iter()
        .map(|(rows, digest, error)| StatementOutcome {
            rows: *rows,
            digest: *digest,
            lasting: *digest,
            error: error.copied(),
            ..StatementOutcome::default()
        })
        .collect();
    Outcome { statements, ..Outcome::default() }
}

#[test]
fn rows_that_differ_in_their_moments_alone_are_the_same() {
    let made = |moment, rest| {
        let statement = StatementOutcome { rows: 1, digest: moment, lasting: rest, ..StatementOutcome::default() };
        Outcome { statements: vec![statement], ..Outcome::default() }
    };
    let found = |arm: &Outcome| compare(&entry(Answer::Definite, false), &made(1, 7), arm, false).divergences;
    assert_eq!(found(&made(2, 7)), []);
    assert_eq!(found(&made(2, 8)), [DivergenceKind::Rows]);
}

#[test]
fn differences_are_told_by_kind() {
    use DivergenceKind::{Error, RowCount, Rows};
    let production = outcome(&[(2, 77, None)]);
    for (arm, expected) in [
        (outcome(&[(2, 77, None)]), vec![]),
        (outcome(&[(2, 78, None)]), vec![Rows]),
        (outcome(&[(3, 77, None)]), vec![RowCount]),
        (outcome(&[(0, 0, Some(b"23505"))]), vec![Error]),
        (outcome(&[]), vec![Error]),
        (outcome(&[(2, 77, None), (0, 0, None)]), vec![Error]),
    ] {
        assert_eq!(compare(&entry(Answer::Definite, false), &production, &arm, false).divergences, expected, "{arm:?}");
    }
}

/// `DELETE … WHERE until < now()`, or the first of a queue that others had not locked.
#[test]
fn a_change_that_depends_on_the_moment_is_of_as_many_rows() {
    let of = |class| {
        let planned = PlannedStatement { class, fingerprint: Fingerprint(1), answer: Answer::Volatile };
        Entry { statements: vec![planned], ..entry(Answer::Volatile, false) }
    };
    let changed = |rows: u64| {
        let statement =
            StatementOutcome { tag_rows: Some(rows), digest: rows, lasting: rows, ..StatementOutcome::default() };
        Outcome { statements: vec![statement], ..Outcome::default() }
    };
    for (class, rows, ambiguous, divergences) in [
        (StatementClass::Write, 1, 1, vec![]),
        (StatementClass::Write, 2, 0, vec![DivergenceKind::RowCount]),
        (StatementClass::Write, 0, 0, vec![DivergenceKind::RowCount]),
        (StatementClass::Read, 2, 1, vec![]),
    ] {
        let compared = compare(&of(class), &changed(1), &changed(rows), false);
        assert_eq!((compared.ambiguous, compared.divergences), (ambiguous, divergences), "{class:?} {rows}");
    }
}

#[test]
fn rows_that_a_plan_picked_may_be_others_but_as_many() {
    let production = outcome(&[(2, 77, None)]);
    let compared =
        |rows, digest| compare(&entry(Answer::Picked, false), &production, &outcome(&[(rows, digest, None)]), false);
    assert_eq!((compared(2, 77).ambiguous, compared(2, 77).divergences), (0, vec![]));
    assert_eq!((compared(2, 78).ambiguous, compared(2, 78).divergences), (1, vec![]));
    assert_eq!((compared(1, 78).ambiguous, compared(1, 78).divergences), (0, vec![DivergenceKind::RowCount]));
}

#[test]
fn the_same_error_is_no_difference() {
    let both = outcome(&[(0, 0, Some(b"23505"))]);
    assert_eq!(compare(&entry(Answer::Definite, false), &both, &both, false).divergences, []);
}

#[test]
fn rows_that_may_differ_are_counted_as_ambiguous_and_not_compared() {
    let (production, arm) = (outcome(&[(2, 77, None)]), outcome(&[(3, 78, None)]));
    for (entry, overtaken) in [
        (entry(Answer::Volatile, false), false),
        (entry(Answer::Definite, true), false),
        (entry(Answer::Definite, false), true),
    ] {
        let compared = compare(&entry, &production, &arm, overtaken);
        assert_eq!((compared.ambiguous, compared.divergences.len()), (1, 0));
    }
}

#[test]
fn what_failed_for_a_reason_of_the_moment_is_not_compared() {
    let production = outcome(&[(0, 0, Some(b"40P01"))]);
    assert_eq!(
        compare(&entry(Answer::Definite, false), &production, &outcome(&[(1, 1, None)]), false),
        Compared::default()
    );
}

#[test]
fn a_procedure_that_had_committed_before_it_was_cancelled_is_counted() {
    let production = outcome(&[(0, 0, Some(b"57014"))]);
    let arm = outcome(&[(0, 0, Some(b"2D000"))]);
    let compared = compare(&entry(Answer::Definite, false), &production, &arm, false);
    assert_eq!(compared.divergences, [DivergenceKind::TransactionState]);
}

#[test]
fn a_write_of_which_nobody_knows_whether_it_was_committed_is_counted() {
    let mut write = entry(Answer::Definite, false);
    write.writes = true;
    write.publishes = Footprint::Anything;
    let mut lost = outcome(&[]);
    lost.broken = true;
    assert_eq!(compare(&write, &lost, &outcome(&[]), false).divergences, [DivergenceKind::TransactionState]);
    let mut terminated = outcome(&[(0, 0, Some(b"57P01"))]);
    terminated.broken = true;
    assert_eq!(compare(&write, &terminated, &outcome(&[]), false).divergences, [], "it said that it failed");
    assert_eq!(
        compare(&entry(Answer::Definite, false), &lost, &outcome(&[]), false).divergences,
        [],
        "nothing would have become visible"
    );
}
