//! One clone's life up to the cut: copied, started as a standby, following, paused.
//!
//! What happens at the cut is in [`super::recovery`], what is done inside its databases afterwards
//! in [`super::quarantine`].

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use understudy_crds::condition::ArmRole;

use super::{
    account::Account,
    arm_config::{ArmIdentity, Stage, pg_hba, render},
    base_backup::{BaseBackup, CopyProgress},
    binaries::Binaries,
    door::Door,
    facts::WorkerFacts,
    lsn::Lsn,
    place::private_directory,
    server::{Server, ServerSpec},
    session::{Names, Session},
    wal_hold::RunTag,
    worker::Worker,
};
use crate::error::{ErrorKind, Side, UserError};

/// Longest time for which a clone may make no progress while it follows or recovers.
pub(super) const STANDSTILL_LIMIT: Duration = Duration::from_secs(120);
/// Longest time until a fresh clone has replayed enough to be consistent.
pub(super) const CONSISTENCY_LIMIT: Duration = Duration::from_secs(6 * 3600);
pub(super) const POLL: Duration = Duration::from_millis(10);

/// What a clone is made from.
#[derive(Clone, Debug)]
pub struct ArmSpec {
    /// Who it is.
    pub identity: ArmIdentity,
    /// What it is for.
    pub role: ArmRole,
    /// Its place among `spec.candidates`; `None` for the baseline.
    pub candidate: Option<usize>,
    /// The run it belongs to.
    pub run: RunTag,
    /// The programs that run it.
    pub binaries: Binaries,
    /// The account that runs it.
    pub account: Account,
    /// Its own directory: data, tablespaces, log.
    pub directory: PathBuf,
    /// The worker's password for the server's programs.
    pub password_file: Option<PathBuf>,
    /// The candidate's parameters; empty for the baseline.
    pub parameters: BTreeMap<String, String>,
    /// The worker.
    pub worker: Worker,
    /// What the worker said about itself.
    pub facts: Arc<WorkerFacts>,
    /// The most that its copy may take from the worker, KiB a second.
    pub max_rate_kib: Option<u32>,
}

impl ArmSpec {
    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where its log is.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    pub(super) fn conninfo(&self) -> String {
        // The name that synchronous_standby_names would have to list; nobody lists it by accident.
        self.worker.conninfo(self.password_file.as_deref(), &self.run.standby_name(&self.identity.arm))
    }

    /// Writes the whole configuration for a stage of its life.
    pub(super) fn write_config(&self, stage: &Stage) -> Result<(), UserError> {
        let data = self.data_dir();
        let conf = render(&self.identity, &self.facts.settings, &self.parameters, stage);
        let own = |name: &str, text: &str| write_private(&data.join(name), text, &self.account);
        own("postgresql.conf", &conf)?;
        // ALTER SYSTEM of the worker was copied too; what counts of it stands in the settings.
        own("postgresql.auto.conf", "")?;
        own("pg_hba.conf", &pg_hba(stage))?;
        own("pg_ident.conf", "")?;
        if matches!(stage, Stage::Own { .. }) { Ok(()) } else { own("standby.signal", "") }
    }
}

/// A running clone.
#[derive(Debug)]
pub struct Arm {
    pub(super) spec: ArmSpec,
    pub(super) server: Server,
    pub(super) door: Option<Door>,
}

