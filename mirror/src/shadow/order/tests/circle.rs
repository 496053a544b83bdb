//! Locks on the arm that nothing but its server tells of.

use super::*;

/// What the arm's server tells: who waits, and for whom.
fn let_go(order: &mut Order, locks: &[(u64, u64)], now_ns: u64) -> Vec<(u64, bool)> {
    let locks: Vec<_> = locks.iter().map(|(waits, holder)| (SessionId(*waits), SessionId(*holder))).collect();
    let mut actions = Vec::new();
    order.let_go(&locks, now_ns, &mut actions);
    let started = |action: &Action| match action {
        Action::Start { entry, released, .. } => Some((entry.id, *released)),
        _ => None,
    };
    actions.iter().filter_map(started).collect()
}

/// Session 2 has locked a row here that session 1 refers to, and goes on when production was done with what session 1 did.
fn referred(goes_on: Arc<Entry>) -> Order {
    let (refers, locks) = (entry(1, 1, 102, Some(110), Some(9)), found(2, 2, 101, 120, true));
    let mut order = order(&[refers, locks, goes_on]);
    assert_eq!(started(&mut order, 5000), [1, 2]);
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5001), NONE);
    order
}

#[test]
fn who_has_a_lock_that_is_waited_for_and_waits_for_who_waits_is_let_go_at_once() {
    let mut order = referred(entry(3, 2, 130, Some(140), Some(5)));
    assert_eq!(order.may_wait_for_locks(5000 + 99_999_999), []);
    assert_eq!(order.may_wait_for_locks(5000 + 100_000_000), [SessionId(1)]);
    assert_eq!(let_go(&mut order, &[], 6000), [], "its server tells of nobody");
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [(3, false)], "the two have nothing to do with one another");
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [], "it runs");
    assert_eq!(order.may_wait_for_locks(u64::MAX), [], "nobody waits any more who may have a lock");
}

#[test]
fn who_was_played_before_production_was_done_may_have_a_lock_too() {
    let (changes, reads) = (found(1, 1, 101, 200, false), Arc::new(unended(2, 2, 102, None)));
    let mut order = order(&[Arc::clone(&changes), Arc::clone(&reads)]);
    assert_eq!(started(&mut order, 5000), [1, 2]);
    order.finished(SessionId(2));
    let after = TransactionStatus::InTransaction;
    reads.exchange.outcome.set(Outcome { ended_ns: 201, after, ..Outcome::default() }).unwrap();
    order.ended(&reads);
    order.begun(&entry(3, 2, 210, Some(220), None));
    assert_eq!(started(&mut order, 5001), NONE);
    assert_eq!(order.may_wait_for_locks(u64::MAX), [SessionId(1)]);
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [(3, false)]);
}

#[test]
fn what_production_is_not_done_with_or_that_is_held_is_not_let_go() {
    let write = Arc::new(unended(3, 2, 130, Some(5)));
    let mut order = referred(Arc::clone(&write));
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [], "it may come to nothing there");
    write.exchange.outcome.set(Outcome { ended_ns: 140, ..Outcome::default() }).unwrap();
    order.ended(&write);
    order.hold_from(Some(125));
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [], "it is held");
    order.hold_from(None);
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [(3, false)]);
}

#[test]
fn what_has_to_do_with_what_comes_before_it_counts_when_it_is_let_go() {
    let mut order = referred(entry(3, 2, 130, Some(140), Some(9)));
    assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [(3, true)]);
}

#[test]
fn what_came_to_nothing_on_production_makes_no_difference() {
    let victim = |id, session, begun_ns, ended_ns| {
        let statements = vec![StatementOutcome { error: Some(*b"40P01"), ..StatementOutcome::default() }];
        let victim = unended(id, session, begun_ns, Some(9));
        victim.exchange.outcome.set(Outcome { ended_ns, statements, ..Outcome::default() }).unwrap();
        Arc::new(victim)
    };
    let held = found(2, 2, 101, 105, true);
    for (runs, waits) in [
        (victim(1, 1, 102, 110), found_row(3, 2, 106, 140, true, 9)),
        // Who went on was answered before who did not.
        (found_row(1, 1, 102, 110, true, 9), victim(3, 2, 106, 140)),
    ] {
        let mut order = order(&[runs, Arc::clone(&held), waits]);
        assert_eq!(started(&mut order, 5000), [1, 2]);
        order.finished(SessionId(2));
        assert_eq!(started(&mut order, 5001), NONE);
        assert_eq!(let_go(&mut order, &[(1, 2)], 6000), [(3, false)]);
    }
}

#[test]
fn who_waits_for_no_circle_is_not_let_go() {
    let mut order = order(&[
        entry(1, 1, 102, Some(110), Some(9)),
        found(2, 2, 101, 120, true),
        // It comes before what session 2 goes on with, and is slow here. The first is finished long before.
        entry(3, 3, 103, Some(115), Some(7)),
        entry(4, 2, 130, Some(140), Some(5)),
        entry(5, 4, 150, Some(160), None),
    ]);
    assert_eq!(started(&mut order, 5000), [1, 2, 3]);
    order.finished(SessionId(2));
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5001), NONE);
    assert_eq!(let_go(&mut order, &[(9, 2)], 6000), [], "who waits for it is nobody it waits for");
    assert_eq!(let_go(&mut order, &[(3, 8)], 6000), [], "the lock is another's");
    assert_eq!(let_go(&mut order, &[(3, 8), (8, 2)], 6000), [(4, false)], "who waits, waits for who waits for it");
}
