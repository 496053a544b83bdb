//! Statements and what they are, as a table.

use understudy_crds::{
    condition::SkipReason,
    experiment::StatementClass::{self, Commit, Read, Utility, Write},
};

use super::*;
use crate::shadow::{
    entry::Answer,
    statement::{
        footprint::Access,
        functions::{ADVISORY_LOCKS, SEQUENCES},
        rows::RowKey,
        template::{Kind, MOST_LITERALS, MOST_SKELETON_BYTES, TableTemplate, TableTemplates},
    },
};

fn one(sql: &str) -> (Analysed, Arc<Statement>) {
    let analysed = Catalog::default().analyse(sql.as_bytes());
    let statement = analysed.template.statements.first().unwrap().clone();
    (analysed, statement)
}

#[test]
fn what_a_statement_can_do_decides_its_class() {
    let table: [(&str, StatementClass, bool); 22] = [
        ("select 1", Read, false),
        ("select count(*) from t where lower(a) = 'x'", Read, false),
        ("select my_function(1)", Write, true),
        ("select * from t, lateral my_function(t.a)", Write, true),
        ("select a from t limit my_function()", Write, true),
        ("select * from t for update", Write, true),
        ("with d as (delete from t returning a) select * from d", Write, true),
        ("select nextval('s')", Write, true),
        ("select a into u from t", Utility, true),
        ("insert into t values (1)", Write, true),
        ("copy t from stdin", Write, true),
        ("copy t to stdout", Read, false),
        ("copy (delete from t returning a) to stdout", Read, true),
        ("begin", Utility, false),
        ("commit", Commit, true),
        ("rollback", Utility, false),
        ("set search_path = x", Utility, false),
        ("select set_config('a.b', 'c', false)", Utility, false),
        ("create index on t (a)", Utility, true),
        ("explain select 1", Utility, false),
        ("explain analyze delete from t", Utility, true),
        ("do $$ begin end $$", Write, true),
    ];
    for (sql, class, writes) in table {
        let (_, statement) = one(sql);
        assert_eq!((statement.class, statement.writes), (class, writes), "{sql}");
    }
}

#[test]
fn what_acts_outside_the_arm_is_not_played() {
    for (sql, skip) in [
        ("copy t from program 'curl x'", Some(SkipReason::SideEffect)),
        ("copy t to '/tmp/x'", Some(SkipReason::SideEffect)),
        ("select * from dblink('dbname=x', 'select 1') as t(a int)", Some(SkipReason::SideEffect)),
        ("alter system set work_mem = '1MB'", Some(SkipReason::SideEffect)),
        ("select pg_terminate_backend(7)", Some(SkipReason::ServerIdentity)),
        ("set transaction snapshot '1'", Some(SkipReason::ServerIdentity)),
        ("copy t from stdin", None),
        ("select 1", None),
    ] {
        assert_eq!(one(sql).1.skip, skip, "{sql}");
    }
}

#[test]
fn what_is_not_played_may_change_data_all_the_same() {
    for (sql, changes) in [
        ("copy t from '/tmp/x'", true),
        ("copy t to '/tmp/x'", false),
        ("copy (delete from t returning a) to '/tmp/x'", true),
        ("update hooks set r = (select content from http_get(url))", true),
        ("select content from hooks, http_get(url) for update of hooks", false),
        ("with d as (delete from t returning pid) select pg_terminate_backend(pid) from d", true),
        ("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()", false),
        ("select my_function(), pg_terminate_backend(7)", true),
        ("select lo_import('/tmp/x')", true),
        ("create table u as select * from dblink('dbname=x', 'select 1') as t(a int)", true),
        ("alter system set work_mem = '1MB'", false),
        ("create database d", false),
        ("set transaction snapshot '1'", false),
    ] {
        let (_, statement) = one(sql);
        assert_eq!((statement.skip.is_some(), statement.changes), (true, changes), "{sql}");
    }
}

