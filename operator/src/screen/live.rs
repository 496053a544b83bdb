//! The block that stays in one place while an experiment runs, and its compact form for logs: where
//! it stands, the table, the comparisons. Pure.

use std::{fmt::Write as _, time::Duration};

use understudy_crds::{
    condition::{ArmState, Phase},
    experiment::{Criterion, StatementClass},
    labels::{BASELINE, PRODUCTION},
    status::{ArmStatus, ClassKey, Comparison, LatencyByClass, ShadowExperimentStatus},
};

use super::{
    comparison::{self, comparisons},
    line::{Line, shortened},
    number, table,
};

/// Where an experiment stands in its schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Time since the phase began.
    pub elapsed: Duration,
    /// Time after which the phase ends at the latest; zero when nobody knows.
    pub planned: Duration,
    /// When a verdict is to be expected, from now; `None` when nobody can say.
    pub verdict_in: Option<Duration>,
}

/// The live block in at most `width` columns.
pub fn block(
    status: &ShadowExperimentStatus,
    criteria: &[Criterion],
    moment: Moment,
    frame: usize,
    width: usize,
) -> Vec<Line> {
    const FRAMES: [&str; 4] = ["▸", "▸", "▹", "▹"];
    let (name, text) = heading(status, moment);
    let mark = FRAMES.get(frame / 4 % FRAMES.len()).copied().unwrap_or("▸");
    let mut lines = vec![Line::plain(format!("  {mark} {name:13} {text}")), Line::default()];
    lines.extend(results(status, criteria, width));
    lines
}

/// The table and the comparisons, as they also stand when all is over.
pub fn results(status: &ShadowExperimentStatus, criteria: &[Criterion], width: usize) -> Vec<Line> {
    let mut lines = table::table(status, width);
    let compared = comparisons(status, criteria, width);
    if !compared.is_empty() {
        lines.push(Line::default());
        lines.extend(compared);
    }
    lines
}

/// The same in one line, for a log.
pub fn compact(status: &ShadowExperimentStatus, criteria: &[Criterion], moment: Moment) -> Line {
    let (name, text) = heading(status, moment);
    let mut line = format!("  ▸ {name:13} {text}");
    if status.phase == Phase::CatchingUp {
        return Line::plain(line);
    }
    line.push_str(" · reads p95, ms: ");
    line.push_str(&p95(PRODUCTION, &status.production.latency));
    let live: Vec<&ArmStatus> = status.arms.iter().filter(|arm| arm.state != ArmState::Removed).collect();
    for arm in &live {
        let _ = match arm.state {
            ArmState::Lost => write!(line, ", {} lost", shortened(&arm.name, 24)),
            _ => write!(line, ", {}", p95(&arm.name, &arm.latency)),
        };
    }
    let judged = |it: &&Comparison| {
        it.candidate != BASELINE
            && criteria.iter().any(|c| c.class == it.class && (c.quantile - it.quantile).abs() < 1e-9)
    };
    for it in status.comparisons.iter().filter(judged) {
        let Comparison { candidate, against: _, class, quantile, delta, low, high, .. } = it;
        let [delta, low, high] = [*delta, *low, *high].map(comparison::bounded);
        let name = if live.len() > 2 { format!("{} ", shortened(candidate, 24)) } else { String::new() };
        let what = format!("{}s {}", class.name(), comparison::percentile(*quantile));
        let _ = write!(line, " · {name}{what} {delta} % [{low}, {high}]");
    }
    let lag = live.iter().map(|arm| arm.lag.seconds).fold(0.0, f64::max);
    let lost: i64 = live.iter().map(|arm| arm.exchanges.lost).sum();
    let _ = write!(line, " · lag {lag:.1} s, {} lost", number::count(lost.unsigned_abs()));
    Line::plain(line)
}

fn p95(name: &str, latency: &LatencyByClass) -> String {
    let value = latency.get(&ClassKey::from(StatementClass::Read)).filter(|latency| latency.count > 0);
    let value = value.map_or(number::UNKNOWN.to_owned(), |latency| number::ms(latency.p95_us, 1));
    format!("{} {value}", shortened(name, 24))
}

