//! Writing: a transaction for each batch.

use hdrhistogram::serialization::V2DeflateSerializer;
use sqlx::{Sqlite, Transaction};
use understudy_crds::{ShadowExperiment, ShadowExperimentStatus, report::Environment};
use understudy_mirror::measure::interval::{ArmInterval, Interval};

use super::{
    Batch, Run, Stage, Store,
    encode::{self, Kind},
    error::StoreError,
};

impl Store {
    /// Begins a run of an experiment.
    pub async fn begin(&self, experiment: &ShadowExperiment, environment: &Environment) -> Result<Run, StoreError> {
        let name = experiment.metadata.name.clone().unwrap_or_default();
        let (document, environment_json) =
            (encode::json(experiment, "the experiment")?, encode::json(environment, "the environment")?);
        let done = sqlx::query("INSERT INTO experiments (name, document, environment, started_at) VALUES (?, ?, ?, ?)")
            .bind(name)
            .bind(document)
            .bind(environment_json)
            .bind(&environment.started_at)
            .execute(&self.pool)
            .await
            .map_err(|source| self.write_error(source))?;
        Ok(Run(done.last_insert_rowid()))
    }

    /// Writes a batch, all of it or nothing. Once a second is often enough.
    pub async fn record(&self, run: Run, batch: &Batch) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await.map_err(|source| self.write_error(source))?;
        let mut writer = Writer { store: self, run, transaction: &mut transaction };
        writer.batch(batch).await?;
        transaction.commit().await.map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: sqlx::Error) -> StoreError {
        StoreError::Write { path: self.path.clone(), source }
    }
}

struct Writer<'a, 'c> {
    store: &'a Store,
    run: Run,
    transaction: &'a mut Transaction<'c, Sqlite>,
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

impl Writer<'_, '_> {
    async fn batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let Batch { intervals, status, environment, fingerprints, verdicts, events, ended_at } = batch;
        let mut serializer = V2DeflateSerializer::new();
        for (stage, interval) in intervals {
            self.interval(*stage, interval, &mut serializer).await?;
        }
        if let Some(status) = status {
            self.status(status).await?;
        }
        if let Some(environment) = environment {
            let environment = encode::json(environment, "the environment")?;
            let query = sqlx::query("UPDATE experiments SET environment = ? WHERE id = ?").bind(environment);
            self.run(query.bind(self.run.0)).await?;
        }
        if let Some(fingerprints) = fingerprints {
            self.run(sqlx::query("DELETE FROM fingerprints WHERE experiment = ?").bind(self.run.0)).await?;
            for (position, fingerprint) in (0_i64..).zip(fingerprints) {
                let report = encode::json(fingerprint, "a fingerprint")?;
                let query = sqlx::query("INSERT INTO fingerprints VALUES (?, ?, ?, ?)").bind(self.run.0);
                self.run(query.bind(position).bind(fingerprint.fingerprint.clone()).bind(report)).await?;
            }
        }
        for (at, verdict) in verdicts {
            let verdict = encode::json(verdict, "a verdict")?;
            let query = sqlx::query("INSERT INTO verdicts (experiment, at, verdict) VALUES (?, ?, ?)");
            self.run(query.bind(self.run.0).bind(at.clone()).bind(verdict)).await?;
        }
        for event in events {
            let query = sqlx::query("INSERT INTO events (experiment, at, step, message) VALUES (?, ?, ?, ?)");
            let query = query.bind(self.run.0).bind(event.at.clone()).bind(event.step.clone());
            self.run(query.bind(event.message.clone())).await?;
        }
        if let Some(ended_at) = ended_at {
            let query = sqlx::query("UPDATE experiments SET ended_at = ? WHERE id = ?").bind(ended_at.clone());
            self.run(query.bind(self.run.0)).await?;
        }
        Ok(())
    }

    async fn status(&mut self, status: &ShadowExperimentStatus) -> Result<(), StoreError> {
        let json = encode::json(status, "the status")?;
        self.run(sqlx::query("UPDATE experiments SET status = ? WHERE id = ?").bind(json).bind(self.run.0)).await?;
        for arm in &status.arms {
            let json = encode::json(arm, "an arm")?;
            let query = sqlx::query("INSERT OR REPLACE INTO arms VALUES (?, ?, ?)").bind(self.run.0);
            self.run(query.bind(arm.name.clone()).bind(json)).await?;
        }
        for (position, outcome) in (0_i64..).zip(&status.outcomes) {
            let json = encode::json(outcome, "an outcome")?;
            let query = sqlx::query("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)").bind(self.run.0);
            self.run(query.bind(position).bind(json)).await?;
        }
        Ok(())
    }

    async fn interval(
        &mut self,
        stage: Stage,
        interval: &Interval,
        serializer: &mut V2DeflateSerializer,
    ) -> Result<(), StoreError> {
        let Interval { index, start_us, length_us, arms } = interval;
        let (stage, number) = (encode::stage(stage), encode::integer(*index));
        let query = sqlx::query("INSERT OR REPLACE INTO intervals VALUES (?, ?, ?, ?, ?)").bind(self.run.0).bind(stage);
        let query = query.bind(number).bind(encode::integer(*start_us)).bind(encode::integer(*length_us));
        self.run(query).await?;
        for (name, arm) in arms {
            // Statements by fingerprint are kept as totals, in their report.
            let ArmInterval { service, response, ratio_permille, fingerprints: _, errors, cancelled } = arm;
            let query = sqlx::query("INSERT OR REPLACE INTO interval_arms VALUES (?, ?, ?, ?, ?, ?)");
            let query = query.bind(self.run.0).bind(stage).bind(number).bind(name.clone());
            self.run(query.bind(encode::integer(*errors)).bind(encode::integer(*cancelled))).await?;
            for (kind, by_class) in
                [(Kind::Service, service), (Kind::Response, response), (Kind::Ratio, ratio_permille)]
            {
                for (class, histogram) in by_class.iter().filter(|(_, histogram)| !histogram.is_empty()) {
                    let bytes = encode::histogram(serializer, histogram)?;
                    let query = sqlx::query("INSERT OR REPLACE INTO histograms VALUES (?, ?, ?, ?, ?, ?, ?)");
                    let query = query.bind(self.run.0).bind(stage).bind(number).bind(name.clone());
                    self.run(query.bind(class.name()).bind(kind.name()).bind(bytes)).await?;
                }
            }
        }
        Ok(())
    }

    async fn run(&mut self, query: Query<'_>) -> Result<(), StoreError> {
        query.execute(&mut **self.transaction).await.map_err(|source| self.store.write_error(source))?;
        Ok(())
    }
}
