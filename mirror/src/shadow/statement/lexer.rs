//! Finds the constants in a SQL text, so that texts which differ only in constants share one analysis.
//!
//! It must tell constants from everything else exactly where PostgreSQL does (chapter "Lexical
//! Structure"); it understands nothing beyond that, and takes any bytes.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

const SECRETS: RapidSecrets = RapidSecrets::seed(0x5ead_0000_0000_0002);

/// A constant in a SQL text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal<'a> {
    /// Where it begins, bytes from the front.
    pub offset: usize,
    /// It is quoted.
    pub quoted: bool,
    /// Its text, quotes included.
    pub text: &'a [u8],
}

/// The identity of a text without its constants, and its constants in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lexed<'a> {
    /// The same for texts that differ only in constants, spaces and comments.
    pub template: u64,
    /// The constants.
    pub literals: Vec<Literal<'a>>,
}

/// Takes a SQL text apart.
pub fn lex(sql: &[u8]) -> Lexed<'_> {
    let mut skeleton = Vec::with_capacity(sql.len());
    let mut literals = Vec::new();
    let mut at = 0;
    while let Some(byte) = sql.get(at).copied() {
        let rest = sql.get(at..).unwrap_or_default();
        let token = token(rest, byte);
        let text = rest.get(..token.bytes).unwrap_or(rest);
        match token.kind {
            Kind::Space => skeleton.push(b' '),
            Kind::Number => {
                skeleton.push(1);
                literals.push(Literal { offset: at, quoted: false, text });
            }
            Kind::String => {
                skeleton.push(2);
                literals.push(Literal { offset: at, quoted: true, text });
            }
            Kind::Other => skeleton.extend_from_slice(text),
        }
        at += token.bytes.max(1);
    }
    Lexed { template: rapidhash_v3_seeded(&skeleton, &SECRETS), literals }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Number,
    String,
    Other,
}

struct Token {
    kind: Kind,
    bytes: usize,
}

fn token(rest: &[u8], byte: u8) -> Token {
    let second = rest.get(1).copied().unwrap_or(0);
    let of = |kind, bytes| Token { kind, bytes };
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
            of(Kind::Space, run(rest, |b| b.is_ascii_whitespace() || b == 0x0b))
        }
        b'-' if second == b'-' => of(Kind::Space, run(rest, |b| b != b'\n' && b != b'\r')),
        b'/' if second == b'*' => of(Kind::Space, comment(rest)),
        b'\'' => of(Kind::String, quoted(rest, 0, b'\'', false)),
        b'e' | b'E' if second == b'\'' => of(Kind::String, quoted(rest, 1, b'\'', true)),
        b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if second == b'\'' => of(Kind::String, quoted(rest, 1, b'\'', false)),
        b'"' => of(Kind::Other, quoted(rest, 0, b'"', false)),
        b'$' if second.is_ascii_digit() => {
            of(Kind::Other, 1 + run(rest.get(1..).unwrap_or_default(), |b| b.is_ascii_digit()))
        }
        b'$' => match dollar_quoted(rest) {
            Some(bytes) => of(Kind::String, bytes),
            None => of(Kind::Other, 1),
        },
        b'0'..=b'9' => of(Kind::Number, number(rest)),
        b'.' if second.is_ascii_digit() => of(Kind::Number, number(rest)),
        _ if is_word_start(byte) => of(Kind::Other, run(rest, is_word)),
        _ => of(Kind::Other, 1),
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn run(rest: &[u8], of: impl Fn(u8) -> bool) -> usize {
    rest.iter().take_while(|b| of(**b)).count()
}

fn number(rest: &[u8]) -> usize {
    let mut before = 0_u8;
    let length = rest
        .iter()
        .take_while(|b| {
            let sign_of_exponent = matches!(**b, b'+' | b'-') && matches!(before, b'e' | b'E');
            let part = b.is_ascii_alphanumeric() || **b == b'.' || **b == b'_' || sign_of_exponent;
            before = **b;
            part
        })
        .count();
    // `1..2` (a slice) is a number, two dots and a number.
    match rest.get(..length).unwrap_or_default().windows(2).position(|w| w == b"..") {
        Some(dots) if dots > 0 => dots,
        _ => length,
    }
}

/// Length of a quoted run that begins after `prefix` bytes; a doubled quote belongs to it.
fn quoted(rest: &[u8], prefix: usize, quote: u8, backslash: bool) -> usize {
    let mut at = prefix + 1;
    while let Some(byte) = rest.get(at).copied() {
        if backslash && byte == b'\\' {
            at += 2;
        } else if byte == quote {
            if rest.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Comments nest.
fn comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn dollar_quoted(rest: &[u8]) -> Option<usize> {
    let name = run(rest.get(1..)?, |b| is_word(b) && b != b'$');
    let delimiter = rest.get(..name + 2)?;
    if delimiter.last() != Some(&b'$') {
        return None;
    }
    let body = rest.get(delimiter.len()..)?;
    let end = body.windows(delimiter.len()).position(|w| w == delimiter);
    Some(end.map_or(rest.len(), |end| end + 2 * delimiter.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(sql: &str) -> Vec<String> {
        lex(sql.as_bytes()).literals.iter().map(|l| String::from_utf8_lossy(l.text).into_owned()).collect()
    }

    #[test]
    fn constants_are_found_and_nothing_else_is() {
        for (sql, expected) in [
            ("select 1, 'it''s', 2.5e-3", &["1", "'it''s'", "2.5e-3"][..]),
            ("select t1.a2 from \"T 3\" where x = $1", &[]),
            ("select e'a\\'b', $q$ it's $q$, x'1f'", &["e'a\\'b'", "$q$ it's $q$", "x'1f'"]),
            ("select a -- 5 'x\n, 6 /* 7 /* 8 */ 9 */ + 10", &["6", "10"]),
            ("select a[1:2], .5, 0x1F, 1_000", &["1", "2", ".5", "0x1F", "1_000"]),
            ("select 'unfinished", &["'unfinished"]),
        ] {
            assert_eq!(literals(sql), expected, "{sql}");
        }
    }

    #[test]
    fn texts_that_differ_in_constants_only_share_a_template() {
        let template = |sql: &str| lex(sql.as_bytes()).template;
        assert_eq!(template("update t set a = a + 17 where id=5"), template("update t  set a = a + 2 where id=99999"));
        assert_ne!(template("update t set a = 1"), template("update t set a = '1'"));
        assert_ne!(template("update t set a = 1"), template("update u set a = 1"));
        assert_ne!(template("select a-1"), template("select a"));
    }

    #[test]
    fn any_bytes_are_taken() {
        for bytes in [&b"\xff\xfe'"[..], b"$", b"$$", b"/*", b"\\", b"1..", b"e'\\", b"\"", b"$a"] {
            let _ = lex(bytes);
        }
    }
}