#[test]
fn what_stays_in_the_session_is_known() {
    for (sql, kind, writes) in [
        ("set search_path = a", "set", false),
        ("reset search_path", "set", false),
        ("set role writer", "set", false),
        ("reset all", "state", false),
        ("set session characteristics as transaction read only", "state", false),
        ("listen a", "state", false),
        ("set local search_path = a", "plain", false),
        ("set transaction read only", "plain", false),
        ("select set_config('a.b', 'c', false)", "set", false),
        ("select set_config('a.b', 'c', false), now()", "set", false),
        ("select set_config('a.b', $1, false), set_config('a.c', $2, false)", "state", false),
        ("select set_config(e ->> 'k', e ->> 'v', false) from json_array_elements($1) e", "state", false),
        ("select set_config('a.b', 'c', true)", "plain", false),
        ("select set_config('a.b', 'c', $1)", "state", false),
        ("select set_config($1, $2, false)", "set", false),
        ("select set_config('a.b', now()::text, false)", "bound", false),
        ("select set_config('a.b', current_setting('a.b') || 'c', false)", "bound", false),
        ("select set_config('a.b', c, false) from t", "bound", false),
        ("select set_config('a.b', my_function(), false)", "bound", true),
        ("update t set a = set_config('a.b', 'c', false)", "bound", true),
        ("select pg_try_advisory_lock_shared(1)", "locked", true),
        ("insert into t select pg_advisory_lock(1)", "locked", true),
        ("select pg_advisory_xact_lock(1)", "plain", true),
        ("create temp table t (a int)", "bound", true),
        ("create temp table t as select 1", "bound", true),
        ("create temp table t (a int) on commit delete rows", "bound", true),
        ("create temp table t (a int) on commit drop", "plain", true),
        ("create temp table t on commit drop as select 1", "plain", true),
        ("declare c cursor for select 1", "plain", false),
        ("declare c cursor with hold for select 1", "holds", false),
        ("close c", "closes", false),
        ("close all", "closes", false),
        ("create temp view v as select 1", "bound", true),
        ("create temp sequence s", "bound", true),
        ("create table pg_temp.t (a int)", "bound", true),
        ("create table pg_temp.t as select 1", "bound", true),
        ("create function pg_temp.f() returns int language sql as 'select 1'", "bound", true),
        ("create type pg_temp.c as (a int)", "bound", true),
        ("create table t (a int)", "plain", true),
        ("comment on table t is 'pg_temp'", "plain", true),
        ("vacuum analyze t", "plain", false),
    ] {
        let (_, statement) = one(sql);
        let is = match statement.kind {
            Kind::Plain => "plain",
            Kind::Sets(_) => "set",
            Kind::SessionState => "state",
            Kind::SessionBound => "bound",
            Kind::SessionLocked => "locked",
            Kind::HoldsCursor(_) => "holds",
            Kind::ClosesCursor(_) => "closes",
            _ => "other",
        };
        assert_eq!((is, statement.writes), (kind, writes), "{sql}");
        let anything = statement.tables == TableTemplates::Anything;
        assert!(writes || !anything, "{sql} touches nothing that it could write");
    }
}

fn key_text(RowKey { column, value }: &RowKey) -> String {
    match value {
        KeyValue::Whole(value) => format!("{column}={value}"),
        KeyValue::Certain(value) => format!("{column}={value:x}"),
        KeyValue::Looks(_) => format!("{column}=…"),
    }
}

