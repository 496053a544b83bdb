//! What the prologue makes again, in which order, and when it says that it can't.

use super::*;

fn sync() -> Vec<u8> {
    encode::SYNC.to_vec()
}

fn close(name: &str) -> Vec<u8> {
    message(b'C', format!("S{name}\0").as_bytes())
}

/// Binds the unnamed or a named statement without parameters and executes it.
fn execute(name: &str) -> Vec<u8> {
    let bind = message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
    [bind, message(b'E', b"\0\0\0\0\0")].concat()
}

#[test]
fn an_unnamed_statement_that_waits_for_its_bind_is_made_again() {
    let insert = || parse("", "insert into t values ($1)");
    let mut session = Session::new();
    session.request(&[insert(), sync()], Idle, false);
    assert_eq!(session.prologue(), ["parse "]);
    session.request(&[bind_execute("", "1")], Idle, false);
    assert_eq!(session.prologue(), ["parse "], "it may be bound again");
    session.query("select 1", Idle);
    assert!(session.prologue().is_empty(), "a simple query takes it away");
    session.request(&[insert(), sync()], Idle, false);
    session.request(&[insert(), bind_execute("", "1")], Idle, false);
    assert!(session.prologue().is_empty(), "it was made and used in one");
    session.request(&[insert(), sync()], Idle, false);
    session.request(&[parse("", "selec"), sync()], Idle, false);
    session.request(&[close(""), sync()], Idle, false);
    assert!(session.prologue().is_empty());
}

#[test]
fn a_setting_made_by_a_statement_of_an_earlier_request_brings_that_along() {
    let mut session = Session::new();
    session.request(&[parse("", "set search_path = a"), sync()], Idle, false);
    session.request(&[execute(""), sync()], Idle, false);
    session.request(&[parse("", "set datestyle = b"), sync()], Idle, false);
    session.request(&[execute(""), sync()], Idle, false);
    let seed = session.book.cut(1000, 1000);
    let first: Vec<u8> = frame::messages(&seed.prologue[0]).map(|m| m.tag).collect();
    assert_eq!((seed.bound, &first[..]), (false, &b"PBES"[..]));
    let mut session = Session::new();
    session.request(&[parse("", "set search_path = a"), execute(""), sync()], Idle, false);
    session.request(&[execute(""), sync()], Idle, false);
    assert!(session.bound(), "it was not kept");
}

#[test]
fn what_a_statement_is_prepared_under_stays_before_it() {
    let mut session = Session::new();
    session.query("set search_path = t1", Idle);
    session.request(&[parse("s1", "select * from a"), sync()], Idle, false);
    session.query("set search_path = t2", Idle);
    session.query("set search_path = t1", Idle);
    assert_eq!(session.prologue(), ["set search_path = t1", "parse s1", "set search_path = t1"]);
    let mut session = Session::new();
    session.query("set search_path = t1", Idle);
    session.query("prepare p as select * from a", Idle);
    session.query("set search_path = t1", Idle);
    assert_eq!(session.prologue(), ["set search_path = t1", "prepare p as select * from a", "set search_path = t1"]);
}

#[test]
fn what_was_deallocated_is_not_made_again() {
    let mut session = Session::new();
    session.query("prepare p as select 1", Idle);
    session.query("deallocate p", Idle);
    assert!(session.prologue().is_empty());
    session.query("prepare p as select 1", Idle);
    assert_eq!(session.prologue(), ["prepare p as select 1"]);
    session.query("deallocate all", Idle);
    assert!(!session.prologue().contains(&"prepare p as select 1".to_owned()));
    // Together with something else it can only be made again as a whole.
    let both = "prepare q as select 1; set search_path = a";
    session.query(both, Idle);
    session.query("deallocate q", Idle);
    session.query(both, Idle);
    let prologue = session.prologue();
    assert_eq!(prologue[prologue.len() - 3..], [both, "deallocate q", both]);
}

