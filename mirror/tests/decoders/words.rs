//! Bytes that make sense to a decoder, and such with a few bytes changed. They reach further than random ones;
//! they judge nothing.

use proptest::{collection::vec, prelude::*};
use understudy_mirror::shadow::log::segment::VERSION;

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    [&[tag][..], &length, payload].concat()
}

/// A client's message that makes sense.
pub fn request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(message(b'Q', b"select 1\0")),
        Just(message(b'P', b"s\0update t set a = $1\0\0\0")),
        Just(message(b'B', b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0")),
        Just(message(b'E', b"\0\0\0\0\0")),
        Just(message(b'C', b"Ss\0")),
        Just(message(b'S', b"")),
        Just(message(b'd', b"1\t2\n")),
        Just(message(b'c', b"")),
        Just(message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")),
        Just(message(b'X', b"")),
        Just(message(b'p', b"secret\0")),
    ]
}

/// A server's message that makes sense.
pub fn answer() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(message(b'R', &[0; 4])),
        Just(message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4])),
        Just(message(b'Z', b"I")),
        Just(message(b'Z', b"T")),
        Just(message(b'Z', b"E")),
        Just(message(b'1', b"")),
        Just(message(b'C', b"UPDATE 3\0")),
        Just(message(b'D', b"\0\x01\0\0\0\x011")),
        Just(message(b'E', b"SERROR\0C23505\0\0")),
        Just(message(b'G', b"\0\0\0")),
        Just(message(b'I', b"")),
        Just(message(b's', b"")),
    ]
}

/// Chunks of both sides as the tracker's check takes them.
pub fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![request().prop_map(|bytes| (0_u8, bytes)), answer().prop_map(|bytes| (0x80_u8, bytes)),];
    vec(chunk, 0..40).prop_map(|chunks| {
        chunks
            .into_iter()
            .flat_map(|(side, bytes)| {
                let length = u8::try_from(bytes.len()).unwrap_or(0x7f).min(0x7f);
                [vec![side | length], bytes].concat()
            })
            .collect()
    })
}

pub fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (bytes, vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(|(mut bytes, changes)| {
        for (index, byte) in changes {
            if let Some(slot) = bytes.len().checked_sub(1).and_then(|last| bytes.get_mut(index.index(last + 1))) {
                *slot = byte;
            }
        }
        bytes
    })
}

pub fn random() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

pub fn stream() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), vec(request(), 0..20)).prop_map(|(cut, messages)| [vec![cut], messages.concat()].concat())
}

pub fn packet() -> impl Strategy<Value = Vec<u8>> {
    vec(("[a-z_.]{1,9}", "[a-z0-9 -]{0,9}"), 0..6).prop_map(|parameters| {
        let text = parameters.into_iter().flat_map(|(name, value)| [name, "\0".into(), value, "\0".into()]);
        let text: String = text.collect();
        [&[0, 0, 0, 99][..], &196_608_u32.to_be_bytes(), text.as_bytes(), &[0]].concat()
    })
}

pub fn offer() -> impl Strategy<Value = Vec<u8>> {
    let mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", ""];
    vec(prop::sample::select(mechanisms.to_vec()), 0..5).prop_map(|mechanisms| {
        let list: String = mechanisms.into_iter().flat_map(|mechanism| [mechanism, "\0"]).collect();
        [&10_u32.to_be_bytes()[..], list.as_bytes()].concat()
    })
}

pub fn sql() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "select ",
        "1",
        "'it''s'",
        "e'\\''",
        "$1",
        "$a$ x $a$",
        "--c\n",
        "/* /* */ */",
        "\"T\"",
        "1..2",
        "0x1F",
        ".5",
        "a = b",
        "'",
        "$",
        "/*",
        "\\",
    ];
    vec(prop::sample::select(words.to_vec()), 0..20).prop_map(|words| words.concat().into_bytes())
}

/// Rows, and how they are cut.
pub fn rows() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..600)).prop_map(|(cut, row, bytes)| [vec![cut, row], bytes].concat())
}

/// The contents of a server's messages.
pub fn contents() -> impl Strategy<Value = Vec<u8>> {
    let known: [&[u8]; 6] =
        [b"SERROR\0VERROR\0C23505\0Mduplicate\0\0", b"INSERT 0 7\0", b"BEGIN\0", b"T", b"\0\0\0\x09\x01", b"C\0\0"];
    prop::sample::select(known.to_vec()).prop_map(<[u8]>::to_vec)
}

/// Both sides of a login, as its check takes them.
pub fn login() -> impl Strategy<Value = Vec<u8>> {
    let done = Just(message(b'R', &[0; 4]));
    let offered = prop_oneof![offer().prop_map(|offer| message(b'R', &offer)), done, answer()];
    let first = |header: &str| message(b'p', format!("SCRAM-SHA-256\0\0\0\0\x09{header},,n=,r=x").as_bytes());
    let given = prop_oneof![Just(first("y")), Just(first("n")), request()];
    let said = prop_oneof![offered.prop_map(|bytes| (0x80_u8, bytes)), given.prop_map(|bytes| (0_u8, bytes))];
    vec(said, 0..12).prop_map(|said| {
        let chunk = |(side, bytes): (u8, Vec<u8>)| {
            [vec![side | u8::try_from(bytes.len()).unwrap_or(0x7f).min(0x7f)], bytes].concat()
        };
        said.into_iter().flat_map(chunk).collect()
    })
}

/// Events of the traffic log: one of each kind as the format writes them, in any order.
pub fn records() -> impl Strategy<Value = Vec<u8>> {
    let text = include_str!("../../src/shadow/log/record/version_7.txt");
    let bytes = |line: &str| -> Vec<u8> {
        let digits = line.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap_or_default());
        digits.filter_map(|two| u8::from_str_radix(two, 16).ok()).collect()
    };
    let kinds: Vec<Vec<u8>> = text.lines().map(bytes).collect();
    vec(prop::sample::select(kinds), 0..12).prop_map(|records| records.concat())
}

/// A segment of the traffic log with a few frames.
pub fn segment() -> impl Strategy<Value = Vec<u8>> {
    vec((any::<u64>(), any::<u32>(), records()), 0..4).prop_map(|frames| {
        let header = [&b"USTDYLOG"[..], &VERSION.to_le_bytes(), &[0; 4]].concat();
        let frame = |(first, events, payload): (u64, u32, Vec<u8>)| {
            let summed = [&first.to_le_bytes()[..], &events.to_le_bytes(), &payload].concat();
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            [&length.to_le_bytes()[..], &crc32fast::hash(&summed).to_le_bytes(), &summed].concat()
        };
        frames.into_iter().map(frame).fold(header, |bytes, frame| [bytes, frame].concat())
    })
}
