//! Schemas as rows, and what is touched where they are known.

use super::*;
use crate::shadow::statement::{
    functions::ADVISORY_LOCKS,
    rows::{KeyValue, RowKey},
};

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
        ["exact", "code", "products"],
        ["goes", "orders", "customers"],
        ["goes", "lines", "orders"],
        ["keeps", "invoices", "orders"],
        ["goes", "copies", "invoices"],
        ["goes", "customers", "customers"],
        ["another", "version", "of the question"],
    ])
}

fn uses(table: &str, key: Option<i64>, access: Access) -> TableUse {
    let rows = key.map(|value| RowKey { column: "id".into(), value: KeyValue::Whole(value) }.into());
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
        assert_eq!(schema.touched(vec![named.clone()], false).unwrap().0, Footprint::Tables(touched), "{named:?}");
    }
}

#[test]
fn rows_are_picked_by_texts_where_each_byte_counts() {
    let picked = |table: &str, column: &str, value| {
        let rows = Some(RowKey { column: column.into(), value }.into());
        let touched =
            schema().touched(vec![TableUse { table: table.into(), rows, access: Access::Write }], false).unwrap().0;
        let Footprint::Tables(mut uses) = touched else { panic!() };
        uses.remove(0).rows.unwrap().keys()[0].value
    };
    let (plain, other) = (KeyValue::text(6, true), KeyValue::text(6, false));
    assert_eq!(picked("products", "code", plain), KeyValue::Certain(7));
    assert_eq!(picked("products", "code", other), other);
    assert_eq!(picked("products", "code", KeyValue::Whole(7)), KeyValue::Whole(7));
    assert_eq!((picked("products", "name", plain), picked("customers", "code", plain)), (plain, plain));
}

#[test]
fn a_row_that_a_trigger_rewrites_is_added_under_nobody_knows_which_key() {
    let schema = Schema::of([["rewrites", "users", ""]]);
    let upsert = |table| vec![uses(table, Some(5), Access::Insert), uses(table, Some(5), Access::Write)];
    let any = vec![uses("users", None, Access::Insert), uses("users", None, Access::Write)];
    assert_eq!(schema.touched(upsert("users"), false).unwrap().0, Footprint::Tables(any));
    assert_eq!(schema.touched(upsert("others"), false).unwrap().0, Footprint::Tables(upsert("others")));
    let update = vec![uses("users", Some(5), Access::Write)];
    assert_eq!(schema.touched(update.clone(), false).unwrap().0, Footprint::Tables(update));
}

#[test]
fn what_refers_to_rows_may_go_with_them() {
    let schema = schema();
    let deleted = schema.touched(vec![uses("customers", Some(5), Access::Write)], true).unwrap().0;
    let any = |table| uses(table, None, Access::Write);
    // An invoice keeps its order there, so that nothing of what goes with it goes.
    let expected =
        vec![uses("customers", Some(5), Access::Write), any("orders"), any("customers"), any("lines"), any("invoices")];
    assert_eq!(deleted, Footprint::Tables(expected));
    let read = vec![uses("customers", None, Access::Read)];
    assert_eq!(schema.touched(read.clone(), true).unwrap().0, Footprint::Tables(read), "what it only reads stays");
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
        assert_eq!(schema.touched(vec![uses(view, None, Access::Read)], false).unwrap().1, answer, "{view}");
    }
    let touched = |view| schema.touched(vec![uses(view, None, Access::Read)], false);
    assert_eq!(touched("balances"), Some((Footprint::Anything, Volatile)));
    assert_eq!(touched("audited"), None, "it may do anything");
}

#[test]
fn a_name_that_is_newer_than_what_is_known_is_compared_with_care() {
    let named =
        || Schema::of([["table", "old", ""], ["table", "seen", ""], ["computes", "f", ""], ["view", "seen", "old"]]);
    let answer = |schema: &Schema, table| schema.touched(vec![uses(table, None, Access::Read)], false).unwrap().1;
    let defines = |name: &str| Defines { functions: false, relations: vec![name.into()] };
    let functions = Defines { functions: true, ..Defines::default() };
    let (now, behind) = (named(), named().behind(&defines("new")));
    assert_eq!((answer(&now, "new"), answer(&behind, "new")), (Answer::Definite, Answer::Volatile));
    assert_eq!((answer(&behind, "old"), answer(&behind, ADVISORY_LOCKS)), (Answer::Definite, Answer::Definite));
    assert_eq!(answer(&named().behind(&defines("old")), "old"), Answer::Volatile, "it may be another one since");
    let touched = |schema: &Schema| schema.touched(vec![uses("seen", None, Access::Read)], false).unwrap().0;
    assert_eq!(touched(&behind), touched(&now), "what was known of it is still good");
    let f: [Arc<str>; 1] = ["f".into()];
    assert_eq!(behind.functions(&f), Some(Function::Computes));
    assert_eq!(named().behind(&functions).functions(&f), None, "it may do anything since");
    assert_eq!(answer(&Schema::untold(), "old"), Answer::Volatile);
    assert!(behind.is_behind(&defines("new")) && !behind.is_behind(&defines("old")) && !behind.is_behind(&functions));
    assert!(!now.is_behind(&defines("new")));
}

/// No relation can be behind itself, but two of one name can.
#[test]
fn names_that_stand_for_each_other_come_to_an_end() {
    let schema = Schema::of([["view", "a", "b"], ["view", "b", "a"], ["goes", "a", "b"], ["goes", "b", "a"]]);
    let (touched, _) = schema.touched(vec![uses("a", None, Access::Write)], true).unwrap();
    assert_eq!(touched, Footprint::Tables(vec![uses("a", None, Access::Write), uses("b", None, Access::Write)]));
}
