//! Which tables a statement names, by which rows, and what it does with them, as far as its tree tells. Pure; it knows no
//! database's schema.

use std::sync::Arc;

use serde_json::Value;

use super::{
    footprint::Access,
    functions::{ADVISORY_LOCKS, changes_nothing, takes_advisory_lock, touches_nothing},
    lexer::Lexed,
    template::{TableTemplate, TableTemplates, key_source},
    tree::{self, Found},
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
    let mut unknown = found.functions.iter().filter(|function| !changes_nothing(function));
    if !dml || unknown.any(|function| !takes_advisory_lock(function) && !touches_nothing(function)) {
        return TableTemplates::Anything;
    }
    let alone = found.mentions == 1 && matches!(node, "SelectStmt" | "UpdateStmt" | "DeleteStmt");
    let key = alone.then(|| tree::row_key(body)).flatten().and_then(|(column, source)| {
        let source = key_source(source, lexed)?;
        Some((Arc::from(column), source))
    });
    let touched = |table: &str| {
        let access = if writes { access(table, node, body, found) } else { Access::Read };
        TableTemplate { table: table.into(), key: key.clone(), access }
    };
    let locks = found.functions.iter().any(|function| takes_advisory_lock(function));
    let upserted = (node == "InsertStmt" && found.mentions == 1).then(|| upsert::key(body)).flatten();
    let upserted = upserted.and_then(|(column, source)| Some((Arc::from(column), key_source(source, lexed)?)));
    let tables = found.tables.iter().flat_map(|table| match &upserted {
        // It adds the row, or finds it there.
        Some(key) => [Access::Insert, Access::Write]
            .map(|access| TableTemplate { table: table.as_str().into(), key: Some(key.clone()), access })
            .to_vec(),
        None => vec![touched(table)],
    });
    // Who gets a lock first, and who does not, depends on the others that take one.
    let locks = locks.then(|| TableTemplate { table: ADVISORY_LOCKS.into(), key: None, access: Access::Write });
    TableTemplates::Tables(tables.chain(locks).collect())
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
