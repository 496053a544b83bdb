//! What readers find, in memory and on disk, and what is left when they have found it.

use std::sync::{OnceLock, atomic::AtomicBool};

use bytes::Bytes;
use proptest::prelude::*;

use super::{disk::DiskSettings, *};
use crate::{
    capture::exchange::{Exchange, Outcome},
    shadow::{entry::ENTRY_BYTES, statement::footprint::Footprint},
};

fn entry(budget: &Arc<Budget>, id: u64, request_bytes: usize) -> Arc<Entry> {
    let exchange = Exchange {
        session: SessionId(1),
        sequence: id,
        begun_ns: id,
        request: Bytes::from(vec![b'x'; request_bytes]),
        outcome: OnceLock::new(),
    };
    Arc::new(Entry {
        id,
        exchange: Arc::new(exchange),
        statements: Vec::new(),
        writes: false,
        touches: Footprint::NOTHING,
        publishes: Footprint::NOTHING,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: budget.charge(ENTRY_BYTES + request_bytes),
        taken_in: OnceLock::new(),
    })
}

fn end(entry: &Arc<Entry>) -> LogEvent {
    let _ = entry.exchange.outcome.set(Outcome { ended_ns: entry.id + 1, ..Outcome::default() });
    let _ = entry.taken_in.set(entry.charge.budget().charge(0));
    LogEvent::Ended(Arc::clone(entry))
}

/// What a test looks at of an event.
fn name(event: &LogEvent) -> String {
    match event {
        LogEvent::SessionOpened(info) => format!("opened {}", info.id.0),
        LogEvent::Begun(entry) => format!("begun {} {}", entry.id, entry.exchange.request.len()),
        LogEvent::Ended(entry) => format!("ended {} at {}", entry.id, entry.ended_ns()),
        LogEvent::SessionClosed(session) => format!("closed {}", session.0),
        LogEvent::KnownUntil(known_ns) => format!("known {known_ns}"),
    }
}

fn read(reader: &Reader) -> Vec<String> {
    let mut events = Vec::new();
    while reader.read(&mut events).unwrap() {}
    events.iter().map(name).collect()
}

fn on_disk(directory: &std::path::Path, limit_bytes: u64) -> Disk {
    let directory = directory.to_owned();
    Disk::open(DiskSettings { directory, limit_bytes, keep_free_percent: 0 }).unwrap()
}

#[test]
fn every_reader_reads_everything_from_where_it_came_and_nothing_is_kept_behind_the_last() {
    let log = TrafficLog::new(Budget::new(1 << 20), None);
    log.append(&mut vec![LogEvent::SessionClosed(SessionId(0))]);
    let early = log.reader([]);
    log.append(&mut vec![LogEvent::Begun(entry(log.budget(), 1, 5)), LogEvent::KnownUntil(1)]);
    let late = log.reader([]);
    log.append(&mut vec![LogEvent::SessionClosed(SessionId(1))]);
    assert_eq!((early.unread(), late.unread()), (1, 0));
    assert_eq!(read(&late), ["closed 1"]);
    assert!(log.budget().used_bytes() > 0, "the other has not read it");
    assert_eq!(read(&early), ["begun 1 5", "known 1", "closed 1"]);
    assert_eq!((early.unread(), log.budget().used_bytes()), (0, 0));
    log.append(&mut vec![LogEvent::Begun(entry(log.budget(), 2, 5))]);
    late.leave();
    drop(early);
    assert_eq!(log.budget().used_bytes(), 0, "nobody reads any more");
}

#[test]
fn idle_time_takes_no_room_unless_somebody_was_told_of_it() {
    let log = TrafficLog::new(Budget::new(1 << 20), None);
    let reader = log.reader([]);
    for known_ns in 1..=3 {
        log.append(&mut vec![LogEvent::KnownUntil(known_ns)]);
    }
    assert_eq!(read(&reader), ["known 3"]);
    let other = log.reader([]);
    log.append(&mut vec![LogEvent::KnownUntil(4)]);
    assert_eq!(read(&reader), ["known 4"]);
    log.append(&mut vec![LogEvent::KnownUntil(5)]);
    assert_eq!((read(&reader), read(&other)), (vec!["known 5".into()], vec!["known 4".into(), "known 5".into()]));
}

#[test]
fn what_was_moved_to_disk_is_read_as_it_was_and_its_file_goes_when_all_have_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = TrafficLog::new(Budget::new(20_000), Some(on_disk(directory.path(), 1 << 20)));
    let (behind, level) = (log.reader([]), log.reader([]));
    let mut expected = Vec::new();
    let mut running: Vec<Arc<Entry>> = Vec::new();
    for id in 0..201 {
        let entry = entry(log.budget(), id, 100);
        let mut events = vec![LogEvent::Begun(Arc::clone(&entry))];
        running.push(entry);
        if id % 3 == 2 {
            events.extend(running.drain(..).map(|entry| end(&entry)));
        }
        expected.extend(events.iter().map(name));
        log.append(&mut events);
        assert!(!read(&level).is_empty());
        while log.spill().unwrap() {}
        assert!(!log.budget().is_exceeded(), "{}", log.budget().used_bytes());
    }
    drop(running);
    assert!(log.disk_bytes() > 20_000 && !disk::segments(directory.path()).unwrap().is_empty());
    assert_eq!(behind.unread(), 201);
    assert_eq!(read(&behind), expected);
    assert!(!log.spill().unwrap());
    assert_eq!((log.disk_bytes(), log.budget().used_bytes()), (0, 0));
    assert!(disk::segments(directory.path()).unwrap().is_empty());
}

