//! The verdict: what differences and sanity checks say together.
//!
//! ```text
//! checks that end everything   baseline lost, diverged; every candidate lost → Invalid
//!                              guardrail                                     → Invalid, Inconclusive
//! not yet                      no traffic, minimum not reached               → none yet; Inconclusive at the end
//! can clones be trusted (A/A)  baseline against production                   → Invalid, none yet
//! each candidate (A/B)         lost, diverged                                → Invalid
//!                              a criterion refuted, and really slower        → Worse
//!                              all criteria hold                             → Better, Equivalent
//!                              anything else                                 → none yet; Inconclusive at the end
//! ```
//!
//! A pure function; it never waits, and it never says Better when it does not know.

mod agreement;
mod checks;
mod message;
mod sanity;

use understudy_crds::{
    condition::{Outcome, VerdictReason},
    experiment::{Criterion, ShadowExperimentSpec},
    labels::BASELINE,
    status::{Comparison, Verdict},
};

use self::agreement::Agreement;
pub use self::{
    agreement::AGREEMENT,
    checks::{ArmCheck, Checks, Guardrail, GuardrailTripped},
    sanity::{DEFAULT_DIVERGENCE, LARGEST_LAG_SECONDS},
};
use super::criteria::{self, Decision, decide, is_about, is_improvement};

/// What the experiment says now; nothing while it is too early, or not clear and not at its end.
pub fn judge(spec: &ShadowExperimentSpec, comparisons: &[Comparison], checks: &Checks) -> Option<Verdict> {
    let criteria = criteria::of(spec);
    let judge = Judge { spec, criteria: &criteria, comparisons, checks };
    judge.verdict()
}

/// What is known about one candidate.
struct Finding<'a> {
    candidate: &'a str,
    /// The verdict about it, when it is settled.
    outcome: Option<Outcome>,
    reason: VerdictReason,
    message: String,
    /// Its difference at the first criterion that asks for an improvement; less is better.
    gain: f64,
}

struct Judge<'a> {
    spec: &'a ShadowExperimentSpec,
    criteria: &'a [Criterion],
    comparisons: &'a [Comparison],
    checks: &'a Checks,
}

impl<'a> Judge<'a> {
    fn verdict(&self) -> Option<Verdict> {
        if let Some((reason, message)) = self.checks.arm(BASELINE).and_then(|arm| self.unsound(arm)) {
            return Some(verdict(Outcome::Invalid, None, reason, message));
        }
        if let Some(verdict) = self.nothing_left() {
            return Some(verdict);
        }
        if let Some(tripped) = &self.checks.guardrail {
            let (outcome, reason) = tripped.kind.says();
            return Some(verdict(outcome, None, reason, tripped.message.clone()));
        }
        if let Some(message) = self.no_traffic() {
            return self.at_the_end(VerdictReason::NoTraffic, message);
        }
        if self.checks.elapsed < self.spec.schedule.minimum.duration() {
            return self.at_the_end(VerdictReason::TooFewSamples, message::too_early(self.checks.elapsed, self.spec));
        }
        match agreement::with_production(self.criteria, self.comparisons) {
            Agreement::Disagrees(message) => {
                return Some(verdict(Outcome::Invalid, None, VerdictReason::BaselineDisagrees, message));
            }
            Agreement::Unknown(reason, message) => return self.at_the_end(reason, message),
            Agreement::Agrees(message) if self.spec.candidates.is_empty() => {
                return Some(verdict(Outcome::Equivalent, None, VerdictReason::NoCandidate, message));
            }
            Agreement::Agrees(_) => {}
        }
        self.best(self.spec.candidates.iter().map(|candidate| self.finding(&candidate.name)).collect())
    }

    /// `Invalid` when every candidate is lost: nothing will ever be known, however early it is.
    fn nothing_left(&self) -> Option<Verdict> {
        let lost = self.spec.candidates.iter().map(|candidate| {
            let arm = self.checks.arm(&candidate.name)?;
            arm.lost.as_ref()?;
            self.unsound(arm).map(|(reason, message)| (&candidate.name, reason, message))
        });
        let (name, reason, message) = lost.collect::<Option<Vec<_>>>()?.into_iter().next()?;
        Some(verdict(Outcome::Invalid, Some(name), reason, message))
    }

    /// Whether the experiment goes on no further.
    fn ended(&self) -> bool {
        self.checks.halted || self.checks.elapsed >= self.spec.schedule.maximum.duration()
    }

    /// `Inconclusive` if the experiment has ended, nothing yet otherwise.
    fn at_the_end(&self, reason: VerdictReason, message: String) -> Option<Verdict> {
        if !self.ended() {
            return None;
        }
        let (reason, message) = match (self.checks.halted, reason) {
            (true, VerdictReason::NotConclusive | VerdictReason::TooFewSamples) => {
                (VerdictReason::Halted, format!("stopped before it was clear: {message}"))
            }
            _ => (reason, message),
        };
        Some(verdict(Outcome::Inconclusive, None, reason, message))
    }

