//! Runs one experiment on a platform, from the first check to the last file: the order of the steps, and
//! nothing that a step does itself.
//!
//! Whatever ends it (the verdict, a guardrail, the user, an error), production is direct again and
//! nothing is left behind.

pub mod control;
pub mod cutting;
mod editing;
mod finish;
mod observing;
mod preparing;
mod promoting;
mod schemas;
pub mod state;
mod verifying;

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use understudy_crds::{
    ShadowExperiment,
    condition::{ArmRole, ConditionReason, ConditionType, Outcome, Phase},
    experiment::PromotionPolicy,
    labels::BASELINE,
    mirror_config::KEEP_FREE_PERCENT,
    status::ShadowExperimentStatus,
};
use understudy_mirror::{
    admin::{self, Verbs},
    mirror::{Mirror, Settings},
    shadow::log::disk::DiskSettings,
    stream::Address,
};

pub use self::finish::{prepare_directory, write_report};
use self::state::State;
use crate::{
    analysis::{Analysis, criteria, wording},
    error::{ErrorKind, Side, UserError},
    platform::{
        Platform,
        local::{experiment::LocalPlatform, worker::Worker},
    },
    screen::{Moment, Screen},
};

/// How long the arms live behind production.
const SHIFT: Duration = Duration::from_secs(1);

/// How an experiment is run.
pub struct Options {
    /// The experiment.
    pub experiment: ShadowExperiment,
    /// Where results go.
    pub out: PathBuf,
    /// The results store.
    pub store: String,
    /// Where the admin HTTP listens, besides the control socket in `out`.
    pub admin: Option<String>,
    /// Who decides about the promotion.
    pub promotion: Deciding,
    /// Compare all tables of worker and arms at the end.
    pub verify: bool,
    /// Leave the clones' files.
    pub keep: bool,
    /// The screen.
    pub screen: Screen,
}

/// Who decides about the promotion of a candidate that is Better.
#[derive(Debug, Clone)]
pub enum Deciding {
    /// The experiment's own policy.
    Policy,
    /// It is promoted, whatever the policy says.
    Promote,
    /// Somebody else, who also does it: the run waits for the word for at most `patience`.
    Others {
        /// The candidate, once it is decided.
        decided: watch::Receiver<Option<String>>,
        /// How long the mirror stays in front of production for it.
        patience: Duration,
    },
}

/// What a run ended with.
#[derive(Debug)]
pub struct Ended {
    /// The last status.
    pub status: ShadowExperimentStatus,
    /// The report's page.
    pub report: PathBuf,
    /// The tables were compared, and some differ.
    pub differs: bool,
}

/// What happens around a run, for those who have something to do with it (the demo).
pub trait Companion: Send {
    /// Clients may connect to the mirror.
    fn mirror_ready(&mut self, address: std::net::SocketAddr) -> impl Future<Output = Result<(), UserError>> + Send;
    /// The mirror will go away: clients have to leave it.
    fn mirror_leaving(&mut self) -> impl Future<Output = Result<(), UserError>> + Send;
    /// How many transactions the worker has served so far, where somebody counts.
    fn transactions(&self) -> Option<u64>;
}

/// Nobody: the clients are the user's.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Companion for Alone {
    async fn mirror_ready(&mut self, _: std::net::SocketAddr) -> Result<(), UserError> {
        Ok(())
    }

    async fn mirror_leaving(&mut self) -> Result<(), UserError> {
        Ok(())
    }

    fn transactions(&self) -> Option<u64> {
        None
    }
}

/// Runs an experiment on this machine. `halt` is thrown by Ctrl-C, by the admin HTTP, or by the caller.
pub async fn run(
    options: Options,
    companion: &mut impl Companion,
    halt: watch::Sender<bool>,
) -> Result<Ended, UserError> {
    finish::prepare_directory(&options.out)?;
    let (mut platform, cleared) = LocalPlatform::open(&options.experiment, &options.out).await?;
    if options.keep {
        platform.keep();
    }
    for found in cleared {
        options.screen.note(&format!("an earlier run had left something: {found}"));
    }
    for note in platform.notes() {
        options.screen.note(note);
    }
    let mirror = start_mirror(&options.experiment, platform.worker(), &options.out)?;
    let state = State::new(Arc::clone(&mirror), arms(&options.experiment), halt);
    Box::pin(run_on(&mut platform, options, companion, mirror, state)).await
}

