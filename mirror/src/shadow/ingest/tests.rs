//! What the ingest keeps, and for whom.

use bytes::Bytes;
use understudy_crds::condition::{ArmRole, ArmState};

use super::*;
use crate::{
    capture::exchange::Outcome, measure::recorder::Recorder, shadow::entry::Budget, wire::encode,
    wire::startup::Startup,
};

fn shared(limit_bytes: usize) -> IngestShared {
    IngestShared {
        recorder: Mutex::new(Recorder::default()),
        log: TrafficLog::new(Budget::new(limit_bytes), None),
        recorded_until_ns: std::sync::atomic::AtomicU64::new(0),
        clock: Arc::default(),
        schemas: Schemas::default(),
        stop: AtomicBool::new(false),
    }
}

fn opened(session: u64) -> Event {
    let info = SessionInfo { id: SessionId(session), startup: Startup::default(), backend_pid: 1 };
    Event::SessionOpened(Arc::new(info))
}

fn exchange(session: u64, sequence: u64, begun_ns: u64, sql: &str) -> Arc<Exchange> {
    Arc::new(Exchange {
        session: SessionId(session),
        sequence,
        begun_ns,
        request: Bytes::from(encode::query(sql)),
        outcome: OnceLock::new(),
    })
}

fn end(exchange: &Arc<Exchange>, ended_ns: u64, copy_in: Bytes) -> Event {
    exchange.outcome.set(Outcome { ended_ns, copy_in, ..Outcome::default() }).unwrap();
    Event::Ended(Arc::clone(exchange))
}

fn cut(ingest: &mut Ingest<'_>, at_ns: u64, sealed_ns: u64) -> Option<Vec<SessionSeed>> {
    let (reply, seeds) = mpsc::channel();
    ingest.command(Command::Cut { at_ns, sealed_ns, arms: Vec::new(), reply });
    ingest.known(u64::MAX);
    seeds.try_recv().ok()
}

fn retain(ingest: &mut Ingest<'_>, from_ns: u64) {
    let (reply, mut noted) = oneshot::channel();
    ingest.command(Command::Retain(from_ns, reply));
    noted.try_recv().unwrap();
}

#[test]
fn what_ended_after_the_cut_is_in_its_seeds_and_what_ended_before_is_not() {
    let shared = shared(1 << 20);
    let mut ingest = Ingest::new(&shared);
    ingest.event(opened(1));
    retain(&mut ingest, 100);
    for (sequence, begun_ns, ended_ns) in [(0, 10, 20), (1, 150, 200), (2, 250, 350)] {
        let exchange = exchange(1, sequence, begun_ns, "update t set a = 1");
        ingest.event(Event::Begun(Arc::clone(&exchange)));
        ingest.event(end(&exchange, ended_ns, Bytes::new()));
    }
    ingest.event(Event::SessionClosed(SessionId(1)));
    let seeds = cut(&mut ingest, 300, 310).unwrap();
    let sequences: Vec<u64> = seeds[0].entries.iter().map(|e| e.exchange.sequence).collect();
    assert_eq!((sequences, seeds[0].in_doubt, seeds[0].closed), (vec![2], Some(0), true));
    ingest.command(Command::Release);
    assert!(ingest.books.is_empty());
}

#[test]
fn an_answer_read_while_the_worker_was_asked_is_in_doubt_and_not_taken_for_done() {
    // Drained at 300, sealed at 310; the answer was read at 305 and not counted before the seal. Its
    // commit may lie behind the cut's position.
    let shared = shared(1 << 20);
    let mut ingest = Ingest::new(&shared);
    ingest.event(opened(1));
    retain(&mut ingest, 100);
    let exchange = exchange(1, 0, 290, "update t set a = 1");
    ingest.event(Event::Begun(Arc::clone(&exchange)));
    ingest.event(end(&exchange, 305, Bytes::new()));
    let seeds = cut(&mut ingest, 300, 310).unwrap();
    assert_eq!((seeds[0].entries.len(), seeds[0].in_doubt), (1, Some(0)));
}

#[test]
fn the_data_of_a_copy_counts_as_memory_until_it_is_let_go_of() {
    let shared = shared(1 << 20);
    let mut ingest = Ingest::new(&shared);
    ingest.event(opened(1));
    let exchange = exchange(1, 0, 10, "copy t from stdin");
    ingest.event(Event::Begun(Arc::clone(&exchange)));
    retain(&mut ingest, 1);
    ingest.event(end(&exchange, 20, Bytes::from(vec![0; 500_000])));
    assert!(shared.log.budget().used_bytes() > 500_000, "{}", shared.log.budget().used_bytes());
    ingest.command(Command::Release);
    ingest.event(Event::SessionClosed(SessionId(1)));
    ingest.known(u64::MAX);
    assert_eq!(shared.log.budget().used_bytes(), 0);
}

