//! The books of a run: what is kept while it goes on, and the files it leaves.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use understudy_crds::{
    ShadowExperiment,
    report::{Environment, FingerprintReport},
    status::Verdict,
};
use understudy_mirror::{measure::interval::Interval, mirror::Mirror};

use super::{
    Options, SHIFT,
    state::{State, now},
};
use crate::{
    analysis::{Analysis, Texts},
    error::{ErrorKind, Side, UserError},
    hlog::IntervalLogs,
    platform::Platform,
    report::{self, Facts},
    store::{Batch, Run as StoredRun, Stage, Store},
};

/// How often the store is written.
const STORE_EVERY: Duration = Duration::from_secs(2);

/// What a run writes down.
pub(super) struct Books {
    experiment: ShadowExperiment,
    out: PathBuf,
    environment: Environment,
    store: Store,
    stored: StoredRun,
    pending: Vec<(Stage, Interval)>,
    logs: Option<IntervalLogs>,
    analysis: Analysis,
    fingerprints: Vec<FingerprintReport>,
    verdict: Option<Verdict>,
    events_stored: usize,
    stored_at: Instant,
}

/// Makes the directory of the results.
pub fn prepare_directory(out: &Path) -> Result<(), UserError> {
    fs::create_dir_all(out)
        .map_err(|e| UserError::file("make the directory for the results", out, &e).nothing_changed())
}

impl Books {
    pub(super) async fn open<P: Platform>(options: &Options, platform: &P) -> Result<Self, UserError> {
        let environment = environment(platform);
        let store = Store::open(&options.store).await.map_err(|e| stored(&e))?;
        let run = store.begin(&options.experiment, &environment).await.map_err(|e| stored(&e))?;
        Ok(Self {
            experiment: options.experiment.clone(),
            out: options.out.clone(),
            environment,
            store,
            stored: run,
            pending: Vec::new(),
            logs: None,
            analysis: Analysis::of_experiment(&options.experiment.spec),
            fingerprints: Vec::new(),
            verdict: None,
            events_stored: 0,
            stored_at: Instant::now(),
        })
    }

    /// The candidates were edited: the report is about those that there are. What the store keeps as asked
    /// for is what was asked for first.
    pub(super) fn edited(&mut self, experiment: &ShadowExperiment) {
        self.experiment.clone_from(experiment);
    }

    /// Observation begins now: the interval logs count from here.
    pub(super) fn observation_began(&mut self) {
        let name = self.experiment.metadata.name.clone().unwrap_or_default();
        self.logs = Some(IntervalLogs::new(&self.out, &name, SystemTime::now()));
    }

    /// Keeps intervals.
    pub(super) fn intervals(&mut self, stage: Stage, intervals: Vec<Interval>) -> Result<(), UserError> {
        if stage == Stage::Observing
            && let Some(logs) = &mut self.logs
        {
            for interval in &intervals {
                logs.push(interval).map_err(|e| file(&e))?;
            }
        }
        self.pending.extend(intervals.into_iter().map(|interval| (stage, interval)));
        Ok(())
    }

    /// Writes to the store what has gathered, when it is time again.
    pub(super) async fn look(&mut self, state: &State, mirror: &Mirror, analysis: &Analysis) -> Result<(), UserError> {
        if self.stored_at.elapsed() < STORE_EVERY {
            return Ok(());
        }
        self.keep(state, mirror, analysis).await
    }

    async fn keep(&mut self, state: &State, mirror: &Mirror, analysis: &Analysis) -> Result<(), UserError> {
        self.analysis = analysis.clone();
        let texts: Texts =
            mirror.texts().into_iter().map(|(id, (text, class))| (id, (text.to_string(), class))).collect();
        self.fingerprints = analysis.fingerprints(&texts);
        self.write(state, None).await
    }

