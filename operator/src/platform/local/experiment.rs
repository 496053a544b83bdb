//! One experiment on this machine: the pieces of the local platform put together.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinSet;
use understudy_crds::{
    condition::ArmRole,
    experiment::{Candidate, LocalTarget, ShadowExperiment, Target},
    labels::BASELINE,
};
use understudy_mirror::stream::Address;

use super::{
    account::Account,
    arm::{Arm, ArmSpec},
    arm_config::ArmIdentity,
    binaries::Binaries,
    change::{SqlList, run_statements},
    cut::CutProbe,
    cut_probe::CutProber,
    direct::{self, DirectSession},
    facts::WorkerFacts,
    leftovers::{Cleared, Leftovers},
    parameters::check_parameters,
    place::{DiskSpace, Place, can_enter, disk_space, random_name, remove_tree},
    preflight::{self, Needs},
    promotion::{self, Promoted, RestartWorker},
    recovery::Recovered,
    session::{Names, Session},
    wal_hold::{RunTag, WalHold},
    worker::Worker,
    worker_check::check_worker,
};
use crate::{
    error::{ErrorKind, Side, UserError},
    plan::Disk,
    platform::{ArmEndpoint, OnProgress, Platform},
};

/// The first arm's port: no server usually has it, and there is no TCP on it anyway.
const FIRST_PORT: u16 = 5433;
/// WAL that the worker may be made to keep while it is cloned, in bytes.
const MOST_HELD_WAL_BYTES: u64 = 16 << 30;

/// Arms that are being made or cut. They are kept here, so that whoever gives up waiting for them can
/// still have them stopped in good order.
type Working = JoinSet<Result<(Arm, Recovered), UserError>>;

/// An experiment on this machine. Dropping it stops and removes everything, unless told to keep.
#[derive(Debug)]
pub struct LocalPlatform {
    // The order of dropping: servers and sessions first, what clears their directories last.
    working: Working,
    arms: Vec<Arm>,
    prober: Option<CutProber>,
    hold: Option<WalHold>,
    specs: Vec<ArmSpec>,
    candidates: Vec<Candidate>,
    worker: Worker,
    facts: Arc<WorkerFacts>,
    place: Place,
    account: Account,
    leftovers: Arc<Leftovers>,
    /// Whether nobody else makes things in the work directory.
    alone: bool,
    notes: Vec<String>,
}

impl LocalPlatform {
    /// Locks the work directory, clears what earlier runs left in it (and says what that was), and
    /// checks that the experiment can be done. Nothing is changed when it can't.
    pub async fn open(experiment: &ShadowExperiment, directory: &Path) -> Result<(Self, Vec<Cleared>), UserError> {
        let (leftovers, cleared) = Leftovers::find_and_clear(directory)?;
        let platform = Self::open_in(experiment, directory, Arc::new(leftovers)).await?;
        Ok((Self { alone: true, ..platform }, cleared))
    }

    /// The same in a work directory that is locked already, beside other things that its owner makes
    /// there. [`Platform::teardown`] then leaves those alone.
    pub async fn open_in(
        experiment: &ShadowExperiment,
        directory: &Path,
        leftovers: Arc<Leftovers>,
    ) -> Result<Self, UserError> {
        let Target { local: Some(target), .. } = &experiment.spec.target else {
            return Err(UserError::new(
                ErrorKind::InvalidField,
                Side::Document,
                "spec.target: not a server of this machine",
            )
            .remedy("name the worker in spec.target.local")
            .nothing_changed());
        };
        let account = Account::detect()?;
        let worker = Worker::new(target)?;
        let session = worker.connect().await?;
        let facts = Arc::new(WorkerFacts::read(&session).await?);
        let place = Place::choose(directory, &account).await?;
        let mut platform = Self {
            working: JoinSet::new(),
            arms: Vec::new(),
            prober: None,
            hold: None,
            specs: Vec::new(),
            candidates: experiment.spec.candidates.clone(),
            notes: notes(&place, &facts, target),
            worker,
            facts,
            place,
            account,
            leftovers,
            alone: false,
        };
        platform.plan(experiment).await?;
        platform.check(&target.listen).await?;
        Ok(platform)
    }

    /// What the user should know before the experiment starts.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The arms, the baseline first; empty before they are seeded.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The same, to stop, kill or restart one.
    pub fn arms_mut(&mut self) -> &mut [Arm] {
        &mut self.arms
    }

    /// Leaves the clones' files when this is dropped; their servers stop all the same. The next run
    /// with the same directory clears them.
    pub fn keep(&self) {
        self.leftovers.keep();
    }

