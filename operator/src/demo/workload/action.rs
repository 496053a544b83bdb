//! What a client does at an arrival: chosen from a seeded random number, without I/O.
//!
//! A choice depends on the seed, the session and the number of the arrival alone, never on what the
//! server answered or how long it took.

use std::ops::RangeInclusive;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{SESSIONS, arrivals::mix, role::Role};
use crate::demo::dataset::{ACCOUNTS, EVENT_TYPES, LAST_EVENT_S, USERS};

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// Simple query: text with the values in it.
    Simple,
    /// Extended, unnamed statement, prepared anew each time.
    Unnamed,
    /// Extended, named statement, prepared once in a session.
    Named,
}

/// A stretch of time, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// First second.
    pub from_s: i64,
    /// The second after the last.
    pub to_s: i64,
}

/// What a panel of a dashboard shows about one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Panel {
    /// Events by day.
    Daily,
    /// Number, sum and last of the events.
    Totals,
    /// The ten most frequent pages.
    TopPages,
    /// Events by country.
    Countries,
}

/// A question about one user's events of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// The user.
    pub user: i32,
    /// The type of the events.
    pub event_type: &'static str,
    /// When they happened.
    pub window: Window,
}

/// An event that a client sends in. Its key and its time are given by the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewEvent {
    /// Whose event it is.
    pub user: i32,
    /// Its type.
    pub event_type: &'static str,
    /// Its properties, JSON.
    pub properties: String,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// One panel, and the user whose it is.
    Panel { panel: Panel, question: Question, protocol: Protocol },
    /// Two panels at once, their statements pipelined on one connection.
    TwoPanels { question: Question },
    /// Several event types in one statement.
    Breakdown { user: i32, event_types: [&'static str; 2], window: Window },
    /// Events of all users by day: what an index that begins with the user does nothing for.
    Trend { event_type: &'static str, window: Window },
    /// A list of events, then some of them by key, then the user.
    DrillDown { question: Question, details: usize, protocol: Protocol },
    /// Pages through a list with a row limit (a suspended portal), in a read-only transaction.
    Page { question: Question, rows: i32, pages: usize },
    /// The same with a cursor of SQL.
    Cursor { question: Question, rows: i32, pages: usize },
    /// A batch of events in a transaction, with the account's counter.
    Ingest { events: Vec<NewEvent>, account: i32, protocol: Protocol },
    /// The same, given up at the end.
    IngestAndRollBack { events: Vec<NewEvent>, account: i32 },
    /// A batch by `COPY`.
    Import { events: Vec<NewEvent> },
    /// Sends an event again that the server has already: a unique violation and a rollback.
    Retry { event: NewEvent },
    /// Reads and locks a user, then changes the plan.
    ChangePlan { user: i32, plan: &'static str, protocol: Protocol },
    /// Changes a setting of a user by key.
    ChangeTheme { user: i32, theme: &'static str },
    /// Saves a report: an upsert.
    SaveReport { user: i32, slug: &'static str },
}

impl Action {
    /// What it is, in a word or two.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Panel { .. } => "panel",
            Self::TwoPanels { .. } => "two panels",
            Self::Breakdown { .. } => "breakdown",
            Self::Trend { .. } => "trend",
            Self::DrillDown { .. } => "drill-down",
            Self::Page { .. } => "paging",
            Self::Cursor { .. } => "cursor",
            Self::Ingest { .. } => "ingestion",
            Self::IngestAndRollBack { .. } => "ingestion given up",
            Self::Import { .. } => "import",
            Self::Retry { .. } => "retry",
            Self::ChangePlan { .. } => "change of plan",
            Self::ChangeTheme { .. } => "change of theme",
            Self::SaveReport { .. } => "saving a report",
        }
    }
}

const PLANS: [&str; 3] = ["free", "team", "business"];
const THEMES: [&str; 2] = ["light", "dark"];
const SLUGS: [&str; 4] = ["weekly", "monthly", "retention", "revenue"];
/// Days that panels look back, the most frequent more than once.
const PANEL_DAYS: [i64; 8] = [1, 2, 2, 2, 3, 3, 4, 5];
/// Days that trends of all users look back.
const TREND_DAYS: [i64; 3] = [1, 1, 2];
/// Days that lists look back.
const LIST_DAYS: [i64; 4] = [1, 2, 3, 7];

/// What session `session` does at its arrival `index`.
pub(super) fn choose(seed: u64, session: u32, index: u64) -> Action {
    let mut rng = StdRng::seed_from_u64(mix(mix(seed, u64::from(session)), index));
    let rng = &mut rng;
    let roll = rng.random_range(0..100);
    match Role::of(session) {
        Role::Dashboard => match roll {
            0..10 => Action::TwoPanels { question: question(rng, PANEL_DAYS) },
            10..20 => breakdown(rng),
            20..42 => Action::Trend { event_type: event_type(rng), window: window(rng, TREND_DAYS) },
            _ => Action::Panel {
                panel: pick(rng, [Panel::Daily, Panel::Totals, Panel::TopPages, Panel::Countries]),
                question: question(rng, PANEL_DAYS),
                protocol: protocol(rng),
            },
        },
        Role::DrillDown => match roll {
            0..8 => Action::Page {
                question: question(rng, LIST_DAYS),
                rows: 20,
                pages: usize::from(rng.random::<bool>()) + 1,
            },
            8..12 => Action::Cursor { question: question(rng, LIST_DAYS), rows: 25, pages: 2 },
            _ => Action::DrillDown {
                question: question(rng, LIST_DAYS),
                details: rng.random_range(2..=5),
                protocol: protocol(rng),
            },
        },
        Role::Ingest => match roll {
            0..4 => Action::IngestAndRollBack { events: new_events(rng, session, 2..=6), account: account(rng) },
            _ => Action::Ingest {
                events: new_events(rng, session, 3..=12),
                account: account(rng),
                protocol: protocol(rng),
            },
        },
        Role::Profile => match roll {
            0..45 => Action::ChangePlan { user: owned(rng, session), plan: pick(rng, PLANS), protocol: protocol(rng) },
            45..70 => Action::ChangeTheme { user: owned(rng, session), theme: pick(rng, THEMES) },
            _ => Action::SaveReport { user: owned(rng, session), slug: pick(rng, SLUGS) },
        },
        Role::BackOffice => match roll {
            0..35 => Action::Import { events: new_events(rng, session, 20..=60) },
            35..70 => Action::Retry { event: new_event(rng, session) },
            _ => Action::Cursor { question: question(rng, LIST_DAYS), rows: 50, pages: 3 },
        },
    }
}

#[expect(clippy::indexing_slicing, reason = "the index is drawn from the array's own range")]
fn pick<T: Copy, const N: usize>(rng: &mut StdRng, of: [T; N]) -> T {
    const { assert!(N > 0) };
    of[rng.random_range(0..N)]
}

fn protocol(rng: &mut StdRng) -> Protocol {
    match rng.random_range(0..10) {
        0..4 => Protocol::Simple,
        4..6 => Protocol::Unnamed,
        _ => Protocol::Named,
    }
}

/// A user, the most active ones far more often than their share of the data: their dashboards are
/// the ones that people have open. The sixth power of a uniform number.
fn popular(rng: &mut StdRng) -> i32 {
    let u = u128::from(rng.random::<u16>());
    let user = 1 + ((u.pow(6) * u128::from(USERS)) >> 96);
    i32::try_from(user).unwrap_or(1)
}

/// A user that no other session writes, so that what is written does not hang on who came first.
fn owned(rng: &mut StdRng, session: u32) -> i32 {
    let user = rng.random_range(0..USERS / SESSIONS) * SESSIONS + session + 1;
    i32::try_from(user).unwrap_or(1)
}

fn account(rng: &mut StdRng) -> i32 {
    i32::try_from(rng.random_range(1..=ACCOUNTS)).unwrap_or(1)
}

/// Types as often as they occur in the data.
fn event_type(rng: &mut StdRng) -> &'static str {
    let [page_view, click, search, signup, purchase] = EVENT_TYPES;
    match rng.random_range(0..10) {
        0..4 => page_view,
        4..7 => click,
        7 => search,
        8 => signup,
        _ => purchase,
    }
}

/// Whole days that end with one of the last days of the data. What clients send in is later, so that
/// no answer hangs on how a read and a write happened to meet.
fn window<const N: usize>(rng: &mut StdRng, days: [i64; N]) -> Window {
    let to_s = LAST_EVENT_S - rng.random_range(0..3) * 86_400;
    Window { from_s: to_s - pick(rng, days) * 86_400, to_s }
}

fn question<const N: usize>(rng: &mut StdRng, days: [i64; N]) -> Question {
    Question { user: popular(rng), event_type: event_type(rng), window: window(rng, days) }
}

fn breakdown(rng: &mut StdRng) -> Action {
    let [_, _, search, signup, purchase] = EVENT_TYPES;
    let event_types = pick(rng, [[search, purchase], [signup, purchase], [search, signup]]);
    Action::Breakdown { user: popular(rng), event_types, window: window(rng, PANEL_DAYS) }
}

fn new_event(rng: &mut StdRng, session: u32) -> NewEvent {
    let (page, ms) = (rng.random_range(0..800), rng.random_range(0..512));
    let country = pick(rng, ["DE", "FR", "JP", "US"]);
    let properties = format!("{{\"page\": \"/p/{page}\", \"ms\": {ms}, \"country\": \"{country}\"}}");
    NewEvent { user: owned(rng, session), event_type: event_type(rng), properties }
}

fn new_events(rng: &mut StdRng, session: u32, count: RangeInclusive<usize>) -> Vec<NewEvent> {
    (0..rng.random_range(count)).map(|_| new_event(rng, session)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(session: u32) -> impl Iterator<Item = Action> {
        (0..2_000).map(move |index| choose(11, session, index))
    }

    #[test]
    fn the_same_arrival_always_does_the_same() {
        for session in 0..SESSIONS {
            assert_eq!(choose(11, session, 40), choose(11, session, 40));
        }
        assert!(all(0).zip(all(1)).any(|(a, b)| a != b));
    }

    #[test]
    fn every_kind_of_action_and_protocol_occurs() {
        let kinds: HashSet<_> = (0..SESSIONS).flat_map(all).map(|action| std::mem::discriminant(&action)).collect();
        assert_eq!(kinds.len(), 14);
        let protocols: HashSet<_> = all(0)
            .filter_map(|action| match action {
                Action::Panel { protocol, .. } => Some(protocol),
                _ => None,
            })
            .collect();
        assert_eq!(protocols.len(), 3);
    }

    #[test]
    fn sessions_never_write_the_same_user_or_event_owner() {
        let mut owner = std::collections::HashMap::new();
        for session in 0..SESSIONS {
            for action in all(session) {
                let users = match action {
                    Action::ChangePlan { user, .. }
                    | Action::ChangeTheme { user, .. }
                    | Action::SaveReport { user, .. } => vec![user],
                    Action::Ingest { events, .. } | Action::Import { events } => {
                        events.iter().map(|event| event.user).collect()
                    }
                    _ => vec![],
                };
                for user in users {
                    assert!((1..=50_000).contains(&user));
                    assert_eq!(*owner.entry(user).or_insert(session), session, "user {user}");
                }
            }
        }
    }

    #[test]
    fn reads_stay_within_the_data_that_was_loaded() {
        for action in (0..SESSIONS).flat_map(all) {
            let (Action::Panel { question, .. } | Action::DrillDown { question, .. }) = action else { continue };
            let Window { from_s, to_s } = question.window;
            assert!(crate::demo::dataset::FIRST_EVENT_S <= from_s && from_s < to_s && to_s <= LAST_EVENT_S);
            assert!((1..=50_000).contains(&question.user));
        }
    }
}
