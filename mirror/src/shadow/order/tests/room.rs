//! Sessions that come and go: an arm has no more of them than production had, and a few that log in.

use super::{
    history::{deeds, history},
    *,
};
use crate::{shadow::order::room::LOGINS_AT_ONCE, wire::startup::Startup};

fn info(session: u64) -> Arc<SessionInfo> {
    Arc::new(SessionInfo { id: SessionId(session), startup: Startup::default(), backend_pid: 1 })
}

/// What is done now, in words.
fn done(order: &mut Order, now_ns: u64) -> Vec<String> {
    let mut actions = Vec::new();
    order.poll(now_ns, &mut actions);
    let word = |action| match action {
        Action::Open(info) => format!("open {}", info.id.0),
        Action::Start { entry, .. } => format!("start {}", entry.id),
        Action::Close(session) => format!("close {}", session.0),
    };
    actions.into_iter().map(word).collect()
}

/// Two sessions that production had one after the other; the first one is on the arm and plays.
fn one_after_the_other() -> Order {
    let mut order = Order::new(SHIFT, LIMIT);
    order.opened(info(1));
    assert_eq!(done(&mut order, 0), ["open 1"]);
    assert!(order.logged_in(SessionId(1), 0).is_none());
    order.begun(&entry(1, 1, 100, Some(110), None));
    assert!(order.closed(SessionId(1)).is_none(), "it has something to play");
    order.opened(info(2));
    order.begun(&entry(2, 2, 120, Some(130), None));
    order.known_until(u64::MAX);
    assert_eq!(done(&mut order, 5000), ["start 1"]);
    order
}

#[test]
fn a_session_comes_in_when_the_arm_has_fewer_than_production_had() {
    let mut order = one_after_the_other();
    assert_eq!(done(&mut order, 50_000), [""; 0], "nobody is released who is not there");
    assert!(matches!(order.finished(SessionId(1)), Some(Action::Close(SessionId(1)))));
    assert_eq!(done(&mut order, 50_001), [""; 0], "its server still has it");
    order.left();
    assert_eq!(done(&mut order, 50_001), ["open 2", "start 2"]);
    // Who came while the other was there does not wait.
    order.opened(info(3));
    assert_eq!(done(&mut order, 50_002), ["open 3"]);
}

#[test]
fn where_nobody_comes_or_goes_the_next_one_comes_in_all_the_same() {
    let mut order = one_after_the_other();
    assert_eq!(done(&mut order, 900_000_000), [""; 0]);
    assert_eq!(done(&mut order, 1_100_000_000), ["open 2", "start 2"]);
}

#[test]
fn an_arm_that_hangs_is_not_filled_with_sessions() {
    let mut order = Order::new(SHIFT, LIMIT);
    for session in 1..=40 {
        order.opened(info(session));
        assert!(order.closed(SessionId(session)).is_none(), "production has one at a time");
    }
    assert_eq!(done(&mut order, 0).len(), LOGINS_AT_ONCE);
    for session in 1..=16 {
        assert!(order.logged_in(SessionId(session), 0).is_some());
    }
    // They have said goodbye, and nobody answers any more.
    assert_eq!(done(&mut order, 0), [""; 0]);
    assert_eq!(done(&mut order, 9_000_000_000), ["open 17"], "it may be what they all wait for");
    assert_eq!(done(&mut order, 99_000_000_000), [""; 0]);
    (1..=16).for_each(|_| order.left());
    assert_eq!(done(&mut order, 99_000_000_000).len(), LOGINS_AT_ONCE - 1);
}

#[test]
fn where_nobody_goes_on_they_come_in_one_by_one_beyond_those_that_log_in_at_a_time() {
    let mut order = Order::new(SHIFT, LIMIT);
    for session in 1..=40 {
        order.opened(info(session));
        order.begun(&entry(session, session, session, None, None));
        assert!(order.closed(SessionId(session)).is_none(), "it has something to play");
    }
    for session in 1..=16 {
        assert_eq!(done(&mut order, 0).len(), if session == 1 { LOGINS_AT_ONCE } else { 0 });
        assert!(order.logged_in(SessionId(session), 0).is_none());
    }
    assert_eq!(done(&mut order, 0), [""; 0]);
    assert_eq!(done(&mut order, 2_000_000_000), ["open 17"], "one and sixteen would be one more than that");
    assert_eq!(done(&mut order, 3_000_000_000), [""; 0], "it logs in");
    assert!(order.logged_in(SessionId(17), 3_000_000_000).is_none());
    assert_eq!(done(&mut order, 3_000_000_000), [""; 0]);
    assert_eq!(done(&mut order, 5_000_000_000), ["open 18"]);
}

#[test]
fn few_log_in_at_a_time_and_whoever_does_counts_on_neither_side() {
    let mut order = Order::new(SHIFT, LIMIT);
    for session in 1..=20 {
        order.opened(info(session));
        assert!(order.closed(SessionId(session)).is_none(), "it has not been in");
    }
    assert_eq!(done(&mut order, 0).len(), LOGINS_AT_ONCE, "production had one logged in at a time");
    for session in 1..=16 {
        let left = order.logged_in(SessionId(session), 0);
        assert!(matches!(left, Some(Action::Close(SessionId(id))) if id == session), "it asked for nothing: {left:?}");
        order.left();
    }
    assert_eq!(done(&mut order, 0), ["open 17", "open 18", "open 19", "open 20"]);
}

