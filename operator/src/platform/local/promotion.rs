//! Puts a candidate's change on the worker, checks it, and takes it back when the check fails.
//!
//! The statements and settings are the very ones that the clone was made with.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use understudy_crds::experiment::Candidate;

use super::{
    change::{SqlList, run_statements},
    session::{Names, Session},
    system_settings::{self, Before},
    worker::Worker,
};
use crate::error::{ErrorKind, Side, UserError};

const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// Restarts the worker, for those who own it; it ends when the worker accepts connections again.
pub type RestartWorker<'a> = Pin<Box<dyn Future<Output = Result<(), UserError>> + Send + 'a>>;

/// When a setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is in effect.
    Now,
    /// It takes effect at the worker's next restart.
    AtRestart,
}

/// What was promoted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Statements that were run.
    pub statements: usize,
    /// Settings that were made, and when they take effect.
    pub settings: BTreeMap<String, Effect>,
    /// Indexes that were built, all of them valid.
    pub indexes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Puts `candidate`, which is `spec.candidates[index]`, on the worker. When anything fails, its
/// `sql.revert` is run, the settings are put back exactly, and the error says why.
pub async fn promote(
    worker: &Worker,
    index: usize,
    candidate: &Candidate,
    restart: Option<RestartWorker<'_>>,
) -> Result<Promoted, UserError> {
    let began = Instant::now();
    let control = worker.connect().await?;
    let settings_before = system_settings::read_before(&control, candidate.parameters.keys()).await?;
    let indexes_before = indexes(&control).await?;
    drop(control);
    match attempt(worker, index, candidate, restart, &indexes_before).await {
        Ok(promoted) => Ok(Promoted { took: began.elapsed(), ..promoted }),
        Err(failed) => Err(take_back(worker, index, candidate, &settings_before, &indexes_before, failed).await),
    }
}

/// Why an attempt failed, and what it had done by then.
struct Failed {
    error: UserError,
    /// Whether any of the candidate's statements had succeeded.
    changed: bool,
}

impl From<UserError> for Failed {
    fn from(error: UserError) -> Self {
        Self { error, changed: true }
    }
}

async fn attempt(
    worker: &Worker,
    index: usize,
    candidate: &Candidate,
    restart: Option<RestartWorker<'_>>,
    indexes_before: &BTreeMap<String, bool>,
) -> Result<Promoted, Failed> {
    let apply = candidate.sql.as_ref().map(|sql| sql.apply.as_slice()).unwrap_or_default();
    let unchanged = |error| Failed { error, changed: false };
    let user = worker.connect_to(&worker.target().database, Names::User).await.map_err(unchanged)?;
    let ran = run_statements(&user, Side::Worker, index, SqlList::Apply, apply).await;
    ran.map_err(|failed| Failed { error: failed.error, changed: failed.done > 0 })?;
    drop(user);

    let control = worker.connect().await?;
    for (name, value) in &candidate.parameters {
        system_settings::write(&control, name, Some(value)).await.map_err(|e| field(e, index, name))?;
    }
    let mut settings = BTreeMap::new();
    if !candidate.parameters.is_empty() {
        reload(&control, worker).await?;
        let restarted = restart.is_some();
        settings = effects(worker, index, candidate).await?;
        if let Some(restart) = restart.filter(|_| settings.values().any(|effect| *effect == Effect::AtRestart)) {
            restart.await?;
            settings = effects(worker, index, candidate).await?;
        }
        if let Some(name) = settings.iter().find(|(_, e)| restarted && **e == Effect::AtRestart).map(|(n, _)| n) {
            let error = UserError::new(ErrorKind::Unfit, Side::Worker, "a setting is not in effect after a restart");
            return Err(error.fact("setting", name).into());
        }
    }
    let control = worker.connect().await?;
    let built = check_indexes(&control, indexes_before).await?;
    Ok(Promoted { statements: apply.len(), settings, indexes: built, took: Duration::ZERO })
}

fn field(error: UserError, index: usize, name: &str) -> UserError {
    error.fact("field", format!("spec.candidates[{index}].parameters.{name}"))
}

