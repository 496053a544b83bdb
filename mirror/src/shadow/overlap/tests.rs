//! Reads and changes side by side, and which reads may have seen either state.

use std::sync::{OnceLock, atomic::AtomicBool};

use bytes::Bytes;
use understudy_crds::experiment::StatementClass;

use super::*;
use crate::{
    capture::exchange::{Exchange, Outcome},
    measure::interval::Fingerprint,
    shadow::{
        entry::{Budget, PlannedStatement},
        statement::footprint::{Access, TableUse},
    },
};

fn on(table: &str, writes: bool) -> Footprint {
    let access = if writes { Access::Write } else { Access::Read };
    Footprint::Tables(vec![TableUse { table: table.into(), rows: None, access }])
}

fn entry(id: u64, session: u64, begun_ns: u64, table: &str, writes: bool) -> Arc<Entry> {
    let exchange = Exchange {
        session: SessionId(session),
        sequence: id,
        begun_ns,
        request: Bytes::new(),
        outcome: OnceLock::new(),
    };
    Arc::new(Entry {
        id,
        exchange: Arc::new(exchange),
        statements: Vec::new(),
        writes,
        touches: on(table, writes),
        publishes: if writes { on(table, true) } else { Footprint::NOTHING },
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    })
}

fn end(overlaps: &mut Overlaps, entry: &Arc<Entry>, ended_ns: u64) {
    entry.exchange.outcome.set(Outcome { ended_ns, ..Outcome::default() }).unwrap();
    overlaps.ended(entry);
}

/// As `INSERT … VALUES`, outside a transaction.
fn adding(id: u64, session: u64, begun_ns: u64, table: &str) -> Arc<Entry> {
    let touches = Footprint::Tables(vec![TableUse { table: table.into(), rows: None, access: Access::Insert }]);
    let entry = Arc::into_inner(entry(id, session, begun_ns, table, true)).unwrap();
    Arc::new(Entry { publishes: touches.clone(), touches, ..entry })
}

#[test]
fn which_of_two_that_add_rows_at_once_is_first_is_chance() {
    for (other, expected) in [
        (adding(2, 2, 150, "t"), true),
        (adding(2, 2, 150, "u"), false),
        (adding(2, 1, 150, "t"), false),
        (entry(2, 2, 150, "t", true), false),
    ] {
        let (mut overlaps, first) = (Overlaps::default(), adding(1, 1, 100, "t"));
        overlaps.begun(&first);
        overlaps.begun(&other);
        end(&mut overlaps, &other, 160);
        end(&mut overlaps, &first, 200);
        assert_eq!(first.overlapped.load(Ordering::Relaxed), expected, "{other:?}");
    }
    let (mut overlaps, first, behind) = (Overlaps::default(), adding(1, 1, 100, "t"), adding(2, 2, 250, "t"));
    overlaps.begun(&first);
    end(&mut overlaps, &first, 200);
    overlaps.begun(&behind);
    end(&mut overlaps, &behind, 300);
    assert!(![first, behind].iter().any(|entry| entry.overlapped.load(Ordering::Relaxed)), "one after the other");
}

#[test]
fn a_read_is_ambiguous_when_a_change_of_what_it_reads_overlapped_it() {
    // The change of table t runs from 100 to 200 in session 1. Reads: session, begin, end, table.
    for (session, begun, ended, table, expected) in [
        (2, 150, 160, "t", true),
        (2, 50, 100, "t", true),
        (2, 200, 300, "t", true),
        (2, 50, 99, "t", false),
        (2, 201, 300, "t", false),
        (2, 150, 160, "u", false),
        (1, 150, 160, "t", false),
    ] {
        let mut overlaps = Overlaps::default();
        let change = entry(1, 1, 100, "t", true);
        let read = entry(2, session, begun, table, false);
        for moment in 0..=300 {
            if moment == 100 {
                overlaps.begun(&change);
            }
            if moment == begun {
                overlaps.begun(&read);
            }
            if moment == 200 {
                end(&mut overlaps, &change, 200);
            }
            if moment == ended {
                end(&mut overlaps, &read, ended);
            }
        }
        assert_eq!(read.is_ambiguous(), expected, "{session} {begun} {ended} {table}");
    }
}

