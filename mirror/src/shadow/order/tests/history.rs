//! Whatever production did: it is played to its end, and each session in its order.

use super::*;

/// What one session does next: how long after its last request or answer, how long it takes, the row that it writes,
/// whether it is in a transaction then, and whether it was sent together with what came before it.
pub(super) type Deed = (u64, u64, Option<i64>, bool, bool);

pub(super) fn deeds() -> impl Strategy<Value = Vec<Vec<Deed>>> {
    let deed = (0..40_u64, 1..60_u64, option::of(0..3_i64), any::<bool>(), any::<bool>());
    vec(vec(deed, 0..12), 1..5)
}

/// Production's history, in the order of its requests: `(session, entry)`.
pub(super) fn history(sessions: &[Vec<Deed>]) -> Vec<Arc<Entry>> {
    let mut moments = Vec::new();
    for (session, deeds) in (1..).zip(sessions) {
        let (mut begun_ns, mut ended_ns) = (100, 100);
        for (pause, takes, row, in_transaction, at_once) in deeds {
            begun_ns = if *at_once { begun_ns } else { ended_ns + pause };
            ended_ns = ended_ns.max(begun_ns) + takes;
            moments.push((begun_ns, session, ended_ns, *row, *in_transaction));
        }
    }
    moments.sort_by_key(|(begun_ns, ..)| *begun_ns);
    let entries = (1..).zip(moments).map(|(id, (begun_ns, session, ended_ns, row, in_transaction))| match row {
        Some(row) => found_row(id, session, begun_ns, ended_ns, in_transaction, row),
        None => entry(id, session, begun_ns, Some(ended_ns), None),
    });
    entries.collect()
}

proptest! {
    /// Whatever production did, all of it is played, each session in its order, and nobody waits in a circle.
    #[test]
    fn every_history_is_played_to_its_end(sessions in deeds(), quickest in vec(0..8_usize, 200)) {
        let all = history(&sessions);
        let mut order = order(&all);
        let (mut running, mut played, mut quickest) = (Vec::new(), Vec::new(), quickest.into_iter().cycle());
        for now_ns in 5000..5000 + 2 * all.len() as u64 {
            running.extend(started(&mut order, now_ns));
            // One that runs is done first, whichever.
            if let Some(at) = quickest.next().filter(|_| !running.is_empty()) {
                let id = running.swap_remove(at % running.len());
                order.finished(all[usize::try_from(id).unwrap() - 1].exchange.session);
                played.push(id);
            }
        }
        prop_assert_eq!(played.len(), all.len(), "played {:?} of {:?}", played, all);
        prop_assert_eq!((order.outstanding(), order.held_bytes()), (0, 0));
        for entry in &all {
            let mine = |id: &&u64| all[usize::try_from(**id).unwrap() - 1].exchange.session == entry.exchange.session;
            prop_assert!(played.iter().filter(mine).is_sorted(), "a session out of its order: {played:?}");
        }
    }
}