#[test]
fn a_cut_that_takes_too_long_gives_up_what_it_keeps_before_production_runs_out_of_memory() {
    let shared = shared(10_000);
    let tap = Tap::new(1, 1 << 20);
    let mut ingest = Ingest::new(&shared);
    ingest.event(opened(1));
    retain(&mut ingest, 1);
    for sequence in 0..100 {
        let exchange = exchange(1, sequence, 10 + sequence, "update t set a = 1");
        ingest.event(Event::Begun(Arc::clone(&exchange)));
        ingest.event(end(&exchange, 10 + sequence, Bytes::new()));
    }
    assert!(shared.log.budget().is_exceeded());
    ingest.known(u64::MAX - 1);
    ingest.police(&tap);
    assert!(!shared.log.budget().is_exceeded());
    assert!(cut(&mut ingest, 50, 60).is_none(), "and no cut is made of what is left");
    retain(&mut ingest, 1000);
    assert!(cut(&mut ingest, 2000, 2001).is_some(), "the next attempt begins anew");
}

#[test]
fn what_waits_for_hours_holds_up_no_interval() {
    let shared = shared(1 << 20);
    let mut ingest = Ingest::new(&shared);
    ingest.event(opened(1));
    ingest.event(opened(2));
    ingest.event(Event::Begun(exchange(1, 0, 100, "select pg_advisory_lock(1)")));
    ingest.event(Event::Begun(exchange(2, 0, 200, "select 1")));
    let mut recorded = |known_ns| {
        ingest.known(known_ns);
        shared.recorded_until_ns.load(Ordering::Acquire)
    };
    assert_eq!(recorded(1000), 100);
    assert_eq!(recorded(100 + measured::LONGEST_NS), 100);
    assert_eq!(recorded(101 + measured::LONGEST_NS), 200);
    assert_eq!(recorded(201 + measured::LONGEST_NS), 201 + measured::LONGEST_NS);
}

#[test]
fn one_arm_at_a_time_is_let_go_of_for_want_of_memory() {
    let shared = shared(1000);
    let tap = Tap::new(1, 1 << 20);
    let mut ingest = Ingest::new(&shared);
    let arms = [ArmShared::new("baseline", ArmRole::Baseline, 0), ArmShared::new("candidate", ArmRole::Candidate, 1)];
    ingest.arms = arms.to_vec();
    let held = shared.log.budget().charge(2000);
    // The lost arm's thread has not let go of its part yet.
    ingest.police(&tap);
    ingest.police(&tap);
    assert_eq!(arms.iter().filter(|arm| arm.state().0 == ArmState::Lost).count(), 1);
    drop(held);
}

/// An open transaction with so much COPY data, that nobody but its book keeps.
fn open_copy(ingest: &mut Ingest<'_>, session: u64, bytes: usize) {
    ingest.event(opened(session));
    let exchange = exchange(session, 0, 10, "copy t from stdin");
    ingest.event(Event::Begun(Arc::clone(&exchange)));
    let outcome = Outcome {
        ended_ns: 20,
        copy_in: Bytes::from(vec![0; bytes]),
        after: crate::wire::backend::TransactionStatus::InTransaction,
        ..Outcome::default()
    };
    exchange.outcome.set(outcome).unwrap();
    ingest.event(Event::Ended(exchange));
    ingest.known(1000);
}

#[test]
fn the_largest_open_transactions_are_let_go_of_before_an_arm_is() {
    let shared = shared(10 << 20);
    let tap = Tap::new(1, 1 << 20);
    let mut ingest = Ingest::new(&shared);
    let arm = ArmShared::new("baseline", ArmRole::Baseline, 0);
    for (session, bytes) in [(1, 2 << 20), (2, 7 << 20), (3, 3 << 20)] {
        open_copy(&mut ingest, session, bytes);
    }
    ingest.arms.push(Arc::clone(&arm));
    assert!(shared.log.budget().is_exceeded());
    ingest.police(&tap);
    assert!(!shared.log.budget().is_exceeded() && arm.is_alive());
    ingest.arms.clear();
    let seeds = cut(&mut ingest, 100, 110).unwrap();
    let bound: Vec<u64> = seeds.iter().filter(|seed| seed.bound).map(|seed| seed.info.id.0).collect();
    assert_eq!(bound, [2], "one was enough, and an arm that comes now knows that it misses it");
}

#[test]
fn open_transactions_give_way_where_there_is_no_arm_yet() {
    let shared = shared(10 << 20);
    let tap = Tap::new(1, 1 << 20);
    let mut ingest = Ingest::new(&shared);
    open_copy(&mut ingest, 1, 11 << 20);
    ingest.police(&tap);
    assert!(!shared.log.budget().is_exceeded());
}