/// Runs an experiment on a platform, with a mirror that is in the path and shown by `state`.
pub async fn run_on<P: Platform>(
    platform: &mut P,
    options: Options,
    companion: &mut impl Companion,
    mirror: Arc<Mirror>,
    state: State,
) -> Result<Ended, UserError> {
    let arms = arms(&options.experiment);
    let halted = state.halted();
    // Who looked after its clients looks after the mirror now.
    mirror.keep_alive(platform.facts().keepalive());
    platform.facts().databases.iter().for_each(|database| mirror.schemas().announce(database));
    let mut run = Run { options, platform, mirror, state, arms, halted };
    // Clients speak through this process: it does not go down with what only looks on.
    let result = match AssertUnwindSafe(Box::pin(run.steps(companion))).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(run.failed_itself()),
    };
    // In this order, whatever happened: nothing is captured, clients leave, clones go.
    let left = run.leave(companion).await;
    let torn_down = run.platform.teardown().await;
    let ended = result?;
    left?;
    torn_down?;
    Ok(ended)
}

/// Puts a mirror in front of a worker, as the experiment says. Its traffic log goes to `directory` where it must.
pub fn start_mirror(
    experiment: &ShadowExperiment,
    worker: &Worker,
    directory: &Path,
) -> Result<Arc<Mirror>, UserError> {
    let spec = &experiment.spec;
    let target = worker.target();
    let address = Address::new(&target.host, worker.port());
    let mut settings = Settings::new(&target.listen, address);
    settings.shift = SHIFT;
    if let Some(lag) = spec.guardrails.max_lag {
        // Arms that wait for production's sake must not break the guardrail.
        settings.most_behind = settings.most_behind.min(lag.duration() / 2);
    }
    if let Some(memory) = spec.capture.memory {
        settings.memory_bytes = usize::try_from(memory.bytes()).unwrap_or(usize::MAX);
    }
    if let Some(disk) = spec.capture.disk {
        settings.disk = Some(DiskSettings {
            directory: directory.join("traffic-log"),
            limit_bytes: disk.bytes(),
            keep_free_percent: KEEP_FREE_PERCENT,
        });
    }
    Mirror::start(&settings).map_err(|error| {
        UserError::new(ErrorKind::InvalidField, Side::Host, "the mirror can't start")
            .fact("listen", &target.listen)
            .fact("reason", error)
            .remedy("name a free port in spec.target.local.listen, or port 0 for any")
            .nothing_changed()
    })
}

/// The arms of an experiment, the baseline first.
pub fn arms(experiment: &ShadowExperiment) -> Vec<(String, ArmRole)> {
    let candidates = experiment.spec.candidates.iter().map(|c| (c.name.clone(), ArmRole::Candidate));
    std::iter::once((BASELINE.to_owned(), ArmRole::Baseline)).chain(candidates).collect()
}

struct Run<'a, P> {
    options: Options,
    platform: &'a mut P,
    mirror: Arc<Mirror>,
    state: State,
    arms: Vec<(String, ArmRole)>,
    halted: watch::Receiver<bool>,
}