#[test]
fn rows_picked_by_equality_are_known_by_their_value() {
    let rows = |sql: &str, values: Option<&[u8]>| {
        let (analysed, statement) = one(sql);
        match footprint(&statement, &analysed.literals, values) {
            Footprint::Anything => "anything".to_owned(),
            Footprint::Tables(tables) => tables
                .iter()
                .map(|t| match &t.rows {
                    Some(rows) => {
                        let keys: Vec<_> = rows.keys().iter().map(key_text).collect();
                        let others = if rows.are(rows) { "" } else { ",…" };
                        format!("{}.{}{others}", t.table, keys.join(","))
                    }
                    None => t.table.to_string(),
                })
                .collect::<Vec<_>>()
                .join(" "),
        }
    };
    let seven = [0, 0, 0, 1, 0, 0, 0, 1, b'7'];
    let binary_seven = [0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7];
    let null = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(rows("update t set b = b + 1 where id = 5", None), "t.id=5");
    assert_eq!(rows("update t set b = 3 where a > 2 and id = '5'::int", None), "t.id=5,…");
    assert_eq!(rows("delete from t where id = $1", Some(&seven)), "t.id=7");
    assert_eq!(rows("delete from t where id = $1", Some(&binary_seven)), "t.id=7");
    assert_eq!(rows("delete from t where id = $1", Some(&null)), "t");
    let uuid = "0189c7a5-7b0b-7cc3-98c4-dc0c0c07398f";
    let packed = uuid.replace('-', "").trim_start_matches('0').to_owned();
    assert_eq!(rows(&format!("delete from t where id = '{uuid}'"), None), format!("t.id={packed}"));
    assert_eq!(
        rows(&format!("delete from t where id = '{}'::uuid", uuid.to_uppercase()), None),
        format!("t.id={packed}")
    );
    let bytes = u128::from_str_radix(&packed, 16).unwrap().to_be_bytes();
    let binary = [&[0, 1, 0, 1, 0, 1, 0, 0, 0, 16], &bytes[..]].concat();
    assert_eq!(rows("delete from t where id = $1", Some(&binary)), format!("t.id={packed}"));
    // A text in binary is what it is as a constant.
    let text = [&[0, 1, 0, 1, 0, 1, 0, 0, 0, 36], uuid.as_bytes()].concat();
    assert_eq!(rows("delete from t where id = $1", Some(&text)), format!("t.id={packed}"));
    // 1.0 and 1 as a `numeric` of sixteen bytes are equal and look different.
    let numeric = [0, 4, 0, 0, 0, 0, 0, 12, 0, 1, 0, 0, 0, 0, 0, 1];
    let binary = [&[0, 1, 0, 1, 0, 1, 0, 0, 0, 16], &numeric[..]].concat();
    assert_eq!(rows("delete from t where id = $1", Some(&binary)), "t.id=…");
    for (picks, expected) in [
        ("update t set b = 1 where tenant = 1 and id = 5", "t.tenant=1,id=5"),
        ("update t set b = 1 where gone = false and id = 5", "t.id=5,…"),
        ("update t set b = 1 where gone is null and id = 5", "t.id=5,…"),
        // What it leaves has another version.
        ("update t set version = 4 where id = 5 and version = 3", "t.id=5,…"),
        ("select * from t where id = 5 for update", "t.id=5"),
        ("select * from t where status = 5 for update skip locked", "t.status=5,…"),
        ("select * from t where status = 5 limit 1 for update", "t.status=5,…"),
    ] {
        assert_eq!(rows(picks, None), expected, "{picks}");
    }
    assert_eq!(rows("update t set b = 1 where tenant = 1 and id = $1", Some(&null)), "t.tenant=1,…");
    assert_eq!(rows("update t set id = 6 where id = 5", None), "t");
    assert_eq!(rows("update t set b = 1 where id = 5 or a = 2", None), "t");
    assert_eq!(rows("update t set b = 1 where name = 'x'", None), "t.name=…");
    for (sql, plain) in
        [("'x'", true), ("'it''s'", false), ("e'x'", false), ("$$x$$", false), ("'ü'", false), ("'x '", false)]
    {
        let (analysed, statement) = one(&format!("update t set b = 1 where name = {sql}"));
        let Footprint::Tables(tables) = footprint(&statement, &analysed.literals, None) else { panic!("{sql}") };
        let value = tables[0].rows.as_ref().unwrap().keys()[0].value;
        assert_eq!(matches!(value.byte_by_byte(), KeyValue::Certain(_)), plain, "{sql}");
    }
    for cast in ["citext", "bpchar", "name", "some_domain", "varchar(2)"] {
        assert_eq!(rows(&format!("update t set b = 1 where name = 'x'::{cast}"), None), "t", "{cast}");
    }
    let long = format!("update t set b = 1 where name = '{}'", "x".repeat(MAX_KEY_BYTES + 1));
    assert_eq!(rows(&long, None), "t");
    assert_eq!(rows("delete from t using u where t.id = 5", None), "t u");
    assert_eq!(rows("insert into t values (5)", None), "t");
    assert_eq!(rows("select f(1)", None), "anything");
    assert_eq!(rows("with c as (select 1) select * from c, t", None), "t");
}

