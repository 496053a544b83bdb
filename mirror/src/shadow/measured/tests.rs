//! Outcomes on both sides and the samples they become.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use bytes::Bytes;
use understudy_crds::{experiment::StatementClass, status::ClassKey};

use super::*;
use crate::{
    capture::exchange::{Exchange, SessionId, StatementOutcome},
    measure::{
        interval::{ArmInterval, Fingerprint},
        recorder::Observing,
    },
    shadow::{
        entry::{Answer, Budget, PlannedStatement},
        statement::footprint::Footprint,
    },
};

/// An exchange that began at 1 ms, with two reads.
fn entry() -> Entry {
    let planned =
        PlannedStatement { class: StatementClass::Read, fingerprint: Fingerprint(1), answer: Answer::Definite };
    Entry {
        id: 1,
        exchange: Arc::new(Exchange {
            session: SessionId(1),
            sequence: 0,
            begun_ns: 1_000_000,
            request: Bytes::new(),
            outcome: OnceLock::new(),
        }),
        statements: vec![planned; 2],
        writes: false,
        touches: Footprint::NOTHING,
        publishes: Footprint::NOTHING,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    }
}

/// Served from one moment; its statements end at others, µs; the first may fail.
fn outcome(from_us: u64, ends_us: &[u64], error: Option<&[u8; 5]>) -> Outcome {
    let statements = ends_us.iter().enumerate().map(|(index, end_us)| StatementOutcome {
        ended_ns: end_us * 1000,
        error: error.copied().filter(|_| index == 0),
        ..StatementOutcome::default()
    });
    Outcome { served_from_ns: from_us * 1000, statements: statements.collect(), ..Outcome::default() }
}

fn recorded(production: &Outcome, arm: &Outcome) -> (ArmInterval, ArmInterval) {
    let observing = Observing { from_ns: 0, interval_ns: 10_000_000 };
    let (mut ours, mut theirs) = (Recorder::default(), Recorder::default());
    ours.observe(observing);
    theirs.observe(observing);
    record_production(&mut theirs, &entry(), production);
    // Due a second after production began it.
    record_arm(&mut ours, &entry(), production, arm, 1_001_000_000);
    (theirs.take(0), ours.take(0))
}

#[test]
fn service_time_is_from_the_end_of_the_statement_before_and_response_time_from_when_it_was_due() {
    let production = outcome(1_000, &[1_100, 1_300], None);
    let arm = outcome(1_001_500, &[1_001_700, 1_001_800], None);
    let (theirs, ours) = recorded(&production, &arm);
    let read = StatementClass::Read;
    let times = |h: &hdrhistogram::Histogram<u64>| (h.min(), h.max());
    assert_eq!(times(&theirs.service[&read]), (100, 200));
    assert_eq!(times(&theirs.response[&read]), (100, 300));
    assert_eq!(times(&ours.service[&read]), (100, 200));
    assert_eq!(times(&ours.response[&read]), (700, 800), "the 500 us that the arm was late count");
    assert_eq!(times(&ours.ratio_permille[&read]), (500, 2000));
    assert_eq!(times(&theirs.ratio_permille[&read]), (1000, 1000));
}

#[test]
fn what_production_excludes_is_excluded_on_the_arm_too() {
    let arm = outcome(1_001_000, &[1_001_100, 1_001_200], None);
    for (error, errors, cancelled) in [(b"57014", 0, 1), (b"23505", 1, 0)] {
        let (theirs, ours) = recorded(&outcome(1_000, &[1_100, 1_300], Some(error)), &arm);
        for side in [&theirs, &ours] {
            assert_eq!((side.errors, side.cancelled), (errors, cancelled));
            assert_eq!(side.service[&StatementClass::Read].len(), 1);
        }
    }
}

#[test]
fn an_outcome_that_broke_off_is_not_measured_on_either_side() {
    let arm = outcome(1_001_000, &[1_001_100], None);
    let broken = Outcome { broken: true, ..outcome(1_000, &[1_100], None) };
    let (theirs, ours) = recorded(&broken, &arm);
    assert!(theirs.service.is_empty() && ours.service.is_empty());
}

#[test]
fn what_took_production_too_long_is_counted_and_in_no_interval() {
    let mut recorder = Recorder::default();
    recorder.observe(Observing { from_ns: 0, interval_ns: 10_000_000 });
    let production = Outcome { ended_ns: 1_000_001 + LONGEST_NS, ..outcome(1_000, &[1_100, 1_300], None) };
    record_production(&mut recorder, &entry(), &production);
    assert_eq!((recorder.too_long(), recorder.take(0).service.len()), (2, 0));
}

#[test]
fn times_before_observation_are_totals_in_microseconds() {
    let mut recorder = Recorder::default();
    record_production(&mut recorder, &entry(), &outcome(1_000, &[1_100, 1_300], None));
    assert_eq!(recorder.latency()[&ClassKey::Read].count, 2);
    assert_eq!(recorder.latency()[&ClassKey::Read].p99_us, 200);
}

#[test]
fn what_a_client_asks_for_when_it_has_read_answers_in_the_middle_of_an_exchange_is_not_measured() {
    let message = crate::wire::encode::message_bytes;
    let (execute, flush, sync) = (message(b'E', b"\0\0\0\0\0"), message(b'H', b""), message(b'S', b""));
    let production = outcome(1_000, &[1_100, 1_300], None);
    for (request, pipelined) in [
        ([&execute[..], &flush, &execute, &sync].concat(), 2),
        ([&execute[..], &execute, &flush, &sync].concat(), 0),
        ([&message(b'P', b"\0\0\0\0")[..], &flush, &execute, &flush, &execute, &sync].concat(), 2),
        // What it has only prepared takes nobody's time.
        ([&message(b'P', b"\0\0\0\0")[..], &flush, &execute, &execute, &sync].concat(), 0),
    ] {
        let mut recorder = Recorder::default();
        recorder.observe(Observing { from_ns: 0, interval_ns: 10_000_000 });
        let exchange = Exchange {
            session: SessionId(1),
            sequence: 0,
            begun_ns: 1_000_000,
            request: request.into(),
            outcome: OnceLock::new(),
        };
        record_production(&mut recorder, &Entry { exchange: Arc::new(exchange), ..entry() }, &production);
        assert_eq!(recorder.pipelined(), pipelined);
    }
}