impl Arm {
    /// Copies the worker and starts the copy as a standby. `started` is told of every process that
    /// is made: program, number and start time. Dropping the future stops it all.
    pub async fn seed(
        spec: ArmSpec,
        mut started: impl FnMut(&'static str, u32, u64) -> Result<(), UserError>,
        progress: impl FnMut(CopyProgress),
    ) -> Result<Self, UserError> {
        private_directory(&spec.directory, &spec.account)?;
        let tablespace_dir = spec.directory.join("tablespaces");
        private_directory(&tablespace_dir, &spec.account)?;
        let copy = BaseBackup {
            arm: spec.identity.arm.clone(),
            worker: spec.worker.label(),
            binaries: spec.binaries.clone(),
            account: spec.account.clone(),
            conninfo: spec.conninfo(),
            data_dir: spec.data_dir(),
            tablespaces: spec.facts.tablespaces.clone(),
            tablespace_dir,
            max_rate_kib: spec.max_rate_kib,
        };
        copy.run(&mut started, progress).await?;
        spec.write_config(&Stage::Follow { primary_conninfo: spec.conninfo() })?;
        let server = Server::launch(ServerSpec {
            name: spec.identity.arm.clone(),
            side: Side::Arm,
            binaries: spec.binaries.clone(),
            account: spec.account.clone(),
            data_dir: spec.data_dir(),
            socket_dir: spec.identity.socket_dir.clone(),
            port: spec.identity.port,
            log_file: spec.log_file(),
            settings: Vec::new(),
        })
        .await?;
        started("postgres", server.pid(), server.start_time())?;
        server.wait_ready(CONSISTENCY_LIMIT).await.map_err(|e| blame_parameters(e, &spec))?;
        Ok(Self { spec, server, door: None })
    }

    /// Waits until it follows the worker's WAL live.
    pub async fn wait_streaming(&self) -> Result<(), UserError> {
        let session = self.connect().await?;
        let mut watch = Standstill::new();
        loop {
            let sql = "SELECT (SELECT status FROM pg_stat_wal_receiver) = 'streaming'";
            if session.value::<bool>(sql, &[]).await? == Some(true) {
                return Ok(());
            }
            if watch.stands_still_at(replayed(&session).await?) {
                return Err(self.server.failed("does not follow the worker", ErrorKind::TimedOut));
            }
            self.check_running("stopped while it followed the worker")?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Bytes of WAL that it has still to replay, `insert` being where the worker is.
    pub async fn behind_bytes(&self, insert: Lsn) -> Result<u64, UserError> {
        let session = self.connect().await?;
        Ok(insert.bytes_since(replayed(&session).await?))
    }

    /// How far it has received WAL; the worker need not keep what is before.
    pub async fn received(&self) -> Result<Lsn, UserError> {
        let session = self.connect().await?;
        let text: Option<String> =
            session.value("SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text", &[]).await?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// Pauses replay, and waits until nothing is applied any more. WAL keeps coming in.
    pub async fn pause(&self) -> Result<Lsn, UserError> {
        let session = self.connect().await?;
        session.rows("SELECT pg_wal_replay_pause()", &[]).await?;
        let end = Instant::now() + STANDSTILL_LIMIT;
        while !is_paused(&session, self.spec.facts.version.major).await? {
            if Instant::now() >= end {
                return Err(self.server.failed("does not pause", ErrorKind::TimedOut));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        replayed(&session).await
    }

    /// Lets the mirror in over the network, once the clone has left the WAL.
    pub fn admit(&mut self, door: Door) {
        self.door = Some(door);
    }

    /// Opens a control session to the experiment's database on the clone.
    pub async fn connect(&self) -> Result<Session, UserError> {
        self.connect_to(&self.spec.worker.target().database, Names::System).await
    }

    /// Opens a session to a database on the clone, as the worker's superuser.
    pub async fn connect_to(&self, database: &str, names: Names) -> Result<Session, UserError> {
        let config = self.server.config(&self.spec.worker.target().user, database);
        Session::open(&config, Side::Arm, &self.spec.identity.arm, names).await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.identity.arm
    }

    /// What it was made from.
    pub fn spec(&self) -> &ArmSpec {
        &self.spec
    }

    /// Its server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its server, to stop or kill it.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    /// How a person reaches it.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    pub(super) fn check_running(&self, what: &str) -> Result<(), UserError> {
        if self.server.is_running() { Ok(()) } else { Err(self.server.failed(what, ErrorKind::Exited)) }
    }
}

/// A server that does not start with a candidate's parameters has most likely one of them to blame.
pub(super) fn blame_parameters(error: UserError, spec: &ArmSpec) -> UserError {
    let (Some(index), false) = (spec.candidate, spec.parameters.is_empty()) else { return error };
    if error.kind != ErrorKind::Exited {
        return error;
    }
    let named = spec.parameters.keys().find(|name| error.facts.iter().any(|(_, value)| value.contains(name.as_str())));
    let field = match named {
        Some(name) => format!("spec.candidates[{index}].parameters.{name}"),
        None => format!("spec.candidates[{index}].parameters"),
    };
    let error = error.fact("parameters", &field);
    error.remedy(format!("change or leave out what the server refuses in {field}"))
}

/// Tells standing still from being slow.
#[derive(Debug)]
pub(super) struct Standstill {
    last: Lsn,
    since: Instant,
}

impl Standstill {
    pub(super) fn new() -> Self {
        Self { last: Lsn(0), since: Instant::now() }
    }

    pub(super) fn stands_still_at(&mut self, now: Lsn) -> bool {
        if now != self.last {
            *self = Self { last: now, since: Instant::now() };
        }
        self.since.elapsed() > STANDSTILL_LIMIT
    }
}

/// How far a clone has replayed.
pub(super) async fn replayed(session: &Session) -> Result<Lsn, UserError> {
    let text: Option<String> = session.value("SELECT pg_last_wal_replay_lsn()::text", &[]).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// Whether replay rests. Before version 14 only the request can be seen.
pub(super) async fn is_paused(session: &Session, major: u32) -> Result<bool, UserError> {
    let sql = if major >= 14 {
        "SELECT pg_get_wal_replay_pause_state() = 'paused'"
    } else {
        "SELECT pg_is_wal_replay_paused()"
    };
    Ok(session.value(sql, &[]).await?.unwrap_or(false))
}

/// Writes a file that only the account can read. Whatever was there is replaced, a link too.
pub(super) fn write_private(path: &Path, text: impl AsRef<[u8]>, account: &Account) -> Result<(), UserError> {
    let failed = |e: &std::io::Error| UserError::file("write a clone's configuration", path, e);
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(&e)),
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| failed(&e))?;
    file.write_all(text.as_ref()).map_err(|e| failed(&e))?;
    account.take(path)
}