#[test]
fn a_table_is_known_beside_a_cte_of_its_name() {
    for (sql, expected) in [
        ("with t as (select * from t where a > 1) select * from t", &["t"][..]),
        ("with t as (update t set a = 1 returning *) select * from t", &["t"]),
        ("with t as (select 1) insert into t select * from t", &["t"]),
        ("with c as (select 1), d as (select * from c) select * from d, s.c", &["c"]),
        ("with c as (select 1), d as (select * from c) select * from d", &[]),
    ] {
        let (analysed, statement) = one(sql);
        let Footprint::Tables(tables) = footprint(&statement, &analysed.literals, None) else { panic!("{sql}") };
        assert_eq!(tables.iter().map(|t| &*t.table).collect::<Vec<_>>(), expected, "{sql}");
    }
}

#[test]
fn rows_of_a_table_that_is_named_twice_are_any() {
    for sql in [
        "update t set p = (select max(p) from t) where id = 5",
        "select * from t a join t b on a.id = b.up where a.id = 5",
        // The column is not the table's, or what has it is not all of the table that is read.
        "with d as (update t set a = 1 where b = 7 returning *) select * from d where id = 5",
        "select * from (select id, rank() over (order by b) from t) s where id = 5",
        "update t set a = 1 from (select 1 as id) s where s.id = 5",
        "delete from t using (select 1 as id) s where s.id = 5",
    ] {
        let (analysed, statement) = one(sql);
        let Footprint::Tables(tables) = footprint(&statement, &analysed.literals, None) else { panic!("{sql}") };
        assert!(tables.iter().all(|t| t.rows.is_none()), "{sql}");
    }
}

#[test]
fn a_text_that_would_take_gigabytes_to_parse_is_not_parsed() {
    let rows = "(1),".repeat(MOST_LITERALS);
    let large = format!("insert into t values {rows}(1)");
    let columns = format!("select {}a from t", "a, ".repeat(MOST_SKELETON_BYTES / 3));
    for sql in [large, columns] {
        let (_, statement) = one(&sql);
        assert_eq!((&*statement.text, statement.writes), ("(a text that is too large to be parsed)", true));
        assert_eq!(statement.tables, TableTemplates::Anything);
    }
    let (_, statement) = one(&format!("insert into t values ('{}')", "x".repeat(1 << 20)));
    assert_eq!(statement.class, Write, "one large value is no large text");
    let (_, statement) = one(&format!("select {}a from t", "a, ".repeat(5_000)));
    assert!(statement.text.len() < 5_000, "{}", statement.text.len());
}

#[test]
fn texts_with_other_constants_share_the_analysis_and_the_fingerprint() {
    let mut catalog = Catalog::default();
    let first = catalog.analyse(b"select a from t where id = 1");
    let second = catalog.analyse(b"select a from t where id = 22222");
    assert!(Arc::ptr_eq(&first.template, &second.template));
    assert_eq!(second.literals, [Some(KeyValue::Whole(22222))]);
    let texts: Vec<_> = catalog.texts().values().map(|(text, _)| text.to_string()).collect();
    assert_eq!(texts, ["select a from t where id = $1"]);
}

#[test]
fn a_text_that_does_not_parse_may_do_anything() {
    let (_, statement) = one("selec 1");
    assert!(statement.writes && statement.answer == Answer::Volatile);
    assert_eq!(&*statement.text, "(a text that does not parse)");
}

#[test]
fn a_prepared_statement_is_known_by_its_name() {
    let (_, statement) = one("prepare p (int) as update t set a = 1 where id = $1");
    let Kind::Prepare(name, inner) = &statement.kind else { panic!() };
    assert_eq!((&**name, inner.class), ("p", Write));
}