#[test]
fn a_session_that_can_t_be_played_counts_on_both_sides() {
    let mut order = Order::new(SHIFT, LIMIT);
    order.left_out();
    order.opened(info(2));
    assert_eq!(done(&mut order, 0), ["open 2"]);
    assert!(matches!(order.closed(SessionId(1)), Some(Action::Close(SessionId(1)))));
    order.left();
    assert!(order.logged_in(SessionId(2), 0).is_none());
    order.opened(info(3));
    assert_eq!(done(&mut order, 0), ["open 3"]);
}

#[test]
fn who_logs_in_behind_a_change_of_roles_or_settings_waits_for_it() {
    let change = |id, begun_ns| Arc::new(Entry { beginnings: true, ..unended(id, 1, begun_ns, Some(7)) });
    let (first, second) = (change(1, 100), change(3, 500));
    let mut order = Order::new(SHIFT, LIMIT);
    order.opened(info(1));
    assert_eq!(done(&mut order, 0), ["open 1"]);
    assert!(order.logged_in(SessionId(1), 0).is_none());
    order.begun(&first);
    order.opened(info(2));
    first.exchange.outcome.set(Outcome { ended_ns: 110, ..Outcome::default() }).unwrap();
    order.ended(&first);
    order.opened(info(3));
    order.begun(&second);
    second.exchange.outcome.set(Outcome { ended_ns: 510, ..Outcome::default() }).unwrap();
    order.ended(&second);
    order.known_until(u64::MAX);
    assert_eq!(done(&mut order, 1099), ["open 2"], "what was told after it is none of its beginning");
    assert_eq!(done(&mut order, 1100), ["start 1"]);
    assert_eq!(done(&mut order, 9_000_000_000), [""; 0], "it is no room that it waits for");
    order.finished(SessionId(1));
    assert_eq!(done(&mut order, 9_000_000_000), ["open 3", "start 3"]);
}

#[test]
fn who_waits_to_log_in_is_not_stuck() {
    let two = [entry(1, 1, 100, Some(110), Some(7)), entry(2, 2, 120, Some(130), Some(7))];
    let mut order = Order::new(SHIFT, LIMIT);
    order.opened(info(1));
    for entry in &two {
        order.begun(entry);
    }
    order.known_until(u64::MAX);
    assert_eq!(done(&mut order, 1200), ["open 1", "start 1"]);
    assert_eq!(done(&mut order, 1200 + 5 * LIMIT), [""; 0], "the arm lets in few at a time");
    let in_ns = 1200 + 6 * LIMIT;
    assert!(order.logged_in(SessionId(1), in_ns).is_none());
    assert_eq!(done(&mut order, in_ns + LIMIT / 2), [""; 0], "it runs from now on");
    assert_eq!(done(&mut order, in_ns + 3 * LIMIT), ["start 2"]);
}

/// What production tells, in the order in which it happened. Some sessions leave after all that they ask for, before
/// another comes at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Closed(u64),
    Opened(u64),
    Begun(usize),
}

fn news(all: &[Arc<Entry>], leave: &[bool]) -> Vec<News> {
    let mut news = Vec::new();
    for (session, leaves) in (1..).zip(leave) {
        let of = || all.iter().filter(move |entry| entry.exchange.session.0 == session);
        news.extend(of().next().map(|first| (first.exchange.begun_ns, News::Opened(session))));
        if *leaves {
            news.extend(of().next_back().map(|last| (last.ended_ns(), News::Closed(session))));
        }
    }
    news.extend((0..).zip(all).map(|(n, entry)| (entry.exchange.begun_ns, News::Begun(n))));
    news.sort_unstable();
    news.into_iter().map(|(_, news)| news).collect()
}

proptest! {
    /// Whatever comes and goes, all of it is played, and nobody comes in beside as many as production had at most.
    #[test]
    fn an_arm_has_no_more_sessions_than_production_and_plays_them_all(
        sessions in deeds(), leave in vec(any::<bool>(), 5), quickest in vec(0..8_usize, 200),
    ) {
        let all = history(&sessions);
        let mut order = Order::new(SHIFT, LIMIT);
        let (mut there, mut most) = (0_usize, 0_usize);
        for news in news(&all, &leave) {
            match news {
                News::Opened(session) => {
                    order.opened(info(session));
                    there += 1;
                    most = most.max(there);
                }
                News::Begun(n) => order.begun(&all[n]),
                News::Closed(session) => {
                    prop_assert!(order.closed(SessionId(session)).is_none());
                    there -= 1;
                }
            }
        }
        order.known_until(u64::MAX);
        let (mut inside, mut logging_in, mut running, mut played) = (0_usize, Vec::new(), Vec::new(), 0);
        let mut quickest = quickest.into_iter().cycle();
        for now_ns in 5000..5000 + 8 * all.len() as u64 {
            let mut actions = Vec::new();
            order.poll(now_ns, &mut actions);
            for action in &actions {
                if let Action::Open(info) = action {
                    prop_assert!(inside < most, "{inside} sessions, production had {most} at most");
                    logging_in.push(info.id);
                }
            }
            let at = quickest.next().unwrap_or(0);
            if at % 2 == 0 && !logging_in.is_empty() {
                let session = logging_in.swap_remove(at % logging_in.len());
                inside += 1;
                actions.extend(order.logged_in(session, now_ns));
            } else if !running.is_empty() {
                actions.extend(order.finished(running.swap_remove(at % running.len())));
                played += 1;
            }
            for action in actions {
                match action {
                    Action::Open(_) => {}
                    Action::Close(_) => {
                        inside -= 1;
                        order.left();
                    }
                    Action::Start { entry, .. } => running.push(entry.exchange.session),
                }
            }
        }
        prop_assert_eq!(played, all.len());
    }
}
