//! An experiment at one look: what `understudy watch` prints once. Pure.

use understudy_crds::{
    condition::{ArmState, Condition, ConditionStatus, Phase},
    experiment::Criterion,
    status::{ArmStatus, CutStatus, ShadowExperimentStatus},
};

use super::{
    closing,
    comparison::meaning,
    line::{Line, Meaning, wrapped},
    live, number,
};

/// The experiment in at most `width` columns, as far as it can be made to fit.
pub fn experiment(name: &str, status: &ShadowExperimentStatus, criteria: &[Criterion], width: usize) -> Vec<Line> {
    let ShadowExperimentStatus { phase, conditions, production, arms, verdict, outcomes, .. } = status;
    let title = Line::plain(format!("{name} · ")).with(phase_meaning(*phase), phase_words(*phase));
    let sessions = format!(" · {} sessions", number::count(production.sessions.unsigned_abs()));
    let mut lines = vec![if production.sessions > 0 { title.with(Meaning::Plain, sessions) } else { title }];

    if !arms.is_empty() {
        lines.push(Line::default());
        lines.extend(live::results(status, criteria, width));
    }
    let mut facts: Vec<(Meaning, &str, String)> = Vec::new();
    if let Some(verdict) = verdict {
        facts.push((meaning(verdict.outcome), "verdict", closing::verdict(verdict).1));
    }
    facts.extend(outcomes.iter().map(|outcome| (Meaning::Plain, "outcome", closing::outcome(outcome))));
    facts.extend(cuts(arms).into_iter().map(|text| (Meaning::Plain, "cut", text)));
    if production.leaks > 0 {
        let leaks = number::count(production.leaks.unsigned_abs());
        facts.push((Meaning::Bad, "leaks", format!("{leaks} writes reached the worker without passing the mirror")));
    }
    for Condition { type_, status, message, .. } in conditions {
        if *status == ConditionStatus::False && !message.is_empty() {
            facts.push((Meaning::Trouble, "condition", format!("{type_:?}: {message}")));
        }
    }
    if !facts.is_empty() {
        lines.push(Line::default());
    }
    for (meaning, name, text) in facts {
        let mut name = name;
        for text in wrapped(&text, width.saturating_sub(15)) {
            lines.push(Line::plain("    ").with(meaning, name).padded(15).with(Meaning::Plain, text));
            name = "";
        }
    }
    lines
}

/// The cuts of all arms; one line when they have it in common, as they usually do.
fn cuts(arms: &[ArmStatus]) -> Vec<String> {
    let shown = arms.iter().filter(|arm| arm.state != ArmState::Removed);
    let cuts: Vec<(&str, String)> = shown.filter_map(|arm| Some((arm.name.as_str(), cut(arm.cut.as_ref()?)))).collect();
    match cuts.as_slice() {
        [(_, first), others @ ..] if others.iter().all(|(_, text)| text == first) => vec![first.clone()],
        _ => cuts.into_iter().map(|(name, text)| format!("{name}: {text}")).collect(),
    }
}

fn cut(cut: &CutStatus) -> String {
    let CutStatus { lsn, pause_ms, attempts, carried_over } = cut;
    let tries = if *attempts > 1 { format!(" at the {attempts}. attempt") } else { String::new() };
    format!("at {lsn}{tries}, production paused {pause_ms:.1} ms, {carried_over} transactions carried over")
}

const fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "not begun",
        Phase::Cloning => "cloning the worker",
        Phase::CatchingUp => "clones are catching up",
        Phase::WarmingUp => "warming up",
        Phase::Observing => "observing",
        Phase::Concluded => "concluded",
        Phase::Promoting => "promoting",
        Phase::Promoted => "promoted",
        Phase::Halted => "halted, clients reach the worker directly",
        Phase::Failed => "failed",
    }
}

const fn phase_meaning(phase: Phase) -> Meaning {
    match phase {
        Phase::Failed => Meaning::Bad,
        Phase::Halted => Meaning::Trouble,
        _ => Meaning::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{criteria, promoted, troubled};

    fn text(status: &ShadowExperimentStatus, width: usize) -> String {
        let lines = experiment("user-id-index", status, &criteria(), width);
        lines.iter().map(Line::text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_experiment_that_was_promoted() {
        insta::assert_snapshot!(text(&promoted(), 120));
    }

    #[test]
    fn an_experiment_in_trouble_on_a_narrow_terminal() {
        insta::assert_snapshot!(text(&troubled(), 80));
    }

    #[test]
    fn an_experiment_that_has_not_begun() {
        assert_eq!(text(&ShadowExperimentStatus::default(), 80), "user-id-index · not begun");
    }
}