#[test]
fn what_adds_rows_and_looks_at_none_is_known() {
    use Access::{Insert, Read, Write};
    for (sql, access) in [
        ("insert into t values (1, 2)", Insert),
        ("insert into t (a) values ($1), ($2) returning id", Insert),
        ("insert into t default values", Insert),
        ("insert into t select generate_series(1, 10)", Insert),
        ("copy t from stdin", Insert),
        ("insert into t values (1) on conflict do nothing", Write),
        ("insert into t values ((select max(a) from t))", Write),
        ("select a from t, u for update", Write),
        ("with d as (delete from u returning a) insert into t select a from d", Write),
        ("update t set a = 1", Write),
        ("copy t to stdout", Read),
        ("select a from t", Read),
    ] {
        let TableTemplates::Tables(tables) = &one(sql).1.tables else { panic!("{sql}") };
        assert!(!tables.is_empty() && tables.iter().all(|t| t.access == access), "{sql}: {tables:?}");
    }
}

#[test]
fn what_a_change_merely_reads_is_known() {
    use Access::{Insert, Read, Write};
    for (sql, expected) in [
        ("insert into t select a from u", [Insert, Read]),
        ("insert into t select a from u, u v returning a", [Insert, Read]),
        ("insert into t select a from u on conflict do nothing", [Write, Read]),
        ("insert into t select t.a from t, u", [Write, Read]),
        ("update t set a = (select max(a) from u)", [Write, Read]),
        ("update t set a = u.a from u where t.id = u.id", [Write, Read]),
        ("delete from t using u where t.id = u.id", [Write, Read]),
        ("delete from t where exists (select from u for share)", [Write, Write]),
        ("select a into t from u", [Write, Write]),
        ("merge into t using u on t.id = u.id when matched then delete", [Write, Read]),
        ("with c as (update u set a = 1 returning a) insert into t select a from c", [Write, Write]),
        ("with c as (select a from u) delete from t using c where t.a = c.a", [Write, Read]),
    ] {
        let TableTemplates::Tables(tables) = &one(sql).1.tables else { panic!("{sql}") };
        let found: Vec<_> = tables.iter().map(|t| (&*t.table, t.access)).collect();
        assert_eq!(found, [("t", expected[0]), ("u", expected[1])], "{sql}");
    }
}

#[test]
fn advisory_locks_and_sequences_touch_one_another_and_no_table() {
    let does = |name: &str, access| TableTemplate { table: name.into(), rows: None, access };
    let table = |name| does(name, Access::Write);
    for (sql, touched) in [
        ("select pg_advisory_lock(1)", vec![table(ADVISORY_LOCKS)]),
        ("select pg_try_advisory_xact_lock($1)", vec![table(ADVISORY_LOCKS)]),
        ("update t set a = 1 where pg_try_advisory_lock(a)", vec![table("t"), table(ADVISORY_LOCKS)]),
        // Who waited for it on production is not waited for.
        ("select pg_advisory_unlock(1)", vec![]),
        ("select pg_advisory_unlock_all()", vec![]),
        ("select pg_notify('a', 'b')", vec![]),
        ("insert into t select pg_notify('a', b) from u", vec![does("t", Access::Insert), does("u", Access::Read)]),
        ("select nextval('s')", vec![does(SEQUENCES, Access::Insert), table(SEQUENCES)]),
        (
            "insert into t values (nextval('s'))",
            vec![does("t", Access::Insert), does(SEQUENCES, Access::Insert), table(SEQUENCES)],
        ),
        ("select currval('s')", vec![]),
        ("select pg_advisory_lock(a) from t", vec![does("t", Access::Read), table(ADVISORY_LOCKS)]),
    ] {
        assert_eq!(one(sql).1.tables, TableTemplates::Tables(touched), "{sql}");
    }
    assert_eq!(one("select pg_advisory_unlock(1), my_function()").1.tables, TableTemplates::Anything);
}

