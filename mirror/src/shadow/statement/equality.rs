//! Which rows a statement picks by `column = value`, as far as its tree tells. Pure; it knows no values.

use serde_json::Value;

use super::tree::{last_string, limits};

/// Where the value of an equality comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSource {
    /// A constant that begins at this byte of the text.
    Constant {
        /// Bytes from the front of the text.
        offset: usize,
    },
    /// A parameter, from 0.
    Parameter {
        /// Its index.
        index: usize,
    },
}

/// `AND_EXPR` of the grammar's `BoolExprType`, and `LockWaitSkip` of its `LockWaitPolicy`, as the parser's protocol buffers
/// number them.
const AND: i64 = 1;
const SKIP_LOCKED: i64 = 2;

/// Equalities that pick rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Equalities {
    /// Column, and where its value comes from. All of them hold.
    pub keys: Vec<(String, ValueSource)>,
    /// Nothing else is asked of the rows, and all that are so are picked.
    pub all: bool,
}

/// Every `column = value` in the conditions of an UPDATE, DELETE or SELECT of exactly one table, where all its conditions
/// must hold. `stmt` is the statement's own object. A column that an UPDATE sets itself is left out: it touches rows of two
/// values of it.
pub fn equalities(stmt: &Value) -> Equalities {
    let Some(condition) = stmt.get("where_clause").filter(|_| is_of_one_table(stmt)) else {
        return Equalities::default();
    };
    let conjuncts = match condition.pointer("/node/BoolExpr") {
        Some(bool_expr) if bool_expr.get("boolop").and_then(Value::as_i64) == Some(AND) => list(bool_expr, "args"),
        Some(_) => &[],
        None => std::slice::from_ref(condition),
    };
    let sets = |column: &str| {
        let mut targets = list(stmt, "target_list").iter();
        targets.any(|target| target.pointer("/node/ResTarget/name").and_then(Value::as_str) == Some(column))
    };
    let found = conjuncts.iter().filter_map(equality);
    let keys: Vec<_> = found.filter(|(column, _)| !sets(column)).collect();
    let skips = list(stmt, "locking_clause")
        .iter()
        .any(|clause| clause.pointer("/node/LockingClause/wait_policy").and_then(Value::as_i64) == Some(SKIP_LOCKED));
    let all = keys.len() == conjuncts.len() && !skips && !limits(stmt);
    Equalities { keys, all }
}

fn list<'a>(node: &'a Value, name: &str) -> &'a [Value] {
    node.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a statement's own conditions can be of nothing but one table: what WITH makes, what is joined or stands in
/// parentheses in FROM has columns as well.
fn is_of_one_table(stmt: &Value) -> bool {
    let has = |name: &str| stmt.get(name).is_some_and(|field| !field.is_null());
    let from = match list(stmt, "from_clause") {
        [] => has("relation"),
        [one] => !has("relation") && one.pointer("/node/RangeVar").is_some(),
        _ => false,
    };
    from && list(stmt, "using_clause").is_empty() && !has("with_clause")
}

fn equality(condition: &Value) -> Option<(String, ValueSource)> {
    let expr = condition.pointer("/node/AExpr")?;
    if expr.get("kind").and_then(Value::as_i64) != Some(1) || last_string(expr.get("name")?)? != "=" {
        return None;
    }
    let (left, right) = (expr.get("lexpr")?, expr.get("rexpr")?);
    one_way(left, right).or_else(|| one_way(right, left))
}

fn one_way(column: &Value, value: &Value) -> Option<(String, ValueSource)> {
    let name = last_string(column.pointer("/node/ColumnRef/fields")?)?.to_owned();
    Some((name, value_source(value)?))
}

/// Types as which values are equal only where they look equal, or are whole numbers. As `citext`, as a `char`, or cut off,
/// texts are equal that look different.
const PLAIN_TYPES: [&str; 6] = ["text", "varchar", "int2", "int4", "int8", "uuid"];

/// Where a value comes from, if it is a constant or a parameter, cast to such a type or not.
pub(super) fn value_source(value: &Value) -> Option<ValueSource> {
    let value = match value.pointer("/node/TypeCast") {
        Some(cast) => {
            let is_cut =
                cast.pointer("/type_name/typmods").and_then(Value::as_array).is_some_and(|mods| !mods.is_empty());
            let to = cast.pointer("/type_name/names").and_then(last_string)?;
            if is_cut || !PLAIN_TYPES.contains(&to) {
                return None;
            }
            cast.get("arg")?
        }
        None => value,
    };
    if let Some(number) = value.pointer("/node/ParamRef/number").and_then(Value::as_u64) {
        return Some(ValueSource::Parameter { index: usize::try_from(number.checked_sub(1)?).ok()? });
    }
    let constant = value.pointer("/node/AConst")?;
    let offset = usize::try_from(constant.get("location")?.as_i64()?).ok()?;
    Some(ValueSource::Constant { offset })
}
