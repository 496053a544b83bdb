//! Scripts of what a client asked and how it ended, and what the book makes of them.

use std::sync::{OnceLock, atomic::AtomicBool};

use understudy_crds::experiment::StatementClass;

use super::*;
use crate::{
    capture::exchange::{Exchange, Outcome, SessionId, StatementOutcome},
    shadow::{
        entry::{Answer, Budget},
        schema::{Defines, Schema},
        statement::{catalog::Catalog, footprint::Footprint, rows::KeyValue},
    },
    wire::{
        backend::TransactionStatus,
        encode, frame,
        frontend::{self, Request},
        startup::Startup,
    },
};

struct Session {
    book: SessionBook,
    catalog: Catalog,
    /// What names each exchange may have given another meaning to.
    defined: Vec<Option<Defines>>,
    sequence: u64,
    status: TransactionStatus,
}

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, payload].concat()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Binds one text parameter and executes the portal.
fn bind_execute(name: &str, value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let names = format!("\0{name}\0");
    let bind = [names.as_bytes(), &[0, 0, 0, 1], &length, value.as_bytes(), &[0, 0]].concat();
    [message(b'B', &bind), message(b'E', b"\0\0\0\0\0"), encode::SYNC.to_vec()].concat()
}

impl Session {
    fn new() -> Self {
        let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
        Self {
            book: SessionBook::new(Arc::new(info)),
            catalog: Catalog::default(),
            defined: Vec::new(),
            sequence: 0,
            status: TransactionStatus::Idle,
        }
    }

    /// A request begins at ten times its number.
    fn begin(&mut self, request: Vec<u8>) -> Arc<Entry> {
        let exchange = Arc::new(Exchange {
            session: SessionId(1),
            sequence: self.sequence,
            begun_ns: self.sequence * 10,
            request: request.into(),
            outcome: OnceLock::new(),
        });
        self.sequence += 1;
        let Plan { statements, writes, touches, publishes, beginnings, defines, skip, settled } =
            self.book.plan(&exchange, &mut self.catalog, &Schema::default());
        self.defined.push(defines);
        let entry = Arc::new(Entry {
            id: exchange.sequence,
            exchange,
            statements,
            writes,
            touches,
            publishes,
            beginnings,
            skip,
            overlapped: AtomicBool::new(false),
            charge: Budget::new(0).charge(0),
            taken_in: OnceLock::new(),
        });
        self.book.begun(Arc::clone(&entry), settled);
        entry
    }

    /// It ends five later than it began.
    fn end(&mut self, entry: &Arc<Entry>, after: TransactionStatus, failed: bool) {
        let parsed = frame::messages(&entry.exchange.request).filter(|m| m.tag == b'P').count();
        let error = failed.then_some(*b"23505");
        let outcome = Outcome {
            ended_ns: entry.exchange.begun_ns + 5,
            statements: vec![StatementOutcome { error, ..StatementOutcome::default() }],
            parsed,
            before: self.status,
            after,
            ..Outcome::default()
        };
        self.status = after;
        entry.exchange.outcome.set(outcome).unwrap();
        self.book.ended(entry);
    }

    /// A simple query that succeeds, and where the transaction stands after it.
    fn query(&mut self, sql: &str, after: TransactionStatus) -> Arc<Entry> {
        self.request(&[encode::query(sql)], after, false)
    }

    /// A request of several messages.
    fn request(&mut self, messages: &[Vec<u8>], after: TransactionStatus, failed: bool) -> Arc<Entry> {
        let entry = self.begin(messages.concat());
        self.end(&entry, after, failed);
        entry
    }

    fn bound(&mut self) -> bool {
        self.book.cut(u64::MAX - 1, u64::MAX - 1).bound
    }

    fn prologue(&mut self) -> Vec<String> {
        let seed = self.book.cut(u64::MAX - 1, u64::MAX - 1);
        seed.prologue
            .iter()
            .flat_map(|request| {
                let texts: Vec<_> = frame::messages(request)
                    .filter_map(|m| match frontend::request(m.tag, m.payload) {
                        Request::Query(sql) => Some(String::from_utf8_lossy(sql).into_owned()),
                        Request::Parse { statement, .. } => {
                            Some(format!("parse {}", String::from_utf8_lossy(statement)))
                        }
                        _ => None,
                    })
                    .collect();
                texts
            })
            .collect()
    }
}

use TransactionStatus::{Failed, Idle, InTransaction};

fn classes(entry: &Entry) -> Vec<StatementClass> {
    entry.statements.iter().map(|s| s.class).collect()
}

