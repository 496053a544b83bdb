//! Scripts of what production did and what the arm finished, and what starts when.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    capture::exchange::{Exchange, Outcome, StatementOutcome},
    shadow::{
        entry::Budget,
        statement::{
            footprint::{Access, Footprint, TableUse},
            rows::{KeyValue, RowKey},
        },
    },
    wire::backend::TransactionStatus,
};

const SHIFT: u64 = 1000;
const LIMIT: u64 = 10_000;
const NONE: [u64; 0] = [];

/// What an entry and its outcome take of the budget, bytes.
const BYTES: usize = 10;
const OUTCOME_BYTES: usize = 1000;

/// Session, production's begin and end, and the row of table `t` that is written, if any.
fn entry(id: u64, session: u64, begun_ns: u64, ended_ns: Option<u64>, row: Option<i64>) -> Arc<Entry> {
    let entry = unended(id, session, begun_ns, row);
    if let Some(ended_ns) = ended_ns {
        entry.exchange.outcome.set(Outcome { ended_ns, ..Outcome::default() }).unwrap();
    }
    Arc::new(entry)
}

/// The same, before production is done with it.
fn unended(id: u64, session: u64, begun_ns: u64, row: Option<i64>) -> Entry {
    let touches = row.map_or(Footprint::NOTHING, |value| {
        Footprint::Tables(vec![TableUse {
            table: "t".into(),
            rows: Some(RowKey { column: "id".into(), value: KeyValue::Whole(value) }.into()),
            access: Access::Write,
        }])
    });
    Entry {
        id,
        exchange: Arc::new(Exchange {
            session: SessionId(session),
            sequence: id,
            begun_ns,
            request: Bytes::new(),
            outcome: OnceLock::new(),
        }),
        statements: Vec::new(),
        writes: row.is_some(),
        touches,
        publishes: Footprint::NOTHING,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    }
}

fn order(entries: &[Arc<Entry>]) -> Order {
    let mut order = Order::new(SHIFT, LIMIT);
    for entry in entries {
        order.begun(entry);
    }
    order.known_until(u64::MAX);
    order
}

fn started(order: &mut Order, now_ns: u64) -> Vec<u64> {
    let mut actions = Vec::new();
    order.poll(now_ns, &mut actions);
    let mut ids: Vec<_> = actions
        .iter()
        .map(|a| match a {
            Action::Start { entry, .. } => entry.id,
            Action::Open(_) | Action::Close(_) => u64::MAX,
        })
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_write_waits_for_no_change_of_what_it_merely_reads() {
    for (access, expected) in [(Access::Read, &[2_u64][..]), (Access::Write, &[])] {
        // It began first and was answered last.
        let mut write = unended(2, 2, 100, Some(7));
        let change = entry(1, 1, 110, Some(120), Some(5));
        let Footprint::Tables(mut rows) = change.touches.clone() else { panic!() };
        for one in &mut rows {
            one.access = access;
        }
        write.touches.merge(&Footprint::Tables(rows));
        write.exchange.outcome.set(Outcome { ended_ns: 130, ..Outcome::default() }).unwrap();
        let mut order = order(&[change, Arc::new(write)]);
        // The change is not due yet.
        assert_eq!(started(&mut order, SHIFT + 100), expected, "{access:?}");
    }
}

#[test]
fn nothing_starts_before_it_is_due_and_sessions_keep_their_order() {
    let mut order = order(&[
        entry(1, 1, 100, Some(110), None),
        entry(2, 1, 120, Some(130), None),
        entry(3, 2, 115, Some(118), None),
    ]);
    assert_eq!(started(&mut order, 1099), NONE);
    assert_eq!(started(&mut order, 1100), [1]);
    assert_eq!(started(&mut order, 5000), [3]);
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5000), [2]);
}

#[test]
fn what_was_played_is_not_kept_for_a_session_that_stays() {
    let loaded = entry(1, 1, 100, Some(110), Some(7));
    let kept = Arc::downgrade(&loaded);
    let mut order = order(&[loaded]);
    assert_eq!(started(&mut order, 5000), [1]);
    order.finished(SessionId(1));
    assert!(kept.upgrade().is_none(), "its session may be idle for days");
}

