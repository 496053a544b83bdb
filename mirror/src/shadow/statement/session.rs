//! What a statement leaves in its session, by what its tree says: settings, locks.

use serde_json::Value;

use super::{
    functions::{VOLATILE_ANSWERS, changes_nothing},
    lexer::Lexed,
    template::{Kind, VariableSource, key_source},
    tree::{Found, Setting},
};

/// What the functions that a statement calls do to its session, if they do anything.
pub(super) fn kind(node: &str, found: &Found, writes: bool, lexed: &Lexed<'_>) -> Option<Kind> {
    let calls = |begins: &[&str]| found.functions.iter().any(|f| begins.iter().any(|begin| f.starts_with(begin)));
    if calls(&["pg_advisory_lock", "pg_try_advisory_lock"]) {
        return Some(Kind::SessionLocked);
    }
    let (select, settings) = (node == "SelectStmt", &found.settings);
    let unlocks = |f: &String| f.starts_with("pg_advisory_unlock");
    if select && calls(&["pg_advisory_unlock"]) && !(found.changes || found.locks) && settings.is_empty() {
        let all = found.tables.is_empty() && found.functions.iter().any(|f| f == "pg_advisory_unlock_all");
        return found.functions.iter().all(|f| unlocks(f) || changes_nothing(f)).then_some(Kind::Unlocks { all });
    }
    let again = select && !writes && found.tables.is_empty() && !settings.iter().any(is_drawn);
    match settings.as_slice() {
        [] => None,
        settings if settings.iter().all(|setting| setting.local == Some(true)) => None,
        [Setting { name: Some(name), local: Some(false), .. }] if again => {
            Some(key_source(*name, lexed).map_or(Kind::SessionState, |name| Kind::Sets(VariableSource::Given(name))))
        }
        _ if again => Some(Kind::SessionState),
        _ => Some(Kind::SessionBound),
    }
}

/// Whether a setting would be another one when it is set again: it depends on the moment, or on what was set before.
fn is_drawn(setting: &Setting) -> bool {
    let Found { clock, functions, .. } = &setting.arguments;
    *clock || functions.iter().any(|f| f == "current_setting" || VOLATILE_ANSWERS.contains(&f.as_str()))
}

/// What a SET or RESET is.
pub(super) fn set(body: &Value) -> Kind {
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
    // SET TRANSACTION says how this transaction is, as SET LOCAL does.
    let local = body.get("is_local").and_then(Value::as_bool) == Some(true) || name.starts_with("TRANSACTION");
    match body.get("kind").and_then(Value::as_i64) {
        _ if local => Kind::Plain,
        // SET to a value, SET to the default, RESET.
        Some(1 | 2 | 5) => Kind::Sets(VariableSource::Named(name.into())),
        _ => Kind::SessionState,
    }
}