fn writes_row(footprint: &Footprint, value: i64) -> bool {
    let Footprint::Tables(tables) = footprint else { return false };
    tables.iter().any(|t| {
        t.access.changes()
            && t.rows.as_ref().is_some_and(|rows| rows.keys().iter().any(|key| key.value == KeyValue::Whole(value)))
    })
}

#[test]
fn the_statements_of_a_request_are_planned_in_order() {
    use StatementClass::{Read, Utility, Write};
    let mut session = Session::new();
    let both = session.query("select a from t; update t set a = 1 where id = 7", Idle);
    assert_eq!((classes(&both), both.writes), (vec![Read, Write], true));
    let empty = session.query("", Idle);
    assert_eq!((classes(&empty), empty.writes), (vec![Utility], false), "the server answers an empty text");
    let prepared = [parse("s", "update t set a = 1 where id = $1"), bind_execute("s", "8")].concat();
    let prepared = session.begin(prepared);
    assert_eq!(classes(&prepared), [Write]);
    assert!(writes_row(&prepared.touches, 8) && writes_row(&prepared.publishes, 8));
    let again = session.begin(bind_execute("s", "9"));
    assert!(writes_row(&again.touches, 9), "what was prepared before is known");
}

#[test]
fn a_plan_picks_the_rows_of_a_portal_that_is_read_in_part() {
    let mut session = Session::new();
    session.begin([parse("s", "select a from t"), encode::SYNC.to_vec()].concat());
    session.query("prepare by_sql as select a from t", Idle);
    session.begin([parse("e", "execute by_sql"), encode::SYNC.to_vec()].concat());
    for (statement, rows, answer) in [
        ("s", 0_u32, Answer::Definite),
        ("s", 50, Answer::Picked),
        ("e", 0, Answer::Definite),
        ("e", 50, Answer::Picked),
    ] {
        let bind = message(b'B', format!("\0{statement}\0\0\0\0\0\0\0").as_bytes());
        let execute = message(b'E', &[&b"\0"[..], &rows.to_be_bytes()].concat());
        let entry = session.begin([bind, execute, encode::SYNC.to_vec()].concat());
        assert_eq!(entry.statements[0].answer, answer, "{statement} {rows}");
    }
}

#[test]
fn what_is_not_known_is_taken_to_write_anything() {
    let mut session = Session::new();
    let entry = session.begin(bind_execute("nobody_prepared_it", "1"));
    assert_eq!((entry.writes, &entry.touches), (true, &Footprint::Anything));
    session.query("prepare p as update t set a = 1 where id = $1", Idle);
    let entry = session.begin(bind_execute("p", "4"));
    assert!(entry.writes && writes_row(&entry.touches, 4), "SQL's PREPARE shares the protocol's names");
    let cursor = session.begin([message(b'E', b"c\0\0\0\0\0"), encode::SYNC.to_vec()].concat());
    assert!(cursor.writes);
}

#[test]
fn a_rollback_of_what_has_locked_takes_part_in_the_order_and_publishes_nothing() {
    for (sql, writes) in
        [("select a from t", false), ("select a from t for update", true), ("update t set a = 1", true)]
    {
        let mut session = Session::new();
        session.query("begin", InTransaction);
        session.query(sql, InTransaction);
        let rollback = session.query("rollback", Idle);
        assert_eq!((rollback.writes, &rollback.publishes), (writes, &Footprint::NOTHING), "{sql}");
        assert!(!session.query("rollback", Idle).writes, "there is nothing to let go of");
    }
}

#[test]
fn what_is_changed_together_with_what_is_not_played_is_known() {
    for (before, sql, changes) in [
        ("", "select pg_terminate_backend(7)", false),
        ("", "begin; select pg_terminate_backend(7)", false),
        ("", "begin; select pg_terminate_backend(7); commit", false),
        ("begin; select a from t for update", "select pg_terminate_backend(7); commit", false),
        ("", "update t set a = 1; select pg_terminate_backend(7)", true),
        ("", "select pg_terminate_backend(7); select my_function()", true),
        ("", "select pg_terminate_backend(7); select a from t", false),
        ("begin", "select pg_terminate_backend(7); commit", false),
        ("begin; update t set a = 1", "select pg_terminate_backend(7); commit", true),
        ("prepare p as select pg_terminate_backend($1)", "execute p(7)", false),
        ("prepare p as update t set a = http_get($1)", "execute p('x')", true),
    ] {
        let mut session = Session::new();
        session.query(before, if before.starts_with("begin") { InTransaction } else { Idle });
        let skip = session.begin(encode::query(sql)).skip;
        assert_eq!(skip.map(|skip| skip.changes), Some(changes), "{before}: {sql}");
    }
}

