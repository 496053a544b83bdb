//! The facts that a verdict is checked against, as plain data.

use std::time::Duration;

use understudy_crds::{
    condition::{ArmState, Outcome, VerdictReason},
    labels::PRODUCTION,
    status::{ArmStatus, ShadowExperimentStatus},
};

use crate::analysis::{Analysis, Counts};

/// What is known besides the differences.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    /// For how long was observed.
    pub elapsed: Duration,
    /// The user stopped the experiment.
    pub halted: bool,
    /// A guardrail stopped the experiment.
    pub guardrail: Option<GuardrailTripped>,
    /// What production did.
    pub production: Counts,
    /// The clones.
    pub arms: Vec<ArmCheck>,
}

/// What is known about one clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArmCheck {
    /// `baseline`, or the candidate's name.
    pub name: String,
    /// How much of the observation was over when it joined.
    pub joined_after: Duration,
    /// Why it is lost, if it is.
    pub lost: Option<String>,
    /// Exchanges that should have been played and were not.
    pub lost_exchanges: u64,
    /// Statements compared with production's.
    pub compared: u64,
    /// Statements whose outcome differed.
    pub diverged: u64,
    /// How far it is behind production, s.
    pub lag_seconds: f64,
    /// What it did.
    pub did: Counts,
    /// What production did in the same intervals.
    pub production_did: Counts,
}

/// A guardrail that stopped the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardrailTripped {
    /// Which one.
    pub kind: Guardrail,
    /// A sentence with its number and its limit.
    pub message: String,
}

/// The guardrails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guardrail {
    /// An arm fell behind production by more than `maxLag`.
    Lag,
    /// More outcomes differed than `maxDivergence`.
    Divergence,
    /// The mirror added more than `maxProductionOverhead`.
    ProductionOverhead,
    /// The disk of an arm is about to be full.
    Disk,
}

impl Guardrail {
    /// What a tripped guardrail makes of the experiment. Arms that can't follow, or do something else
    /// than production, measured something else. What it costs production says nothing about the candidate,
    /// either way.
    pub(super) fn says(self) -> (Outcome, VerdictReason) {
        match self {
            Self::Lag => (Outcome::Invalid, VerdictReason::GuardrailTripped),
            Self::Divergence => (Outcome::Invalid, VerdictReason::Diverged),
            Self::ProductionOverhead | Self::Disk => (Outcome::Inconclusive, VerdictReason::GuardrailTripped),
        }
    }
}

impl Checks {
    /// The checks of an experiment that goes on, from what was measured and what the mirror reports.
    pub fn of(analysis: &Analysis, status: &ShadowExperimentStatus) -> Self {
        Self {
            elapsed: analysis.elapsed(),
            halted: false,
            guardrail: None,
            production: analysis.counts(PRODUCTION),
            arms: status.arms.iter().map(|arm| ArmCheck::of(analysis, arm)).collect(),
        }
    }

    pub(super) fn arm(&self, name: &str) -> Option<&ArmCheck> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}

impl ArmCheck {
    fn of(analysis: &Analysis, status: &ArmStatus) -> Self {
        let counted = |count: i64| u64::try_from(count).unwrap_or(0);
        let lost = (status.state == ArmState::Lost)
            .then(|| status.message.clone().unwrap_or_else(|| "no reason is known".to_owned()));
        Self {
            name: status.name.clone(),
            joined_after: analysis.joined_after(&status.name),
            lost,
            lost_exchanges: counted(status.exchanges.lost),
            compared: counted(status.compared),
            diverged: status.divergence.values().map(|count| counted(*count)).sum(),
            lag_seconds: status.lag.seconds,
            did: analysis.counts(&status.name),
            production_did: analysis.production_beside(&status.name),
        }
    }
}
