//! What is done inside a clone's databases before anything is played to it: nothing in there may act
//! on the world any more, and its sequences stand where the worker's stood at the cut.

use std::collections::BTreeMap;

use super::{
    arm::Arm,
    cut::SequenceValue,
    session::{Names, STATEMENT_LIMIT, Session},
};
use crate::error::UserError;

/// Libraries whose functions reach other machines. Calling one on a clone fails.
const REACHING_OUT: &str =
    "'^(.*/)?(dblink|http(-[0-9.]+)?|pg_net|pg_background|aws_s3|aws_lambda|pg_amqp|plproxy|plproxy-[0-9.]+)(\\.so)?$'";

/// What was made harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Subscriptions that were cut off from their publisher.
    pub subscriptions: usize,
    /// Foreign-data wrappers that lost their handler.
    pub wrappers: usize,
    /// Functions that would have reached out.
    pub functions: usize,
    /// Sequences that were set to the worker's values.
    pub sequences: usize,
}

impl Arm {
    /// Cuts the clone off from the world and sets its sequences.
    pub async fn quarantine(&self, sequences: &[SequenceValue]) -> Result<Quarantined, UserError> {
        let mut done = Quarantined::default();
        let mut by_database: BTreeMap<&str, Vec<&SequenceValue>> = BTreeMap::new();
        for sequence in sequences {
            by_database.entry(&sequence.database).or_default().push(sequence);
        }
        for database in databases(&self.connect().await?).await? {
            let session = self.connect_to(&database, Names::System).await?;
            done.subscriptions += subscriptions(&session).await?;
            done.wrappers += wrappers(&session).await?;
            done.functions += functions(&session).await?;
            if let Some(values) = by_database.get(database.as_str()) {
                done.sequences += set_sequences(&session, values).await?;
            }
        }
        Ok(done)
    }
}

async fn databases(session: &Session) -> Result<Vec<String>, UserError> {
    texts(session, "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1").await
}

async fn subscriptions(session: &Session) -> Result<usize, UserError> {
    let statements = texts(
        session,
        "SELECT format('ALTER SUBSCRIPTION %I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE)', subname)
           FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()",
    )
    .await?;
    run_each(session, &statements).await
}

async fn wrappers(session: &Session) -> Result<usize, UserError> {
    let statements = texts(
        session,
        "SELECT format('ALTER FOREIGN DATA WRAPPER %I NO HANDLER', fdwname) FROM pg_foreign_data_wrapper WHERE fdwhandler <> 0",
    )
    .await?;
    run_each(session, &statements).await
}

/// Points functions of such libraries at one that does not exist. Dropping the extension would take
/// views and functions along that the traffic may name.
async fn functions(session: &Session) -> Result<usize, UserError> {
    let sql = format!("UPDATE pg_proc SET probin = 'removed by understudy' WHERE probin ~ {REACHING_OUT}");
    let changed = session.within(STATEMENT_LIMIT, session.client().execute(&sql, &[])).await?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}

async fn set_sequences(session: &Session, values: &[&SequenceValue]) -> Result<usize, UserError> {
    let schemas: Vec<&str> = values.iter().map(|v| v.schema.as_str()).collect();
    let names: Vec<&str> = values.iter().map(|v| v.name.as_str()).collect();
    let last: Vec<i64> = values.iter().map(|v| v.last_value).collect();
    let sql = "SELECT setval(to_regclass(format('%I.%I', s, n)), v, true)
                 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (s, n, v)
                WHERE to_regclass(format('%I.%I', s, n)) IS NOT NULL";
    session.rows(sql, &[&schemas, &names, &last]).await.map(|rows| rows.len())
}

async fn run_each(session: &Session, statements: &[String]) -> Result<usize, UserError> {
    for statement in statements {
        session.run(statement, STATEMENT_LIMIT).await?;
    }
    Ok(statements.len())
}

async fn texts(session: &Session, sql: &str) -> Result<Vec<String>, UserError> {
    let rows = session.rows(sql, &[]).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|e| session.failed(&e))
}
