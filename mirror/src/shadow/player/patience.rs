//! How long an arm's answer is waited for, and when it is cancelled: as production had it. Pure.

use std::time::Duration;

use crate::{
    capture::exchange::Outcome,
    wire::{backend::SqlState, frame, frontend::tag},
};

/// No answer from an arm takes longer than this beyond what production took.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked whether production has an answer by now, and whether the arm's takes too long.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// When production's client vanished, its server may have gone on for a while, and nobody waits for the arm's.
const VANISHED: Duration = Duration::from_secs(10);

/// `query_canceled`.
const CANCELED: SqlState = *b"57014";
/// `deadlock_detected`.
const DEADLOCK: SqlState = *b"40P01";
/// Who was a deadlock's victim is made to go so much sooner than on production: half of what a server waits before it looks
/// for deadlocks, who on an arm may find another victim, one that went on.
const BEFORE_DEADLOCK: Duration = Duration::from_millis(500);

/// What to do about an answer that has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Wait for so long, and ask again.
    Wait(Duration),
    /// Cancel it.
    Cancel,
    /// It is too late: the arm was silent for so long.
    Over(Duration),
}

/// What to do after `waited`, of which it was cancelled after `cancelled`. `gives_up`: the client itself gave its COPY up.
/// While production has no outcome, its client waits as well.
pub(super) fn patience(
    production: Option<&Outcome>,
    gives_up: bool,
    waited: Duration,
    cancelled: Option<Duration>,
) -> Patience {
    let Some(production) = production else { return Patience::Wait(LOOK) };
    let served = Duration::from_nanos(production.ended_ns.saturating_sub(production.served_from_ns));
    let at = match production.error() {
        Some(CANCELED) => served,
        Some(DEADLOCK) => served.saturating_sub(BEFORE_DEADLOCK.min(served / 2)),
        _ => served + VANISHED,
    };
    let cancel_at = (is_cancelled(production) && !gives_up).then_some(at);
    let limit = cancelled.map_or(served, |at| at.max(served)) + ANSWER_LIMIT;
    match cancel_at.filter(|_| cancelled.is_none()) {
        Some(at) if waited >= at => Patience::Cancel,
        Some(at) => Patience::Wait(at.saturating_sub(waited)),
        None if waited >= limit => Patience::Over(limit),
        None => Patience::Wait(limit.saturating_sub(waited)),
    }
}

/// Whether the client gave a COPY up (CopyFail), which is answered as a cancel is. It comes to its end by itself, behind the
/// rows that came before it: cancelled as well, an arm would have drawn fewer numbers for those.
pub(super) fn gives_up(production: &Outcome, request: &[u8]) -> bool {
    let fails = |bytes: &[u8]| frame::messages(bytes).any(|message| message.tag == tag::COPY_FAIL);
    production.error() == Some(CANCELED) && !production.broken && (fails(&production.copy_in) || fails(request))
}

/// Whether production's answer did not come to its end by itself: then neither may the arm's.
pub(super) fn is_cancelled(production: &Outcome) -> bool {
    production.broken || matches!(production.error(), Some(CANCELED | DEADLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::exchange::StatementOutcome;

    fn production(seconds: u64, error: Option<[u8; 5]>, broken: bool) -> Outcome {
        let statements = vec![StatementOutcome { error, ..StatementOutcome::default() }];
        Outcome { served_from_ns: 7, ended_ns: 7 + seconds * 1_000_000_000, statements, broken, ..Outcome::default() }
    }

    #[test]
    fn an_answer_is_waited_for_as_long_as_productions_and_cancelled_when_that_was() {
        let seconds = Duration::from_secs;
        let (fine, given_up) = (production(300, None, false), production(300, Some(*b"57014"), false));
        let (failed, vanished) = (production(300, Some(*b"23505"), false), production(300, None, true));
        let victim = production(1, Some(*b"40P01"), false);
        for (outcome, waited, cancelled, expected) in [
            // A report that takes production ten minutes takes an arm as long.
            (None, 500, None, Patience::Wait(LOOK)),
            (Some(&fine), 0, None, Patience::Wait(seconds(420))),
            (Some(&fine), 419, None, Patience::Wait(seconds(1))),
            (Some(&fine), 420, None, Patience::Over(seconds(420))),
            (Some(&failed), 300, None, Patience::Wait(seconds(120))),
            (Some(&given_up), 299, None, Patience::Wait(seconds(1))),
            (Some(&given_up), 301, None, Patience::Cancel),
            (Some(&given_up), 301, Some(300), Patience::Wait(seconds(119))),
            (Some(&given_up), 420, Some(300), Patience::Over(seconds(420))),
            (Some(&vanished), 309, None, Patience::Wait(seconds(1))),
            (Some(&vanished), 310, None, Patience::Cancel),
            (Some(&vanished), 311, Some(310), Patience::Wait(seconds(119))),
            // Before the arm's server looks for deadlocks itself.
            (Some(&victim), 0, None, Patience::Wait(seconds(1) / 2)),
            (Some(&victim), 1, None, Patience::Cancel),
            (Some(&victim), 2, Some(1), Patience::Wait(seconds(119))),
            // It came out while the arm had been at it for longer already.
            (Some(&vanished), 1000, None, Patience::Cancel),
            (Some(&vanished), 1001, Some(1000), Patience::Wait(seconds(119))),
        ] {
            let found = patience(outcome, false, seconds(waited), cancelled.map(seconds));
            assert_eq!(found, expected, "{outcome:?} {waited} {cancelled:?}");
        }
        assert_eq!(patience(Some(&given_up), true, seconds(301), None), Patience::Wait(seconds(119)));
    }

    #[test]
    fn a_copy_that_its_client_gives_up_is_cancelled_by_nobody() {
        let (cancelled, failed) = (production(1, Some(*b"57014"), false), production(1, Some(*b"23505"), false));
        let vanished = production(1, Some(*b"57014"), true);
        let (data, fail) = (&b"d\0\0\0\x061\n"[..], &b"f\0\0\0\x05\0"[..]);
        let copy = [data, fail].concat();
        for (outcome, request, copy_in, expected) in [
            (&cancelled, &b""[..], &copy[..], true),
            (&cancelled, &copy, b"", true),
            (&cancelled, data, data, false),
            (&failed, b"", &copy, false),
            (&vanished, b"", &copy, false),
        ] {
            let outcome = Outcome { copy_in: copy_in.to_vec().into(), ..outcome.clone() };
            assert_eq!(gives_up(&outcome, request), expected, "{outcome:?} {request:?}");
        }
    }
}