impl<P: Platform> Run<'_, P> {
    async fn steps(&mut self, companion: &mut impl Companion) -> Result<Ended, UserError> {
        let control = control::Control::open(&self.options.out, &self.name(), self.state.clone())?;
        let result = self.until_concluded(companion).await;
        drop(control);
        result
    }

    fn name(&self) -> String {
        self.options.experiment.metadata.name.clone().unwrap_or_default()
    }

    async fn until_concluded(&mut self, companion: &mut impl Companion) -> Result<Ended, UserError> {
        self.announce(companion).await?;
        let mut books = finish::Books::open(&self.options, self.platform).await?;
        let result = match self.prepare_arms(companion).await {
            Ok(true) => self.observe_and_judge(&mut books).await,
            Ok(false) => Ok(false),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.failed(error);
        } else if self.state.is_halted() {
            self.state.enter(Phase::Halted);
            let by = ConditionReason::HaltedByUser;
            self.state.condition(ConditionType::Concluded, false, by, "halted by the user");
            self.state.event("halted", "production is direct");
            self.options.screen.note("halted: nothing is mirrored any more");
        }
        let written = books.close(&self.state, &self.mirror).await;
        let differs = result?;
        let report = written?;
        Ok(Ended { status: self.state.status(), report, differs })
    }

    async fn announce(&mut self, companion: &mut impl Companion) -> Result<(), UserError> {
        let address = self.mirror.address;
        if let Some(listen) = self.options.admin.clone() {
            let router = admin::router(Arc::new(self.state.clone()), Verbs::Refused);
            let bound = admin::serve_tcp(&listen, router, std::future::pending()).await.map_err(|error| {
                UserError::new(ErrorKind::InvalidField, Side::Host, "the admin HTTP can't listen")
                    .fact("address", &listen)
                    .fact("reason", crate::error::plain_io(&error))
                    .remedy("name a free port with --admin")
                    .nothing_changed()
            })?;
            self.options.screen.note(&format!("admin HTTP on http://{bound}"));
        }
        let step = self.options.screen.step("mirror");
        companion.mirror_ready(address).await?;
        step.done(&format!("mirror listening on {address}"));
        self.state.condition(ConditionType::Mirroring, true, ConditionReason::AsPlanned, "relaying and capturing");
        self.state.event("mirror", &format!("in front of {}", self.platform.worker().label()));
        Ok(())
    }

    /// From catching up to the verdict and, if it is to be, the promotion. Whether tables differ.
    async fn observe_and_judge(&mut self, books: &mut finish::Books) -> Result<bool, UserError> {
        let observed = self.observe(books).await?;
        let Some(analysis) = observed else { return Ok(false) };
        let status = self.state.status();
        let verdict = status.verdict.clone();
        if let Some(verdict) = &verdict {
            self.options.screen.verdict(verdict);
            self.state.event("verdict", &verdict.message);
        }
        let winner = verdict.filter(|v| v.outcome == Outcome::Better).and_then(|v| v.candidate);
        if let Some(candidate) = self.to_promote(winner).await {
            self.promote(&candidate, &analysis, books).await?;
        }
        if self.options.verify { self.verify().await } else { Ok(false) }
    }

    /// The candidate that is to be promoted now, if one is.
    async fn to_promote(&self, winner: Option<String>) -> Option<String> {
        let wanted = match &self.options.promotion {
            Deciding::Policy => self.options.experiment.spec.promotion.policy == PromotionPolicy::Automatic,
            Deciding::Promote => true,
            Deciding::Others { decided, patience } => {
                let (mut decided, mut halted) = (decided.clone(), self.halted.clone());
                let word = async {
                    tokio::select! {
                        // Whoever could say it is gone: then nobody will.
                        word = decided.wait_for(Option::is_some) => word.ok().and_then(|word| word.clone()),
                        _ = halted.wait_for(|halted| *halted) => None,
                    }
                };
                return tokio::time::timeout(*patience, word).await.ok().flatten();
            }
        };
        match winner {
            Some(candidate) if wanted => Some(candidate),
            Some(candidate) => {
                let name = self.name();
                let next = format!("{candidate} is ready; `understudy promote {name}` puts it on the worker");
                self.options.screen.note(&next);
                None
            }
            None => {
                if wanted {
                    self.options.screen.note("nothing is promoted: only a candidate that is Better is");
                }
                None
            }
        }
    }

    /// Something here has panicked, which the panic hook has told.
    fn failed_itself(&self) -> UserError {
        let error = UserError::new(ErrorKind::Exited, Side::Host, "understudy itself has failed; production goes on")
            .remedy("report it, with what stands above; the experiment can be started again");
        self.failed(&error);
        error
    }

    fn failed(&self, error: &UserError) {
        self.state.enter(Phase::Failed);
        self.state.condition(ConditionType::Concluded, false, error.kind.condition_reason(), &error.line());
        self.state.event("failed", &error.line());
    }

    /// The arms are forgotten, clients leave, the mirror ends.
    async fn leave(&mut self, companion: &mut impl Companion) -> Result<(), UserError> {
        let step = self.options.screen.step("cleaned up");
        self.mirror.halt();
        let left = companion.mirror_leaving().await;
        let mirror = Arc::clone(&self.mirror);
        let stopped = tokio::task::spawn_blocking(move || mirror.stop()).await;
        step.done("clones removed, clients direct again");
        left?;
        stopped.map_err(|e| UserError::new(ErrorKind::Exited, Side::Host, "the mirror ended early").fact("reason", e))
    }

    fn moment(&self) -> Moment {
        let schedule = &self.options.experiment.spec.schedule;
        let elapsed = self.state.in_phase();
        let (planned, minimum) = match self.state.status().phase {
            Phase::WarmingUp => (schedule.warm_up.duration(), None),
            Phase::Observing => (schedule.maximum.duration(), Some(schedule.minimum.duration())),
            _ => (Duration::ZERO, None),
        };
        Moment {
            elapsed,
            planned,
            verdict_in: minimum.map(|m| m.saturating_sub(elapsed)).filter(|left| !left.is_zero()),
        }
    }

    fn criteria(&self) -> Vec<understudy_crds::experiment::Criterion> {
        criteria::of(&self.options.experiment.spec)
    }
}

/// A line about how an observation went.
fn observed(analysis: &Analysis) -> String {
    let counts = analysis.counts(understudy_crds::labels::PRODUCTION);
    format!(
        "{} of production's traffic, {} statements",
        wording::duration(analysis.elapsed()),
        wording::count(counts.all())
    )
}