#[test]
fn a_commit_publishes_what_its_transaction_wrote_even_in_a_pipeline() {
    let mut session = Session::new();
    let pipeline: Vec<_> =
        ["begin", "select * from u", "update t set a = 1 where id = 7", "commit", "begin", "select 1", "commit"]
            .map(|sql| session.begin(encode::query(sql)))
            .into();
    for (entry, after) in pipeline.iter().zip([InTransaction, InTransaction, InTransaction, Idle]) {
        session.end(entry, after, false);
    }
    let commit = &pipeline[3];
    assert_eq!((classes(commit), commit.writes), (vec![StatementClass::Commit], true));
    assert!(writes_row(&commit.publishes, 7));
    assert!(pipeline[..3].iter().all(|entry| entry.publishes == Footprint::NOTHING), "nothing is visible before");
    let read_only = &pipeline[6];
    assert_eq!((classes(read_only), read_only.writes), (vec![StatementClass::Utility], false));
}

#[test]
fn what_names_stand_for_changes_at_once_for_who_defines_and_for_others_when_it_commits() {
    use TransactionStatus::{Idle, InTransaction};
    let mut session = Session::new();
    for (sql, after) in [
        ("begin", InTransaction),
        ("create view v as select 1", InTransaction),
        ("select 1", InTransaction),
        ("commit", Idle),
        ("begin", InTransaction),
        ("alter table t add b int", InTransaction),
        ("rollback", Idle),
        ("begin; create table u (a int); commit", Idle),
        ("commit", Idle),
        ("create temp table u (a int)", Idle),
        ("begin; create function f() returns int language sql as ''; create view w as select 1", InTransaction),
        ("commit", Idle),
    ] {
        session.query(sql, after);
    }
    let of = |functions, relations: &[&str]| {
        Some(Defines { functions, relations: relations.iter().map(|name| Arc::from(*name)).collect() })
    };
    let created = [None, of(false, &["v"]), None, of(false, &["v"])];
    let undone = [None, of(false, &["t"]), None];
    let at_once = [of(false, &["u"]), None, None, of(true, &["w"]), of(true, &["w"])];
    assert_eq!(session.defined, [&created[..], &undone, &at_once].concat());
}

#[test]
fn what_changes_the_beginning_of_sessions_does_so_when_it_is_committed() {
    for sql in [
        "create role r login",
        "alter role r set search_path = s",
        "alter role all in database d set work_mem = '1MB'",
        "alter user r rename to q",
        "drop role r",
        "grant r to q",
        "revoke connect on database d from r",
        "alter database d set search_path = s",
        "do $$ begin execute 'alter role r nologin'; end $$",
        "prepare p as select 1; this is no sql",
    ] {
        assert!(Session::new().begin(encode::query(sql)).beginnings, "{sql}");
        for (end, visible) in [("commit", true), ("rollback", false)] {
            let mut session = Session::new();
            session.query("begin", InTransaction);
            assert!(!session.query(sql, InTransaction).beginnings, "{sql}");
            session.query("select my_function()", InTransaction);
            assert_eq!(session.query(end, Idle).beginnings, visible, "{sql}; {end}");
            assert!(!session.query("begin; update t set a = 1; commit", Idle).beginnings, "it was told");
        }
    }
    for sql in ["select my_function()", "call my_procedure()", "create table t ()", "set search_path = s"] {
        assert!(!Session::new().begin(encode::query(sql)).beginnings, "{sql}");
    }
}

#[test]
fn a_cut_carries_an_open_transaction_over_from_its_beginning() {
    let mut session = Session::new();
    session.query("update t set a = 0", Idle);
    session.query("begin", InTransaction);
    session.query("update t set a = 1", InTransaction);
    let under_way = session.begin(encode::query("commit"));
    // The commit began at 30 and runs; the gate was drained at 31 and opened at 33.
    let seed = session.book.cut(31, 33);
    let sequences: Vec<_> = seed.entries.iter().map(|e| e.exchange.sequence).collect();
    assert_eq!((sequences, seed.in_doubt), (vec![1, 2, 3], Some(2)));
    session.end(&under_way, Idle, false);
    assert_eq!(session.book.cut(31, 33).in_doubt, Some(2), "that it ended since does not matter");
    assert!(session.book.cut(35, 36).entries.is_empty());
}

#[test]
fn a_transaction_without_end_is_not_kept_without_end() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    let large = format!("insert into t values ('{}')", "x".repeat(MAX_OPEN_BYTES / 4));
    for _ in 0..5 {
        session.query(&large, InTransaction);
    }
    assert!(session.book.kept() <= 1);
    assert!(session.book.cut(1000, 1000).bound, "a cut can't carry it over");
    let commit = session.begin(encode::query("commit"));
    assert!(commit.writes, "what it wrote is known all the same");
    session.end(&commit, Idle, false);
    assert!(!session.book.cut(1000, 1000).bound, "what comes after it can be carried over");
}

