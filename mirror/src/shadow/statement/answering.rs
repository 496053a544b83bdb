//! Whether two servers with the same data answer a statement alike, as far as its tree tells. Pure.

use serde_json::Value;

use super::{
    functions::{ORDER_DEPENDENT, VOLATILE_ANSWERS, changes_nothing, draws},
    tree::{self, Found},
};
use crate::shadow::entry::Answer;

/// How its rows are compared.
pub(super) fn answer(node: &str, body: &Value, found: &Found) -> Answer {
    let calls = |list: &[&str]| found.functions.iter().any(|f| list.contains(&f.as_str()));
    let own_limit = usize::from(tree::limits(body));
    if found.clock
        || found.catalogs
        || calls(&VOLATILE_ANSWERS)
        || matches!(node, "ExplainStmt" | "VariableShowStmt")
        // A cursor shows what was there when it was opened.
        || node == "FetchStmt"
        // What is left out inside decides how many there are outside.
        || found.limits > own_limit
    {
        return Answer::Volatile;
    }
    let of_all = if node == "SelectStmt" && !found.changes && !found.locks && calls_unknown(found) {
        Answer::Called
    } else {
        Answer::Definite
    };
    if own_limit > 0 || found.distinct_on || calls(&ORDER_DEPENDENT) { of_all.of_some() } else { of_all }
}

/// Whether it calls a function of which nothing is known.
fn calls_unknown(found: &Found) -> bool {
    found.functions.iter().any(|function| !changes_nothing(function) && !draws(function))
}
