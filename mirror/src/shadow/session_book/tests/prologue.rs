//! What of a session is made again on an arm that it comes to late, and what binds it because it can't be.

use super::*;

#[test]
fn the_prologue_makes_settings_and_statements_again() {
    let mut session = Session::new();
    session.query("set search_path = a", Idle);
    let named = session.begin([parse("s1", "select 1"), encode::SYNC.to_vec()].concat());
    session.end(&named, Idle, false);
    session.query("begin", InTransaction);
    session.query("set search_path = b", InTransaction);
    session.query("rollback", Idle);
    session.query("set search_path = c", Idle);
    session.query("update t set a = 1", Idle);
    assert_eq!(session.prologue(), ["set search_path = a", "parse s1", "set search_path = c"]);
    session.query("deallocate s1", Idle);
    assert_eq!(session.prologue(), ["set search_path = a", "set search_path = c"]);
    session.query("discard all", Idle);
    assert!(session.prologue().is_empty());
}

#[test]
fn a_statement_survives_the_failure_of_its_first_execution() {
    let mut session = Session::new();
    let request = [parse("s1", "insert into t values ($1)"), bind_execute("s1", "1")].concat();
    let failing = session.begin(request);
    session.end(&failing, Idle, true);
    assert_eq!(session.prologue(), ["parse s1"], "the server has it: only what followed failed");
}

#[test]
fn a_transaction_that_failed_leaves_no_settings() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    session.query("set search_path = b", InTransaction);
    let failing = session.begin(encode::query("select 1/0"));
    session.end(&failing, Failed, true);
    session.query("commit", Idle);
    assert!(session.prologue().is_empty());
}

#[test]
fn what_cannot_be_made_again_binds_the_session_until_it_is_discarded() {
    let mut session = Session::new();
    session.query("create temp table scratch (a int)", Idle);
    assert!(session.book.cut(1000, 1000).bound);
    session.query("discard all", Idle);
    assert!(!session.book.cut(1000, 1000).bound);
}

#[test]
fn a_cursor_that_outlives_its_transaction_binds_the_session_until_it_is_closed() {
    let mut session = Session::new();
    let declare = "declare c cursor with hold for select 1";
    for closes in ["close c", "close all", "discard all"] {
        session.query(declare, Idle);
        session.query("fetch c", Idle);
        assert!(session.bound(), "before {closes}");
        session.query("close d", Idle);
        assert!(session.bound(), "it is another one");
        session.query(closes, Idle);
        assert!(!session.bound(), "{closes}");
    }
    // As a driver does that reads many rows in steps.
    session.query("begin", InTransaction);
    session.query(declare, InTransaction);
    session.query("close c", InTransaction);
    session.query("commit", Idle);
    assert!(!session.bound());
    session.query("begin", InTransaction);
    session.query(declare, InTransaction);
    session.query("rollback", Idle);
    assert!(!session.bound(), "it was never there");
    session.query("begin", InTransaction);
    session.query("create temp table scratch (a int) on commit drop", InTransaction);
    session.query("insert into scratch values (1)", InTransaction);
    session.query("commit", Idle);
    assert!(!session.bound(), "nothing is left of it");
}

#[test]
fn who_has_given_all_its_locks_back_can_be_made_again() {
    let mut session = Session::new();
    session.query("select pg_advisory_lock(1)", Idle);
    assert!(session.bound());
    session.query("select pg_advisory_unlock(1)", Idle);
    assert!(session.bound(), "there may have been two");
    session.query("select pg_advisory_unlock_all()", Idle);
    assert!(!session.bound());
    session.query("select pg_try_advisory_lock(1)", Idle);
    session.query("select pg_advisory_unlock_all(); close all; unlisten *; reset all", Idle);
    assert!(!session.bound());
    session.query("select pg_advisory_unlock_all(); select pg_advisory_lock(1)", Idle);
    assert!(session.bound());
    session.query("create temp table p (a int)", Idle);
    session.query("select pg_advisory_unlock_all()", Idle);
    assert!(session.bound(), "the table is still there");
}
