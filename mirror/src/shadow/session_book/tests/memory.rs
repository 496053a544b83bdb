//! What a book keeps for a cut has a limit, and what it can't keep it says.

use super::*;

/// A COPY with so much data, and where the transaction stands after it.
fn copy(session: &mut Session, bytes: usize, after: TransactionStatus) {
    let entry = session.begin(encode::query("copy t from stdin"));
    let outcome = Outcome {
        ended_ns: entry.exchange.begun_ns + 5,
        copy_in: Bytes::from(vec![0; bytes]),
        before: session.status,
        after,
        ..Outcome::default()
    };
    session.status = after;
    entry.exchange.outcome.set(outcome).unwrap();
    session.book.ended(&entry);
}

#[test]
fn the_data_of_a_copy_in_an_open_transaction_is_not_kept_without_end() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    for _ in 0..5 {
        copy(&mut session, MAX_OPEN_BYTES / 4, InTransaction);
        session.book.settle(None);
    }
    assert!(session.book.kept() <= 1, "{}", session.book.kept());
    assert!(session.book.cut(1000, 1000).bound, "a cut can't carry it over");
    session.query("commit", Idle);
    session.book.settle(None);
    assert!(!session.book.cut(1000, 1000).bound, "what comes after it can be carried over");
}

#[test]
fn what_was_forgotten_while_a_cut_was_made_is_missed_by_that_cut_alone() {
    let mut session = Session::new();
    // They end at 5, 15, 25…; the gate was drained at 12.
    for _ in 0..5 {
        copy(&mut session, MAX_OPEN_BYTES / 4, Idle);
        session.book.settle(Some(12));
    }
    session.query("select 1", Idle);
    assert!(session.book.cut(12, 13).bound, "what ended at 15 was not kept");
    assert!(!session.book.cut(100, 100).bound, "a later cut has it on the clone");
}
