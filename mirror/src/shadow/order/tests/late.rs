//! Answers that come later than the commits that they tell of.

use super::*;

#[test]
fn an_answer_that_came_late_does_not_put_its_write_behind_the_one_that_waited_for_it() {
    // Session 2 got the lock when session 1 had committed, was answered first, and went on in its transaction.
    let (late, waited) = (found(1, 1, 100, 210, false), found(2, 2, 101, 200, true));
    let (goes_on, other) = (entry(3, 2, 220, Some(230), None), entry(4, 3, 205, Some(240), Some(9)));
    let mut order = order(&[late, waited, other, goes_on]);
    assert_eq!(started(&mut order, 5000), [1], "session 3 began when session 1 had committed");
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5001), [2]);
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5002), [3, 4]);
}

#[test]
fn an_answer_that_is_told_after_a_later_request_counts_from_when_it_came() {
    // Production's threads tell of what they see one beside the other.
    let (late, waited) = (entry(1, 1, 100, None, Some(5)), found(2, 2, 101, 200, true));
    let mut order = Order::new(SHIFT, LIMIT);
    for entry in [&late, &waited, &entry(3, 2, 220, Some(230), None)] {
        order.begun(entry);
    }
    let outcome = found(1, 1, 100, 210, false).outcome().cloned().unwrap();
    late.exchange.outcome.set(outcome).unwrap();
    order.ended(&late);
    order.known_until(220);
    assert_eq!(started(&mut order, 5000), [1]);
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5001), [2]);
}

#[test]
fn a_transaction_does_not_wait_for_what_waits_for_its_own_lock() {
    let (late, holder) = (found(1, 1, 100, 210, false), found(2, 2, 101, 200, true));
    let mut order = order(&[late, holder]);
    assert_eq!(started(&mut order, 5000), [2], "nobody knows yet");
    order.finished(SessionId(2));
    assert_eq!(started(&mut order, 5001), [1], "it waits for the row's lock now");
    // Nor does session 3, for which session 2 waits.
    order.begun(&entry(4, 3, 215, Some(216), Some(9)));
    order.begun(&entry(3, 2, 220, Some(230), None));
    order.known_until(220);
    assert_eq!(started(&mut order, 5002), [4]);
    order.finished(SessionId(3));
    assert_eq!(started(&mut order, 5003), [3]);
    order.finished(SessionId(1));
    order.finished(SessionId(2));
    assert_eq!(order.outstanding(), 0);
}

#[test]
fn a_transaction_that_was_sent_at_once_goes_on_before_its_answers() {
    // BEGIN, UPDATE and COMMIT as three requests in one packet.
    let (update, commit) = (found(1, 1, 100, 200, true), entry(2, 1, 100, Some(300), None));
    let mut order = order(&[update, commit]);
    assert_eq!(started(&mut order, 5000), [1]);
    order.finished(SessionId(1));
    assert_eq!(started(&mut order, 5001), [2]);
}