#[test]
fn a_file_is_removed_while_the_ingest_may_append() {
    let directory = tempfile::tempdir().unwrap();
    let log = TrafficLog::new(Budget::new(1000), Some(on_disk(directory.path(), 1 << 20)));
    let reader = log.reader([]);
    log.append(&mut vec![LogEvent::Begun(entry(log.budget(), 1, 500))]);
    assert!(log.spill().unwrap());
    log.disk.as_ref().unwrap().rest();
    let files = || disk::segments(directory.path()).unwrap().len();
    let mut state = lock(&log.state);
    state.readers.clear();
    let passed = state.trim();
    assert_eq!(files(), 1, "not under the lock");
    drop(state);
    drop(passed);
    assert_eq!(files(), 0);
    drop(reader);
}

#[test]
fn a_disk_that_is_full_is_said_to_be_and_loses_nothing_that_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = TrafficLog::new(Budget::new(1000), Some(on_disk(directory.path(), 3000)));
    let reader = log.reader([]);
    let mut refused = None;
    for id in 0..20 {
        log.append(&mut vec![LogEvent::Begun(entry(log.budget(), id, 500))]);
        refused = log.spill().err().or(refused);
    }
    assert!(matches!(refused, Some(disk::SpillError::Full(3000))), "{refused:?}");
    assert!(log.budget().is_exceeded(), "so the slowest is let go of");
    assert_eq!(read(&reader).len(), 20);
    drop(reader);
    assert_eq!(log.budget().used_bytes(), 0);
}

#[test]
fn damage_on_disk_is_an_error_and_never_another_event() {
    let directory = tempfile::tempdir().unwrap();
    let log = TrafficLog::new(Budget::new(1000), Some(on_disk(directory.path(), 1 << 20)));
    let reader = log.reader([]);
    log.append(&mut vec![LogEvent::Begun(entry(log.budget(), 1, 500))]);
    assert!(log.spill().unwrap());
    let path = disk::segments(directory.path()).unwrap().pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut events = Vec::new();
    assert!(matches!(reader.read(&mut events), Err(SegmentError::Damaged)));
    assert!(events.is_empty());
}

#[test]
fn a_mirror_that_died_leaves_a_log_that_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let log = TrafficLog::new(Budget::new(1000), Some(on_disk(directory.path(), 1 << 20)));
    let _reader = log.reader([]);
    for id in 0..5 {
        log.append(&mut vec![LogEvent::Begun(entry(log.budget(), id, 500))]);
        assert!(log.spill().unwrap());
    }
    // A crash leaves the file in the middle of a frame.
    let path = disk::segments(directory.path()).unwrap().pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let left = directory.path().join("left");
    std::fs::write(&left, &bytes[..bytes.len() - 100]).unwrap();
    let mut ids = Vec::new();
    for frame in segment::frames(std::fs::File::open(&left).unwrap()).unwrap() {
        let (record, _) = Record::read(&frame.payload).unwrap();
        let Record::Begun(begun) = record else { panic!("{record:?}") };
        ids.push(begun.id);
    }
    assert_eq!(ids, [0, 1, 2, 3]);
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Spill,
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(1..5_usize).prop_map(Step::Append), Just(Step::Spill), (0..3_usize).prop_map(Step::Read)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_when_all_readers_read_the_same(steps in proptest::collection::vec(step(), 1..80)) {
        let directory = tempfile::tempdir().unwrap();
        let log = TrafficLog::new(Budget::new(4000), Some(on_disk(directory.path(), 1 << 20)));
        let readers: Vec<_> = (0..3).map(|_| log.reader([])).collect();
        let mut found = vec![Vec::new(); 3];
        let (mut next, mut known_ns, mut running) = (0, 0, Vec::new());
        let mut told = Vec::new();
        for step in steps {
            match step {
                Step::Append(count) => {
                    let mut events = Vec::new();
                    for _ in 0..count {
                        let entry = entry(log.budget(), next, 300);
                        next += 1;
                        events.push(LogEvent::Begun(Arc::clone(&entry)));
                        running.push(entry);
                        if next % 2 == 0 {
                            let ends: Arc<Entry> = running.remove(0);
                            events.push(end(&ends));
                        }
                    }
                    told.extend(events.iter().map(name));
                    known_ns += 1;
                    events.push(LogEvent::KnownUntil(known_ns));
                    log.append(&mut events);
                }
                Step::Spill => { log.spill().unwrap(); }
                Step::Read(index) => {
                    let mut events = Vec::new();
                    readers[index].read(&mut events).unwrap();
                    found[index].extend(events.iter().map(name));
                }
            }
        }
        let mut ends: Vec<_> = running.drain(..).map(|entry: Arc<Entry>| end(&entry)).collect();
        told.extend(ends.iter().map(name));
        log.append(&mut ends);
        for (reader, found) in readers.iter().zip(&mut found) {
            found.extend(read(reader));
            let last = found.iter().rev().find(|name| name.starts_with("known")).cloned();
            prop_assert_eq!(last, (known_ns > 0).then(|| format!("known {known_ns}")));
            found.retain(|name| !name.starts_with("known"));
            prop_assert_eq!(&*found, &told);
        }
        prop_assert!(!log.spill().unwrap());
        prop_assert_eq!((log.disk_bytes(), log.budget().used_bytes()), (0, 0));
    }
}
