//! Statements that change what others stand on: what sessions begin with, and what names stand for. By the parser's names
//! for them.

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
const RELATIONS: [&str; 6] =
    ["CreateStmt", "CreateTableAsStmt", "CreateForeignTableStmt", "AlterTableStmt", "ViewStmt", "RuleStmt"];
const FUNCTIONS: [&str; 8] = [
    "CreateFunctionStmt",
    "AlterFunctionStmt",
    "DefineStmt",
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

/// What names it may give another meaning to. What is temporary is its session's own.
pub(super) fn defines(node: &str, found: &Found) -> Option<Defines> {
    let relations = RELATIONS.contains(&node) || node == "SelectStmt" && found.into;
    match node {
        _ if found.temporary => None,
        node if FUNCTIONS.contains(&node) => Some(Defines::Functions),
        _ => relations.then_some(Defines::Relations),
    }
}