#[test]
fn an_arm_that_answers_nothing_is_told_no_more_than_could_help_it() {
    let mut order = Order::new(SHIFT, LIMIT);
    assert!(order.needs_more(false), "nothing is here");
    order.begun(&entry(1, 1, 100, Some(300), None));
    order.known_until(150);
    assert!(!order.needs_more(false), "it waits for the clock");
    assert_eq!(started(&mut order, 5000), [1]);
    assert!(order.needs_more(false), "what it waits for may be told up to its end");
    order.known_until(300);
    assert!(order.needs_more(false), "whose lock it waits for may have been answered later");
    order.known_until(300 + ANSWERED_LATE_NS);
    assert!(!order.needs_more(false));
    order.finished(SessionId(1));
    assert!(order.needs_more(false), "nothing is left");
    let later_ns = ANSWERED_LATE_NS + 400;
    order.begun(&entry(2, 1, later_ns, Some(later_ns + 100), None));
    assert_eq!(started(&mut order, later_ns + 5000), NONE);
    assert!(order.needs_more(false), "it is due, and what production finished before it began is not known");
    order.hold_from(Some(200));
    assert!(!order.needs_more(false), "all before the hold is played");
}

/// A write of row 5 that found it, in a transaction that is still open or by itself.
fn found(id: u64, session: u64, begun_ns: u64, ended_ns: u64, in_transaction: bool) -> Arc<Entry> {
    found_row(id, session, begun_ns, ended_ns, in_transaction, 5)
}

fn found_row(id: u64, session: u64, begun_ns: u64, ended_ns: u64, in_transaction: bool, row: i64) -> Arc<Entry> {
    let outcome = Outcome {
        ended_ns,
        after: if in_transaction { TransactionStatus::InTransaction } else { TransactionStatus::Idle },
        statements: vec![StatementOutcome { tag_rows: Some(1), ..StatementOutcome::default() }],
        ..Outcome::default()
    };
    let mut entry = Arc::into_inner(entry(id, session, begun_ns, None, Some(row))).unwrap();
    let exchange = Arc::into_inner(entry.exchange).unwrap();
    entry.exchange = Arc::new(Exchange { outcome: OnceLock::from(outcome), ..exchange });
    Arc::new(entry)
}

#[test]
fn of_what_waits_behind_a_write_that_is_stuck_who_may_hold_its_lock_is_released() {
    // The second has locked a row that the first waits for, as far as PostgreSQL is concerned: nothing here tells of it.
    let (stuck, holder) = (entry(1, 1, 102, Some(210), Some(9)), found(2, 2, 101, 110, true));
    let (other, goes_on) = (entry(3, 3, 220, Some(221), None), entry(4, 2, 230, Some(240), None));
    let mut order = order(&[stuck, holder, other, goes_on]);
    assert_eq!(started(&mut order, 5000), [1, 2]);
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5001), NONE);
    assert_eq!(started(&mut order, 5001 + LIMIT + 420), [4]);
}

#[test]
fn everything_waits_for_a_write_that_production_had_finished_before_it_began() {
    let mut order = order(&[
        entry(1, 1, 100, Some(110), Some(5)),
        entry(2, 2, 111, Some(130), None),
        entry(3, 3, 109, Some(130), None),
    ]);
    assert_eq!(started(&mut order, 5000), [1, 3]);
    assert_eq!(started(&mut order, 5001), NONE);
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5002), [2]);
}

#[test]
fn overlapping_writes_of_one_row_start_in_the_order_in_which_production_finished_them() {
    // The second began first but was finished last: it waited for the first one's lock.
    let late = entry(1, 1, 100, Some(150), Some(5));
    let early = entry(2, 2, 101, Some(120), Some(5));
    let other_row = entry(3, 3, 102, Some(140), Some(6));
    let mut order = order(&[late, early, other_row]);
    assert_eq!(started(&mut order, 5000), [2, 3]);
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5000), [1]);
}

#[test]
fn a_write_waits_for_its_outcome_and_a_read_does_not() {
    let write = entry(1, 1, 100, None, Some(5));
    let mut order = order(&[Arc::clone(&write), entry(2, 2, 100, None, None)]);
    assert_eq!(started(&mut order, 5000), [2]);
    write.exchange.outcome.set(Outcome { ended_ns: 4000, ..Outcome::default() }).unwrap();
    order.ended(&write);
    assert_eq!(started(&mut order, 5001), [1]);
}

#[test]
fn nothing_starts_before_all_is_known_that_came_before_it() {
    let mut order = Order::new(SHIFT, LIMIT);
    order.begun(&entry(1, 1, 100, Some(110), None));
    order.known_until(99);
    assert_eq!(started(&mut order, 50_000), NONE);
    order.known_until(100);
    assert_eq!(started(&mut order, 50_000), [1]);
}