    fn no_traffic(&self) -> Option<String> {
        let production = &self.checks.production;
        if self.criteria.is_empty() {
            return (production.all() == 0).then(|| message::no_traffic(None));
        }
        let silent = self.criteria.iter().find(|criterion| production.of(criterion.class) == 0)?;
        Some(message::no_traffic(Some(silent.class)))
    }

    /// What makes an arm's numbers unfit to be believed.
    fn unsound(&self, arm: &ArmCheck) -> Option<(VerdictReason, String)> {
        let settled = self.ended() || self.checks.elapsed >= self.spec.schedule.minimum.duration();
        sanity::unsound(arm, self.criteria, &self.spec.guardrails, settled)
    }

    fn finding(&self, candidate: &'a str) -> Finding<'a> {
        let found = |outcome, reason, message| Finding { candidate, outcome, reason, message, gain: 0.0 };
        let Some(arm) = self.checks.arm(candidate) else {
            return found(None, VerdictReason::TooFewSamples, format!("{candidate} has no clone yet"));
        };
        if let Some((reason, message)) = self.unsound(arm) {
            return found(Some(Outcome::Invalid), reason, message);
        }
        if let Some(message) = sanity::behind(arm) {
            return found(None, VerdictReason::NotConclusive, message);
        }
        let observed = self.checks.elapsed.saturating_sub(arm.joined_after);
        if observed < self.spec.schedule.minimum.duration() {
            return found(None, VerdictReason::TooFewSamples, message::too_early(observed, self.spec));
        }
        let decided: Vec<Decided<'_>> =
            self.criteria.iter().map(|criterion| self.decided(candidate, criterion)).collect();
        let any = |wanted: fn(&Decided<'_>) -> bool| decided.iter().any(wanted);
        let (outcome, reason) = if any(|d| d.decision == Some(Decision::Refuted { slower: true })) {
            (Some(Outcome::Worse), VerdictReason::CriterionRefuted)
        } else if decided.iter().all(|d| d.decision == Some(Decision::Holds)) {
            let better = any(|d| is_improvement(d.criterion));
            (Some(if better { Outcome::Better } else { Outcome::Equivalent }), VerdictReason::CriteriaMet)
        } else if any(|d| d.decision.is_none()) {
            (None, VerdictReason::TooFewSamples)
        } else if any(|d| matches!(d.decision, Some(Decision::Refuted { .. }))) {
            (None, VerdictReason::CriterionRefuted)
        } else {
            (None, VerdictReason::NotConclusive)
        };
        let gain =
            decided.iter().find(|d| is_improvement(d.criterion)).and_then(|d| d.comparison).map_or(0.0, |c| c.delta);
        let message = message::of(outcome, &decided, self.checks.elapsed);
        Finding { candidate, outcome, reason, message, gain }
    }

    fn decided(&self, candidate: &str, criterion: &'a Criterion) -> Decided<'a> {
        let of = |c: &&'a Comparison| c.candidate == candidate && c.against == BASELINE && is_about(c, criterion);
        let comparison = self.comparisons.iter().find(of);
        Decided { criterion, comparison, decision: comparison.map(|c| decide(criterion, c.low, c.high)) }
    }

    /// The verdict about all candidates: that of the best one. While some are open only Better is said.
    fn best(&self, findings: Vec<Finding<'a>>) -> Option<Verdict> {
        let several = findings.len() > 1;
        let open = findings.iter().any(|finding| finding.outcome.is_none());
        let best = findings.into_iter().min_by(|a, b| rank(a).cmp(&rank(b)).then(a.gain.total_cmp(&b.gain)))?;
        let Finding { candidate, outcome, reason, message, gain: _ } = best;
        let message = if several { format!("{candidate}: {message}") } else { message };
        match outcome {
            Some(outcome) if !open || outcome == Outcome::Better || self.ended() => {
                Some(verdict(outcome, Some(candidate), reason, message))
            }
            Some(_) => None,
            None => self
                .at_the_end(reason, message)
                .map(|verdict| Verdict { candidate: Some(candidate.to_owned()), ..verdict }),
        }
    }
}

/// A criterion with what is known about it.
struct Decided<'a> {
    criterion: &'a Criterion,
    /// The difference, once there is an interval.
    comparison: Option<&'a Comparison>,
    decision: Option<Decision>,
}

/// Which finding speaks for the experiment: the smallest.
fn rank(finding: &Finding<'_>) -> u8 {
    match finding.outcome {
        Some(Outcome::Better) => 0,
        Some(Outcome::Equivalent) => 1,
        None | Some(Outcome::Inconclusive) => 2,
        Some(Outcome::Invalid) => 3,
        Some(Outcome::Worse) => 4,
    }
}

fn verdict(outcome: Outcome, candidate: Option<&str>, reason: VerdictReason, message: String) -> Verdict {
    Verdict { outcome, candidate: candidate.map(str::to_owned), reason, message }
}

#[cfg(test)]
mod tests;
