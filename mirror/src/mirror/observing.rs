//! What is measured while a mirror runs: from when on, on whom, and the intervals as they become complete. Must not judge
//! them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use understudy_crds::{experiment::StatementClass, labels::PRODUCTION};

use super::{INGEST_LIMIT, Mirror};
use crate::{
    clock::now_ns,
    measure::{
        interval::{Fingerprint, Interval},
        recorder::Observing,
    },
    shadow::{
        arm::{ArmShared, lock},
        ingest::Command,
    },
};

impl Mirror {
    /// Begins observation: what production begins from now on is measured in intervals, on the arms too but
    /// for those that [`Self::join`] later.
    pub fn observe(&self, interval: Duration, later: &[String]) {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let observing = Observing { from_ns: now_ns(), interval_ns };
        *lock(&self.observing) = Some((observing, 0));
        lock(&self.ingest.recorder).observe(observing);
        for arm in self.arms().iter().filter(|arm| !later.contains(&arm.name)) {
            arm.measure_from(0, observing);
        }
    }

    /// An arm that came later is measured from the next interval on.
    pub fn join(&self, name: &str) {
        let (Some(arm), Some((observing, _))) = (self.arm(name), *lock(&self.observing)) else { return };
        let next = now_ns().saturating_sub(observing.from_ns) / observing.interval_ns + 1;
        arm.measure_from(next, observing);
    }

    /// The intervals that are complete on production and on every arm that is alive and measured, each once.
    pub fn take_intervals(&self) -> Vec<Interval> {
        let measured = |arm: Arc<ArmShared>| Some((arm.measured_from()?, arm));
        let arms: Vec<_> = self.arms().into_iter().filter(|arm| arm.is_alive()).filter_map(measured).collect();
        let mut guard = lock(&self.observing);
        let Some((Observing { from_ns, interval_ns }, next)) = guard.as_mut() else { return Vec::new() };
        let recorded_ns = arms
            .iter()
            .map(|(_, arm)| arm.recorded_until_ns())
            .fold(self.ingest.recorded_until_ns.load(Ordering::Acquire), u64::min);
        let complete = recorded_ns.saturating_sub(*from_ns) / *interval_ns;
        let mut taken = Vec::new();
        while *next < complete {
            let index = *next;
            let mut sides = BTreeMap::from([(PRODUCTION.to_owned(), lock(&self.ingest.recorder).take(index))]);
            for (from, arm) in &arms {
                let side = lock(&arm.recorder).take(index);
                if *from <= index {
                    sides.insert(arm.name.clone(), side);
                }
            }
            let length_us = *interval_ns / 1000;
            taken.push(Interval { index, start_us: index * length_us, length_us, arms: sides });
            *next += 1;
        }
        taken
    }

    /// Normalised texts and classes of the statements seen so far.
    pub fn texts(&self) -> HashMap<Fingerprint, (Arc<str>, StatementClass)> {
        let (reply, texts) = mpsc::channel();
        if self.commands.try_send(Command::Texts(reply)).is_err() {
            return HashMap::new();
        }
        texts.recv_timeout(INGEST_LIMIT).unwrap_or_default()
    }
}
