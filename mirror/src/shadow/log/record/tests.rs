//! What is written is read again, to the byte as it was when the format got its version.

use understudy_crds::{condition::SkipReason, experiment::StatementClass};

use super::*;
use crate::{
    capture::exchange::StatementOutcome,
    measure::interval::Fingerprint,
    shadow::{
        entry::Answer,
        statement::{
            footprint::{Access, TableUse},
            rows::{KeyValue, RowKey},
        },
    },
    wire::backend::TransactionStatus,
};

fn begun() -> Begun {
    let rows = Some(RowKey { column: "id".into(), value: KeyValue::Whole(-7) }.into());
    let touches = Footprint::Tables(vec![TableUse { table: "t".into(), rows, access: Access::Write }]);
    Begun {
        id: 300,
        session: 2,
        sequence: 1,
        begun_ns: 1000,
        request: Bytes::from_static(b"Q\0\0\0\x05\0"),
        statements: vec![PlannedStatement {
            class: StatementClass::Write,
            fingerprint: Fingerprint(9),
            answer: Answer::Definite,
        }],
        writes: true,
        touches,
        publishes: Footprint::Anything,
        beginnings: true,
        skip: Some(Skip { reason: SkipReason::SideEffect, changes: true }),
    }
}

fn outcome() -> Outcome {
    Outcome {
        served_from_ns: 1000,
        ended_ns: 3000,
        statements: vec![StatementOutcome {
            ended_ns: 3000,
            tag_rows: Some(1),
            rows: 0,
            digest: 5,
            lasting: 6,
            error: Some(*b"23505"),
        }],
        parsed: 1,
        before: TransactionStatus::Idle,
        after: TransactionStatus::Failed,
        copy_in: Bytes::from_static(b"x\n"),
        broken: false,
    }
}

fn records() -> Vec<Record> {
    let startup = Startup { protocol: 196_608, parameters: vec![("user".into(), "ann".into())] };
    vec![
        Record::SessionOpened(2, startup, 41),
        Record::Begun(begun()),
        Record::Ended(300, true, outcome()),
        Record::SessionClosed(2),
        Record::KnownUntil(4000),
    ]
}

#[test]
fn the_format_is_what_version_7_says() {
    let hex = |record: &Record| {
        let bytes = record.write(Vec::new()).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let written: Vec<_> = records().iter().map(hex).collect();
    let golden = include_str!("version_7.txt");
    assert_eq!(written.join("\n"), golden.trim_end(), "the format has changed: it needs a new version");
}

#[test]
fn what_is_written_is_read_again() {
    let mut bytes = Vec::new();
    for record in records() {
        bytes = record.write(bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    for expected in records() {
        let (record, behind) = Record::read(rest).unwrap();
        assert_eq!(record, expected);
        rest = behind;
    }
    assert!(rest.is_empty());
}

fn shared(budget: &Arc<Budget>) -> Arc<Entry> {
    Arc::new(entry(begun(), budget))
}

fn ended(entry: &Arc<Entry>) -> LogEvent {
    entry.exchange.outcome.set(outcome()).unwrap();
    entry.overlapped.store(true, Ordering::Relaxed);
    entry.taken_in.set(entry.charge.budget().charge(0)).unwrap();
    LogEvent::Ended(Arc::clone(entry))
}

#[test]
fn an_exchange_is_one_wherever_its_beginning_and_its_end_were_told() {
    for (begun_on_disk, ended_on_disk) in [(false, false), (false, true), (true, false), (true, true)] {
        let budget = Budget::new(1 << 20);
        let original = shared(&budget);
        let began = LogEvent::Begun(Arc::clone(&original));
        let mut resolver = Resolver::default();
        let told = if begun_on_disk { resolver.read(Record::of(&began), &budget) } else { resolver.shared(&began) };
        let Some(LogEvent::Begun(own)) = told else { panic!() };
        assert_eq!(Arc::ptr_eq(&own, &original), !begun_on_disk);
        assert_eq!(Record::of(&LogEvent::Begun(Arc::clone(&own))), Record::of(&began));
        let end = ended(&original);
        let told = if ended_on_disk { resolver.read(Record::of(&end), &budget) } else { resolver.shared(&end) };
        let Some(LogEvent::Ended(same)) = told else { panic!() };
        assert!(Arc::ptr_eq(&same, &own));
        assert_eq!(own.outcome(), original.outcome());
        assert!(own.is_ambiguous() && own.taken_in.get().is_some());
        drop((began, end, original, own, same));
        assert_eq!(budget.used_bytes(), 0, "{begun_on_disk} {ended_on_disk}");
    }
}

#[test]
fn an_end_without_a_beginning_tells_a_reader_nothing() {
    let budget = Budget::new(1 << 20);
    assert!(Resolver::default().read(Record::Ended(1, false, outcome()), &budget).is_none());
    let entry = shared(&budget);
    let end = ended(&entry);
    assert!(Resolver::default().shared(&end).is_none());
    assert!(Resolver::new([entry]).shared(&end).is_some(), "what ran when the reader came is known to it");
}
