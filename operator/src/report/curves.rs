//! Percentile curves: latency of every side over the quantile, both stretched where it matters (log
//! odds across, logarithm up).

use std::collections::BTreeMap;

use understudy_crds::{
    experiment::StatementClass,
    report::{CurvePoint, Report},
};

use super::chart::Panel;
use crate::analysis::wording;

/// The quantiles from which and to which curves are drawn, at most.
const DRAWN: (f64, f64) = (0.1, 0.9999);

/// The curve of one side: its colour class, and points in log odds and log µs.
struct Curve<'a> {
    colour: &'a str,
    points: Vec<(f64, f64)>,
}

/// A panel with its heading.
pub(super) struct Titled {
    pub title: String,
    pub svg: String,
}

/// A panel for each class that has curves. `sides` in drawing order, with their colour classes.
pub(super) fn panels(report: &Report, sides: &[(String, String)]) -> Vec<Titled> {
    [StatementClass::Read, StatementClass::Write, StatementClass::Commit]
        .into_iter()
        .filter_map(|class| panel(&report.curves, class, sides))
        .collect()
}

fn panel(
    curves: &BTreeMap<String, BTreeMap<StatementClass, Vec<CurvePoint>>>,
    class: StatementClass,
    sides: &[(String, String)],
) -> Option<Titled> {
    let drawn: Vec<Curve<'_>> = sides
        .iter()
        .filter_map(|(name, colour)| {
            let points = curves.get(name)?.get(&class)?;
            let points: Vec<(f64, f64)> = points
                .iter()
                .filter(|point| (DRAWN.0..=DRAWN.1).contains(&point.quantile))
                .map(|point| (log_odds(point.quantile), (point.value_us.max(1) as f64).ln()))
                .collect();
            (points.len() > 1).then_some(Curve { colour, points })
        })
        .collect();
    let all = || drawn.iter().flat_map(|curve| curve.points.iter().copied());
    let rightmost = all().map(|(x, _)| x).reduce(f64::max)?;
    let (low, high) = (all().map(|(_, y)| y).reduce(f64::min)?, all().map(|(_, y)| y).reduce(f64::max)?);
    let margin = (high - low).max(0.2) * 0.06;
    let (low, high) = (low - margin, high + margin);

    let about = format!("Latency of {} by percentile, for each side", wording::class(class));
    let mut panel = Panel::new(&format!("curve-{}", class.name()), &about, (log_odds(DRAWN.0), rightmost), (low, high));
    for (value, label) in latency_ticks(low, high) {
        panel.y_tick(value, &label);
    }
    for (quantile, label) in [(0.1, "10"), (0.5, "50"), (0.9, "90"), (0.95, "95"), (0.99, "99"), (0.999, "99.9")] {
        if log_odds(quantile) <= rightmost + 1e-9 {
            panel.x_tick(log_odds(quantile), label);
        }
    }
    panel.upright(log_odds(0.95), "judged");
    panel.x_title("percentile of the statements, %");
    for Curve { colour, points } in &drawn {
        panel.line(colour, points);
    }
    Some(Titled { title: capital(wording::class(class)), svg: panel.svg() })
}

fn log_odds(quantile: f64) -> f64 {
    (quantile / (1.0 - quantile)).ln()
}

/// Ticks at 1, 2 and 5 of each decade; only at 1 when there would be many.
fn latency_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let steps: &[i64] = if high - low > 7.0 { &[1] } else { &[1, 2, 5] };
    (0..10)
        .flat_map(|decade| steps.iter().map(move |step| step * 10_i64.pow(decade)))
        .map(|micros| ((micros as f64).ln(), micros))
        .filter(|(value, _)| (low..=high).contains(value))
        .map(|(value, micros)| (value, round_latency(micros)))
        .collect()
}

/// A round latency without the zeros: `5 ms`.
fn round_latency(micros: i64) -> String {
    match micros {
        ..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let ticks: Vec<String> =
            latency_ticks(800_f64.ln(), 60_000_f64.ln()).into_iter().map(|(_, label)| label).collect();
        assert_eq!(ticks, ["1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
    }

    #[test]
    fn without_points_there_is_no_panel() {
        assert!(panel(&BTreeMap::new(), StatementClass::Read, &[("production".into(), "prod".into())]).is_none());
    }
}