    async fn plan(&mut self, experiment: &ShadowExperiment) -> Result<(), UserError> {
        let name = experiment.metadata.name.clone().unwrap_or_else(|| "experiment".to_owned());
        let major = self.facts.version.major;
        // The baseline runs on the machine's own binaries, so they are always needed.
        let ordinary = Binaries::find(major, &self.account).await?;
        let password_file = self.place.sockets.join("password");
        let arms = [None].into_iter().chain(experiment.spec.candidates.iter().enumerate().map(Some));
        for (port, candidate) in (FIRST_PORT..).zip(arms) {
            let arm = candidate.map_or(BASELINE, |(_, c)| c.name.as_str());
            let binaries = match candidate {
                Some((index, Candidate { binaries: Some(directory), .. })) => {
                    let field = format!("spec.candidates[{index}].binaries");
                    Binaries::named(&field, Path::new(directory), major, &self.account).await?
                }
                _ => ordinary.clone(),
            };
            let directory = match candidate {
                Some((index, candidate)) => self.arm_directory(index, candidate).await?,
                None => None,
            };
            self.specs.push(ArmSpec {
                identity: ArmIdentity {
                    experiment: name.clone(),
                    arm: arm.to_owned(),
                    socket_dir: self.place.sockets.clone(),
                    port,
                },
                role: if candidate.is_some() { ArmRole::Candidate } else { ArmRole::Baseline },
                candidate: candidate.map(|(index, _)| index),
                run: RunTag::of_this_process(),
                binaries,
                account: self.account.clone(),
                directory: directory.unwrap_or_else(|| self.place.data.join(arm)),
                password_file: Some(password_file.clone()),
                parameters: candidate.map(|(_, c)| c.parameters.clone()).unwrap_or_default(),
                worker: self.worker.clone(),
                facts: Arc::clone(&self.facts),
                max_rate_kib: None,
            });
        }
        Ok(())
    }

    /// Where a candidate's data goes when the document names a place.
    async fn arm_directory(&self, index: usize, candidate: &Candidate) -> Result<Option<PathBuf>, UserError> {
        let Some(directory) = candidate.storage.as_ref().and_then(|storage| storage.directory.as_deref()) else {
            return Ok(None);
        };
        let wrong = |reason: String| {
            UserError::new(
                ErrorKind::InvalidField,
                Side::Document,
                format!("spec.candidates[{index}].storage.directory: can't be used"),
            )
            .fact("value", directory)
            .fact("reason", reason)
            .remedy("name a directory that exists and that the server's account may enter")
            .nothing_changed()
        };
        let path = Path::new(directory);
        if !path.is_absolute() || !path.is_dir() {
            return Err(wrong("it is not the full path of a directory".to_owned()));
        }
        if !can_enter(path, &self.account).await? {
            return Err(wrong(format!("{} can't enter it", self.account.name())));
        }
        Ok(Some(path.join(format!("understudy-{}-{}", candidate.name, random_name()))))
    }

    async fn check(&self, listen: &str) -> Result<(), UserError> {
        let target = self.worker.target();
        let mut room = Vec::new();
        for spec in &self.specs {
            room.push((spec.directory.clone(), disk_space(&spec.directory)?));
        }
        let worker = format!("{}, user {}", self.worker.label(), target.user);
        let needs = Needs { worker, fields: preflight::LOCAL, clones: self.specs.len(), room };
        check_worker(&self.worker, &self.facts, &needs).await?;
        if let Some(problem) = preflight::listen_problem(listen, &target.host, self.worker.port()) {
            return Err(problem);
        }
        if let Err(error) = TcpListener::bind(listen) {
            return Err(UserError::new(
                ErrorKind::InvalidField,
                Side::Document,
                "spec.target.local.listen: the mirror can't listen there",
            )
            .fact("value", listen)
            .fact("reason", crate::error::plain_io(&error))
            .remedy("use a free port, or port 0 for any: 127.0.0.1:0")
            .nothing_changed());
        }
        let scratch = self.place.sockets.with_extension("check");
        for spec in &self.specs {
            let Some(index) = spec.candidate else { continue };
            self.leftovers.directory(&scratch)?;
            check_parameters(index, &spec.parameters, &self.facts, &spec.binaries, &self.account, &scratch).await?;
        }
        Ok(())
    }

    async fn seed_all(&mut self, progress: &OnProgress) -> Result<(), UserError> {
        for spec in self.specs.clone() {
            self.working.spawn(seed_one(spec, Arc::clone(&self.leftovers), Arc::clone(progress)));
        }
        while self.next_worked().await?.is_some() {}
        Ok(())
    }

