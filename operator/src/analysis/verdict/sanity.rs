//! Whether an arm did what production did; what it measured counts only then.

use understudy_crds::{
    condition::VerdictReason,
    experiment::{Criterion, Guardrails},
    quantity::Percent,
};

use super::checks::ArmCheck;
use crate::analysis::wording;

/// The share of statements whose outcome may differ where the experiment states none.
pub const DEFAULT_DIVERGENCE: f64 = 0.01;
/// An arm further behind than this, s, has not measured what production did last; no verdict until it
/// has.
pub const LARGEST_LAG_SECONDS: f64 = 60.0;
/// Before the minimum of the schedule, shares of fewer statements than this are luck.
const ENOUGH_FOR_A_SHARE: u64 = 1_000;
/// Differences of so few statements are no share of anything.
const A_FEW: f64 = 3.0;

/// Why an arm's numbers may not be believed. `settled`: shares count whatever they are shares of.
pub(super) fn unsound(
    arm: &ArmCheck,
    criteria: &[Criterion],
    guardrails: &Guardrails,
    settled: bool,
) -> Option<(VerdictReason, String)> {
    let name = &arm.name;
    if let Some(why) = &arm.lost {
        return Some((VerdictReason::ArmLost, format!("{name} was lost: {why}")));
    }
    if arm.lost_exchanges > 0 {
        let exchanges = if arm.lost_exchanges == 1 { "exchange" } else { "exchanges" };
        let message =
            format!("{name} did not play {} {exchanges} that production did", wording::count(arm.lost_exchanges));
        return Some((VerdictReason::ArmLost, message));
    }
    let allowed = guardrails.max_divergence.map_or(DEFAULT_DIVERGENCE, Percent::fraction);
    if arm.compared > 0 && (settled || arm.compared >= ENOUGH_FOR_A_SHARE) {
        let share = arm.diverged as f64 / arm.compared as f64;
        if share > allowed {
            let (share, allowed) = (wording::share(share), wording::share(allowed));
            let message = format!(
                "{name} diverged: {share} of its {} outcomes differ from production's, {allowed} is allowed",
                wording::count(arm.compared)
            );
            return Some((VerdictReason::Diverged, message));
        }
    }
    let (did, production) = (&arm.did, &arm.production_did);
    let statements = production.all();
    if !settled && statements < ENOUGH_FOR_A_SHARE {
        return None;
    }
    // What fails or times out has no latency; an arm where more of it does looks faster than it is.
    for (what, here, there) in
        [("errors", did.errors, production.errors), ("cancelled statements", did.cancelled, production.cancelled)]
    {
        if differs(here, there, statements, allowed) {
            let message = format!("{name} had {} {what}, production {}", wording::count(here), wording::count(there));
            return Some((VerdictReason::Diverged, message));
        }
    }
    let uneven = criteria.iter().map(|criterion| criterion.class).find(|class| {
        let there = production.of(*class);
        differs(did.of(*class), there, there, allowed)
    })?;
    let message = format!(
        "{name} measured {} {}, production {}",
        wording::count(did.of(uneven)),
        wording::class(uneven),
        wording::count(production.of(uneven))
    );
    Some((VerdictReason::Diverged, message))
}

fn differs(here: u64, there: u64, of: u64, allowed: f64) -> bool {
    here.abs_diff(there) as f64 > (of as f64 * allowed).max(A_FEW)
}

/// Whether an arm is too far behind to be judged now.
pub(super) fn behind(arm: &ArmCheck) -> Option<String> {
    (arm.lag_seconds > LARGEST_LAG_SECONDS)
        .then(|| format!("{} is {:.0} s behind production and has not measured the rest", arm.name, arm.lag_seconds))
}
