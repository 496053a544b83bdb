//! What has to hold of a connection that was played, whatever its two ends did.

use std::sync::{Arc, atomic::Ordering};

use understudy_mirror::{
    capture::exchange::Event,
    production::{
        counters::{Cause, NoTls, Side, Wrong},
        session::Production,
        tap::Tap,
    },
};

use super::{
    model::{self, Greeted, Wish},
    script::{Ending, Fate, Script},
    side::Seen,
};

/// A connection that is over.
#[derive(Debug)]
pub struct Played {
    /// What the client saw.
    pub client: Seen,
    /// What the server saw.
    pub server: Seen,
    /// What the client was told to say.
    pub client_told: Vec<u8>,
    /// What the server was told to say.
    pub server_told: Vec<u8>,
    /// The mirror.
    pub production: Arc<Production>,
    /// Its tap.
    pub tap: Arc<Tap>,
    /// Sessions that it still had in its list.
    pub left: usize,
}

/// Judges all of it.
pub fn judge(script: &Script, played: &Played) {
    let sent = played.client_told.get(..played.client.sent).unwrap_or_default();
    let said = played.server_told.get(..played.server.sent).unwrap_or_default();
    let greeted = model::greeted(sent);
    let own = transparent(&greeted, sent, said, played);
    complete(script, &greeted, sent, said, played, own);
    counted(script, &greeted, sent, said, played, own);
    captured(&greeted, played);
}

/// The server got the client's bytes and nothing else, the client the server's and at most one error of the
/// mirror's own, after a whole message. The code of that error.
fn transparent(greeted: &Greeted, sent: &[u8], said: &[u8], played: &Played) -> Option<[u8; 5]> {
    let Greeted { replies, wish, packet, rest } = greeted;
    let forwarded = match wish {
        Wish::Unsaid | Wish::NoLength | Wish::Unasked | Wish::Again => &[],
        Wish::Refusal | Wish::Cancel => sent.get(*packet..*rest).unwrap_or_default(),
        Wish::Session { .. } => sent.get(*packet..).unwrap_or_default(),
    };
    let got = &played.server.received;
    assert!(forwarded.starts_with(got), "the server got what the client did not send: {got:?} of {forwarded:?}");
    let heard = &played.client.received;
    let common = heard.len().min(replies.len());
    assert_eq!(heard.get(..common), replies.get(..common), "the mirror's answers to requests for encryption");
    let heard = heard.get(common..).unwrap_or_default();
    let answered = match wish {
        Wish::Session { .. } | Wish::Refusal => said,
        Wish::Unsaid | Wish::NoLength | Wish::Unasked | Wish::Again | Wish::Cancel => &[],
    };
    let Some((relayed, own)) = split(heard, answered) else {
        panic!("the client got what the server did not send: {heard:?} of {answered:?}")
    };
    if own.is_empty() {
        return None;
    }
    assert!(model::stream(relayed).whole, "an error of the mirror's own in the middle of a message: {heard:?}");
    code(own)
}

/// What a client heard: the server's words, and then the mirror's own.
fn split<'a>(heard: &'a [u8], said: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let common = heard.iter().zip(said).take_while(|(a, b)| a == b).count();
    (0..=common).rev().map(|at| heard.split_at(at)).find(|(_, own)| own.is_empty() || code(own).is_some())
}

/// The code of a FATAL that is all there is.
fn code(own: &[u8]) -> Option<[u8; 5]> {
    let ([b'E', length @ ..], body) = own.split_first_chunk::<5>()? else { return None };
    let text = body.strip_prefix(b"SFATAL\0VFATAL\0C")?;
    (u32::from_be_bytes(*length) as usize == body.len() + 4).then_some(*text.first_chunk::<5>()?)
}

/// The script's own bytes are sure to have been read: nobody left before the end.
pub fn stays(script: &Script) -> bool {
    let gone = |fate: Fate| matches!(fate, Fate::ClientVanishes | Fate::ServerVanishes | Fate::Drains);
    script.ending != Ending::Vanish && !script.steps.iter().filter_map(|step| step.fate).any(gone)
}

fn server_stops(script: &Script) -> bool {
    script.ending == Ending::Server || script.steps.iter().any(|step| step.fate == Some(Fate::ServerSendsNoMore))
}

/// Whether the mirror has to end the session: a message that is followed has no length.
fn is_malformed(greeted: &Greeted, sent: &[u8], said: &[u8]) -> bool {
    greeted.wish == Wish::Session { replication: false }
        && [sent.get(greeted.rest..).unwrap_or_default(), said].into_iter().any(|bytes| model::stream(bytes).malformed)
}

/// What came before a message that is none has arrived, when both stayed.
fn complete_before(greeted: &Greeted, sent: &[u8], said: &[u8], played: &Played) {
    let asked = model::stream(sent.get(greeted.rest..).unwrap_or_default());
    let answered = model::stream(said);
    let heard_bytes = played.client.received.len() - greeted.replies.len();
    if !answered.malformed {
        let forwarded = greeted.rest - greeted.packet + asked.messages_bytes;
        assert!(played.server.received.len() >= forwarded, "a request before a malformed one did not reach the server");
    } else if !asked.malformed {
        assert!(heard_bytes >= answered.messages_bytes, "an answer before a malformed one did not reach the client");
    }
}