/// Makes the worker read its configuration, and waits until it has.
async fn reload(control: &Session, worker: &Worker) -> Result<(), UserError> {
    let before: Option<i64> =
        control.value("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[]).await?;
    control.rows("SELECT pg_reload_conf()", &[]).await?;
    let end = Instant::now() + RELOAD_LIMIT;
    loop {
        // A new session has what the server has; ours may be late.
        let fresh = worker.connect().await?;
        let loaded: Option<i64> =
            fresh.value("SELECT (extract(epoch FROM pg_conf_load_time()) * 1000000)::bigint", &[]).await?;
        if loaded >= before {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(UserError::new(
                ErrorKind::TimedOut,
                Side::Worker,
                "the worker does not read its configuration",
            )
            .fact("limit", format!("{} s", RELOAD_LIMIT.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// When each of the candidate's settings takes effect; an error when one does not at all.
pub async fn effects(
    worker: &Worker,
    index: usize,
    candidate: &Candidate,
) -> Result<BTreeMap<String, Effect>, UserError> {
    let session = worker.connect().await?;
    let mut settings = BTreeMap::new();
    for name in candidate.parameters.keys() {
        let sql = "SELECT s.pending_restart, s.source, s.context,
                          (SELECT f.error FROM pg_file_settings f WHERE lower(f.name) = lower($1)
                            ORDER BY seqno DESC LIMIT 1)
                     FROM pg_settings s WHERE lower(s.name) = lower($1)";
        let rows = session.rows(sql, &[name]).await?;
        let Some(row) = rows.first() else {
            // A setting of a library that is not loaded yet is known only after a restart.
            settings.insert(name.clone(), Effect::AtRestart);
            continue;
        };
        let get = |e: tokio_postgres::Error| session.failed(&e);
        let pending: bool = row.try_get(0).map_err(get)?;
        let (source, context): (String, String) = (row.try_get(1).map_err(get)?, row.try_get(2).map_err(get)?);
        let error: Option<String> = row.try_get(3).map_err(get)?;
        let refused = |reason: String| {
            field(
                UserError::new(ErrorKind::Unfit, Side::Worker, "a setting does not take effect on the worker"),
                index,
                name,
            )
            .fact("reason", reason)
        };
        if matches!(source.as_str(), "command line" | "environment variable" | "override") {
            return Err(refused(format!("the worker was started with it ({source}); that wins over ALTER SYSTEM")));
        }
        // A setting that needs a restart is "not applied" until then.
        let effect = if pending { Effect::AtRestart } else { Effect::Now };
        if let Some(error) = error.filter(|_| !pending && context != "postmaster") {
            return Err(refused(error));
        }
        settings.insert(name.clone(), effect);
    }
    Ok(settings)
}

/// All indexes of the database, and whether they are valid. One that is being built right now by
/// somebody is not judged.
async fn indexes(session: &Session) -> Result<BTreeMap<String, bool>, UserError> {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname), i.indisvalid AND i.indisready
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname NOT LIKE 'pg\\_%'
                  AND i.indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)";
    let rows = session.rows(sql, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|e| session.failed(&e))
}

async fn check_indexes(session: &Session, before: &BTreeMap<String, bool>) -> Result<Vec<String>, UserError> {
    let now = indexes(session).await?;
    if let Some((name, _)) = now.iter().find(|(name, valid)| !**valid && before.get(*name) != Some(&false)) {
        return Err(UserError::new(
            ErrorKind::StatementFailed,
            Side::Worker,
            "an index is not valid after it was built",
        )
        .fact("index", name));
    }
    Ok(now.into_keys().filter(|name| !before.contains_key(name)).collect())
}

async fn take_back(
    worker: &Worker,
    index: usize,
    candidate: &Candidate,
    settings: &Before,
    indexes_before: &BTreeMap<String, bool>,
    Failed { error: reason, changed }: Failed,
) -> UserError {
    let mut left = Vec::new();
    let mut note = |error: UserError| {
        let why = error.facts.iter().find(|(key, _)| key == "reason").map(|(_, value)| value.clone());
        left.push(why.unwrap_or(error.what));
    };
    // Where nothing was made, the revert would take away what was there before: an index or a view of the
    // same name may have been why the first statement failed.
    let revert = candidate.sql.as_ref().filter(|_| changed).map(|sql| sql.revert.as_slice()).unwrap_or_default();
    match worker.connect_to(&worker.target().database, Names::User).await {
        Ok(user) => {
            for statement in revert {
                let one = std::slice::from_ref(statement);
                if let Err(failed) = run_statements(&user, Side::Worker, index, SqlList::Revert, one).await {
                    note(failed.error);
                }
            }
        }
        Err(error) => note(error),
    }
    let put_back = async {
        let control = worker.connect().await?;
        for (name, value) in settings {
            system_settings::write(&control, name, value.as_deref()).await?;
        }
        if !settings.is_empty() {
            reload(&control, worker).await?;
        }
        drop_broken_indexes(&control, candidate, indexes_before).await
    };
    if let Err(error) = put_back.await {
        note(error);
    }
    let mut error = UserError::new(
        ErrorKind::Reverted,
        Side::Worker,
        format!("the promotion of {} failed and was taken back", candidate.name),
    )
    .fact("because", &reason.what);
    for (key, value) in reason.facts {
        error = error.fact(key, value);
    }
    let error = error.fact("not taken back", left.join("\n"));
    match (left.is_empty(), reason.remedy) {
        (false, _) => error.remedy("look at what is left on the worker, and take it back by hand"),
        (true, Some(remedy)) => error.remedy(remedy),
        (true, None) => error,
    }
}

/// `CREATE INDEX CONCURRENTLY` that fails leaves an index that costs and serves nobody.
async fn drop_broken_indexes(
    session: &Session,
    candidate: &Candidate,
    before: &BTreeMap<String, bool>,
) -> Result<(), UserError> {
    let apply = candidate.sql.as_ref().map(|sql| sql.apply.as_slice()).unwrap_or_default();
    for (name, valid) in indexes(session).await? {
        let bare = name.rsplit('.').next().unwrap_or(&name).trim_matches('"').to_owned();
        // Somebody else's broken index is not ours to drop.
        if !valid && !before.contains_key(&name) && apply.iter().any(|statement| statement.contains(&bare)) {
            session.run(&format!("DROP INDEX CONCURRENTLY {name}"), super::change::CHANGE_LIMIT).await?;
        }
    }
    Ok(())
}
