//! Checks of the protocol's decoders: messages, first packets, and the few contents that are read.

use understudy_mirror::wire::{
    backend::{self, TransactionStatus},
    encode,
    frame::{self, FrameError, Splitter},
    frontend, sasl, startup,
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

/// The contents of messages: whatever is found lies inside the message. The first byte is the type.
pub fn frontend(data: &[u8]) {
    let Some((tag, payload)) = data.split_first() else { return };
    if let frontend::Request::Bind { values, .. } = frontend::request(*tag, payload) {
        parameters(values);
    }
    parameters(payload);
}

fn parameters(values: &[u8]) {
    for index in 0..64 {
        if let Some(parameter) = frontend::parameter(values, index) {
            assert!(parameter.value.is_none_or(|value| value.len() <= values.len()));
        }
    }
}

/// What a server's message says lies in it, and what it does not say is not made up.
pub fn backend(payload: &[u8]) {
    let message = backend::field(payload, b'M');
    assert!(message.is_none_or(|text| !text.contains(&0) && holds(payload, text)));
    let code = backend::field(payload, b'C');
    let state = backend::sqlstate(payload);
    assert!(code.map_or(state == *b"XX000", |code| code == state || (code.len() != 5 && state == *b"XX000")));
    if let Some(rows) = backend::tag_rows(payload) {
        let text = payload.strip_suffix(&[0]).unwrap_or(payload);
        let digits: Vec<u8> = text.iter().rev().take_while(|byte| **byte != b' ').copied().collect();
        let read: String = digits.iter().rev().map(|byte| char::from(*byte)).collect();
        assert_eq!(read.parse(), Ok(rows));
    }
    assert_eq!(backend::backend_pid(payload).is_some(), payload.len() >= 4);
    if let Some(numbers) = backend::numbers(payload) {
        // Each has a length and a digit at least.
        assert!(payload.len() >= 2 + 5 * numbers.len());
        let holds_text = |number: &i32| holds(payload, number.unsigned_abs().to_string().as_bytes());
        assert!(numbers.iter().all(holds_text));
    }
    if let Some(status) = payload.first() {
        assert_eq!(TransactionStatus::from_byte(*status).in_block(), matches!(status, b'T' | b'E'));
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// What the mirror says to an arm for a client is read back as what the client said; keys of any length and
/// texts without a zero survive.
pub fn encode(data: &[u8]) {
    if let Ok(startup::First::Startup(read)) = startup::first(data) {
        let again = encode::startup(&read);
        let Some(length) = again.first_chunk::<4>() else { panic!("a packet begins with its length") };
        assert_eq!(u32::from_be_bytes(*length) as usize, again.len());
        let Ok(startup::First::Startup(back)) = startup::first(&again) else { panic!("{read:?} is not read back") };
        let kept: Vec<_> = read.parameters.iter().filter(|(name, _)| !name.starts_with("_pq_.")).collect();
        assert_eq!(back.parameters.iter().collect::<Vec<_>>(), kept);
    }
    let cancel = encode::cancel(data);
    assert_eq!(startup::first(&cancel), Ok(startup::First::Cancel));
    assert!(cancel.ends_with(data));
    let text: String = String::from_utf8_lossy(data).replace('\0', "");
    let fatal = encode::fatal("08P01", &text);
    let query = encode::query(&text);
    for (bytes, tag) in [(&fatal, b'E'), (&query, b'Q')] {
        let found: Vec<_> = frame::messages(bytes).collect();
        assert!(matches!(found.as_slice(), [message] if message.tag == tag && message.bytes == bytes));
    }
    let payload = fatal.get(frame::HEADER_BYTES..).unwrap_or_default();
    assert_eq!(backend::sqlstate(payload), *b"08P01");
    assert_eq!(backend::field(payload, b'M'), Some(text.as_bytes()));
    let payload = query.get(frame::HEADER_BYTES..).unwrap_or_default();
    assert_eq!(frontend::request(b'Q', payload), frontend::Request::Query(text.as_bytes()));
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