    /// Waits for the next arm that is being worked on and takes it back; `None` when all are back.
    /// When one fails, the others are stopped.
    async fn next_worked(&mut self) -> Result<Option<(String, Recovered)>, UserError> {
        let Some(done) = self.working.join_next().await else { return Ok(None) };
        let early = |e| UserError::new(ErrorKind::Exited, Side::Host, "work on a clone ended early").fact("reason", e);
        match done.map_err(early).and_then(|result| result) {
            Ok((arm, recovered)) => {
                let name = arm.name().to_owned();
                self.arms.push(arm);
                self.arms.sort_by_key(|arm| arm.spec().identity.port);
                Ok(Some((name, recovered)))
            }
            Err(error) => {
                self.working.shutdown().await;
                Err(error)
            }
        }
    }

    fn not_prepared() -> UserError {
        UserError::new(ErrorKind::CutFailed, Side::Host, "the cut was not prepared")
    }
}

async fn seed_one(
    spec: ArmSpec,
    leftovers: Arc<Leftovers>,
    progress: OnProgress,
) -> Result<(Arm, Recovered), UserError> {
    let name = spec.identity.arm.clone();
    let noting = |program, pid, start_time| leftovers.process(program, pid, start_time);
    let arm = Arm::seed(spec, noting, |now| progress(&name, now)).await?;
    arm.wait_streaming().await?;
    Ok((arm, Recovered::default()))
}

fn notes(place: &Place, facts: &WorkerFacts, target: &LocalTarget) -> Vec<String> {
    let access = preflight::access_note(&target.listen, &target.host);
    let mut notes: Vec<String> = place.note.iter().cloned().chain(access).collect();
    if !facts.unlogged_tables.is_empty() {
        notes.push(format!("unlogged tables are empty on the clones: {}", facts.unlogged_tables.join(", ")));
    }
    if !facts.subscriptions.is_empty() {
        notes.push(format!(
            "what these subscriptions bring reaches the worker without passing the mirror: {}",
            facts.subscriptions.join(", ")
        ));
    }
    notes.extend(preflight::own_keys_note(&facts.own_keys));
    notes
}

impl Platform for LocalPlatform {
    const NAME: &'static str = "local";
    // Here clients are told where the mirror is; who does not use it is somebody else's.
    const DIRECT_SESSIONS_MUST_LEAVE: bool = false;

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn facts(&self) -> &WorkerFacts {
        &self.facts
    }

    async fn connect_arm(&self, arm: &str, database: &str, names: Names) -> Result<Session, UserError> {
        match self.arms.iter().find(|found| found.name() == arm) {
            Some(found) => found.connect_to(database, names).await,
            None => Err(UserError::new(ErrorKind::Missing, Side::Arm, format!("there is no arm {arm}"))),
        }
    }

    async fn seed(&mut self, progress: OnProgress) -> Result<(), UserError> {
        for directory in [self.place.data.clone(), self.place.sockets.clone()] {
            self.leftovers.directory(&directory)?;
        }
        for spec in &self.specs {
            if !spec.directory.starts_with(&self.place.data) {
                self.leftovers.directory(&spec.directory)?;
            }
            self.leftovers.data_directory(&spec.data_dir())?;
        }
        self.place.make(&self.account)?;
        let written = self.worker.write_password_file(&self.place.sockets.join("password"), &self.account)?;
        for spec in &mut self.specs {
            spec.password_file.clone_from(&written);
        }
        let hold =
            WalHold::take(&self.worker, &RunTag::of_this_process(), self.specs.len(), MOST_HELD_WAL_BYTES).await?;
        let result = tokio::select! {
            result = self.seed_all(&progress) => result,
            error = hold.gave_up() => Err(error),
        };
        self.hold = Some(hold);
        result
    }

    async fn prepare_cut(&mut self) -> Result<(), UserError> {
        self.prober = Some(CutProber::open(&self.worker, &self.facts.databases).await?);
        for arm in &self.arms {
            arm.pause().await?;
        }
        Ok(())
    }

    async fn probe(&self) -> Result<CutProbe, UserError> {
        self.prober.as_ref().ok_or_else(Self::not_prepared)?.probe().await
    }

    async fn direct_sessions(&self, mirrored: &[i32]) -> Result<Vec<DirectSession>, UserError> {
        direct::around_the_mirror(&self.worker, mirrored, self.prober.as_ref(), self.hold.as_ref()).await
    }

