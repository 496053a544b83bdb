//! What a running experiment shows of itself: one status, made of what the mirror, the platform and the
//! analysis know, for the admin HTTP, the screen and the report alike.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;
use understudy_crds::{
    condition::{ArmRole, ArmState, Condition, ConditionReason, ConditionStatus, ConditionType, Phase},
    experiment::StatementClass,
    report::TimelineEvent,
    status::{ArmStatus, Comparison, CutStatus, PromotionOutcome, ShadowExperimentStatus, Summary, Verdict},
};
use understudy_mirror::{admin::Admin, mirror::Mirror};

use crate::analysis::{criteria::same_quantile, wording};

/// What the control plane knows and the mirror does not.
#[derive(Debug, Default)]
struct Known {
    phase: Phase,
    phase_since: Option<Instant>,
    conditions: Vec<Condition>,
    endpoints: BTreeMap<String, String>,
    cut: Option<CutStatus>,
    planned: Vec<Planned>,
    /// The candidates that the run works with, as whoever edits them calls this version of them.
    candidates: String,
    comparisons: Vec<Comparison>,
    verdict: Option<Verdict>,
    outcomes: Vec<PromotionOutcome>,
    leaks: i64,
    timeline: Vec<TimelineEvent>,
    /// Once concluded, the numbers of the observation stay as they are.
    frozen: Option<ShadowExperimentStatus>,
}

/// An arm that the mirror need not know yet.
#[derive(Debug)]
struct Planned {
    name: String,
    role: ArmRole,
    /// Why there will be no such arm.
    lost: Option<String>,
    /// Where it left the WAL, when that was later than the others.
    cut: Option<CutStatus>,
}

/// A running experiment, as others see it. Copies are the same experiment.
#[derive(Clone)]
pub struct State {
    mirror: Arc<Mirror>,
    known: Arc<Mutex<Known>>,
    halt: watch::Sender<bool>,
}