/// What is going on, as the name of a step and a sentence.
fn heading(status: &ShadowExperimentStatus, moment: Moment) -> (&'static str, String) {
    let Moment { elapsed, planned, verdict_in } = moment;
    let time = if planned.is_zero() {
        number::whole(elapsed)
    } else {
        format!("{} of {}", number::whole(elapsed), number::whole(planned))
    };
    let behind: i64 = status.arms.iter().map(|arm| arm.lag.exchanges).max().unwrap_or(0);
    match status.phase {
        Phase::CatchingUp => {
            ("catching up", format!("{time} · {} exchanges to go", number::count(behind.unsigned_abs())))
        }
        Phase::WarmingUp => ("warming up", format!("{time} · caches fill, nothing is measured yet")),
        Phase::Observing => {
            let expected = match verdict_in {
                Some(left) if left.as_secs() == 0 => " · verdict expected at any moment".to_owned(),
                Some(left) => format!(" · verdict expected in about {}", number::whole(left)),
                None => String::new(),
            };
            ("observing", format!("{time}{expected}"))
        }
        Phase::Pending => ("preparing", time),
        Phase::Cloning => ("cloning", time),
        Phase::Concluded => ("concluded", "there is a verdict".to_owned()),
        Phase::Promoting => ("promoting", time),
        Phase::Promoted => ("promoted", "the change is on the worker".to_owned()),
        Phase::Halted => ("halted", "clients reach the worker directly".to_owned()),
        Phase::Failed => ("failed", "see the conditions".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{criteria, observing, promoted, troubled};

    fn text(lines: &[Line]) -> String {
        lines.iter().map(Line::text).collect::<Vec<_>>().join("\n")
    }

    const MOMENT: Moment = Moment {
        elapsed: Duration::from_secs(31),
        planned: Duration::from_secs(60),
        verdict_in: Some(Duration::from_secs(10)),
    };

    #[test]
    fn an_observation_on_a_wide_terminal() {
        insta::assert_snapshot!(text(&block(&observing(), &criteria(), MOMENT, 0, 119)));
    }

    #[test]
    fn an_observation_on_a_narrow_terminal() {
        insta::assert_snapshot!(text(&block(&observing(), &criteria(), MOMENT, 0, 79)));
    }

    #[test]
    fn trouble_on_a_wide_terminal() {
        insta::assert_snapshot!(text(&block(&troubled(), &criteria(), MOMENT, 0, 119)));
    }

    #[test]
    fn trouble_on_a_narrow_terminal() {
        insta::assert_snapshot!(text(&block(&troubled(), &criteria(), MOMENT, 0, 79)));
    }

    #[test]
    fn before_anything_is_measured_nothing_is_claimed() {
        let mut status = observing();
        status.phase = Phase::CatchingUp;
        status.comparisons.clear();
        status.production.latency.clear();
        for arm in &mut status.arms {
            arm.latency.clear();
            arm.compared = 0;
            arm.lag.exchanges = 1_203;
        }
        insta::assert_snapshot!(text(&block(&status, &criteria(), Moment::default(), 0, 79)));
    }

    #[test]
    fn a_log_gets_one_line() {
        let lines = [
            compact(&observing(), &criteria(), MOMENT),
            compact(&troubled(), &criteria(), Moment { verdict_in: None, ..MOMENT }),
        ];
        insta::assert_snapshot!(text(&lines));
    }

    #[test]
    fn no_verdict_is_expected_in_no_time() {
        for (left_ms, expected) in
            [(0, "at any moment"), (999, "at any moment"), (1_000, "in about 1 s"), (61_000, "in about 61 s")]
        {
            let moment = Moment { verdict_in: Some(Duration::from_millis(left_ms)), ..MOMENT };
            let line = compact(&observing(), &criteria(), moment).text();
            assert!(line.contains(&format!("verdict expected {expected} ·")), "{left_ms}: {line}");
        }
    }

    #[test]
    fn an_experiment_never_needs_more_than_eighty_columns() {
        for status in [observing(), promoted()] {
            for width in 79..160 {
                for line in block(&status, &criteria(), MOMENT, 0, width) {
                    assert!(line.width() <= width, "{width}: {}", line.text());
                }
            }
        }
    }
}
