//! From outcomes to samples: the times of an exchange's statements on one side. Pure.

use super::entry::Entry;
use crate::{
    capture::exchange::{Outcome, is_cancelled},
    measure::recorder::{Excluded, Recorder, Sample},
    wire::{frame, frontend::tag},
};

/// What takes production longer is not measured: no interval that it began in or later could be looked at before, and
/// a client that waits for a lock may wait for hours.
pub const LONGEST_NS: u64 = 600_000_000_000;

/// Whether it is too long to be measured, as far as that is known by `known_ns`. Once it is, it stays so.
pub fn is_too_long(entry: &Entry, known_ns: u64) -> bool {
    entry.ended_ns().min(known_ns).saturating_sub(entry.exchange.begun_ns) > LONGEST_NS
}

/// Records production's side of an exchange that is played.
pub fn record_production(recorder: &mut Recorder, entry: &Entry, production: &Outcome) {
    record(recorder, entry, production, production, entry.exchange.begun_ns);
}

/// Records an arm's side. `due_ns` is when it should have been sent.
pub fn record_arm(recorder: &mut Recorder, entry: &Entry, production: &Outcome, arm: &Outcome, due_ns: u64) {
    record(recorder, entry, production, arm, due_ns);
}

/// What is excluded on production is excluded everywhere, so that both sides hold the same statements.
fn record(recorder: &mut Recorder, entry: &Entry, production: &Outcome, side: &Outcome, due_ns: u64) {
    let begun_ns = entry.exchange.begun_ns;
    if production.broken || side.broken {
        return;
    }
    if production.ended_ns.saturating_sub(begun_ns) > LONGEST_NS {
        entry.statements.iter().for_each(|_| recorder.exclude(begun_ns, Excluded::TooLong));
        return;
    }
    // What a client sends before the answer to what it sent before (a pipeline) is played one by one:
    // a round trip more on the arms than on production. It can't be held against either.
    if production.served_from_ns > begun_ns || goes_on_behind_a_flush(entry) {
        entry.statements.iter().for_each(|_| recorder.exclude(begun_ns, Excluded::Pipelined));
        return;
    }
    let (mut side_from, mut production_from) = (side.served_from_ns, production.served_from_ns);
    for (index, planned) in entry.statements.iter().enumerate() {
        let (Some(theirs), Some(ours)) = (production.statements.get(index), side.statements.get(index)) else { return };
        let service_us = ours.ended_ns.saturating_sub(side_from) / 1000;
        let production_us = theirs.ended_ns.saturating_sub(production_from) / 1000;
        (side_from, production_from) = (ours.ended_ns, theirs.ended_ns);
        if let Some(sqlstate) = theirs.error.or(ours.error) {
            let why = if is_cancelled(sqlstate) { Excluded::Cancelled } else { Excluded::Failed };
            recorder.exclude(begun_ns, why);
            continue;
        }
        recorder.record(&Sample {
            begun_ns,
            class: planned.class,
            fingerprint: planned.fingerprint,
            service_us,
            response_us: ours.ended_ns.saturating_sub(due_ns) / 1000,
            production_us,
        });
    }
}

/// Whether a client read answers in the middle of an exchange and then asked for more: what it took its time for would
/// count as production's, while an arm is asked for all of it at once.
fn goes_on_behind_a_flush(entry: &Entry) -> bool {
    entry.statements.len() > 1
        && frame::messages(&entry.exchange.request)
            .map(|message| message.tag)
            .skip_while(|kind| *kind != tag::EXECUTE)
            .skip_while(|kind| *kind != tag::FLUSH)
            .any(|kind| kind == tag::EXECUTE)
}

#[cfg(test)]
mod tests;
