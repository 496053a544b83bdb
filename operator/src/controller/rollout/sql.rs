//! The part of a rollout that a worker's PostgreSQL does itself: the same statements and settings, by
//! the same code, that the clone was made with.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use understudy_crds::{Candidate, experiment::LocalTarget};

use crate::{
    error::{ErrorKind, Side, UserError},
    platform::local::{
        change::{SqlList, run_statements},
        promotion::{self, Effect},
        session::{Names, STATEMENT_LIMIT},
        system_settings,
        worker::Worker,
    },
};

/// How a worker is reached; the password stays in here.
#[derive(Clone)]
pub struct Access {
    /// Its pod's address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// The database of the candidate's SQL.
    pub database: String,
    /// The superuser.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl Access {
    /// The worker. Its password comes by a private file, as on any other platform; the file is gone
    /// before this returns.
    pub fn worker(&self) -> Result<Worker, UserError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("understudy-{}-{number}", std::process::id()));
        let file = PasswordFile::write(&path, &self.password)?;
        Worker::new(&LocalTarget {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            database: self.database.clone(),
            password_file: Some(file.0.display().to_string()),
            listen: "127.0.0.1:0".to_owned(),
        })
    }
}

struct PasswordFile(PathBuf);

impl PasswordFile {
    fn write(path: &Path, password: &str) -> Result<Self, UserError> {
        let failed = |e: &std::io::Error| UserError::file("write a password file", path, e);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| failed(&e))?;
        let written = file.write_all(password.as_bytes());
        let guard = Self(path.to_owned());
        written.map_err(|e| failed(&e))?;
        Ok(guard)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

/// What `ALTER SYSTEM` has set so far for the candidate's settings.
pub async fn settings_before(worker: &Worker, candidate: &Candidate) -> Result<system_settings::Before, UserError> {
    let session = worker.connect().await?;
    system_settings::read_before(&session, candidate.parameters.keys()).await
}

/// Makes the change, checks it, and takes it back from this worker when that fails. Says whether the
/// worker must be restarted for it: its pod has another address then, so that is not done in here.
pub async fn put(worker: &Worker, index: usize, candidate: &Candidate) -> Result<bool, UserError> {
    let promoted = promotion::promote(worker, index, candidate, None).await?;
    Ok(promoted.settings.values().any(|effect| *effect == Effect::AtRestart))
}

/// Whether a worker serves with the change: it answers, it is no standby, and the settings are in effect.
pub async fn check(worker: &Worker, index: usize, candidate: &Candidate) -> Result<(), UserError> {
    let unfit = |what: &str| UserError::new(ErrorKind::Unfit, Side::Worker, what).fact("worker", worker.label());
    let session = worker.connect().await?;
    if session.value::<bool>("SELECT pg_is_in_recovery()", &[]).await? != Some(false) {
        return Err(unfit("the worker is a standby"));
    }
    let settings = promotion::effects(worker, index, candidate).await?;
    match settings.iter().find(|(_, effect)| **effect == Effect::AtRestart) {
        Some((name, _)) => Err(unfit("a setting is not in effect after a restart").fact("reason", name)),
        None => Ok(()),
    }
}

/// What taking a change back came to.
pub struct TakenBack {
    /// The worker must be restarted for it.
    pub restart: bool,
    /// The first statement that failed.
    pub failed: Option<UserError>,
}

/// Takes the change back from a worker that has it. A statement that fails does not keep the others from
/// being tried.
pub async fn take_back(
    worker: &Worker,
    index: usize,
    candidate: &Candidate,
    before: &BTreeMap<String, Option<String>>,
) -> Result<TakenBack, UserError> {
    let mut first_failed = None;
    let revert = candidate.sql.as_ref().map(|sql| sql.revert.as_slice()).unwrap_or_default();
    let user = worker.connect_to(&worker.target().database, Names::User).await?;
    for statement in revert {
        let one = std::slice::from_ref(statement);
        if let Err(failed) = run_statements(&user, Side::Worker, index, SqlList::Revert, one).await {
            first_failed.get_or_insert(failed.error);
        }
    }
    let control = worker.connect().await?;
    for (name, value) in before {
        system_settings::write(&control, name, value.as_deref()).await?;
    }
    let mut restart = false;
    if !before.is_empty() {
        control.run("SELECT pg_reload_conf()", STATEMENT_LIMIT).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let names: Vec<String> = before.keys().map(|name| name.to_ascii_lowercase()).collect();
        let fresh = worker.connect().await?;
        let pending = "SELECT count(*) FROM pg_settings WHERE pending_restart AND lower(name) = ANY($1)";
        restart = fresh.value::<i64>(pending, &[&names]).await?.is_some_and(|count| count > 0);
    }
    Ok(TakenBack { restart, failed: first_failed })
}
