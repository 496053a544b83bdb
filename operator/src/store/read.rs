//! Reading: the newest run of a name, with all that is kept of it.

use std::collections::BTreeMap;

use hdrhistogram::serialization::Deserializer;
use serde::de::DeserializeOwned;
use sqlx::{Row as _, sqlite::SqliteRow};
use understudy_mirror::measure::interval::{ArmInterval, Interval};

use super::{
    Recorded, Run, Stage, Store,
    encode::{self, Kind},
    error::StoreError,
};
use understudy_crds::report::TimelineEvent;

impl Store {
    /// Everything that is kept of the newest run of an experiment.
    pub async fn load(&self, name: &str) -> Result<Recorded, StoreError> {
        let newest =
            "SELECT id, document, environment, status FROM experiments WHERE name = ? ORDER BY id DESC LIMIT 1";
        let row = sqlx::query(newest).bind(name).fetch_optional(&self.pool).await.map_err(|e| self.read_error(e))?;
        let Some(row) = row else {
            return Err(StoreError::NoSuchExperiment { path: self.path.clone(), name: name.to_owned() });
        };
        let run = Run(self.column(&row, 0)?);
        Ok(Recorded {
            experiment: self.json(&row, 1, "the experiment")?,
            environment: self.json(&row, 2, "the environment")?,
            status: self.json(&row, 3, "the status")?,
            observed: self.intervals(run, Stage::Observing).await?,
            promoted: self.intervals(run, Stage::Promoted).await?,
            fingerprints: self
                .documents(
                    run,
                    "SELECT report FROM fingerprints WHERE experiment = ? ORDER BY position",
                    "a fingerprint",
                )
                .await?,
            outcomes: self
                .documents(run, "SELECT outcome FROM outcomes WHERE experiment = ? ORDER BY position", "an outcome")
                .await?,
            verdicts: self
                .rows(run, "SELECT at, verdict FROM verdicts WHERE experiment = ? ORDER BY id")
                .await?
                .iter()
                .map(|row| Ok((self.column(row, 0)?, self.json(row, 1, "a verdict")?)))
                .collect::<Result<_, StoreError>>()?,
            timeline: self
                .rows(run, "SELECT at, step, message FROM events WHERE experiment = ? ORDER BY id")
                .await?
                .iter()
                .map(|row| {
                    let (at, step, message) = (self.column(row, 0)?, self.column(row, 1)?, self.column(row, 2)?);
                    Ok(TimelineEvent { at, step, message })
                })
                .collect::<Result<_, StoreError>>()?,
        })
    }

    async fn intervals(&self, run: Run, stage: Stage) -> Result<Vec<Interval>, StoreError> {
        let stage = encode::stage(stage);
        let mut intervals: BTreeMap<i64, Interval> = BTreeMap::new();
        let query = "SELECT number, start_us, length_us FROM intervals WHERE experiment = ? AND stage = ?";
        for row in self.staged(run, stage, query).await? {
            let number: i64 = self.column(&row, 0)?;
            let (start_us, length_us) =
                (encode::unsigned(self.column(&row, 1)?), encode::unsigned(self.column(&row, 2)?));
            let index = encode::unsigned(number);
            intervals.insert(number, Interval { index, start_us, length_us, arms: BTreeMap::new() });
        }
        let query = "SELECT number, arm, errors, cancelled FROM interval_arms WHERE experiment = ? AND stage = ?";
        for row in self.staged(run, stage, query).await? {
            let (number, arm): (i64, String) = (self.column(&row, 0)?, self.column(&row, 1)?);
            let (errors, cancelled) =
                (encode::unsigned(self.column(&row, 2)?), encode::unsigned(self.column(&row, 3)?));
            if let Some(interval) = intervals.get_mut(&number) {
                interval.arms.insert(arm, ArmInterval { errors, cancelled, ..ArmInterval::default() });
            }
        }
        let mut deserializer = Deserializer::new();
        let query = "SELECT number, arm, class, kind, v2 FROM histograms WHERE experiment = ? AND stage = ?";
        for row in self.staged(run, stage, query).await? {
            let (number, arm): (i64, String) = (self.column(&row, 0)?, self.column(&row, 1)?);
            let (class, kind): (String, String) = (self.column(&row, 2)?, self.column(&row, 3)?);
            let bytes: Vec<u8> = self.column(&row, 4)?;
            let class = encode::class_named(&class).ok_or_else(|| self.damaged("a class", class))?;
            let kind = Kind::named(&kind).ok_or_else(|| self.damaged("a kind of histogram", kind))?;
            let histogram =
                encode::from_v2(&mut deserializer, &bytes).map_err(|why| self.damaged("a histogram", why))?;
            let Some(arm) = intervals.get_mut(&number).and_then(|interval| interval.arms.get_mut(&arm)) else {
                continue;
            };
            let by_class = match kind {
                Kind::Service => &mut arm.service,
                Kind::Response => &mut arm.response,
                Kind::Ratio => &mut arm.ratio_permille,
            };
            by_class.insert(class, histogram);
        }
        Ok(intervals.into_values().collect())
    }

    async fn documents<T: DeserializeOwned>(
        &self,
        run: Run,
        query: &'static str,
        what: &'static str,
    ) -> Result<Vec<T>, StoreError> {
        self.rows(run, query).await?.iter().map(|row| self.json(row, 0, what)).collect()
    }

    async fn rows(&self, run: Run, query: &'static str) -> Result<Vec<SqliteRow>, StoreError> {
        sqlx::query(query).bind(run.0).fetch_all(&self.pool).await.map_err(|source| self.read_error(source))
    }

    async fn staged(&self, run: Run, stage: i64, query: &'static str) -> Result<Vec<SqliteRow>, StoreError> {
        let query = sqlx::query(query).bind(run.0).bind(stage);
        query.fetch_all(&self.pool).await.map_err(|source| self.read_error(source))
    }

    fn column<'r, T>(&self, row: &'r SqliteRow, index: usize) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(index).map_err(|source| self.read_error(source))
    }

    fn json<T: DeserializeOwned>(&self, row: &SqliteRow, index: usize, what: &'static str) -> Result<T, StoreError> {
        let text: String = self.column(row, index)?;
        encode::from_json(&text).map_err(|why| self.damaged(what, why))
    }

    fn damaged(&self, what: &'static str, why: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what, why }
    }

    fn read_error(&self, source: sqlx::Error) -> StoreError {
        StoreError::Read { path: self.path.clone(), source }
    }
}
