//! The table of arms: latency of reads and writes, and how healthy each arm is. Pure.

use std::fmt::Write as _;

use understudy_crds::{
    condition::{ArmRole, ArmState},
    labels::PRODUCTION,
    status::{ArmStatus, ClassKey, Latency, LatencyByClass, ShadowExperimentStatus},
};

use super::{
    line::{Line, Meaning, shortened},
    number::{self, UNKNOWN},
};

/// Columns before the names.
const INDENT: usize = 4;
/// A latency column, its gap included: room for `9999.99` without moving.
const LATENCY: usize = 8;
/// The gap before a group of columns, beyond that of its first column.
const GROUP: usize = 3;
/// Names longer than this are shortened.
const LONGEST_NAME: usize = 24;
/// One divergence in so many compared statements deserves a look.
const DIVERGENCE_SEEN_FROM: i64 = 1_000;
/// Names are shortened to this before columns are left out.
const SHORTEST_NAME: usize = 13;

/// Classes that are shown.
const SHOWN: [ClassKey; 2] = [ClassKey::Read, ClassKey::Write];

/// Quantiles that a table shows of each class.
#[derive(Debug, Clone, Copy)]
struct Columns {
    p50: bool,
    p99: bool,
}

impl Columns {
    /// The most detailed first.
    const CHOICES: [Self; 3] =
        [Self { p50: true, p99: true }, Self { p50: true, p99: false }, Self { p50: false, p99: false }];

    /// Width of one latency column; the title of its group has to fit above.
    fn width(self) -> usize {
        if self.p50 || self.p99 { LATENCY } else { LATENCY + 3 }
    }

    fn names(self) -> Vec<&'static str> {
        [("p50", self.p50), ("p95", true), ("p99", self.p99)]
            .into_iter()
            .filter_map(|(name, shown)| shown.then_some(name))
            .collect()
    }

    fn values(self, latency: &Latency) -> Vec<i64> {
        let Latency { count: _, p50_us, p95_us, p99_us } = latency;
        [(*p50_us, self.p50), (*p95_us, true), (*p99_us, self.p99)]
            .into_iter()
            .filter_map(|(value, shown)| shown.then_some(value))
            .collect()
    }
}

/// One arm's health, as it is shown.
struct Health {
    lag: Cell,
    lost: Cell,
    diverged: Cell,
}

type Cell = (Meaning, String);

const HEALTH: [(&str, usize); 3] = [("lag", 8), ("lost", 7), ("diverged", 10)];

/// The table in at most `width` columns, as far as it can be made to fit.
pub fn table(status: &ShadowExperimentStatus, width: usize) -> Vec<Line> {
    let arms: Vec<&ArmStatus> = status.arms.iter().filter(|arm| arm.state != ArmState::Removed).collect();
    let longest = arms.iter().map(|arm| arm.name.chars().count()).max().unwrap_or(0).max(PRODUCTION.len());
    let name = longest.min(LONGEST_NAME);
    let columns = Columns::CHOICES
        .into_iter()
        .find(|columns| taken(*columns, name.min(SHORTEST_NAME)) <= width)
        .unwrap_or(Columns { p50: false, p99: false });
    let name = name.min(width.saturating_sub(taken(columns, 0))).max(6);
    let decimals = SHOWN.map(|class| decimals(status, class, columns));

    let mut lines = headings(columns, name);
    lines.push(row(PRODUCTION, &status.production.latency, columns, decimals, name).join(health(&none())));
    for arm in arms {
        lines.push(match arm.state {
            ArmState::Lost => lost(arm, name),
            _ => row(&arm.name, &arm.latency, columns, decimals, name).join(health(&health_of(arm))),
        });
    }
    lines
}

/// Columns that a table takes.
fn taken(columns: Columns, name: usize) -> usize {
    let health: usize = HEALTH.iter().map(|(_, width)| width).sum();
    INDENT + name + 2 * columns.names().len() * columns.width() + GROUP + health
}