#[test]
fn what_two_servers_need_not_answer_alike_is_known() {
    use Answer::{Called, Definite, Picked, Volatile};
    for (sql, answer) in [
        ("select now()", Volatile),
        ("select current_timestamp", Volatile),
        ("select random()", Volatile),
        ("select count(*) from pg_stat_activity", Volatile),
        ("select relpages from pg_catalog.pg_class", Volatile),
        ("select table_name from information_schema.tables", Volatile),
        ("select a from t limit 1", Picked),
        ("select a from t order by a offset 3", Picked),
        ("select a from t fetch first row only", Picked),
        ("select a from t union all select a from u limit 3", Picked),
        ("select distinct on (a) a, b from t", Picked),
        ("select array_agg(a) from t", Picked),
        ("select a, array(select b from u where u.a = t.a) from t", Picked),
        ("select stddev(a) from t", Picked),
        ("select sum(a) from t", Definite),
        ("select a from t tablesample system (10)", Volatile),
        ("select a, row_number() over (order by b) from t", Picked),
        ("fetch 3 from c", Volatile),
        ("select my_function(a) from t", Called),
        ("select my_function(a) from t limit 3", Volatile),
        ("update t set a = my_function(b) returning a", Definite),
        ("select a from (select a from t limit 5) s where a > 2", Volatile),
        ("with s as (select a from t limit 5) select a from s limit 2", Volatile),
        ("delete from t where a in (select a from t limit 1) returning a", Volatile),
        ("select distinct a from t", Definite),
        ("select a from t order by a", Definite),
        ("select count(*) from t", Definite),
        ("select 1", Definite),
    ] {
        assert_eq!(one(sql).1.answer, answer, "{sql}");
    }
}

/// Texts stand in reports, which people show each other.
#[test]
fn a_password_is_not_shown_in_a_text() {
    for sql in [
        "alter role ann password 'secret'",
        "alter user ann with encrypted password e'secret' valid until '2030-01-01'",
        "create role ann login password $$secret$$",
        "create user ann password 'secret'",
        "create group g password 'secret'",
        "create subscription s connection 'password=secret' publication p",
        "alter subscription s connection 'password=secret'",
        "create user mapping for ann server s options (user 'ann', password 'secret')",
        "alter user mapping for ann server s options (set password 'secret')",
        "set a.b = 'secret'",
        "select set_config('a.b', 'secret', false)",
        "update users set password = 'secret' where name = 'ann'",
        "alter role ann password 'secret' and more",
        "alter role ann set a.b = 'secret'",
        "execute s('secret')",
        "create table t (a text default 'secret')",
        "comment on table t is 'secret'",
        "prepare transaction 'secret'",
    ] {
        for statement in &Catalog::default().analyse(sql.as_bytes()).template.statements {
            assert!(!statement.text.contains("secret"), "{sql}: {}", statement.text);
        }
    }
}

/// What runs out of stack ends the process, and production's sessions with it.
#[test]
fn however_deep_a_statement_is_whoever_reads_it_does_not_run_out_of_stack() {
    let nested = |open: &str, close: &str| -> Vec<String> {
        let pair = open.len() + close.len();
        // Up to what is read at all, and far beyond.
        [MOST_SKELETON_BYTES / pair / 2, (MOST_SKELETON_BYTES - 16) / pair, 60_000]
            .map(|depth| format!("select {}1{}", open.repeat(depth), close.repeat(depth)))
            .to_vec()
    };
    let ways = [
        ("1+", ""),
        ("a+", ""),
        ("- ", ""),
        ("not ", ""),
        ("", "::int"),
        ("(", ")"),
        ("(select ", ")"),
        ("a(", ")"),
        ("array[", "]"),
        ("case when a then ", " end"),
        ("", " union all select a"),
        ("", " join t on true"),
        ("", " or (a and b)"),
    ];
    let texts: Vec<String> = ways.into_iter().flat_map(|(open, close)| nested(open, close)).collect();
    // As much as the thread has that reads production's.
    let reader = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for text in texts {
            let analysed = Catalog::default().analyse(text.as_bytes());
            assert!(!analysed.template.statements.is_empty(), "{}", &text[..40]);
        }
    });
    reader.unwrap().join().unwrap();
}
