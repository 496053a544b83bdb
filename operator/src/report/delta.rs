//! The difference over time: what was known at each moment, with its interval and the criterion.

use understudy_crds::{
    labels::PRODUCTION,
    report::{DeltaSeries, Report},
};

use super::{
    chart::Panel,
    curves::{Titled, capital},
};
use crate::analysis::{
    criteria::{self, is_improvement, same_quantile, threshold},
    wording,
};

/// Relative differences that get a tick, where they are within the range.
const TICKS: [f64; 19] =
    [-0.95, -0.9, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 9.0];
/// Ticks closer than this share of the axis are left out.
const TICK_GAP: f64 = 0.09;

/// A panel for each difference of a candidate that has been followed over time.
pub(super) fn panels(report: &Report, colour_of: impl Fn(&str) -> String) -> Vec<Titled> {
    let several = report.experiment.spec.candidates.len() > 1;
    let of_candidates = report.series.iter().filter(|series| series.against != PRODUCTION && series.points.len() > 1);
    of_candidates
        .enumerate()
        .filter_map(|(index, series)| {
            let what = format!("{} {}", wording::class(series.class), wording::quantile(series.quantile));
            let title = if several { format!("{}: {what}", series.candidate) } else { capital(&what) };
            let svg = panel(report, series, index, &colour_of(&series.candidate))?;
            Some(Titled { title, svg })
        })
        .collect()
}

fn panel(report: &Report, series: &DeltaSeries, index: usize, colour: &str) -> Option<String> {
    let log = |relative: f64| relative.max(-0.999).ln_1p();
    let points: Vec<(f64, f64, f64, f64)> =
        series.points.iter().map(|p| (p.seconds, log(p.effect.delta), log(p.effect.low), log(p.effect.high))).collect();
    let criterion = criteria::of(&report.experiment.spec)
        .into_iter()
        .find(|c| c.class == series.class && same_quantile(c.quantile, series.quantile));
    let asked = criterion.as_ref().map(threshold);

    // The first intervals are wide; the range is that of the later ones, and the early ones are cut off.
    let settled = points.get(points.len() / 4..)?;
    let marks = || [0.0].into_iter().chain(asked.map(log));
    let low = settled.iter().map(|p| p.2).chain(marks()).reduce(f64::min)?;
    let high = settled.iter().map(|p| p.3).chain(marks()).reduce(f64::max)?;
    let margin = (high - low).max(0.05) * 0.08;
    let (low, high) = ((low - margin).max(-3.5), (high + margin).min(2.5));
    let end = points.last()?.0;

    let about = format!(
        "{} against {}, {} {}, over the time of observation",
        series.candidate,
        series.against,
        wording::class(series.class),
        wording::quantile(series.quantile)
    );
    let mut panel = Panel::new(&format!("delta-{index}"), &about, (0.0, end), (low, high));
    for tick in spaced_ticks(low, high) {
        panel.y_tick(log(tick), &wording::threshold(tick));
    }
    let (step, unit, scale) = time_step(end);
    let mut tick = 0.0;
    while tick <= end {
        panel.x_tick(tick, &format!("{:.0}", tick / scale));
        tick += step;
    }
    panel.x_title(&format!("time of observation, {unit}"));
    panel.rule(0.0, "zero", "");
    let band: Vec<_> = points.iter().map(|p| (p.0, p.2, p.3)).collect();
    let line: Vec<_> = points.iter().map(|p| (p.0, p.1)).collect();
    panel.band(colour, &band);
    panel.line(colour, &line);
    if let Some((x, y)) = line.last() {
        panel.dot(colour, *x, *y);
    }
    if let Some(criterion) = &criterion {
        let asked = threshold(criterion);
        let kind = if is_improvement(criterion) { "criterion" } else { "allowed" };
        panel.rule(log(asked), "criterion", &format!("{kind} {}", wording::threshold(asked)));
    }
    Some(panel.svg())
}

/// Ticks within a range that leave each other room; zero first.
fn spaced_ticks(low: f64, high: f64) -> Vec<f64> {
    let mut kept: Vec<f64> = Vec::new();
    let far = |a: f64, b: f64| (a.ln_1p() - b.ln_1p()).abs() >= TICK_GAP * (high - low);
    for tick in std::iter::once(0.0).chain(TICKS) {
        if (low..=high).contains(&tick.ln_1p()) && kept.iter().all(|other| far(tick, *other)) {
            kept.push(tick);
        }
    }
    kept
}

/// A round step of time, s, its unit, and the seconds of the unit.
fn time_step(end_seconds: f64) -> (f64, &'static str, f64) {
    const STEPS: [(f64, &str, f64); 14] = [
        (1.0, "s", 1.0),
        (5.0, "s", 1.0),
        (10.0, "s", 1.0),
        (30.0, "s", 1.0),
        (60.0, "min", 60.0),
        (300.0, "min", 60.0),
        (600.0, "min", 60.0),
        (1800.0, "min", 60.0),
        (3600.0, "h", 3600.0),
        (3.0 * 3600.0, "h", 3600.0),
        (12.0 * 3600.0, "h", 3600.0),
        (86_400.0, "d", 86_400.0),
        (2.0 * 86_400.0, "d", 86_400.0),
        (7.0 * 86_400.0, "d", 86_400.0),
    ];
    STEPS.into_iter().find(|(step, _, _)| end_seconds / step <= 9.0).unwrap_or((end_seconds.max(1.0), "s", 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_time_are_round_and_few() {
        for (end, expected) in [(8.0, "s"), (80.0, "s"), (400.0, "min"), (7200.0, "min"), (86_400.0, "h"), (1e6, "d")] {
            let (step, unit, _) = time_step(end);
            assert_eq!(unit, expected, "{end}");
            assert!(end / step <= 9.0);
        }
    }

    #[test]
    fn zero_is_always_a_tick_and_ticks_have_room() {
        let ticks = spaced_ticks(-2.0, 0.5);
        assert!(ticks.contains(&0.0) && ticks.len() < 13, "{ticks:?}");
    }
}