fn headings(columns: Columns, name: usize) -> Vec<Line> {
    let (names, cell) = (columns.names(), columns.width());
    let mut titles = " ".repeat(INDENT + name);
    let mut heading = titles.clone();
    for title in ["reads, ms", "writes, ms"] {
        if title != "reads, ms" {
            titles.push_str(&" ".repeat(GROUP));
            heading.push_str(&" ".repeat(GROUP));
        }
        // The title begins where the first heading below it begins, or ends where it ends.
        let group = names.len() * cell;
        let first = (cell - "p50".len()).min(group.saturating_sub(title.len()));
        let _ = write!(titles, "{:group$}", format!("{}{title}", " ".repeat(first)));
        for name in &names {
            let _ = write!(heading, "{name:>cell$}");
        }
    }
    let [(lag, width), ..] = HEALTH;
    let _ = write!(titles, "{}health", " ".repeat(width - lag.len()));
    for (name, width) in HEALTH {
        let _ = write!(heading, "{name:>width$}");
    }
    vec![Line::plain(titles), Line::plain(heading)]
}

/// Name and latencies of one arm.
fn row(name: &str, latency: &LatencyByClass, columns: Columns, decimals: [usize; 2], width: usize) -> Line {
    let mut text = format!("{}{:width$}", " ".repeat(INDENT), shortened(name, width));
    let cell = columns.width();
    for (index, (class, decimals)) in SHOWN.into_iter().zip(decimals).enumerate() {
        text.push_str(&" ".repeat(index * GROUP));
        let latency = latency.get(&class).copied().unwrap_or_default();
        for value in columns.values(&latency) {
            let value = if latency.count > 0 { number::ms(value, decimals) } else { UNKNOWN.to_owned() };
            let _ = write!(text, "{value:>cell$}");
        }
    }
    Line::plain(text)
}

/// Decimals that all latencies of a class are shown with, so that their points stand in line.
fn decimals(status: &ShadowExperimentStatus, class: ClassKey, columns: Columns) -> usize {
    let arms = status.arms.iter().map(|arm| &arm.latency);
    let all = std::iter::once(&status.production.latency).chain(arms);
    let longest_us = all.filter_map(|latency| latency.get(&class)).flat_map(|latency| columns.values(latency)).max();
    match longest_us.unwrap_or(0) {
        ..10_000_000 => 2,
        10_000_000..100_000_000 => 1,
        _ => 0,
    }
}

fn health(health: &Health) -> Line {
    let Health { lag, lost, diverged } = health;
    [lag, lost, diverged].into_iter().zip(HEALTH).fold(Line::default(), |line, ((meaning, text), (_, width))| {
        let margin = width.saturating_sub(console::measure_text_width(text));
        line.with(Meaning::Plain, " ".repeat(margin)).with(*meaning, text)
    })
}

/// Production has no lag and nothing to compare it with.
fn none() -> Health {
    let cell = || (Meaning::Plain, UNKNOWN.to_owned());
    Health { lag: cell(), lost: cell(), diverged: cell() }
}

fn health_of(arm: &ArmStatus) -> Health {
    let diverged: i64 = arm.divergence.values().sum();
    let marked = |bad: bool, meaning| if bad { meaning } else { Meaning::Plain };
    let lag = match arm.state {
        ArmState::Seeding => "seeding".to_owned(),
        _ => format!("{:.1} s", arm.lag.seconds),
    };
    Health {
        lag: (marked(arm.state == ArmState::CatchingUp, Meaning::Trouble), lag),
        lost: (marked(arm.exchanges.lost > 0, Meaning::Bad), number::count(arm.exchanges.lost.unsigned_abs())),
        diverged: (
            marked(diverged * DIVERGENCE_SEEN_FROM >= arm.compared.max(1), Meaning::Trouble),
            number::share(diverged, arm.compared),
        ),
    }
}

/// The row of an arm whose numbers do not count any more.
fn lost(arm: &ArmStatus, width: usize) -> Line {
    let role = match arm.role {
        ArmRole::Baseline => "without it nothing can be judged",
        ArmRole::Candidate => "it is out of the experiment",
    };
    let why = arm.message.as_deref().unwrap_or("it missed a part of the traffic");
    Line::plain(format!("{}{:width$}  ", " ".repeat(INDENT), shortened(&arm.name, width)))
        .with(Meaning::Bad, "lost")
        .with(Meaning::Plain, format!(": {why}; {role}"))
}
