//! Whether a transaction sees one moment in all its statements (REPEATABLE READ, SERIALIZABLE) or each of them its own, as
//! far as a statement says it ("Transaction Isolation"). Pure; it must not know which transaction is open.

use serde_json::Value;

/// What a statement says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// Of which transactions.
    pub of: Scope,
    /// They see one moment.
    pub one_moment: bool,
}

/// Which transactions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The one that is open.
    Transaction,
    /// All that the session begins from now on.
    Session,
}

/// What BEGIN, SET TRANSACTION and settings by their names say.
pub(super) fn set_by(node: &str, body: &Value) -> Option<Isolation> {
    let (of, level) = match node {
        "TransactionStmt" => (Scope::Transaction, option(body.get("options")?)?),
        "VariableSetStmt" => match body.get("name")?.as_str()? {
            "TRANSACTION" => (Scope::Transaction, option(body.get("args")?)?),
            "SESSION CHARACTERISTICS" => (Scope::Session, option(body.get("args")?)?),
            "transaction_isolation" => (Scope::Transaction, constant(body.pointer("/args/0")?)?),
            "default_transaction_isolation" => (Scope::Session, constant(body.pointer("/args/0")?)?),
            _ => return None,
        },
        _ => return None,
    };
    Some(Isolation { of, one_moment: sees_one_moment(level) })
}

/// Whether transactions of this level see one moment.
pub fn sees_one_moment(level: &str) -> bool {
    ["repeatable read", "serializable"].iter().any(|strict| level.eq_ignore_ascii_case(strict))
}

fn option(options: &Value) -> Option<&str> {
    let level = |option: &&Value| {
        option.pointer("/node/DefElem/defname").and_then(Value::as_str) == Some("transaction_isolation")
    };
    constant(options.as_array()?.iter().find(level)?.pointer("/node/DefElem/arg")?)
}

fn constant(value: &Value) -> Option<&str> {
    value.pointer("/node/AConst/val/Sval/sval")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::statement::catalog::Catalog;

    #[test]
    fn who_sees_one_moment_is_said_in_several_ways() {
        use Scope::{Session, Transaction};
        for (sql, expected) in [
            ("begin isolation level repeatable read", Some((Transaction, true))),
            ("start transaction isolation level serializable, read only", Some((Transaction, true))),
            ("begin isolation level read committed", Some((Transaction, false))),
            ("begin read only", None),
            ("begin", None),
            ("set transaction isolation level repeatable read", Some((Transaction, true))),
            ("set transaction_isolation = 'serializable'", Some((Transaction, true))),
            ("set session characteristics as transaction isolation level serializable", Some((Session, true))),
            ("set default_transaction_isolation to 'repeatable read'", Some((Session, true))),
            ("set default_transaction_isolation = 'READ COMMITTED'", Some((Session, false))),
            ("set search_path = 'serializable'", None),
            ("select 'serializable'", None),
        ] {
            let analysed = Catalog::default().analyse(sql.as_bytes());
            let said = analysed.template.statements[0].isolation;
            assert_eq!(said.map(|isolation| (isolation.of, isolation.one_moment)), expected, "{sql}");
        }
    }
}