    async fn write(&mut self, state: &State, ended_at: Option<String>) -> Result<(), UserError> {
        let status = state.status();
        let timeline = state.timeline();
        let verdicts = if status.verdict == self.verdict {
            Vec::new()
        } else {
            self.verdict.clone_from(&status.verdict);
            status.verdict.iter().map(|v| (now(), v.clone())).collect()
        };
        let batch = Batch {
            intervals: std::mem::take(&mut self.pending),
            status: Some(status),
            environment: Some(self.environment.clone()),
            fingerprints: Some(self.fingerprints.clone()),
            verdicts,
            events: timeline.get(self.events_stored..).unwrap_or_default().to_vec(),
            ended_at,
        };
        self.store.record(self.stored, &batch).await.map_err(|e| stored(&e))?;
        self.events_stored = timeline.len();
        self.stored_at = Instant::now();
        Ok(())
    }

    /// Writes the rest, and the files. The report's page.
    pub(super) async fn close(mut self, state: &State, mirror: &Arc<Mirror>) -> Result<PathBuf, UserError> {
        let analysis = self.analysis.clone();
        if self.fingerprints.is_empty() {
            let texts: Texts =
                mirror.texts().into_iter().map(|(id, (text, class))| (id, (text.to_string(), class))).collect();
            self.fingerprints = analysis.fingerprints(&texts);
        }
        self.environment.ended_at = now();
        let ended_at = self.environment.ended_at.clone();
        self.write(state, Some(ended_at)).await?;
        if let Some(logs) = self.logs.take() {
            logs.finish().map_err(|e| file(&e))?;
        }
        self.report(state)
    }

    /// The analysis whose numbers the report shows. A first report is written: who decides about the
    /// promotion wants to read it.
    pub(super) async fn concluded(
        &mut self,
        state: &State,
        mirror: &Mirror,
        analysis: &Analysis,
    ) -> Result<(), UserError> {
        self.keep(state, mirror, analysis).await?;
        self.environment.ended_at = now();
        self.report(state).map(drop)
    }

    fn report(&self, state: &State) -> Result<PathBuf, UserError> {
        let facts = Facts {
            experiment: self.experiment.clone(),
            status: state.status(),
            environment: self.environment.clone(),
            fingerprints: self.fingerprints.clone(),
            timeline: state.timeline(),
        };
        write_report(&self.out, &report::build(facts, &self.analysis))
    }
}

/// Writes `report.json` and `report.html`; the page's path.
pub fn write_report(out: &Path, report: &understudy_crds::report::Report) -> Result<PathBuf, UserError> {
    let printed = |e: &dyn std::fmt::Display| {
        UserError::new(ErrorKind::File, Side::Host, "the report can't be made").fact("reason", e)
    };
    let (page, json) = (out.join("report.html"), out.join("report.json"));
    let text = report::json(report).map_err(|e| printed(&e))?;
    fs::write(&json, text).map_err(|e| UserError::file("write the report", &json, &e))?;
    let text = report::html(report).map_err(|e| printed(&e))?;
    fs::write(&page, text).map_err(|e| UserError::file("write the report", &page, &e))?;
    Ok(page)
}

fn environment<P: Platform>(platform: &P) -> Environment {
    let memory_kib: i64 = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    Environment {
        understudy: env!("CARGO_PKG_VERSION").to_owned(),
        postgres: platform.facts().version.to_string(),
        platform: P::NAME.to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(i64::MAX)),
        memory_bytes: memory_kib * 1024,
        started_at: now(),
        ended_at: String::new(),
        data_bytes: i64::try_from(platform.facts().data_bytes).unwrap_or(i64::MAX),
        shift_ms: i64::try_from(SHIFT.as_millis()).unwrap_or(i64::MAX),
    }
}

fn stored(error: &crate::store::StoreError) -> UserError {
    UserError::new(ErrorKind::File, Side::Host, "the results can't be kept").fact("reason", error)
}

fn file(error: &dyn std::fmt::Display) -> UserError {
    UserError::new(ErrorKind::File, Side::Host, "the interval logs can't be written").fact("reason", error)
}
