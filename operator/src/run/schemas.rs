//! Tells the mirror what names stand for in the worker's databases: one question about catalogs in each, before the cut and
//! whenever something was defined since. Must not hold the run up for long: what is not known is only taken for less.

use std::time::Duration;

use understudy_mirror::{
    clock::now_ns,
    shadow::schema::{
        MOST_ROWS, QUESTION, Schema,
        known::{Schemas, Wanted},
    },
};

use super::Run;
use crate::{
    error::UserError,
    platform::{
        Platform,
        local::{session::Names, worker::Worker},
    },
};

/// How long a database may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// It takes one of the worker's processors, for no longer than that, and compiles nothing.
const OWN: &str = "SET jit = off; SET max_parallel_workers_per_gather = 0; SET statement_timeout = '5s'";

impl<P: Platform> Run<'_, P> {
    /// Asks the worker what it was not asked before, or what may have changed since.
    pub(super) async fn learn_schemas(&self) {
        let schemas = self.mirror.schemas();
        for wanted in schemas.wanted(now_ns()) {
            let began_ns = now_ns();
            match ask(self.platform.worker(), schemas, &wanted).await {
                Ok(schema) => schemas.learn(&wanted, schema, now_ns().saturating_sub(began_ns), now_ns()),
                Err(error) => {
                    tracing::info!(database = wanted.database, %error, "what its names stand for is not known");
                    schemas.failed(&wanted, now_ns());
                }
            }
        }
    }
}

async fn ask(worker: &Worker, schemas: &Schemas, wanted: &Wanted) -> Result<Schema, UserError> {
    let session = worker.connect_to(&wanted.database, Names::System).await?;
    let _asking = schemas.asking_by(session.pid());
    session.run(OWN, LIMIT).await?;
    let question = format!("{QUESTION}LIMIT {}", MOST_ROWS + 1);
    let rows = session.within(LIMIT, session.client().query(&question, &[])).await?;
    if rows.len() > MOST_ROWS {
        return Ok(Schema::default());
    }
    let rows: Vec<[&str; 3]> = rows
        .iter()
        .map(|row| Ok([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?]))
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| session.failed(&error))?;
    Ok(Schema::of(rows))
}
