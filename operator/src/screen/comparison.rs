//! The lines that compare arms: A/A (can the clones be trusted) and A/B (what the change does), each
//! with its interval and what it means for the criterion. Pure; nothing is judged here that the
//! numbers in the status do not say by themselves.

use understudy_crds::{
    condition::{Outcome, VerdictReason},
    experiment::{Criterion, StatementClass},
    labels::BASELINE,
    status::{Comparison, ShadowExperimentStatus},
};

use super::{
    line::{Line, Meaning, shortened},
    number,
};

const INDENT: &str = "    ";
/// Differences beyond this say no more than "far too many".
const ABSURD: f64 = 9.995;
/// While a clone may differ from production by more than this, nothing is said about trust.
const CLOSE: f64 = 0.25;

/// The lines of all comparisons, A/A first, in `width` columns.
pub fn comparisons(status: &ShadowExperimentStatus, criteria: &[Criterion], width: usize) -> Vec<Line> {
    let mut ordered: Vec<&Comparison> = status.comparisons.iter().filter(|it| is_shown(it, criteria)).collect();
    ordered.sort_by_key(|it| it.candidate != BASELINE);
    let long: Vec<Entry> = ordered.iter().map(|it| entry(it, status, criteria, Wording::Long)).collect();
    let lines = laid_out(&long);
    if lines.iter().all(|line| line.width() <= width) {
        return lines;
    }
    let short: Vec<Entry> = ordered.iter().map(|it| entry(it, status, criteria, Wording::Short)).collect();
    laid_out(&short)
}

/// A comparison with a criterion, or the p95 of reads and writes.
fn is_shown(comparison: &Comparison, criteria: &[Criterion]) -> bool {
    let Comparison { candidate, class, quantile, .. } = comparison;
    let judged = criterion_for(comparison, criteria).is_some();
    let usual = (quantile - 0.95).abs() < 1e-9 && matches!(class, StatementClass::Read | StatementClass::Write);
    if candidate == BASELINE { usual && *class == StatementClass::Read } else { judged || usual }
}

fn criterion_for<'a>(comparison: &Comparison, criteria: &'a [Criterion]) -> Option<&'a Criterion> {
    if comparison.candidate == BASELINE {
        return None;
    }
    criteria.iter().find(|it| it.class == comparison.class && (it.quantile - comparison.quantile).abs() < 1e-9)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    Long,
    Short,
}

/// One line, column by column.
struct Entry {
    arms: String,
    what: String,
    delta: String,
    low: String,
    high: String,
    remark: (Meaning, String),
}

fn entry(comparison: &Comparison, status: &ShadowExperimentStatus, criteria: &[Criterion], wording: Wording) -> Entry {
    let Comparison { candidate, against, class, quantile, delta, low, high, .. } = comparison;
    let kind = if candidate == BASELINE { "A/A" } else { "A/B" };
    let arms = match wording {
        Wording::Long => format!("{kind}  {} against {against}", shortened(candidate, 24)),
        Wording::Short => format!("{kind}  {}", shortened(candidate, 16)),
    };
    let remark = remark(comparison, status, criteria, wording);
    let [delta, low, high] = [*delta, *low, *high].map(bounded);
    Entry { arms, what: format!("{}s {}", class.name(), percentile(*quantile)), delta, low, high, remark }
}

/// `p95`, `p99.9`.
pub(super) fn percentile(quantile: f64) -> String {
    let percent = (quantile * 1000.0).round() / 10.0;
    format!("p{percent}")
}

/// A difference without its unit; `…` where it is beyond all reason.
pub(super) fn bounded(delta: f64) -> String {
    if delta.abs() > ABSURD { "…".to_owned() } else { number::signed(delta) }
}

/// The lines with every column as wide as its widest cell; numbers aligned on their points.
fn laid_out(entries: &[Entry]) -> Vec<Line> {
    let width = |cell: fn(&Entry) -> &str| entries.iter().map(|it| cell(it).chars().count()).max().unwrap_or(0);
    let (arms, what) = (width(|it| &it.arms), width(|it| &it.what));
    let (delta, low, high) = (width(|it| &it.delta), width(|it| &it.low), width(|it| &it.high));
    let mut previous = "";
    let mut lines = Vec::new();
    for entry in entries {
        // The arms stand before their first line only.
        let name = if entry.arms == previous { "" } else { &entry.arms };
        previous = &entry.arms;
        let Entry { arms: _, what: of, delta: d, low: l, high: h, remark: (meaning, remark) } = entry;
        let text = format!("{INDENT}{name:arms$}  {of:what$}  {d:>delta$} %   [{l:>low$}, {h:>high$}]  ");
        lines.push(Line::plain(text).with(*meaning, remark));
    }
    lines
}

