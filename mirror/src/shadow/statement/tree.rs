//! Walks a parse tree. The tree is taken as generic JSON, so that no node type can be forgotten:
//! a function call is found wherever the grammar allows one.

use serde_json::{Map, Value};

use super::equality::{ValueSource, value_source};

/// `ARRAY_SUBLINK` of the grammar's `SubLinkType`, as the parser's protocol buffers number it.
const ARRAY_SUBLINK: i64 = 7;
/// Columns that each server has of its own ("System Columns").
const OF_ROWS: [&str; 5] = ["xmin", "xmax", "cmin", "cmax", "ctid"];

/// What occurs anywhere in a statement's tree.
#[expect(clippy::struct_excessive_bools, reason = "independent observations about one tree")]
#[derive(Debug, Default, Clone)]
pub struct Found {
    /// Names of called functions, without schema.
    pub functions: Vec<String>,
    /// Names of tables and views that are read or written, without schema; names of CTEs left out.
    pub tables: Vec<String>,
    /// How many times one of them is named.
    pub mentions: usize,
    /// Those of them that are named more than once.
    pub repeated: Vec<String>,
    /// So many queries leave some of their rows out (LIMIT, OFFSET, FETCH FIRST).
    pub limits: usize,
    /// DISTINCT ON.
    pub distinct_on: bool,
    /// A system catalog or one of its views is read.
    pub catalogs: bool,
    /// An INSERT, UPDATE, DELETE or MERGE.
    pub changes: bool,
    /// Names of the tables that those change, one for each.
    pub targets: Vec<String>,
    /// A DELETE, or a MERGE, which may be one.
    pub deletes: bool,
    /// A row lock (FOR UPDATE and so on).
    pub locks: bool,
    /// SELECT INTO.
    pub into: bool,
    /// CURRENT_TIMESTAMP and its like.
    pub clock: bool,
    /// Something temporary is made, or named by its schema.
    pub temporary: bool,
    /// Calls of `set_config`.
    pub settings: Vec<Setting>,
}

/// A call of `set_config`.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the variable's name comes from.
    pub name: Option<ValueSource>,
    /// Whether it ends with the transaction, if the text says so.
    pub local: Option<bool>,
    /// What occurs in its arguments.
    pub arguments: Found,
}

/// Looks through a tree.
pub fn find(tree: &Value) -> Found {
    let mut found = Found::default();
    let mut names = Names::default();
    walk(tree, &mut found, &mut names);
    let Names { ctes, mut tables, maybe_ctes, changed, .. } = names;
    found.targets.clone_from(&changed);
    tables.extend(maybe_ctes.into_iter().filter(|name| !ctes.contains(name) || changed.contains(name)));
    found.mentions = tables.len();
    tables.sort();
    found.repeated = repeated(&tables);
    tables.dedup();
    found.tables = tables;
    found
}

/// What stands more than once in names that are sorted.
fn repeated(names: &[String]) -> Vec<String> {
    names.iter().zip(names.iter().skip(1)).filter(|(name, next)| name == next).map(|(name, _)| name.clone()).collect()
}

/// Names of relations on the way through a tree.
#[derive(Default)]
struct Names {
    ctes: Vec<String>,
    /// CTEs whose own queries are being looked through.
    within: Vec<String>,
    /// Certainly a table or a view.
    tables: Vec<String>,
    /// A CTE where there is one of this name.
    maybe_ctes: Vec<String>,
    /// What is changed, which no CTE is.
    changed: Vec<String>,
}

impl Names {
    /// A CTE has no schema, and its own query does not see it, unless it is recursive, which then counts a table
    /// too many.
    fn relation(&mut self, name: &str, has_schema: bool) {
        let certain = has_schema || self.within.iter().any(|cte| cte == name);
        if certain { &mut self.tables } else { &mut self.maybe_ctes }.push(name.to_owned());
    }
}

fn walk(value: &Value, found: &mut Found, names: &mut Names) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, found, names)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("funcname").and_then(last_string) {
                found.functions.push(name.to_owned());
                if name == "set_config" {
                    found.settings.push(setting(fields.get("args").unwrap_or(&Value::Null)));
                }
            }
            if let Some(name) = fields.get("relname").and_then(Value::as_str) {
                let schema = fields.get("schemaname").and_then(Value::as_str).unwrap_or_default();
                names.relation(name, !schema.is_empty());
                found.catalogs |= name.starts_with("pg_") || schema == "information_schema";
                found.temporary |= fields.get("relpersistence").and_then(Value::as_str) == Some("t");
                found.temporary |= schema.starts_with("pg_temp");
            }
            found.limits += usize::from(limited(fields));
            let cte = fields.get("ctename").and_then(Value::as_str);
            if let Some(name) = cte {
                names.ctes.push(name.to_owned());
                names.within.push(name.to_owned());
            }
            for (key, field) in fields {
                match key.as_str() {
                    "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                        found.changes = true;
                        found.deletes |= matches!(key.as_str(), "DeleteStmt" | "MergeStmt");
                        let target = field.pointer("/relation/relname").and_then(Value::as_str);
                        names.changed.extend(target.map(ToOwned::to_owned));
                    }
                    // Without ON there is one element, which is nothing.
                    "distinct_clause" => found.distinct_on |= field.pointer("/0/node").is_some_and(|on| !on.is_null()),
                    // ARRAY(SELECT …) is an aggregate without its name, and a sample is drawn by chance.
                    "SubLink" if field.get("sub_link_type").and_then(Value::as_i64) == Some(ARRAY_SUBLINK) => {
                        found.functions.push("array_agg".to_owned());
                    }
                    "RangeTableSample" => found.functions.push("random".to_owned()),
                    "LockingClause" => found.locks = true,
                    "into_clause" if !field.is_null() => found.into = true,
                    "SqlvalueFunction" => found.clock = true,
                    // Where a row lies, and which transactions made it, is each server's own.
                    "ColumnRef" if field.get("fields").and_then(last_string).is_some_and(|n| OF_ROWS.contains(&n)) => {
                        found.catalogs = true;
                    }
                    // A part of a name: of a function, a type.
                    "String" => {
                        let part = field.get("sval").and_then(Value::as_str).unwrap_or_default();
                        found.temporary |= part.starts_with("pg_temp");
                    }
                    _ => {}
                }
                walk(field, found, names);
            }
            if cte.is_some() {
                names.within.pop();
            }
        }
        _ => {}
    }
}

fn setting(arguments: &Value) -> Setting {
    let local = arguments.pointer("/2/node/AConst/val/Boolval/boolval").and_then(Value::as_bool);
    Setting { name: arguments.get(0).and_then(value_source), local, arguments: find(arguments) }
}

/// Whether a query itself leaves some of its rows out.
pub fn limits(stmt: &Value) -> bool {
    stmt.as_object().is_some_and(limited)
}

fn limited(fields: &Map<String, Value>) -> bool {
    ["limit_count", "limit_offset"].iter().any(|key| fields.get(*key).is_some_and(|limit| !limit.is_null()))
}

/// The last name of a qualified name.
pub(super) fn last_string(names: &Value) -> Option<&str> {
    names.as_array()?.last()?.pointer("/node/String/sval")?.as_str()
}
