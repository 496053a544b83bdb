//! Sessions that come and go: the arm never has more of them than production had.

use super::*;
use crate::wire::startup::Startup;

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

#[test]
fn a_session_comes_in_when_the_arm_has_fewer_than_production_had() {
    let mut order = Order::new(SHIFT, LIMIT);
    order.taken_over(SessionId(1));
    order.begun(&entry(1, 1, 100, Some(110), None));
    assert!(order.closed(SessionId(1)).is_none(), "it has something to play");
    order.opened(info(2));
    order.begun(&entry(2, 2, 120, Some(130), None));
    order.known_until(u64::MAX);
    // Both are due; production had one at a time.
    assert_eq!(done(&mut order, 5000), ["start 1"]);
    assert_eq!(done(&mut order, 50_000), [""; 0], "nobody is released who is not there");
    assert!(matches!(order.finished(SessionId(1)), Some(Action::Close(SessionId(1)))));
    assert_eq!(done(&mut order, 50_001), ["open 2", "start 2"]);
    // Who came while the other was there does not wait.
    order.opened(info(3));
    assert_eq!(done(&mut order, 50_002), ["open 3"]);
}

#[test]
fn a_session_that_asked_for_nothing_comes_in_and_leaves() {
    let mut order = Order::new(SHIFT, LIMIT);
    for session in 1..=2 {
        order.opened(info(session));
        assert!(order.closed(SessionId(session)).is_none(), "it has not been in");
    }
    assert_eq!(done(&mut order, 0), ["open 1", "close 1", "open 2", "close 2"]);
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
    /// Whatever comes and goes, all of it is played, and never are there more sessions than production had.
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
        let (mut open, mut running, mut played) = (0_usize, Vec::new(), 0);
        let mut quickest = quickest.into_iter().cycle();
        for now_ns in 5000..5000 + 4 * all.len() as u64 {
            let mut actions = Vec::new();
            order.poll(now_ns, &mut actions);
            if let Some(at) = quickest.next().filter(|_| !running.is_empty()) {
                actions.extend(order.finished(running.swap_remove(at % running.len())));
                played += 1;
            }
            for action in actions {
                match action {
                    Action::Open(_) => open += 1,
                    Action::Close(_) => open -= 1,
                    Action::Start { entry, .. } => running.push(entry.exchange.session),
                }
                prop_assert!(open <= most, "{open} sessions, production had {most}");
            }
        }
        prop_assert_eq!(played, all.len());
    }
}
