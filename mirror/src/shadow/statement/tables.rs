//! Which tables a statement names, by which rows, and what it does with them, as far as its tree tells. Pure; it knows no
//! database's schema.

use std::sync::Arc;

use serde_json::Value;

use super::{
    equality::equalities,
    footprint::Access,
    functions::{ADVISORY_LOCKS, SEQUENCES, changes_nothing, draws, takes_advisory_lock, touches_nothing},
    lexer::Lexed,
    template::{RowsTemplate, TableTemplate, TableTemplates},
    tree::Found,
    upsert,
};

/// What it touches.
pub(super) fn tables(node: &str, body: &Value, found: &Found, writes: bool, lexed: &Lexed<'_>) -> TableTemplates {
    let dml = matches!(node, "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "CopyStmt");
    if !writes && !dml {
        return TableTemplates::Tables(Vec::new());
    }
    // What was prepared for it may have been another session's.
    if node == "TransactionStmt" && matches!(body.get("kind").and_then(Value::as_i64), Some(9 | 10)) {
        return TableTemplates::Anything;
    }
    // A COMMIT makes visible what its transaction touched, which the session knows.
    if node == "TransactionStmt" {
        return TableTemplates::Tables(Vec::new());
    }
    let is_known = |function: &str| {
        changes_nothing(function) || takes_advisory_lock(function) || draws(function) || touches_nothing(function)
    };
    if !dml || !found.functions.iter().all(|function| is_known(function)) {
        return TableTemplates::Anything;
    }
    let alone = found.mentions == 1 && matches!(node, "SelectStmt" | "UpdateStmt" | "DeleteStmt");
    let rows = alone.then(|| RowsTemplate::of(equalities(body), lexed)).flatten();
    let touched = |table: &str| {
        let access = if writes { access(table, node, body, found) } else { Access::Read };
        TableTemplate { table: table.into(), rows: rows.clone(), access }
    };
    let locks = found.functions.iter().any(|function| takes_advisory_lock(function));
    let upserts = node == "InsertStmt" && found.mentions == 1;
    let upserted = upserts.then(|| RowsTemplate::of(upsert::equalities(body), lexed)).flatten();
    let tables = found.tables.iter().flat_map(|table| match &upserted {
        // It adds the row, or finds it there.
        Some(row) => [Access::Insert, Access::Write]
            .map(|access| TableTemplate { table: table.as_str().into(), rows: Some(Arc::clone(row)), access })
            .to_vec(),
        None => vec![touched(table)],
    });
    let whole = |table: &str, access| TableTemplate { table: table.into(), rows: None, access };
    // Who gets a lock first, and who does not, depends on the others that take one.
    let locks = locks.then(|| whole(ADVISORY_LOCKS, Access::Write));
    // Numbers are drawn in an order, and two that are drawn at once are nobody's to tell apart.
    let draws = found.functions.iter().any(|function| draws(function));
    let draws = draws.then(|| [Access::Insert, Access::Write].map(|access| whole(SEQUENCES, access)));
    TableTemplates::Tables(tables.chain(locks).chain(draws.into_iter().flatten()).collect())
}

/// What a statement that may change something does with rows of one of its tables.
fn access(table: &str, node: &str, body: &Value, found: &Found) -> Access {
    let among = |names: &[String]| names.iter().any(|name| name == table);
    let is_target = among(&found.targets);
    // What COPY fills is the target of no change, and stands alone.
    let alone = found.mentions == 1 || found.targets.len() == 1 && is_target && !among(&found.repeated);
    match () {
        () if alone && adds_rows(node, body) => Access::Insert,
        // What SELECT … INTO makes stands among its tables.
        () if is_target || found.locks || found.into => Access::Write,
        () => Access::Read,
    }
}

/// Whether it adds rows to its table and looks at none that are there.
fn adds_rows(node: &str, body: &Value) -> bool {
    match node {
        "InsertStmt" => body.get("on_conflict_clause").is_none_or(Value::is_null),
        "CopyStmt" => body.get("is_from").and_then(Value::as_bool) == Some(true),
        _ => false,
    }
}
