//! What stands at the end: the verdict, what production then did, where the report is. Pure.

use understudy_crds::{
    labels::PRODUCTION,
    status::{PromotionOutcome, Verdict},
};

use super::{
    comparison::{bounded, meaning, percentile},
    line::{Line, Meaning},
    number,
    step::Ending,
};

/// The verdict as the end of a step: how it ended, and the sentence.
pub fn verdict(verdict: &Verdict) -> (Ending, String) {
    let Verdict { outcome, candidate: _, reason: _, message } = verdict;
    let name = format!("{outcome:?}");
    let text = if message.starts_with(&name) { message.clone() } else { format!("{name}: {message}") };
    let ending = match meaning(*outcome) {
        Meaning::Good => Ending::Good,
        Meaning::Plain => Ending::Done,
        Meaning::Trouble => Ending::Trouble,
        Meaning::Bad => Ending::Failed,
    };
    (ending, text)
}

/// What production did after the promotion: `production reads p95 38.4 → 9.9 ms, −74.2 % [−80.1, −66.0]
/// against the baseline without it (predicted −74.5 %)`.
pub fn outcome(outcome: &PromotionOutcome) -> String {
    let PromotionOutcome { class, quantile, before_us, after_us, predicted, observed } = outcome;
    let decimals = if *before_us.max(after_us) < 10_000 { 2 } else { 1 };
    format!(
        "{PRODUCTION} {}s {} {} → {} ms, {} [{}, {}] against the baseline without it (predicted {})",
        class.name(),
        percentile(*quantile),
        number::ms(*before_us, decimals),
        number::ms(*after_us, decimals),
        number::difference(observed.delta),
        bounded(observed.low),
        bounded(observed.high),
        number::difference(predicted.delta),
    )
}

/// The last lines: what is where, and what to do next.
pub fn closing(rows: &[(&str, String)]) -> Vec<Line> {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, text)| Line::plain(format!("  {name:width$}  {text}"))).collect()
}

#[cfg(test)]
mod tests {
    use understudy_crds::{
        condition::{Outcome, VerdictReason},
        experiment::StatementClass,
        status::Effect,
    };

    use super::*;

    #[test]
    fn the_mark_of_a_verdict_follows_its_outcome() {
        let cases = [
            (Outcome::Better, Ending::Good),
            (Outcome::Equivalent, Ending::Done),
            (Outcome::Inconclusive, Ending::Trouble),
            (Outcome::Worse, Ending::Failed),
            (Outcome::Invalid, Ending::Failed),
        ];
        for (outcome, expected) in cases {
            let given = Verdict { outcome, candidate: None, reason: VerdictReason::CriteriaMet, message: "x".into() };
            assert_eq!(verdict(&given), (expected, format!("{outcome:?}: x")));
            let given = Verdict { message: format!("{outcome:?}, all of it"), ..given };
            assert_eq!(verdict(&given).1, format!("{outcome:?}, all of it"));
        }
    }

    #[test]
    fn an_outcome_stands_beside_its_prediction() {
        let effect = |delta| Effect { delta, low: delta - 0.02, high: delta + 0.02 };
        let text = outcome(&PromotionOutcome {
            class: StatementClass::Read,
            quantile: 0.95,
            before_us: 38_400,
            after_us: 9_930,
            predicted: effect(-0.745),
            observed: effect(-0.742),
        });
        assert_eq!(
            text,
            "production reads p95 38.4 → 9.9 ms, −74.2 % [−76.2, −72.2] against the baseline without it (predicted −74.5 %)"
        );
    }

    #[test]
    fn the_last_lines_are_aligned() {
        let lines =
            closing(&[("report", "target/demo/report.html".into()), ("next", "understudy run -f x.yaml".into())]);
        let text: Vec<String> = lines.iter().map(Line::text).collect();
        assert_eq!(text, ["  report  target/demo/report.html", "  next    understudy run -f x.yaml"]);
    }
}