#[test]
fn a_variable_that_every_request_sets_takes_one_step() {
    let mut session = Session::new();
    for user in 0..6_000 {
        session.query(&format!("set app.tenant = '{user}'"), Idle);
        session.request(&[parse("", &format!("set app.\"user\" = '{user}'")), execute(""), sync()], Idle, false);
        session.query(&format!("select set_config('app.name', '{user}', false)"), Idle);
    }
    session.query("set app.tenant = 'last'; set app.tenant = 'very last'", Idle);
    let seed = session.book.cut(u64::MAX - 1, u64::MAX - 1);
    assert_eq!((seed.bound, seed.prologue.len()), (false, 3));
    let kept = session.prologue();
    assert_eq!(
        kept[1..],
        ["select set_config('app.name', '5999', false)", "set app.tenant = 'last'; set app.tenant = 'very last'"]
    );
}

#[test]
fn what_holds_for_one_transaction_is_no_state() {
    let mut session = Session::new();
    for sql in [
        "set local search_path = a",
        "set transaction isolation level serializable",
        "select set_config('app.user', 'a', true), now()",
    ] {
        session.query(sql, Idle);
    }
    assert!(session.prologue().is_empty() && !session.bound());
}

/// A query, where the transaction stands after it, and whether it fails.
type Query = (&'static str, TransactionStatus, bool);

/// Scripts, and what is made again: nothing when the session is bound.
#[test]
fn what_a_transaction_leaves_is_known_or_binds_the_session() {
    const X: &str = "set search_path = x";
    const P: &str = "prepare p as select 1";
    let table: [(&[Query], Option<&[&str]>); 13] = [
        (&[("begin", InTransaction, false), (X, InTransaction, false), ("commit", Idle, false)], Some(&[X])),
        (&[("begin", InTransaction, false), (X, InTransaction, false), ("rollback", Idle, false)], Some(&[])),
        (
            &[
                ("begin", InTransaction, false),
                (X, InTransaction, false),
                ("savepoint s", InTransaction, false),
                ("insert into t values (1)", Failed, true),
                ("rollback to s", InTransaction, false),
                ("commit", Idle, false),
            ],
            None,
        ),
        (
            &[
                ("begin; savepoint s", InTransaction, false),
                (X, InTransaction, false),
                ("rollback to s", InTransaction, false),
                ("commit", Idle, false),
            ],
            None,
        ),
        // Without state a savepoint is nothing to the session.
        (
            &[
                (X, Idle, false),
                ("begin; savepoint s", InTransaction, false),
                ("insert into t values (1)", Failed, true),
                ("rollback to s", InTransaction, false),
                ("commit", Idle, false),
            ],
            Some(&[X]),
        ),
        // What prepares is no part of a transaction.
        (&[("begin", InTransaction, false), (P, InTransaction, false), ("rollback", Idle, false)], Some(&[P])),
        (
            &[
                (P, Idle, false),
                ("begin", InTransaction, false),
                ("deallocate p", InTransaction, false),
                ("rollback", Idle, false),
            ],
            Some(&[]),
        ),
        (
            &[
                ("begin", InTransaction, false),
                (P, InTransaction, false),
                ("select 1/0", Failed, true),
                ("commit", Idle, false),
            ],
            Some(&[P]),
        ),
        (
            &[("begin; set search_path = x; prepare p as select 1", InTransaction, false), ("rollback", Idle, false)],
            None,
        ),
        // A COMMIT that fails has rolled back.
        (&[("begin", InTransaction, false), (X, InTransaction, false), ("commit", Idle, true)], Some(&[])),
        // One transaction went straight over into another.
        (
            &[
                ("begin", InTransaction, false),
                (X, InTransaction, false),
                ("commit and chain", InTransaction, false),
                ("rollback", Idle, false),
            ],
            None,
        ),
        (
            &[("begin", InTransaction, false), ("rollback; set search_path = x", Idle, false)],
            Some(&["rollback; set search_path = x"]),
        ),
        // A lock of the session outlives the transaction.
        (
            &[
                ("begin", InTransaction, false),
                ("select pg_advisory_lock(7)", InTransaction, false),
                ("rollback", Idle, false),
            ],
            None,
        ),
    ];
    for (script, expected) in table {
        let mut session = Session::new();
        for (sql, after, failed) in script {
            session.request(&[encode::query(sql)], *after, *failed);
        }
        let bound = session.bound();
        assert_eq!(
            (!bound).then(|| session.prologue()),
            expected.map(|e| e.iter().map(ToString::to_string).collect()),
            "{script:?}"
        );
    }
}

#[test]
fn what_an_execute_runs_is_what_it_is() {
    for (inner, bound, played) in [
        ("select pg_advisory_lock(7)", true, false),
        ("select set_config('a.b', 'c', false)", false, true),
        ("select a from t", false, false),
    ] {
        let mut session = Session::new();
        session.query(&format!("prepare p as {inner}"), Idle);
        session.query("execute p", Idle);
        assert_eq!(session.bound(), bound, "{inner}");
        assert_eq!(session.prologue().contains(&"execute p".to_owned()), played, "{inner}");
    }
}

#[test]
fn a_statement_that_its_own_request_closes_is_not_made_again() {
    let mut session = Session::new();
    session.request(&[parse("s1", "select 1"), execute("s1"), close("s1"), sync()], Idle, false);
    assert!(session.prologue().is_empty());
    session.request(&[parse("s1", "select 1"), sync()], Idle, false);
    session.request(&[close("s1"), parse("s1", "select 2"), sync()], Idle, false);
    assert_eq!(session.prologue(), ["parse s1"]);
    // It failed on the way there: the server passed over the rest.
    session.request(&[parse("s2", "select 1/0"), execute("s2"), close("s2"), sync()], Idle, true);
    assert_eq!(session.prologue(), ["parse s1", "parse s2"]);
}

#[test]
fn a_pool_that_lets_go_of_locks_as_it_resets_a_session_does_not_bind_it() {
    let mut session = Session::new();
    session.query("select pg_advisory_unlock_all(); close all; unlisten *; reset all", Idle);
    assert!(!session.bound());
    session.query("select pg_advisory_unlock_all(); insert into t values (1); reset all", Idle);
    assert!(session.bound());
}

#[test]
fn a_setting_made_by_a_named_statement_can_not_be_made_again_without_it() {
    let set = [parse("s", "set search_path = a"), sync()];
    let goodbyes =
        [vec![close("s"), sync()], vec![parse("s", "select 1"), sync()], vec![message(b'Q', b"deallocate all\0")]];
    for goodbye in goodbyes {
        let mut session = Session::new();
        session.request(&set, Idle, false);
        session.request(&[execute("s"), sync()], Idle, false);
        assert!(!session.bound(), "both are there");
        session.request(&goodbye, Idle, false);
        assert!(session.bound());
    }
}

/// asyncpg describes what it prepares with a Flush, and says what comes next behind it.
#[test]
fn what_changes_nothing_is_not_asked_again_beside_what_does() {
    let (described, flush) = (message(b'D', b"Ss1\0"), message(b'H', b""));
    let set = encode::query("set search_path = x");
    let mut session = Session::new();
    session.request(&[parse("s1", "select 1"), described, flush.clone(), set.clone()], Idle, false);
    session.request(&[close("s1"), sync()], Idle, false);
    session.request(&[parse("", "select 2"), message(b'D', b"S\0"), flush, set.clone()], Idle, false);
    let seed = session.book.cut(1000, 1000);
    assert!(!seed.bound);
    for request in seed.prologue {
        assert_eq!(request, set, "what it was sent with may fail, and the rest be skipped for it");
    }
}
