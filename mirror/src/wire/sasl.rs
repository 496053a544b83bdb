//! What of a SASL login concerns channel binding ("SASL Authentication" of the protocol, RFC 5802). Passwords
//! and proofs are not looked at.

use super::frontend::cstr;

/// SCRAM with the channel bound: client and server prove to each other that they see the same TLS.
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";
/// `AuthenticationSASL`: a list of mechanisms follows.
const SASL: u32 = 10;

/// What an authentication request of a server asks for: its code and what follows.
pub fn request(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (code, rest) = payload.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*code), rest))
}

/// The payload of an authentication request without the mechanism that binds the channel; `None` when it does
/// not offer it.
pub fn without_binding(payload: &[u8]) -> Option<Vec<u8>> {
    let (SASL, mut rest) = request(payload)? else { return None };
    let mut kept = SASL.to_be_bytes().to_vec();
    let mut was_offered = false;
    while let Some((mechanism, tail)) = cstr(rest) {
        // The empty one ends the list, and is kept.
        if mechanism == BOUND {
            was_offered = true;
        } else {
            kept.extend_from_slice(mechanism);
            kept.push(0);
        }
        rest = tail;
    }
    was_offered.then_some(kept)
}

/// Whether a client's first SASL message says that it could bind the channel and believes that the server
/// could not: a server that can takes this for an attack, and refuses it.
pub fn believes_that_binding_is_missing(payload: &[u8]) -> bool {
    let Some((_mechanism, rest)) = cstr(payload) else { return false };
    // The length of what follows, then the GS2 header: `n`, `y` or `p=…`.
    rest.get(4..).is_some_and(|data| data.starts_with(b"y,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(mechanisms: &[u8]) -> Vec<u8> {
        [&SASL.to_be_bytes()[..], mechanisms].concat()
    }

    #[test]
    fn only_the_bound_mechanism_is_taken_out() {
        let both = offer(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        assert_eq!(without_binding(&both), Some(offer(b"SCRAM-SHA-256\0\0")));
        assert_eq!(without_binding(&offer(b"SCRAM-SHA-256\0\0")), None);
        assert_eq!(without_binding(&5_u32.to_be_bytes()), None, "md5");
        assert_eq!(without_binding(b""), None);
    }

    #[test]
    fn what_a_client_believes_is_read_from_its_first_message() {
        let first = |header: &[u8]| [b"SCRAM-SHA-256\0\0\0\0\x20", header].concat();
        for (header, believes) in
            [(&b"y,,n=,r=x"[..], true), (b"n,,n=,r=x", false), (b"p=tls-server-end-point,,", false)]
        {
            assert_eq!(believes_that_binding_is_missing(&first(header)), believes);
        }
        assert!(!believes_that_binding_is_missing(b"secret\0"), "a password");
        assert!(!believes_that_binding_is_missing(b""));
    }
}