/// As `INSERT INTO u SELECT … FROM t`: it sees what was there when it began, or a little later.
#[test]
fn a_write_is_ambiguous_when_a_change_of_what_it_merely_reads_overlapped_it() {
    for (table, begun_ns, expected) in [("t", 150, true), ("u", 150, false), ("v", 150, false), ("t", 250, false)] {
        let (mut overlaps, change) = (Overlaps::default(), entry(1, 1, begun_ns, table, true));
        let mut reads = Arc::into_inner(entry(2, 2, 100, "u", true)).unwrap();
        reads.touches.merge(&on("t", false));
        let reads = Arc::new(reads);
        overlaps.begun(&reads);
        if begun_ns > 200 {
            end(&mut overlaps, &reads, 200);
        }
        overlaps.begun(&change);
        end(&mut overlaps, &change, begun_ns + 10);
        if begun_ns < 200 {
            end(&mut overlaps, &reads, 200);
        }
        assert_eq!(reads.is_ambiguous(), expected, "{table} {begun_ns}");
        assert!(!change.is_ambiguous(), "nothing is read there");
    }
}

#[test]
fn a_request_that_came_in_parts_may_have_seen_a_change_that_is_forgotten() {
    let mut overlaps = Overlaps::default();
    let change = entry(1, 1, 100, "t", true);
    overlaps.begun(&change);
    end(&mut overlaps, &change, 200);
    overlaps.forget_before(300);
    // Its first byte came at 50, and it was whole, and told, at 310.
    for (id, begun_ns, expected) in [(2, 50, true), (3, 200, true), (4, 201, false)] {
        let read = entry(id, 2, begun_ns, "t", false);
        overlaps.begun(&read);
        end(&mut overlaps, &read, 320);
        assert_eq!(read.is_ambiguous(), expected, "{begun_ns}");
    }
}

#[test]
fn a_read_that_runs_for_hours_neither_keeps_the_requests_of_all_changes_nor_their_number() {
    let mut overlaps = Overlaps::default();
    let budget = Budget::new(0);
    let long = entry(0, 1, 0, "u", false);
    overlaps.begun(&long);
    for id in 1..=2 * MAX_CHANGES as u64 {
        let mut change = entry(id, 2, id, "t", true);
        Arc::get_mut(&mut change).unwrap().charge = budget.charge(1000);
        overlaps.begun(&change);
        end(&mut overlaps, &change, id);
        overlaps.forget_before(0);
    }
    assert_eq!(budget.used_bytes(), 0, "what has ended is not held");
    assert_eq!(overlaps.ended.len(), MAX_CHANGES);
    end(&mut overlaps, &long, 3 * MAX_CHANGES as u64);
    assert!(long.is_ambiguous(), "what is forgotten may have been a change of what it read");
    overlaps.forget_before(u64::MAX);
    assert!(overlaps.ended.is_empty());
}

#[test]
fn a_read_that_calls_what_nobody_knows_is_ambiguous_where_a_write_is_not() {
    use Answer::{Called, Definite};
    for (beside, answer, expected) in [(Definite, Called, true), (Called, Called, false), (Definite, Definite, false)] {
        let mut overlaps = Overlaps::default();
        let (mut change, mut call) = (entry(1, 1, 100, "t", true), entry(2, 2, 90, "t", true));
        let statement = |answer| {
            let (class, fingerprint) = (StatementClass::Write, Fingerprint(1));
            vec![PlannedStatement { class, fingerprint, answer }]
        };
        Arc::get_mut(&mut change).unwrap().statements = statement(beside);
        Arc::get_mut(&mut call).unwrap().statements = statement(answer);
        overlaps.begun(&call);
        overlaps.begun(&change);
        end(&mut overlaps, &change, 110);
        end(&mut overlaps, &call, 120);
        assert_eq!(call.is_ambiguous(), expected, "{answer:?} beside {beside:?}");
    }
}