#[test]
fn behind_a_write_that_is_stuck_the_one_that_production_finished_first_is_released() {
    let mut order = order(&[
        entry(1, 1, 100, Some(110), Some(5)),
        entry(2, 2, 120, Some(140), Some(5)),
        entry(3, 3, 120, Some(130), None),
    ]);
    assert_eq!(started(&mut order, 5000), [1]);
    assert_eq!(started(&mut order, 5000 + LIMIT - 1), NONE);
    let mut actions = Vec::new();
    // On production it had taken 110 (from the epoch, since the outcome does not say otherwise).
    order.poll(5000 + LIMIT + 220, &mut actions);
    let [Action::Start { entry, released: true, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(entry.id, 3);
}

#[test]
fn a_read_that_is_stuck_lets_go_who_holds_its_lock_and_waits_for_what_is_behind_it() {
    // Session 2 alters, in a transaction, what session 1 reads. On production the read came first; here it waits for the
    // lock, the COMMIT for what session 1 wrote after its read, and that for the read.
    let read = entry(1, 1, 100, Some(150), None);
    let (altered, commit) = (found(2, 2, 140, 160, true), entry(5, 2, 200, Some(210), None));
    let (behind_it, other) = (entry(3, 1, 165, Some(180), Some(9)), entry(4, 3, 190, Some(195), None));
    let mut order = order(&[read, altered, behind_it, other, commit]);
    assert_eq!(started(&mut order, 5000), [1, 2]);
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5001), NONE);
    assert_eq!(started(&mut order, 5000 + LIMIT + 299), NONE);
    assert_eq!(started(&mut order, 5000 + LIMIT + 300), [5]);
}

#[test]
fn a_read_that_is_slow_lets_go_nobody_who_holds_nothing() {
    let read = entry(1, 1, 100, Some(150), None);
    let (behind_it, other) = (entry(3, 1, 165, Some(180), Some(9)), entry(4, 3, 190, Some(195), None));
    let mut order = order(&[read, behind_it, other]);
    assert_eq!(started(&mut order, 5000), [1]);
    assert_eq!(started(&mut order, 5000 + 10 * LIMIT), NONE);
}

#[test]
fn what_becomes_free_at_once_starts_as_production_began_it() {
    let mut order = order(&[
        entry(1, 1, 100, Some(110), Some(5)),
        entry(2, 3, 120, Some(150), None),
        entry(3, 2, 130, Some(150), None),
    ]);
    assert_eq!(started(&mut order, 5000), [1]);
    order.finished(SessionId(1));
    let mut actions = Vec::new();
    order.poll(5001, &mut actions);
    let ids: Vec<_> = actions.iter().map(|a| if let Action::Start { entry, .. } = a { entry.id } else { 0 }).collect();
    assert_eq!(ids, [2, 3]);
}

#[test]
fn what_production_itself_still_runs_asks_for_more_only_where_nothing_goes_on() {
    let mut order = order(&[entry(1, 1, 100, None, None)]);
    assert_eq!(started(&mut order, 5000), [1]);
    assert!(!order.needs_more(false) && order.needs_more(true));
}

#[test]
fn what_is_held_is_given_back_whole_whenever_its_outcome_became_known() {
    let budget = Budget::new(1 << 20);
    let charged = |id: u64, ended_ns| {
        let Ok(entry) = Arc::try_unwrap(entry(id, id, 100 * id, ended_ns, None)) else { panic!() };
        Arc::new(Entry { charge: budget.charge(BYTES), ..entry })
    };
    // The first stays; of the others the outcome is taken in before they are told, and after that.
    let (stays, before, after) = (charged(1, None), charged(2, Some(210)), charged(3, Some(310)));
    before.taken_in.set(budget.charge(OUTCOME_BYTES)).unwrap();
    let mut order = order(&[stays, before, Arc::clone(&after)]);
    assert_eq!(order.held_bytes(), 3 * BYTES + OUTCOME_BYTES);
    after.taken_in.set(budget.charge(OUTCOME_BYTES)).unwrap();
    order.ended(&after);
    assert_eq!(order.held_bytes(), 3 * BYTES + 2 * OUTCOME_BYTES);
    assert_eq!(started(&mut order, 5000), [1, 2, 3]);
    order.finished(SessionId(2));
    order.finished(SessionId(3));
    assert_eq!(order.held_bytes(), BYTES);
}

#[test]
fn an_arm_that_is_far_behind_is_not_stuck() {
    let far_behind = 50 * LIMIT;
    let mut order = order(&[entry(1, 1, 100, Some(110), Some(5)), entry(2, 2, 120, Some(130), Some(5))]);
    assert_eq!(started(&mut order, far_behind), [1]);
    assert_eq!(started(&mut order, far_behind + LIMIT - 1), NONE);
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, far_behind + LIMIT), [2]);
}

#[test]
fn a_session_is_closed_when_all_of_it_has_been_played() {
    let mut order = order(&[entry(1, 1, 100, Some(110), None)]);
    assert!(order.closed(SessionId(1)).is_none());
    assert_eq!(started(&mut order, 5000), [1]);
    assert!(matches!(order.finished(SessionId(1)), Some(Action::Close(SessionId(1)))));
    assert!(matches!(order.closed(SessionId(9)), Some(Action::Close(SessionId(9)))));
}

