//! Can the numbers be trusted: the checks of an experiment as a row of plain statements.

use understudy_crds::{
    experiment::Guardrails,
    labels::{BASELINE, PRODUCTION},
    quantity::Percent,
    report::Report,
    status::ArmStatus,
};

use super::page::unbroken;
use crate::analysis::{
    verdict::{AGREEMENT, DEFAULT_DIVERGENCE, LARGEST_LAG_SECONDS},
    wording,
};

/// One check.
pub(super) struct Check {
    /// Whether it is as it should be; unknown counts as not.
    pub holds: bool,
    /// What it means.
    pub head: &'static str,
    /// The numbers.
    pub detail: String,
}

/// The checks of an experiment, in the order in which they matter.
pub(super) fn checks(report: &Report) -> Vec<Check> {
    let arms: Vec<&ArmStatus> = report.status.arms.iter().collect();
    let mut checks = vec![agreement(report)];
    if !arms.is_empty() {
        checks.push(divergence(&arms, &report.experiment.spec.guardrails));
        checks.push(loss(&arms));
        checks.push(lag(&arms, report.environment.shift_ms));
    }
    checks.push(production(report));
    for check in &mut checks {
        check.detail = unbroken(&check.detail);
    }
    checks
}

fn agreement(report: &Report) -> Check {
    let aa: Vec<_> =
        report.status.comparisons.iter().filter(|c| c.candidate == BASELINE && c.against == PRODUCTION).collect();
    let outside = |low: f64, high: f64| low > AGREEMENT - 1.0 || high < 1.0 / AGREEMENT - 1.0;
    let holds = !aa.is_empty() && !aa.iter().any(|c| outside(c.low, c.high));
    let head = match (aa.is_empty(), holds) {
        (true, _) => "Too few samples to compare clones with production",
        (_, true) => "Clones behave like production",
        (_, false) => "Clones do not behave like production",
    };
    let numbers: Vec<String> = aa
        .iter()
        .map(|c| {
            let (class, quantile) = (wording::class(c.class), wording::quantile(c.quantile));
            format!("{class} {quantile} {} {}", wording::difference(c.delta), wording::interval(c.low, c.high))
        })
        .collect();
    let detail = if numbers.is_empty() {
        "the baseline has no interval yet".to_owned()
    } else {
        format!("A/A, the unchanged baseline against production: {}", numbers.join("; "))
    };
    Check { holds, head, detail }
}

fn divergence(arms: &[&ArmStatus], guardrails: &Guardrails) -> Check {
    let allowed = guardrails.max_divergence.map_or(DEFAULT_DIVERGENCE, Percent::fraction);
    let diverged = |arm: &ArmStatus| arm.divergence.values().sum::<i64>();
    let share = |arm: &ArmStatus| if arm.compared > 0 { diverged(arm) as f64 / arm.compared as f64 } else { 0.0 };
    let holds = arms.iter().all(|arm| arm.compared > 0 && share(arm) <= allowed);
    let none = arms.iter().all(|arm| diverged(arm) == 0);
    let detail = if none {
        let least = arms.iter().map(|arm| arm.compared).min().unwrap_or(0);
        format!("{} outcomes compared on each clone, none differs from production's", count(least))
    } else {
        let by_arm: Vec<String> = arms
            .iter()
            .map(|arm| format!("{} {} of {}", arm.name, wording::share(share(arm)), count(arm.compared)))
            .collect();
        format!("outcomes that differ from production's: {}; {} is allowed", by_arm.join(", "), wording::share(allowed))
    };
    let head = match (none, holds) {
        (true, true) => "They gave the same answers",
        (false, true) => "They gave nearly the same answers",
        (_, false) => "They did not give the same answers",
    };
    Check { holds, head, detail }
}

fn loss(arms: &[&ArmStatus]) -> Check {
    let lost: Vec<&&ArmStatus> = arms.iter().filter(|arm| arm.exchanges.lost > 0).collect();
    let skipped = arms.iter().map(|arm| arm.exchanges.skipped.values().sum::<i64>()).max().unwrap_or(0);
    let least = arms.iter().map(|arm| arm.exchanges.played).min().unwrap_or(0);
    let played = if lost.is_empty() {
        format!("{} exchanges played on each clone, 0 lost", count(least))
    } else {
        let by_arm: Vec<String> =
            lost.iter().map(|arm| format!("{} lost {}", arm.name, count(arm.exchanges.lost))).collect();
        by_arm.join(", ")
    };
    let detail = if skipped > 0 { format!("{played}; {} deliberately not played", count(skipped)) } else { played };
    let head = if lost.is_empty() { "Nothing was lost" } else { "Traffic was lost" };
    Check { holds: lost.is_empty(), head, detail }
}

fn lag(arms: &[&ArmStatus], shift_ms: i64) -> Check {
    let lag = arms.iter().map(|arm| arm.lag.seconds).fold(0.0, f64::max);
    let holds = lag <= LARGEST_LAG_SECONDS;
    let head = if holds { "The clones kept up" } else { "The clones fell behind" };
    let purpose =
        if shift_ms > 0 { format!(", {:.1} s of it on purpose", shift_ms as f64 / 1e3) } else { String::new() };
    Check { holds, head, detail: format!("at most {lag:.1} s behind production at the end{purpose}") }
}

fn production(report: &Report) -> Check {
    let production = &report.status.production;
    let pause_ms =
        report.status.arms.iter().filter_map(|arm| arm.cut.as_ref()).map(|cut| cut.pause_ms).fold(0.0, f64::max);
    let mut facts = Vec::new();
    if pause_ms > 0.0 {
        facts.push(format!("new transactions waited {pause_ms:.1} ms once, for the cut"));
    }
    if production.overhead_p99_us > 0 {
        facts.push(format!("the mirror added {} at p99", wording::latency(production.overhead_p99_us)));
    }
    let leaks = production.leaks;
    if leaks > 0 {
        facts.push(format!("{} writes went around the mirror", count(leaks)));
    }
    let limit = report.experiment.spec.guardrails.max_production_overhead;
    let within = limit
        .is_none_or(|limit| u128::try_from(production.overhead_p99_us).unwrap_or(0) <= limit.duration().as_micros());
    let holds = leaks == 0 && within;
    let head = match (leaks > 0, within) {
        (true, _) => "Writes went around the mirror",
        (false, true) => "Production hardly noticed",
        (false, false) => "Production was slowed down",
    };
    let detail = if facts.is_empty() { "nothing was added to its latency".to_owned() } else { facts.join("; ") };
    Check { holds, head, detail }
}

fn count(count: i64) -> String {
    wording::count(u64::try_from(count).unwrap_or(0))
}
