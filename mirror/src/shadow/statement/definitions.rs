//! Statements that change what others stand on: what sessions begin with, and what names stand for. By the parser's names
//! for them.

use std::sync::Arc;

use serde_json::Value;

use super::tree::Found;
use crate::shadow::schema::Defines;

/// What changes roles, databases, or what is set for them: a session that logs in behind it begins with something else.
/// A function that does so is not seen: to wait for all of those would let sessions in one after the other where
/// production had them beside one another.
const BEGINNINGS: [&str; 10] = [
    "CreateRoleStmt",
    "AlterRoleStmt",
    "AlterRoleSetStmt",
    "DropRoleStmt",
    "GrantRoleStmt",
    "GrantStmt",
    "AlterDatabaseStmt",
    "AlterDatabaseSetStmt",
    "RenameStmt",
    "DoStmt",
];

/// What changes functions, views and tables: their names, what they are made of, what they refer to. A function that does
/// so is not seen, nor a DO. What is known of a name that stands for nothing any more does no harm.
const RELATIONS: [&str; 8] = [
    "CreateStmt",
    "CreateTableAsStmt",
    "CreateForeignTableStmt",
    "AlterTableStmt",
    "ViewStmt",
    "RuleStmt",
    "CreateTrigStmt",
    "IndexStmt",
];
const FUNCTIONS: [&str; 9] = [
    "CreateFunctionStmt",
    "AlterFunctionStmt",
    "DefineStmt",
    "CreateSchemaStmt",
    "CreateExtensionStmt",
    "AlterExtensionStmt",
    "AlterExtensionContentsStmt",
    "AlterObjectSchemaStmt",
    "RenameStmt",
];

/// Whether it may change what sessions begin with.
pub(super) fn changes_beginnings(node: &str) -> bool {
    BEGINNINGS.contains(&node)
}

/// `TRANS_STMT_COMMIT_PREPARED` of the grammar's `TransactionStmtKind`, as the parser's protocol buffers number it.
const COMMIT_PREPARED: i64 = 9;

/// What may have another meaning behind it. What is temporary is its session's own, but a view is one all the same.
pub(super) fn defines(node: &str, body: &Value, found: &Found) -> Option<Defines> {
    let functions = match node {
        "TransactionStmt" => body.get("kind").and_then(Value::as_i64) == Some(COMMIT_PREPARED),
        _ => FUNCTIONS.contains(&node) && !found.temporary,
    };
    let makes = RELATIONS.contains(&node) || node == "SelectStmt" && found.into;
    let relations = node == "ViewStmt" || makes && !found.temporary;
    // The ones that it names are among them, whatever it does with them.
    let names = || found.tables.iter().map(|name| Arc::from(&**name)).collect();
    (functions || relations).then(|| Defines { functions, relations: names() })
}