#[test]
fn a_hold_lets_everything_before_it_through_and_nothing_after() {
    let mut order = order(&[entry(1, 1, 100, Some(110), None), entry(2, 2, 200, Some(210), None)]);
    order.hold_from(Some(150));
    assert_eq!(started(&mut order, 5000), [1]);
    assert!(!order.has_reached(150));
    order.finished(SessionId(1));
    assert!(order.has_reached(150));
    assert_eq!(started(&mut order, 5000), NONE);
    order.hold_from(None);
    assert_eq!(started(&mut order, 5000), [2]);
}

#[test]
fn something_may_start_before_a_moment_where_it_is_due_by_then_or_waits_for_another() {
    let mut order = order(&[entry(1, 1, 100, Some(110), None)]);
    assert!(!order.may_start_before(100 + SHIFT) && order.may_start_before(101 + SHIFT));
    order.hold_from(Some(50));
    assert_eq!(started(&mut order, 100 + SHIFT), NONE);
    assert!(order.may_start_before(0), "it waits for the hold");
    order.hold_from(None);
    assert_eq!(started(&mut order, 100 + SHIFT), [1]);
    assert!(!order.may_start_before(u64::MAX), "it runs");
}

#[test]
fn lag_is_what_is_captured_and_not_finished() {
    let mut order = order(&[entry(1, 1, 100, Some(110), None), entry(2, 2, 200, Some(210), None)]);
    assert_eq!((order.outstanding(), order.oldest_ns()), (2, Some(100)));
    assert_eq!(started(&mut order, 5000), [1, 2]);
    order.finished(SessionId(1));
    assert_eq!((order.outstanding(), order.oldest_ns()), (1, Some(200)));
}

#[test]
fn an_arm_is_behind_with_what_production_has_done_and_not_with_what_it_still_runs() {
    let report = entry(1, 1, 100, None, None);
    let mut order = Order::new(SHIFT, LIMIT);
    assert_eq!(order.level_ns(), None, "nothing has been told");
    order.begun(&report);
    order.known_until(90_000);
    assert_eq!(order.level_ns(), Some(90_000));
    order.begun(&entry(2, 2, 200, Some(300), None));
    assert_eq!(order.level_ns(), Some(300));
    assert_eq!(started(&mut order, 90_000), [1, 2]);
    order.finished(SessionId(2));
    assert_eq!(order.level_ns(), Some(90_000));
    report.exchange.outcome.set(Outcome { ended_ns: 95_000, ..Outcome::default() }).unwrap();
    order.ended(&report);
    order.known_until(99_000);
    assert_eq!(order.level_ns(), Some(95_000), "now it is");
    order.finished(SessionId(1));
    assert_eq!(order.level_ns(), Some(99_000));
}

#[test]
fn what_production_takes_too_long_for_holds_up_no_interval() {
    use crate::shadow::measured::LONGEST_NS;
    let open = entry(1, 1, 100, None, None);
    let mut order = order(&[open, entry(2, 2, 200, Some(201 + LONGEST_NS), None), entry(3, 3, 300, None, None)]);
    order.known_ns = 100 + LONGEST_NS;
    assert_eq!(order.oldest_measured_ns(), Some(100), "it may end yet");
    order.known_ns += 1;
    assert_eq!(order.oldest_measured_ns(), Some(200));
    order.known_ns += 100;
    assert_eq!((order.oldest_measured_ns(), order.oldest_ns()), (Some(300), Some(100)));
}

#[test]
fn a_write_whose_outcome_is_seen_early_waits_for_the_news_of_what_ended_before_it() {
    // Both write the same row and run for longer than the shift. The later one's outcome is visible
    // here although neither end has been told: production's thread has just set it.
    let first = entry(1, 1, 0, None, Some(7));
    let second = entry(2, 2, 10, Some(5000), Some(7));
    let mut order = Order::new(SHIFT, LIMIT);
    order.begun(&first);
    order.begun(&second);
    order.known_until(4000);
    let mut actions = Vec::new();
    order.poll(5001, &mut actions);
    assert!(actions.is_empty(), "{actions:?}");
    first.exchange.outcome.set(Outcome { ended_ns: 4900, ..Outcome::default() }).unwrap();
    order.ended(&first);
    order.ended(&second);
    order.known_until(5000);
    order.poll(5002, &mut actions);
    assert!(matches!(&actions[..], [Action::Start { entry, .. }] if entry.id == 1), "{actions:?}");
}

mod circle;
mod history;
mod late;
mod locks;
mod room;