/// When both behaved and closed in order, everything has arrived.
fn complete(script: &Script, greeted: &Greeted, sent: &[u8], said: &[u8], played: &Played, own: Option<[u8; 5]>) {
    let Wish::Session { .. } = greeted.wish else { return };
    if !stays(script) {
        return;
    }
    if is_malformed(greeted, sent, said) {
        if !server_stops(script) {
            complete_before(greeted, sent, said, played);
        }
        return;
    }
    assert_eq!(own, None, "an error of the mirror's own without a reason");
    let heard = played.client.received.get(greeted.replies.len()..).unwrap_or_default();
    assert_eq!(heard.len(), said.len(), "not all of the server's words reached the client");
    if !server_stops(script) {
        assert_eq!(played.server_told.len(), said.len(), "the server could not say everything");
        let forwarded = sent.len() - greeted.packet;
        assert_eq!(played.server.received.len(), forwarded, "not all of the client's words reached the server");
    }
}

/// What ended a connection is counted by its cause, once, and nothing else is.
fn counted(script: &Script, greeted: &Greeted, sent: &[u8], said: &[u8], played: &Played, own: Option<[u8; 5]>) {
    let counters = &played.production.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&counters.connections), 1);
    assert_eq!(played.left, 0, "a session that is over stays in the list");
    for (counter, name) in [
        (&counters.unaccepted, "unaccepted"),
        (&counters.encrypted, "encrypted"),
        (&counters.unbound, "unbound"),
        (&counters.worker_unreachable, "unreachable"),
    ] {
        assert_eq!(count(counter), 0, "{name}");
    }
    let of_wrong = |wrong| -> u64 { Side::ALL.into_iter().map(|side| counters.malformed(side, wrong)).sum() };
    let malformed = of_wrong(Wrong::Length);
    assert!(Wrong::ALL.into_iter().map(of_wrong).sum::<u64>() <= 1, "counted for two things");
    assert_eq!(of_wrong(Wrong::Record), 0, "nobody spoke TLS");
    assert!(NoTls::ALL.into_iter().all(|why| counters.unencrypted(why) == 0), "nobody had to speak TLS");
    // Or the server has not heard a login's message to its end.
    let refuses = holds(said, b"C08P01") || holds(said, b"C28");
    assert!(of_wrong(Wrong::Protocol) == 0 || refuses, "counted as refused, and was not");
    assert!(malformed <= u64::from(is_malformed(greeted, sent, said)), "counted as malformed, and was not");
    for (side, bytes) in [(Side::Client, sent.get(greeted.rest..).unwrap_or_default()), (Side::Worker, said)] {
        let stream = model::stream(bytes);
        assert!(stream.malformed || counters.malformed(side, Wrong::Length) == 0, "counted as the other side's");
        // Who is broken off has said more than arrives.
        let is_whole = stream.malformed || stream.whole;
        let truncated = counters.malformed(side, Wrong::Truncated);
        assert!(truncated == 0 || !stays(script) || !is_whole, "counted as truncated, and is whole");
    }
    if own == Some(*b"08P01") {
        assert_eq!(malformed, 1, "told as malformed, and not counted");
    }
    assert!(own != Some(*b"0A000") || greeted.wish == Wish::Again, "told that it asked twice, and did not");
    if own == Some(*b"57P01") {
        assert!(played.production.draining.load(Ordering::Relaxed), "told that the mirror goes away, and it stays");
    }
    if !stays(script) {
        return;
    }
    if is_malformed(greeted, sent, said) && !server_stops(script) {
        assert_eq!(malformed, 1, "malformed, and not counted");
    }
    assert!(greeted.wish != Wish::Again || own == Some(*b"0A000"), "not told that it asked twice");
    let counts = [&counters.cancels, &counters.replication].map(count);
    let (cause, expected) = match greeted.wish {
        Wish::Unsaid => (Some(Cause::Vanished), [0, 0]),
        Wish::NoLength => (Some(Cause::Length), [0, 0]),
        Wish::Unasked => (Some(Cause::Unasked), [0, 0]),
        Wish::Again | Wish::Refusal => (Some(Cause::Protocol), [0, 0]),
        Wish::Cancel => (None, [1, 0]),
        Wish::Session { replication } => (None, [0, u64::from(replication)]),
    };
    assert_eq!(counts, expected, "cancelled, replicated");
    let refused: Vec<_> = Cause::ALL.into_iter().filter(|cause| counters.refused(*cause) > 0).collect();
    assert_eq!(refused, Vec::from_iter(cause), "the causes that are counted");
    assert_eq!(cause.map_or(0, |cause| counters.refused(cause)), u64::from(cause.is_some()), "counted once");
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What was captured makes sense by itself, and the tap owes nothing when it has been emptied.
fn captured(greeted: &Greeted, played: &Played) {
    let tap = &played.tap;
    let (mut opened, mut closed, mut begun, mut ended) = (0, 0, 0, 0);
    while let Some(event) = tap.pop() {
        assert_eq!(closed, 0, "something after the end of the session");
        match event {
            Event::SessionOpened(info) => {
                opened += 1;
                assert_eq!(begun, 0, "the session is told before what it asks for");
                assert!(info.startup.get("user").is_some() || !info.startup.parameters.is_empty());
            }
            Event::Begun(exchange) => {
                assert_eq!((opened, exchange.sequence), (1, begun));
                begun += 1;
            }
            Event::Ended(exchange) => {
                assert!(exchange.sequence == ended && ended < begun, "ended once, in order, after its beginning");
                assert!(exchange.outcome.get().is_some(), "what has ended has an outcome");
                ended += 1;
            }
            Event::SessionClosed(_) => closed += 1,
        }
    }
    assert!(opened <= 1 && opened >= closed);
    if tap.is_capturing() {
        assert_eq!((opened, begun), (closed, ended), "what has begun ends, at the latest with its connection");
    }
    if greeted.wish != (Wish::Session { replication: false }) {
        assert_eq!(opened, 0, "what is not mirrored is not captured");
    }
    assert_eq!(tap.pending_bytes(), 0, "the tap is empty and counts bytes");
}
