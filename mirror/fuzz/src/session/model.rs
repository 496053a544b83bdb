//! What has to become of a script, told from its bytes alone: where the greeting ends, what the mirror answers
//! itself, where a stream stops being messages. Written from the protocol's documents, not from the mirror.

/// What a client's bytes begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// What the mirror answers by itself.
    pub replies: Vec<u8>,
    /// What it is.
    pub wish: Wish,
    /// Where the packet begins that goes on to the server.
    pub packet: usize,
    /// Where it ends.
    pub rest: usize,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It has not said it.
    Unsaid,
    /// A length that no packet has: closed without a word.
    NoLength,
    /// TLS that nobody offered: the same.
    Unasked,
    /// An encryption that it has asked for before: the mirror refuses it, as a server does.
    Again,
    /// The server has to refuse it.
    Refusal,
    /// A cancel request.
    Cancel,
    /// A session.
    Session {
        /// Which is relayed and not followed.
        replication: bool,
    },
}

/// Reads a client's first bytes, where there is no TLS for clients.
pub fn greeted(bytes: &[u8]) -> Greeted {
    let (mut at, mut replies) = (0, Vec::new());
    let (mut tls, mut gss) = (false, false);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = |wish, end| Greeted { replies: replies.clone(), wish, packet: at, rest: end };
        let Some(length) = rest.first_chunk::<4>() else { return end(Wish::Unsaid, at) };
        if at == 0 && length.first() == Some(&0x16) {
            return end(Wish::Unasked, 4);
        }
        let packet_bytes = u32::from_be_bytes(*length) as usize;
        if !(8..=10_004).contains(&packet_bytes) {
            return end(Wish::NoLength, at + 4);
        }
        let Some(packet) = rest.get(4..packet_bytes) else { return end(Wish::Unsaid, at) };
        let next = at + packet_bytes;
        let code = packet.first_chunk::<4>().map_or(0, |code| u32::from_be_bytes(*code));
        match code {
            80_877_103 if !tls => tls = true,
            80_877_104 if !gss => gss = true,
            80_877_103 | 80_877_104 => return end(Wish::Again, next),
            80_877_102 => return end(Wish::Cancel, next),
            196_608..=262_143 => {
                let wish = match replication(packet.get(4..).unwrap_or_default()) {
                    Some(replication) => Wish::Session { replication },
                    None => Wish::Refusal,
                };
                return end(wish, next);
            }
            _ => return end(Wish::Refusal, next),
        }
        replies.push(b'N');
        at = next;
    }
}

/// Whether a startup packet's parameters ask for replication; `None` when they are no parameters.
fn replication(parameters: &[u8]) -> Option<bool> {
    let list = parameters.strip_suffix(&[0])?;
    if list.is_empty() {
        return Some(false);
    }
    let words: Vec<&[u8]> = list.strip_suffix(&[0])?.split(|byte| *byte == 0).collect();
    let (pairs, odd) = words.as_chunks::<2>();
    let value = pairs.iter().find(|[name, _]| *name == b"replication").map(|[_, value]| *value);
    odd.is_empty().then_some(value.is_some_and(|value| ![&b"false"[..], b"off", b"no", b"0"].contains(&value)))
}

/// What a stream of messages is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// A message has a length that none may have.
    pub malformed: bool,
    /// It ends where a message does.
    pub whole: bool,
    /// Bytes of whole messages that it begins with.
    pub messages_bytes: usize,
}

/// Looks through a stream of messages.
pub fn stream(mut bytes: &[u8]) -> Stream {
    let all_bytes = bytes.len();
    let stands = |malformed, rest: &[u8]| Stream {
        malformed,
        whole: !malformed && rest.is_empty(),
        messages_bytes: all_bytes - rest.len(),
    };
    while let Some(([_, length @ ..], _)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..0x4000_0000).contains(&length) {
            return stands(true, bytes);
        }
        match bytes.get(length + 1..) {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    stands(false, bytes)
}
