//! Compares tables of two servers: whether they hold the same rows, whatever their order.
//!
//! The caller decides the moment: it opens a snapshot on both sides (see [`open_snapshot`]) when
//! they should be equal. Digests are made on each server; no row leaves it.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::{change::CHANGE_LIMIT, session::Session};
use crate::error::UserError;

/// Columns that are not compared, by `schema.table`.
pub type Excluded = BTreeMap<String, BTreeSet<String>>;

/// How a table compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOutcome {
    /// The same rows on both sides.
    Same {
        /// How many.
        rows: i64,
    },
    /// The same rows but for these columns, whose type is a time: each server fills them from its own
    /// clock.
    SameButClock {
        /// How many rows.
        rows: i64,
        /// The columns.
        columns: Vec<String>,
    },
    /// Other rows.
    Differs {
        /// On the first side.
        left_rows: i64,
        /// On the second side.
        right_rows: i64,
    },
    /// It is only on the first side.
    OnlyLeft,
    /// It is only on the second side.
    OnlyRight,
}

/// One table, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableComparison {
    /// `schema.table`, as it is, without quotes.
    pub table: String,
    /// How it compares.
    pub outcome: TableOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    quoted: String,
    columns: BTreeSet<String>,
    /// Those of them that hold a time.
    times: BTreeSet<String>,
}

/// Holds on to what the server has at this moment. The session is good for comparing from then on.
pub async fn open_snapshot(session: &Session) -> Result<(), UserError> {
    // What decides how values are printed must be the same on both sides.
    let sql = "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
               SET bytea_output = 'hex'; SET extra_float_digits = 1; \
               BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1";
    session.run(sql, super::session::STATEMENT_LIMIT).await
}

/// Compares the tables of one database. Both sessions hold a snapshot. System schemas, tables of
/// extensions, foreign and unlogged tables are left out; columns that one side does not have, too.
pub async fn compare(left: &Session, right: &Session, excluded: &Excluded) -> Result<Vec<TableComparison>, UserError> {
    let (left_tables, right_tables) = (tables(left).await?, tables(right).await?);
    let names: BTreeSet<&String> = left_tables.keys().chain(right_tables.keys()).collect();
    let mut compared = Vec::new();
    for name in names {
        let outcome = match (left_tables.get(name), right_tables.get(name)) {
            (Some(a), Some(b)) => {
                let skipped = excluded.get(name);
                let columns: Vec<&String> =
                    a.columns.intersection(&b.columns).filter(|c| !skipped.is_some_and(|s| s.contains(*c))).collect();
                match both(left, right, &a.quoted, &columns).await? {
                    TableOutcome::Differs { left_rows, right_rows } if left_rows == right_rows => {
                        let (times, others): (Vec<&String>, Vec<&String>) =
                            columns.iter().partition(|column| a.times.contains(**column));
                        but_for_clocks(left, right, &a.quoted, &times, &others, left_rows).await?
                    }
                    outcome => outcome,
                }
            }
            (Some(_), None) => TableOutcome::OnlyLeft,
            (None, _) => TableOutcome::OnlyRight,
        };
        compared.push(TableComparison { table: name.clone(), outcome });
    }
    Ok(compared)
}

async fn both(left: &Session, right: &Session, quoted: &str, columns: &[&String]) -> Result<TableOutcome, UserError> {
    let sql = digest_sql(quoted, columns);
    let (left, right) = tokio::join!(digest(left, &sql), digest(right, &sql));
    Ok(outcome(&left?, &right?))
}

/// What a table that differs comes to when the columns that hold times are left out.
async fn but_for_clocks(
    left: &Session,
    right: &Session,
    quoted: &str,
    times: &[&String],
    others: &[&String],
    rows: i64,
) -> Result<TableOutcome, UserError> {
    let differs = TableOutcome::Differs { left_rows: rows, right_rows: rows };
    if times.is_empty() || others.is_empty() {
        return Ok(differs);
    }
    match both(left, right, quoted, others).await? {
        TableOutcome::Same { rows } => {
            let mut columns = Vec::new();
            for column in times {
                if !matches!(both(left, right, quoted, &[column]).await?, TableOutcome::Same { .. }) {
                    columns.push((*column).clone());
                }
            }
            // Each column for itself agrees, their combination does not: that is no clock.
            Ok(if columns.is_empty() { differs } else { TableOutcome::SameButClock { rows, columns } })
        }
        _ => Ok(differs),
    }
}

fn outcome(left: &(i64, String), right: &(i64, String)) -> TableOutcome {
    if left == right {
        TableOutcome::Same { rows: left.0 }
    } else {
        TableOutcome::Differs { left_rows: left.0, right_rows: right.0 }
    }
}

async fn tables(session: &Session) -> Result<BTreeMap<String, Table>, UserError> {
    let sql = "SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname),
                      (SELECT coalesce(array_agg(attname::text), '{}') FROM pg_attribute
                        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
                      (SELECT coalesce(array_agg(attname::text), '{}') FROM pg_attribute
                        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                          AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype,
                                           'timetz'::regtype, 'time'::regtype))
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p'
                  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
                  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                     AND d.objid = c.oid AND d.deptype = 'e')";
    let rows = session.rows(sql, &[]).await?;
    let read = |row: &Row| {
        let (columns, times): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
        let table = Table {
            quoted: row.try_get(1)?,
            columns: columns.into_iter().collect(),
            times: times.into_iter().collect(),
        };
        Ok((row.try_get(0)?, table))
    };
    rows.iter().map(read).collect::<Result<_, tokio_postgres::Error>>().map_err(|e| session.failed(&e))
}

/// Sums of hashes do not depend on the order of rows, and count equal rows as often as they are there.
fn digest_sql(quoted: &str, columns: &[&String]) -> String {
    let columns: Vec<String> = columns.iter().map(|c| format!("t.\"{}\"", c.replace('"', "\"\""))).collect();
    format!(
        "SELECT count(*), coalesce(sum(hashtextextended(ROW({})::text, 0)::numeric), 0)::text FROM ONLY {quoted} t",
        columns.join(", ")
    )
}

async fn digest(session: &Session, sql: &str) -> Result<(i64, String), UserError> {
    let row = session.within(CHANGE_LIMIT, session.client().query_one(sql, &[])).await?;
    let get = |e: tokio_postgres::Error| session.failed(&e);
    Ok((row.try_get(0).map_err(get)?, row.try_get(1).map_err(get)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_name_their_columns() {
        let (a, b) = ("a".to_owned(), "we\"ird".to_owned());
        assert_eq!(
            digest_sql("public.t", &[&a, &b]),
            "SELECT count(*), coalesce(sum(hashtextextended(ROW(t.\"a\", t.\"we\"\"ird\")::text, 0)::numeric), 0)::text FROM ONLY public.t t"
        );
    }

    #[test]
    fn count_and_digest_must_agree() {
        let side = |rows, digest: &str| (rows, digest.to_owned());
        assert_eq!(outcome(&side(3, "x"), &side(3, "x")), TableOutcome::Same { rows: 3 });
        assert_eq!(outcome(&side(3, "x"), &side(3, "y")), TableOutcome::Differs { left_rows: 3, right_rows: 3 });
        assert_eq!(outcome(&side(3, "x"), &side(4, "x")), TableOutcome::Differs { left_rows: 3, right_rows: 4 });
    }
}