/// What the interval means, in a few words.
fn remark(
    comparison: &Comparison,
    status: &ShadowExperimentStatus,
    criteria: &[Criterion],
    wording: Wording,
) -> (Meaning, String) {
    let Comparison { candidate, delta: _, low, high, conclusive, .. } = comparison;
    let say = |meaning, long: &str, short: &str| {
        (meaning, if wording == Wording::Long { long.to_owned() } else { short.to_owned() })
    };
    if candidate == BASELINE {
        let disagrees =
            status.verdict.as_ref().is_some_and(|verdict| verdict.reason == VerdictReason::BaselineDisagrees);
        let differs = *conclusive && (*low > 0.0 || *high < 0.0);
        let close = low.abs() <= CLOSE && high.abs() <= CLOSE;
        return match (disagrees, differs, close) {
            (true, ..) => say(Meaning::Bad, "clones can't be trusted", "not trusted"),
            (_, true, _) => say(Meaning::Trouble, "clones differ from production", "clones differ"),
            (.., true) => say(Meaning::Plain, "clones can be trusted", "trusted"),
            _ => say(Meaning::Plain, "not clear yet", "not clear yet"),
        };
    }
    if !low.is_finite() || !high.is_finite() {
        return say(Meaning::Plain, "not clear yet", "not clear yet");
    }
    let Some(criterion) = criterion_for(comparison, criteria) else {
        return match (*high < 0.0, *low > 0.0) {
            (true, _) => say(Meaning::Good, "faster", "faster"),
            (_, true) => say(Meaning::Trouble, "slower", "slower"),
            _ => say(Meaning::Plain, "no difference seen", "no difference"),
        };
    };
    let Criterion { class: _, quantile: _, improve_by, regress_by } = criterion;
    match (improve_by, regress_by) {
        (Some(by), _) => {
            let asked = -by.fraction();
            if *high < asked {
                say(Meaning::Good, "better", "better")
            } else if *low > 0.0 {
                say(Meaning::Bad, "worse", "worse")
            } else if *low > asked {
                let limit = percent(asked);
                say(Meaning::Trouble, &format!("less than the {limit} asked for"), &format!("not {limit}"))
            } else {
                say(Meaning::Plain, "not clear yet", "not clear yet")
            }
        }
        (None, Some(by)) => {
            let allowed = by.fraction();
            let limit = percent(allowed);
            if *high < allowed {
                say(Meaning::Plain, &format!("within {limit} allowed"), &format!("within {limit}"))
            } else if *low > allowed {
                say(Meaning::Bad, &format!("worse than {limit} allowed"), &format!("over {limit}"))
            } else {
                say(Meaning::Plain, "not clear yet", "not clear yet")
            }
        }
        (None, None) => say(Meaning::Plain, "", ""),
    }
}

/// A threshold as it was asked for: `+15 %`, `−2.5 %`.
fn percent(fraction: f64) -> String {
    let text = format!("{}", (fraction.abs() * 1000.0).round() / 10.0);
    format!("{}{text} %", if fraction < 0.0 { "−" } else { "+" })
}

/// What an outcome means to whoever reads it.
pub(super) const fn meaning(outcome: Outcome) -> Meaning {
    match outcome {
        Outcome::Better => Meaning::Good,
        Outcome::Worse | Outcome::Invalid => Meaning::Bad,
        Outcome::Inconclusive => Meaning::Trouble,
        Outcome::Equivalent => Meaning::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{comparison, criteria};

    #[test]
    fn the_remark_says_what_the_interval_means() {
        let (read, write) = (StatementClass::Read, StatementClass::Write);
        let ab = ["x", "baseline"];
        let aa = ["baseline", "production"];
        let cases = [
            (ab, read, [-74.0, -77.0, -72.0], Meaning::Good, "better"),
            (ab, read, [-20.0, -30.0, -14.0], Meaning::Plain, "not clear yet"),
            (ab, read, [-5.0, -10.0, -1.0], Meaning::Trouble, "less than the −15 % asked for"),
            (ab, read, [0.0, -10.0, 10.0], Meaning::Trouble, "less than the −15 % asked for"),
            (ab, read, [5.0, 1.0, 9.0], Meaning::Bad, "worse"),
            (ab, write, [4.0, -1.0, 11.0], Meaning::Plain, "within +15 % allowed"),
            (ab, write, [4.0, -9.0, 17.0], Meaning::Plain, "not clear yet"),
            (ab, write, [20.0, 16.0, 24.0], Meaning::Bad, "worse than +15 % allowed"),
            (ab, write, [20.0, 16.0, f64::INFINITY], Meaning::Plain, "not clear yet"),
            (ab, StatementClass::Commit, [-2.0, -3.0, -1.0], Meaning::Good, "faster"),
            (ab, StatementClass::Commit, [2.0, 1.0, 3.0], Meaning::Trouble, "slower"),
            (ab, StatementClass::Commit, [2.0, -1.0, 3.0], Meaning::Plain, "no difference seen"),
            (aa, read, [0.0, -3.0, 2.0], Meaning::Plain, "clones can be trusted"),
            (aa, read, [0.0, -40.0, 30.0], Meaning::Plain, "not clear yet"),
            (aa, read, [20.0, 10.0, 30.0], Meaning::Trouble, "clones differ from production"),
        ];
        let status = ShadowExperimentStatus::default();
        for (arms, class, percent, meaning, expected) in cases {
            let given = comparison(arms, class, percent);
            let (found, text) = remark(&given, &status, &criteria(), Wording::Long);
            assert_eq!((found, text.as_str()), (meaning, expected), "{arms:?} {class:?} {percent:?}");
        }
    }

    #[test]
    fn percentiles_have_their_usual_names() {
        assert_eq!([0.5, 0.95, 0.99, 0.999].map(percentile), ["p50", "p95", "p99", "p99.9"]);
    }
}