#[test]
fn what_was_looked_at_in_a_long_transaction_is_not_looked_at_again() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    for _ in 0..10 {
        session.query("insert into t values (1)", InTransaction);
    }
    session.book.settle(None);
    assert_eq!(session.book.in_block, 11);
    session.query("commit", Idle);
    session.book.settle(None);
    assert_eq!((session.book.in_block, session.book.kept()), (0, 0));
}

mod memory;
mod prologue;
mod rebuilt;

#[test]
fn portals_are_forgotten_with_their_transaction() {
    let mut session = Session::new();
    let request = [parse("", "select $1"), bind_execute("", "1")].concat();
    let entry = session.begin(request);
    assert_eq!(session.book.portals.len(), 1);
    session.end(&entry, Idle, false);
    assert_eq!(session.book.portals.len(), 0);
}

#[test]
fn what_is_left_of_a_portal_shows_what_was_there_when_it_was_bound() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    session.request(&[parse("s", "select a from t"), encode::SYNC.to_vec()], InTransaction, false);
    let (bind, execute) = (message(b'B', b"c\0s\0\0\0\0\0\0\0"), message(b'E', b"c\0\0\0\0\x05"));
    let first = session.request(&[bind, execute.clone(), encode::SYNC.to_vec()], InTransaction, false);
    let second = session.request(&[execute, encode::SYNC.to_vec()], InTransaction, false);
    let answers = [first, second].map(|entry| entry.statements[0].answer);
    assert_eq!(answers, [Answer::Picked, Answer::Volatile]);
}

#[test]
fn of_transactions_that_go_over_into_one_another_those_on_the_clone_are_not_played_again() {
    let mut session = Session::new();
    session.query("begin", InTransaction);
    session.query("update t set a = 1", InTransaction);
    session.query("commit and chain", InTransaction);
    session.query("update t set a = 2", InTransaction);
    // The second transaction begins at 20, with the end of the first at 25.
    let seed = session.book.cut(37, 38);
    let sequences: Vec<_> = seed.entries.iter().map(|e| e.exchange.sequence).collect();
    assert_eq!((sequences, seed.bound), (vec![3], false), "the first is on the clone");
    session.query("commit", Idle);
    assert!(session.book.cut(60, 60).entries.is_empty());

    // What belongs to which transaction, or what is set in the one that is on the clone, nobody can make again.
    for (first, last) in
        [("update t set a = 1", "commit; begin; update t set a = 2"), ("set a.b = '1'", "commit and chain")]
    {
        let mut session = Session::new();
        session.query("begin; update t set a = 0", InTransaction);
        session.query(first, InTransaction);
        session.query(last, InTransaction);
        assert!(session.book.cut(27, 28).bound, "{first}, {last}");
    }

    let mut session = Session::new();
    session.begin(encode::query("begin; update t set a = 1; commit; begin; update t set a = 2; commit"));
    assert!(session.book.cut(5, 6).bound, "what of it has been committed, nobody can say");
    let mut session = Session::new();
    session.begin(encode::query("begin; update t set a = 1; commit"));
    assert!(!session.book.cut(5, 6).bound, "all of it or nothing");
}

#[test]
fn what_is_seen_as_it_was_before_is_not_compared() {
    let volatile = |entry: &Arc<Entry>| entry.statements[0].answer == Answer::Volatile;
    let asked = |session: &mut Session, sqls: &[&str]| -> Vec<bool> {
        sqls.iter().map(|sql| volatile(&session.query(sql, InTransaction))).collect()
    };
    let reads = ["select 1 from t", "select 1 from t", "update t set a = 1"];
    for (begins, expected) in [
        (&["begin"][..], [false; 3]),
        (&["begin isolation level read committed"], [false; 3]),
        (&["begin isolation level repeatable read"], [false, true, true]),
        (&["begin", "set transaction isolation level serializable"], [false, true, true]),
        (&["set default_transaction_isolation = 'serializable'", "begin"], [false, true, true]),
        (&["set default_transaction_isolation = 'serializable'", "begin isolation level read committed"], [false; 3]),
    ] {
        let mut session = Session::new();
        asked(&mut session, begins);
        assert_eq!(asked(&mut session, &reads), expected, "{begins:?}");
        session.query("commit", Idle);
        assert_eq!(asked(&mut session, &reads[..1]), [false], "each by itself sees what is there");
    }
    let mut session = Session::new();
    asked(&mut session, &["set default_transaction_isolation = 'serializable'", "discard all", "begin"]);
    assert_eq!(asked(&mut session, &reads), [false; 3]);
}
