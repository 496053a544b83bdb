//! Schemas as rows, and what is touched where they are known.

use super::*;
use crate::shadow::statement::footprint::{KeyValue, RowKey};

fn schema() -> Schema {
    Schema::of([
        ["computes", "st_x", ""],
        ["computes", "twice", ""],
        ["reads", "twice", ""],
        ["aggregates", "st_union", ""],
        ["reads", "balance", ""],
        ["part", "sales_2026_11", "sales_2026"],
        ["part", "sales_2026", "sales"],
        ["view", "totals", "sales_2026"],
        ["calls", "totals", "sum"],
        ["view", "report", "totals"],
        ["view", "report", "customers"],
        ["view", "latest", "sales"],
        ["volatile", "latest", ""],
        ["view", "aged", "customers"],
        ["calls", "aged", "now"],
        ["view", "listed", "customers"],
        ["calls", "listed", "array_agg"],
        ["view", "merged", "customers"],
        ["calls", "merged", "st_union"],
        ["view", "audited", "customers"],
        ["calls", "audited", "audit"],
        ["view", "balances", "customers"],
        ["calls", "balances", "balance"],
        ["refers", "orders", "customers"],
        ["refers", "lines", "orders"],
        ["refers", "customers", "customers"],
        ["another", "version", "of the question"],
    ])
}

fn uses(table: &str, key: Option<i64>, access: Access) -> TableUse {
    let rows = key.map(|value| RowKey { column: "id".into(), value: KeyValue::Whole(value) });
    TableUse { table: table.into(), rows, access }
}

#[test]
fn functions_together_are_what_the_least_harmless_of_them_is() {
    let of = |names: &[&str]| schema().functions(&names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
    assert_eq!(of(&[]), Some(Function::Computes));
    assert_eq!(of(&["st_x"]), Some(Function::Computes));
    assert_eq!(of(&["st_x", "st_union"]), Some(Function::Aggregates));
    assert_eq!(of(&["balance", "st_union"]), Some(Function::Reads));
    assert_eq!(of(&["twice"]), Some(Function::Reads), "there are two of this name");
    assert_eq!(of(&["st_x", "unheard_of"]), None);
}

#[test]
fn a_name_touches_what_it_stands_for() {
    use Access::{Insert, Read, Write};
    let schema = schema();
    for (named, touched) in [
        (uses("unknown", Some(5), Write), vec![uses("unknown", Some(5), Write)]),
        (
            uses("sales_2026_11", Some(5), Write),
            vec![
                uses("sales_2026_11", Some(5), Write),
                uses("sales_2026", Some(5), Write),
                uses("sales", Some(5), Write),
            ],
        ),
        (
            uses("totals", Some(5), Read),
            vec![uses("totals", Some(5), Read), uses("sales_2026", None, Read), uses("sales", None, Read)],
        ),
        (
            uses("report", None, Insert),
            vec![
                uses("report", None, Insert),
                uses("totals", None, Write),
                uses("customers", None, Write),
                uses("sales_2026", None, Write),
                uses("sales", None, Write),
            ],
        ),
        (uses("latest", None, Insert), vec![uses("latest", None, Insert), uses("sales", None, Insert)]),
        (uses("customers", Some(5), Write), vec![uses("customers", Some(5), Write)]),
    ] {
        assert_eq!(schema.touched(vec![named.clone()], false).0, Footprint::Tables(touched), "{named:?}");
    }
}

#[test]
fn what_refers_to_rows_may_go_with_them() {
    let schema = schema();
    let deleted = schema.touched(vec![uses("customers", Some(5), Access::Write)], true).0;
    let any = |table| uses(table, None, Access::Write);
    let expected = vec![uses("customers", Some(5), Access::Write), any("orders"), any("customers"), any("lines")];
    assert_eq!(deleted, Footprint::Tables(expected));
    let read = vec![uses("customers", None, Access::Read)];
    assert_eq!(schema.touched(read.clone(), true).0, Footprint::Tables(read), "what it only reads stays");
}

#[test]
fn a_view_is_compared_as_what_it_does_allows() {
    use Answer::{Definite, Volatile};
    let schema = schema();
    for (view, answer) in [
        ("totals", Definite),
        ("report", Definite),
        ("latest", Volatile),
        ("aged", Volatile),
        ("listed", Volatile),
        ("merged", Volatile),
    ] {
        assert_eq!(schema.touched(vec![uses(view, None, Access::Read)], false).1, answer, "{view}");
    }
    for view in ["audited", "balances"] {
        let touched = schema.touched(vec![uses(view, None, Access::Read)], false);
        assert_eq!(touched, (Footprint::Anything, Volatile), "{view}");
    }
}

#[test]
fn a_name_that_is_newer_than_what_is_known_is_compared_with_care() {
    let named = || Schema::of([["table", "old", ""], ["computes", "f", ""], ["view", "seen", "old"]]);
    let answer = |schema: &Schema, table| schema.touched(vec![uses(table, None, Access::Read)], false).1;
    let (now, relations) = (named(), named().behind(Defines::Relations));
    assert_eq!((answer(&now, "new"), answer(&relations, "new")), (Answer::Definite, Answer::Volatile));
    assert_eq!((answer(&relations, "old"), answer(&relations, ADVISORY_LOCKS)), (Answer::Definite, Answer::Definite));
    let touched = |schema: &Schema| schema.touched(vec![uses("seen", None, Access::Read)], false).0;
    assert_eq!(touched(&relations), touched(&now), "what was known of it is still good");
    let f: [Arc<str>; 1] = ["f".into()];
    assert_eq!(relations.functions(&f), Some(Function::Computes));
    assert_eq!(named().behind(Defines::Functions).functions(&f), None, "it may do anything since");
    assert_eq!(answer(&Schema::untold(), "old"), Answer::Volatile);
    assert_eq!(relations.for_good(), now);
}

/// No relation can be behind itself, but two of one name can.
#[test]
fn names_that_stand_for_each_other_come_to_an_end() {
    let schema = Schema::of([["view", "a", "b"], ["view", "b", "a"], ["refers", "a", "b"], ["refers", "b", "a"]]);
    let (touched, _) = schema.touched(vec![uses("a", None, Access::Write)], true);
    assert_eq!(touched, Footprint::Tables(vec![uses("a", None, Access::Write), uses("b", None, Access::Write)]));
}