    async fn terminate_direct(&self, found: &[DirectSession]) -> Result<usize, UserError> {
        let session = self.worker.connect().await?;
        direct::terminate(&session, found).await
    }

    async fn cut(&mut self, probe: &CutProbe, ask: &[u64]) -> Result<BTreeMap<String, Recovered>, UserError> {
        if self.prober.is_none() {
            return Err(Self::not_prepared());
        }
        for arm in std::mem::take(&mut self.arms) {
            let (leftovers, worker) = (Arc::clone(&self.leftovers), self.worker.clone());
            self.working.spawn(cut_one(arm, worker, leftovers, probe.clone(), ask.to_vec()));
        }
        let mut found = BTreeMap::new();
        while let Some((name, recovered)) = self.next_worked().await? {
            found.insert(name, recovered);
        }
        // Nothing on this side reaches for the worker's WAL any more.
        self.hold = None;
        self.prober = None;
        if let Some(file) = self.specs.iter().find_map(|spec| spec.password_file.as_ref()) {
            std::fs::remove_file(file).map_err(|e| UserError::file("remove a password file", file, &e))?;
        }
        Ok(found)
    }

    async fn apply(&self) -> Result<(), UserError> {
        for arm in &self.arms {
            let Some(index) = arm.spec().candidate else { continue };
            let Some(sql) = self.candidates.get(index).and_then(|candidate| candidate.sql.as_ref()) else { continue };
            let session: Session = arm.connect_to(&self.worker.target().database, Names::User).await?;
            let ran = run_statements(&session, Side::Arm, index, SqlList::Apply, &sql.apply).await;
            ran.map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    fn endpoints(&self) -> Vec<ArmEndpoint> {
        let endpoint = |arm: &Arm| ArmEndpoint {
            name: arm.name().to_owned(),
            role: arm.spec().role,
            address: Address::Unix {
                directory: arm.spec().identity.socket_dir.clone(),
                port: arm.spec().identity.port,
            }
            .into(),
            text: arm.endpoint(),
        };
        self.arms.iter().map(endpoint).collect()
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |arm: &Arm| {
            let DiskSpace { free_bytes, total_bytes, .. } = disk_space(&arm.spec().directory).ok()?;
            Some(Disk { arm: arm.name().to_owned(), free_bytes, total_bytes })
        };
        self.arms.iter().filter_map(disk).collect()
    }

    async fn dead_arms(&self) -> Vec<(String, UserError)> {
        let dead = self.arms.iter().filter(|arm| !arm.server().is_running());
        dead.map(|arm| (arm.name().to_owned(), arm.server().failed("has stopped", ErrorKind::Exited))).collect()
    }

    async fn promote(&self, candidate: &str, restart: Option<RestartWorker<'_>>) -> Result<Promoted, UserError> {
        let found = self.candidates.iter().enumerate().find(|(_, c)| c.name == candidate);
        let (index, change) = found.ok_or_else(|| {
            UserError::new(ErrorKind::InvalidField, Side::Document, format!("there is no candidate {candidate}"))
                .nothing_changed()
        })?;
        self.leftovers.promotion(candidate)?;
        let result = promotion::promote(&self.worker, index, change, restart).await;
        self.leftovers.promotion_ended(candidate)?;
        result
    }

    async fn teardown(&mut self) -> Result<Vec<Cleared>, UserError> {
        self.prober = None;
        self.hold = None;
        self.working.shutdown().await;
        for arm in &mut self.arms {
            arm.server_mut().stop_immediately().await;
        }
        self.arms.clear();
        if self.alone {
            return self.leftovers.teardown();
        }
        let own = self.specs.iter().map(|spec| &spec.directory).chain([&self.place.data, &self.place.sockets]);
        let mut cleared = Vec::new();
        for directory in own.filter(|directory| directory.exists()) {
            remove_tree(directory)?;
            cleared.push(Cleared::Removed(directory.clone()));
        }
        Ok(cleared)
    }
}

async fn cut_one(
    mut arm: Arm,
    worker: Worker,
    leftovers: Arc<Leftovers>,
    probe: CutProbe,
    ask: Vec<u64>,
) -> Result<(Arm, Recovered), UserError> {
    let nudging = worker.connect().await?;
    let noting = |program, pid, start_time| leftovers.process(program, pid, start_time);
    let recovered = arm.recover_to(probe.lsn, &ask, &nudging, noting).await?;
    arm.quarantine(&probe.sequences).await?;
    Ok((arm, recovered))
}
