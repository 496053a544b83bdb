//! What an arm is sent of a request where that is not what the client sent: what ends a COPY that production did not end,
//! and a part by itself that an arm could come to a stop at. Pure.

use bytes::Bytes;

use crate::{
    capture::exchange::Outcome,
    wire::{encode, frame, frontend::tag},
};

/// Data of a COPY whose client vanished in the middle of it: what came whole, and that there will be no more. An arm
/// that was waiting for the rest would hold what it has locked. An arm that is not asked for data is sent none of it.
pub(super) fn given_up(request: &[u8], copy_in: &Bytes) -> Bytes {
    let (mut whole, mut said_all, mut synced) = (0, false, false);
    for message in frame::messages(copy_in) {
        whole += frame::HEADER_BYTES + message.payload.len();
        synced = said_all && message.tag == tag::SYNC;
        said_all |= matches!(message.tag, tag::COPY_DONE | tag::COPY_FAIL);
    }
    let mut data = copy_in.get(..whole).unwrap_or_default().to_vec();
    if !said_all {
        data.extend(encode::copy_fail("the client has gone"));
    }
    let by_sync = frame::messages(request).last().is_some_and(|message| message.tag == tag::SYNC);
    if by_sync && !synced {
        data.extend(encode::SYNC);
    }
    data.into()
}

/// The part of a request that prepares with a Flush and without a Sync, with a Sync, and what is behind it. Nothing is
/// executed in the one, so that it does not matter to the other whether there is a Sync between them. But an arm that
/// fails to prepare what production has prepared would ignore a simple query until one; and what a client prepares
/// before it goes on is in nobody's time on production. Only where production has prepared it: else it has ignored the
/// rest.
pub(super) fn prepared_first(request: &Bytes, production: &Outcome) -> Option<(Bytes, Bytes)> {
    let prepares = |tag: u8| matches!(tag, tag::PARSE | tag::DESCRIBE | tag::CLOSE | tag::FLUSH);
    if !request.first().is_some_and(|first| prepares(*first)) {
        return None;
    }
    let (mut before, mut last, mut parses) = (0, 0, 0);
    for message in frame::messages(request).take_while(|message| prepares(message.tag)) {
        (before, last) = (before + message.bytes.len(), message.tag);
        parses += usize::from(message.tag == tag::PARSE);
    }
    let behind = request.slice(before..);
    let is_by_itself = behind.first().is_some_and(|tag| match *tag {
        tag::QUERY | tag::FUNCTION_CALL => true,
        tag::BIND => last == tag::FLUSH,
        _ => false,
    });
    (is_by_itself && production.parsed >= parses)
        .then(|| ([request.get(..before).unwrap_or_default(), &encode::SYNC].concat().into(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_whose_client_vanished_comes_to_its_end_wherever_that_was() {
        let (query, sync) = (encode::message_bytes(b'Q', b"copy t from stdin\0"), encode::message_bytes(b'S', b""));
        let extended = [encode::message_bytes(b'E', b"\0\0\0\0\0"), sync.clone()].concat();
        let (data, done) = (encode::message_bytes(b'd', b"1\n"), encode::message_bytes(b'c', b""));
        let fail = encode::message_bytes(b'f', b"the client has gone\0");
        let half = &data[..3];
        for (request, came, sent) in [
            (&query, vec![], vec![&fail]),
            (&query, vec![&data[..], half], vec![&data, &fail]),
            (&query, vec![&data[..], &done], vec![&data, &done]),
            (&extended, vec![&data[..]], vec![&data, &fail, &sync]),
            (&extended, vec![&data[..], &done], vec![&data, &done, &sync]),
            (&extended, vec![&data[..], &done, &sync], vec![&data, &done, &sync]),
        ] {
            let expected: Vec<u8> = sent.into_iter().flatten().copied().collect();
            assert_eq!(given_up(request, &came.concat().into()), expected, "{came:?}");
        }
    }

    #[test]
    fn what_only_prepares_is_played_before_what_is_behind_it() {
        let message = encode::message_bytes;
        let (parse, describe, flush) =
            (message(b'P', b"s\0select 1\0\0\0"), message(b'D', b"Ss\0"), message(b'H', b""));
        let (query, execute) = (encode::query("begin"), message(b'E', b"\0\0\0\0\0"));
        let prepares = [parse.clone(), describe, flush].concat();
        let parsed = |parsed: usize| Outcome { parsed, ..Outcome::default() };
        let split = |parts: &[&[u8]]| prepared_first(&Bytes::from(parts.concat()), &parsed(1));
        let expected = ([prepares.clone(), encode::SYNC.to_vec()].concat().into(), query.clone().into());
        assert_eq!(split(&[&prepares, &query]), Some(expected));
        let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), execute.clone(), encode::SYNC.to_vec()].concat();
        let expected = ([prepares.clone(), encode::SYNC.to_vec()].concat().into(), run.clone().into());
        assert_eq!(split(&[&prepares, &run]), Some(expected));
        assert_eq!(prepared_first(&[prepares.clone(), run.clone()].concat().into(), &parsed(0)), None, "it failed");
        // All at once.
        assert_eq!(split(&[&parse, &run]), None);
        // What is executed without a Sync belongs to the query's transaction.
        for whole in [&[&query[..]][..], &[&prepares, &execute, &query], &[&prepares, &encode::SYNC], &[&prepares]] {
            assert_eq!(split(whole), None);
        }
    }
}
