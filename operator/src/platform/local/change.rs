//! Runs a candidate's SQL, on a clone or on the worker: the same statements, in the same way.

use std::time::Duration;

use super::session::{STATEMENT_LIMIT, Session, said};
use crate::error::{ErrorKind, Side, UserError};

/// Longest time for one statement of a candidate; building an index takes its time.
pub const CHANGE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Which list of a candidate's SQL a statement stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlList {
    /// `sql.apply`.
    Apply,
    /// `sql.revert`.
    Revert,
}

impl SqlList {
    const fn field(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        }
    }
}

/// Runs statements in order, each by itself, so that `CONCURRENTLY` works. Says how many succeeded
/// when one fails.
pub async fn run_statements(
    session: &Session,
    side: Side,
    candidate: usize,
    list: SqlList,
    statements: &[String],
) -> Result<(), ChangeFailed> {
    for (index, statement) in statements.iter().enumerate() {
        let failed = |reason: String, kind| {
            let field = format!("spec.candidates[{candidate}].sql.{}[{index}]", list.field());
            let place = if side == Side::Arm { "the clone" } else { "the worker" };
            let error = UserError::new(kind, side, format!("{field}: the statement failed on {place}"))
                .fact("statement", shortened(statement))
                .fact("reason", reason)
                .remedy(format!("correct {field}"));
            ChangeFailed { done: index, error }
        };
        match tokio::time::timeout(CHANGE_LIMIT, session.client().batch_execute(statement)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                let kind = if e.as_db_error().is_some() { ErrorKind::StatementFailed } else { ErrorKind::Unreachable };
                return Err(failed(said(&e), kind));
            }
            Err(_) => {
                let cancel = session.client().cancel_token();
                let _ = tokio::time::timeout(STATEMENT_LIMIT, cancel.cancel_query(tokio_postgres::NoTls)).await;
                return Err(failed(
                    format!("it took more than {} h", CHANGE_LIMIT.as_secs() / 3600),
                    ErrorKind::TimedOut,
                ));
            }
        }
    }
    Ok(())
}

/// A statement of a candidate that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFailed {
    /// Statements before it that succeeded.
    pub done: usize,
    /// What happened.
    pub error: UserError,
}

fn shortened(statement: &str) -> String {
    const LONGEST: usize = 200;
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