impl State {
    /// An experiment whose arms have not been made yet.
    pub fn new(mirror: Arc<Mirror>, planned: Vec<(String, ArmRole)>, halt: watch::Sender<bool>) -> Self {
        let planned = planned.into_iter().map(|(name, role)| Planned { name, role, lost: None, cut: None }).collect();
        let known = Known { planned, phase_since: Some(Instant::now()), ..Known::default() };
        Self { mirror, known: Arc::new(Mutex::new(known)), halt }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to another phase.
    pub fn enter(&self, phase: Phase) {
        let mut known = self.known();
        known.phase = phase;
        known.phase_since = Some(Instant::now());
    }

    /// How long the experiment has been in its phase.
    pub fn in_phase(&self) -> std::time::Duration {
        self.known().phase_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Tells when the kill switch is thrown.
    pub fn halted(&self) -> watch::Receiver<bool> {
        self.halt.subscribe()
    }

    /// The kill switch has been thrown.
    pub fn is_halted(&self) -> bool {
        *self.halt.borrow()
    }

    /// Where the arms are, and where they left the WAL.
    pub fn cut_done(&self, cut: CutStatus, endpoints: BTreeMap<String, String>) {
        let mut known = self.known();
        known.cut = Some(cut);
        known.endpoints = endpoints;
    }

    /// A candidate gets an arm while the experiment runs.
    pub fn arm_added(&self, name: &str) {
        let planned = Planned { name: name.to_owned(), role: ArmRole::Candidate, lost: None, cut: None };
        self.known().planned.push(planned);
    }

    /// A candidate's arm is forgotten.
    pub fn arm_removed(&self, name: &str) {
        let mut known = self.known();
        known.planned.retain(|arm| arm.name != name);
        known.endpoints.remove(name);
        known.comparisons.retain(|comparison| comparison.candidate != name);
    }

    /// An arm that came later has left the WAL.
    pub fn arm_cut(&self, name: &str, cut: CutStatus, endpoint: String) {
        let mut known = self.known();
        known.endpoints.insert(name.to_owned(), endpoint);
        if let Some(arm) = known.planned.iter_mut().find(|arm| arm.name == name) {
            arm.cut = Some(cut);
        }
    }

    /// An arm that came later could not be made.
    pub fn arm_failed(&self, name: &str, why: &str) {
        if let Some(arm) = self.known().planned.iter_mut().find(|arm| arm.name == name) {
            arm.lost = Some(why.to_owned());
        }
    }

    /// The run works with this version of the candidates.
    pub fn took_candidates(&self, version: &str) {
        version.clone_into(&mut self.known().candidates);
    }

    /// The version of the candidates that the run works with.
    pub fn candidates(&self) -> String {
        self.known().candidates.clone()
    }

    /// The differences and the verdict so far.
    pub fn judged(&self, comparisons: Vec<Comparison>, verdict: Option<Verdict>) {
        let mut known = self.known();
        known.comparisons = comparisons;
        known.verdict = verdict;
    }

    /// What became of a promotion.
    pub fn promoted(&self, outcomes: Vec<PromotionOutcome>) {
        self.known().outcomes = outcomes;
    }

    /// A write that came around the mirror.
    pub fn leaked(&self, writes: i64) {
        self.known().leaks += writes;
    }

    /// Keeps the numbers of the observation as they are now.
    pub fn freeze(&self) {
        let status = self.status();
        self.known().frozen = Some(status);
    }

    /// Sets a condition. Its time changes only when its status does.
    pub fn condition(&self, type_: ConditionType, holds: bool, reason: ConditionReason, message: &str) {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        let mut known = self.known();
        let before = known.conditions.iter().position(|c| c.type_ == type_).map(|index| known.conditions.remove(index));
        let last_transition_time = match before {
            Some(before) if before.status == status => before.last_transition_time,
            _ => now(),
        };
        known.conditions.push(Condition { type_, status, reason, message: message.to_owned(), last_transition_time });
    }

    /// Notes what happened.
    pub fn event(&self, step: &str, message: &str) {
        self.known().timeline.push(TimelineEvent { at: now(), step: step.to_owned(), message: message.to_owned() });
    }

    /// What happened so far.
    pub fn timeline(&self) -> Vec<TimelineEvent> {
        self.known().timeline.clone()
    }

    /// The status now.
    pub fn status(&self) -> ShadowExperimentStatus {
        let measured = self.mirror.status();
        let known = self.known();
        let mut status = known.frozen.clone().unwrap_or(measured);
        if known.frozen.is_none() {
            for planned in &known.planned {
                if !status.arms.iter().any(|arm| arm.name == planned.name) {
                    status.arms.push(seeding(planned));
                }
            }
            for arm in &mut status.arms {
                let later = known.planned.iter().find(|planned| planned.name == arm.name).and_then(|p| p.cut.as_ref());
                arm.endpoint = known.endpoints.get(&arm.name).cloned();
                arm.cut = later.or(known.cut.as_ref()).cloned();
            }
            status.production.leaks = known.leaks;
        }
        status.phase = known.phase;
        status.conditions.clone_from(&known.conditions);
        status.comparisons.clone_from(&known.comparisons);
        status.verdict.clone_from(&known.verdict);
        status.outcomes.clone_from(&known.outcomes);
        status.summary = Some(summary(&status));
        status
    }
}

fn seeding(planned: &Planned) -> ArmStatus {
    let status = understudy_mirror::shadow::arm::ArmShared::new(&planned.name, planned.role, 0).status();
    match &planned.lost {
        Some(why) => ArmStatus { state: ArmState::Lost, message: Some(why.clone()), ..status },
        None => status,
    }
}

/// The same in the few words of `kubectl get`.
fn summary(status: &ShadowExperimentStatus) -> Summary {
    let delta = |class: StatementClass| {
        let first = status.comparisons.iter().find(|c| {
            c.against == understudy_crds::labels::BASELINE && c.class == class && same_quantile(c.quantile, 0.95)
        });
        first.map(|c| wording::difference(c.delta))
    };
    let alive = status.arms.iter().filter(|arm| matches!(arm.state, ArmState::Live | ArmState::CatchingUp));
    let lag =
        alive.map(|arm| arm.lag.seconds).fold(None, |most: Option<f64>, lag| Some(most.map_or(lag, |m| m.max(lag))));
    Summary {
        read_p95: delta(StatementClass::Read),
        write_p95: delta(StatementClass::Write),
        lag: lag.map(|seconds| format!("{seconds:.1}s")),
    }
}

impl Admin for State {
    fn status(&self) -> ShadowExperimentStatus {
        Self::status(self)
    }

    /// Capture ends here and now; the rest is cleared up by the run.
    fn halt(&self) {
        self.mirror.halt();
        self.halt.send_replace(true);
    }

    fn mirror(&self) -> &Mirror {
        &self.mirror
    }
}

/// Now, RFC 3339, to the millisecond.
pub fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
