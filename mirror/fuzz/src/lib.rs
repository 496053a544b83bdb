//! What must hold for any bytes whatever, as functions that panic where it does not. The fuzz targets
//! call them, and so does `mirror/tests/decoders.rs`; nothing here knows who does.

use understudy_mirror::{
    capture::{
        exchange::SessionId,
        tracker::{Keep, Step, Tracker},
    },
    shadow::statement::lexer,
    wire::{
        backend,
        frame::{self, FrameError, Splitter},
        frontend, sasl, startup,
    },
};

/// A message's type and payload.
type Whole = (u8, Vec<u8>);

fn split<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Whole>, usize, Option<FrameError>) {
    let mut splitter = Splitter::default();
    let (mut whole, mut begun, mut taken) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        let mut rest = chunk;
        loop {
            match splitter.next(&mut rest) {
                Ok(Some(piece)) => {
                    if piece.first {
                        begun.clear();
                    }
                    begun.extend_from_slice(piece.payload);
                    taken += piece.chunk_bytes;
                    assert!(begun.len() + frame::HEADER_BYTES <= piece.message_bytes);
                    if piece.last {
                        assert_eq!(begun.len() + frame::HEADER_BYTES, piece.message_bytes);
                        whole.push((piece.tag, std::mem::take(&mut begun)));
                    }
                }
                Ok(None) => break,
                Err(error) => return (whole, taken, Some(error)),
            }
        }
        assert!(rest.is_empty(), "a chunk is always used up");
    }
    (whole, taken, None)
}

/// The frame splitter finds the same messages however the stream is cut, and never more bytes than
/// there are. The first byte says how it is cut.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let (whole, taken, error) = split(std::iter::once(stream));
    assert!(taken <= stream.len());
    let (pieces, _, piecewise) = split(stream.chunks(usize::from(*cut) + 1));
    assert_eq!(error, piecewise);
    assert_eq!(whole, pieces);
    for (found, (tag, payload)) in frame::messages(stream).zip(&whole) {
        assert_eq!((found.tag, found.payload), (*tag, payload.as_slice()));
    }
}

/// The first packet is read or refused; what is read says of itself what stands in it.
pub fn startup(data: &[u8]) {
    if let Some(length) = data.first_chunk::<4>()
        && let Ok(bytes) = startup::packet_bytes(*length)
    {
        assert!((8..=startup::MAX_STARTUP_BYTES).contains(&bytes));
    }
    if let Ok(startup::First::Startup(read)) = startup::first(data) {
        assert_eq!(read.protocol >> 16, 3);
        let bytes: usize = read.parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        // Bytes that are no UTF-8 are replaced by three.
        assert!(bytes <= 3 * data.len());
        assert!(!read.is_replication() || read.get("replication").is_some());
    }
}

/// The tracker takes any chunks of both sides in any order; every exchange that begins ends once, in
/// order, and nothing is under way when the connection is gone. Each chunk is preceded by a byte: its
/// side and its length.
pub fn tracker(data: &[u8]) {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let (mut steps, mut rest, mut now_ns) = (Vec::new(), data, 0);
    while let Some((head, tail)) = rest.split_first() {
        let (chunk, tail) = tail.split_at(usize::from(head & 0x7f).min(tail.len()));
        rest = tail;
        now_ns += 1;
        let taken = if head & 0x80 == 0 {
            tracker.client(chunk, now_ns, &mut steps)
        } else {
            tracker.server(chunk, now_ns, &mut steps)
        };
        if taken.is_err() {
            break;
        }
    }
    tracker.broken(now_ns, &mut steps);
    let (mut begun, mut ended, mut request_bytes) = (0, 0, 0);
    for step in steps {
        match step {
            Step::Begun(exchange) => {
                assert_eq!(exchange.sequence, begun);
                request_bytes += exchange.request.len();
                begun += 1;
            }
            Step::Ended(exchange) => {
                assert_eq!(exchange.sequence, ended);
                let Some(outcome) = exchange.outcome.get() else { panic!("what has ended has an outcome") };
                assert!(outcome.ended_ns >= outcome.served_from_ns);
                request_bytes += outcome.copy_in.len();
                ended += 1;
            }
            Step::LoggedIn | Step::Terminated => {}
        }
    }
    assert_eq!(ended, begun, "every exchange ends, at the latest with its connection");
    assert!(request_bytes <= data.len(), "nothing is kept that was not sent");
}

/// The contents of messages: whatever is found lies inside the message. The first byte is the type.
pub fn frontend(data: &[u8]) {
    let Some((tag, payload)) = data.split_first() else { return };
    if let frontend::Request::Bind { values, .. } = frontend::request(*tag, payload) {
        parameters(values);
    }
    parameters(payload);
    let _ = (backend::sqlstate(payload), backend::tag_rows(payload), backend::backend_pid(payload));
}

fn parameters(values: &[u8]) {
    for index in 0..64 {
        if let Some(parameter) = frontend::parameter(values, index) {
            assert!(parameter.value.is_none_or(|value| value.len() <= values.len()));
        }
    }
}

/// The lexer takes any bytes; constants lie in the text, in order and apart.
pub fn lexer(data: &[u8]) {
    let lexed = lexer::lex(data);
    let mut from = 0;
    for literal in &lexed.literals {
        assert!(literal.offset >= from && !literal.text.is_empty());
        assert_eq!(data.get(literal.offset..literal.offset + literal.text.len()), Some(literal.text));
        from = literal.offset + literal.text.len();
    }
    assert_eq!(lexer::lex(data).template, lexed.template);
}

/// The offer to bind a channel is taken out once and for all, and nothing is added.
pub fn sasl(data: &[u8]) {
    sasl::believes_that_binding_is_missing(data);
    if let Some(kept) = sasl::without_binding(data) {
        assert!(kept.len() < data.len());
        assert_eq!(sasl::request(&kept).map(|(code, _)| code), sasl::request(data).map(|(code, _)| code));
        assert_eq!(sasl::without_binding(&kept), None);
    }
}
