//! The same statements where nothing is known of their database, and where its schema is.

use understudy_crds::experiment::StatementClass::{self, Read, Write};

use super::*;
use crate::shadow::{
    schema::Defines,
    statement::{catalog::Catalog, footprint::Access, functions::SEQUENCES},
};

fn of(sql: &str, schema: &Schema) -> Execution {
    let analysed = Catalog::default().analyse(sql.as_bytes());
    Execution::of(analysed.template.statements.first().unwrap(), &analysed.literals, None, schema)
}

fn schema() -> Schema {
    Schema::of([
        ["computes", "st_x", ""],
        ["aggregates", "st_union", ""],
        ["reads", "balance", ""],
        ["view", "totals", "sales"],
        ["volatile", "latest", ""],
        ["view", "audited", "sales"],
        ["calls", "audited", "audit"],
        ["view", "balances", "sales"],
        ["calls", "balances", "balance"],
        ["part", "sales_2026", "sales"],
        ["goes", "orders", "customers"],
    ])
}

/// The tables that are touched; `None`: anything.
fn tables(touches: &Footprint) -> Option<Vec<(&str, Access, bool)>> {
    let Footprint::Tables(uses) = touches else { return None };
    Some(uses.iter().map(|one| (&*one.table, one.access, one.rows.is_some())).collect())
}

/// How a statement is played, what it touches (nothing: anything), and how it is compared.
type Meaning<'a> = (StatementClass, bool, Answer, Option<Vec<(&'a str, Access, bool)>>);

fn reads<'a>(answer: Answer, tables: &[&'a str]) -> Meaning<'a> {
    (Read, false, answer, Some(tables.iter().map(|table| (*table, Access::Read, false)).collect()))
}

fn writes(answer: Answer, tables: Vec<(&str, Access, bool)>) -> Meaning<'_> {
    (Write, true, answer, Some(tables))
}

#[test]
fn what_is_known_of_a_schema_tells_what_a_statement_does() {
    use Access::{Insert, Write as Writes};
    use Answer::{Called, Definite, Picked, Volatile};
    for (sql, expected) in [
        ("select st_x(a) from t", reads(Definite, &["t"])),
        ("select st_union(a) from t", reads(Picked, &["t"])),
        ("select balance(5)", (Read, false, Called, None)),
        ("select balance(5) from t limit 1", (Read, false, Volatile, None)),
        ("select st_x(a), unheard_of(a) from t", (Write, true, Called, None)),
        (
            "select st_x(a), nextval('s') from t",
            writes(Definite, vec![("t", Access::Read, false), (SEQUENCES, Insert, false), (SEQUENCES, Writes, false)]),
        ),
        ("insert into t values (st_x($1))", writes(Definite, vec![("t", Insert, false)])),
        ("insert into t values (balance($1))", (Write, true, Definite, None)),
        ("select st_x(a) from t for update", writes(Definite, vec![("t", Writes, false)])),
        ("select * from totals", reads(Definite, &["totals", "sales"])),
        ("select * from latest", reads(Volatile, &["latest"])),
        ("select * from audited", (Write, true, Volatile, None)),
        ("select * from balances", (Read, false, Volatile, None)),
        ("select now() from totals", reads(Volatile, &["totals", "sales"])),
        (
            "update sales_2026 set a = 1 where id = 5",
            writes(Definite, vec![("sales_2026", Writes, true), ("sales", Writes, true)]),
        ),
        (
            "delete from customers where id = 5",
            writes(Definite, vec![("customers", Writes, true), ("orders", Writes, false)]),
        ),
        ("update customers set a = 1 where id = 5", writes(Definite, vec![("customers", Writes, true)])),
    ] {
        let execution = of(sql, &schema());
        let Execution { statement, touches, answer, .. } = &execution;
        assert_eq!((statement.class, statement.writes, *answer, tables(touches)), expected, "{sql}");
    }
}

#[test]
fn where_nothing_is_known_a_statement_is_what_its_text_tells() {
    for sql in ["select st_x(a) from t", "select * from totals", "delete from customers", "insert into t values (f())"]
    {
        let analysed = Catalog::default().analyse(sql.as_bytes());
        let statement = analysed.template.statements.first().unwrap();
        let execution = Execution::of(statement, &analysed.literals, None, &Schema::default());
        assert!(Arc::ptr_eq(&execution.statement, statement), "{sql}");
        assert_eq!(execution.touches, catalog::footprint(statement, &analysed.literals, None), "{sql}");
        assert_eq!(execution.answer, statement.answer, "{sql}");
    }
}

#[test]
fn what_changes_the_names_of_a_schema_is_known() {
    let (relations, functions) = (Some(false), Some(true));
    for (sql, expected) in [
        ("create table t (a int)", relations),
        ("create or replace view v as select 1", relations),
        ("create or replace function f() returns int language sql as 'select 1'", functions),
        ("create extension postgis", functions),
        ("alter table t attach partition u default", relations),
        ("alter function f() stable", functions),
        ("drop view v", None),
        ("alter table t rename to u", functions),
        ("create temp table t (a int)", None),
        ("create temp view v as select 1", relations),
        ("create schema s create view v as select 1", functions),
        ("commit prepared 'x'", functions),
        ("commit", None),
        ("create table t (a int) partition by range (a)", relations),
        ("create table u as select * from t", relations),
        ("select a into u from t", relations),
        ("create index on t (a)", relations),
        ("create trigger g before insert on t for each row execute function f()", relations),
        ("truncate t", None),
        ("vacuum t", None),
        ("insert into t values (1)", None),
        ("begin", None),
    ] {
        let execution = of(sql, &Schema::default());
        let defines = execution.statement.defines.as_ref();
        assert_eq!(defines.map(|defines| defines.functions), expected, "{sql}");
        let names = |defines: &Defines| defines.relations.iter().any(|name| ["s", "t", "u", "v"].contains(&&**name));
        assert!(defines.is_none_or(|defines| defines.functions || names(defines)), "{sql}");
    }
}
