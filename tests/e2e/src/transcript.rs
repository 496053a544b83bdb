//! What a program has said, without what differs between two runs of it that are the same.

/// The text of `said` with `port`, where it stands as a number of its own, as `PORT`: some programs say where the server
/// is.
pub fn without_port(said: &[u8], port: u16) -> String {
    let (said, port) = (String::from_utf8_lossy(said), port.to_string());
    let (mut text, mut told) = (String::with_capacity(said.len()), 0);
    for (at, _) in said.match_indices(&port) {
        let (before, after) = (&said[..at], &said[at + port.len()..]);
        if !before.ends_with(|c: char| c.is_ascii_digit()) && !after.starts_with(|c: char| c.is_ascii_digit()) {
            text += &said[told..at];
            text += "PORT";
            told = at + port.len();
        }
    }
    text += &said[told..];
    text
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn a_longer_number_that_has_a_port_s_digits_in_it_stays() {
        for (said, expected) in [
            ("127.0.0.1:37203 is gone, port 37203", "127.0.0.1:PORT is gone, port PORT"),
            ("9223372036854775807 1372037 137203", "9223372036854775807 1372037 137203"),
            ("3720337203 37203", "3720337203 PORT"),
            ("", ""),
        ] {
            assert_eq!(without_port(said.as_bytes(), 37203), expected);
        }
    }
}
