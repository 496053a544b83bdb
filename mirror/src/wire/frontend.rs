//! Messages that a client sends: their types, and the few whose contents matter here.

/// Types of frontend messages.
pub mod tag {
    /// Simple query.
    pub const QUERY: u8 = b'Q';
    /// Parse: SQL becomes a prepared statement.
    pub const PARSE: u8 = b'P';
    /// Bind: a prepared statement and parameters become a portal.
    pub const BIND: u8 = b'B';
    /// Execute a portal.
    pub const EXECUTE: u8 = b'E';
    /// Asks what a statement or a portal takes and gives.
    pub const DESCRIBE: u8 = b'D';
    /// Close a statement or portal.
    pub const CLOSE: u8 = b'C';
    /// End of an extended-protocol exchange.
    pub const SYNC: u8 = b'S';
    /// Flush: answers are wanted now.
    pub const FLUSH: u8 = b'H';
    /// Call a function by its OID.
    pub const FUNCTION_CALL: u8 = b'F';
    /// The client takes its leave.
    pub const TERMINATE: u8 = b'X';
    /// Data of a COPY.
    pub const COPY_DATA: u8 = b'd';
    /// End of a COPY.
    pub const COPY_DONE: u8 = b'c';
    /// The client gives a COPY up.
    pub const COPY_FAIL: u8 = b'f';
    /// A password or a SASL message; never captured, never logged.
    pub const PASSWORD: u8 = b'p';
}

/// What a frontend message says, as far as it decides what is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Simple query: SQL of any number of statements.
    Query(&'a [u8]),
    /// Statement name and SQL.
    Parse {
        /// Name of the prepared statement; empty for the unnamed one.
        statement: &'a [u8],
        /// The SQL, one statement.
        sql: &'a [u8],
    },
    /// A portal of a prepared statement.
    Bind {
        /// Name of the portal; empty for the unnamed one.
        portal: &'a [u8],
        /// Name of the prepared statement.
        statement: &'a [u8],
        /// What follows the names: formats and values.
        values: &'a [u8],
    },
    /// Execute a portal.
    Execute {
        /// Name of the portal.
        portal: &'a [u8],
        /// No more than so many rows of it.
        limited: bool,
    },
    /// Close a prepared statement.
    CloseStatement(&'a [u8]),
    /// Close a portal.
    ClosePortal(&'a [u8]),
    /// Call a function by OID.
    FunctionCall,
    /// Anything else, or a message whose contents make no sense (the server will say so).
    Other,
}

/// Reads a frontend message's payload.
pub fn request(tag: u8, payload: &[u8]) -> Request<'_> {
    read(tag, payload).unwrap_or(Request::Other)
}

fn read(tag: u8, payload: &[u8]) -> Option<Request<'_>> {
    Some(match tag {
        tag::QUERY => Request::Query(cstr(payload)?.0),
        tag::PARSE => {
            let (statement, rest) = cstr(payload)?;
            let (sql, _) = cstr(rest)?;
            Request::Parse { statement, sql }
        }
        tag::BIND => {
            let (portal, rest) = cstr(payload)?;
            let (statement, values) = cstr(rest)?;
            Request::Bind { portal, statement, values }
        }
        tag::EXECUTE => {
            let (portal, rest) = cstr(payload)?;
            // None and less than none are all of them.
            let limited = rest.first_chunk().is_some_and(|rows| i32::from_be_bytes(*rows) > 0);
            Request::Execute { portal, limited }
        }
        tag::CLOSE => match payload.split_first()? {
            (b'S', name) => Request::CloseStatement(cstr(name)?.0),
            (b'P', name) => Request::ClosePortal(cstr(name)?.0),
            _ => Request::Other,
        },
        tag::FUNCTION_CALL => Request::FunctionCall,
        _ => Request::Other,
    })
}

/// One parameter of a Bind message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Binary format; else text.
    pub binary: bool,
    /// The value; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// The `index`th parameter (from 0) in the part of a Bind message that follows the names.
pub fn parameter(values: &[u8], index: usize) -> Option<Parameter<'_>> {
    let (formats, rest) = u16_list(values)?;
    let binary = match formats.len() / 2 {
        0 => false,
        1 => formats == [0, 1],
        _ => formats.get(index * 2..index * 2 + 2)? == [0, 1],
    };
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    if index >= usize::from(u16::from_be_bytes(*count)) {
        return None;
    }
    for position in 0..=index {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let value = if length < 0 {
            rest = tail;
            None
        } else {
            let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
            rest = tail;
            Some(value)
        };
        if position == index {
            return Some(Parameter { binary, value });
        }
    }
    None
}

fn u16_list(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*count)) * 2)
}

/// A zero-terminated string at the front of `bytes`, and what follows its zero.
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_what_they_execute() {
        assert_eq!(request(b'Q', b"select 1\0"), Request::Query(b"select 1"));
        assert_eq!(request(b'P', b"s1\0select $1\0\0\0"), Request::Parse { statement: b"s1", sql: b"select $1" });
        for (rows, limited) in [(&[0, 0, 0, 0][..], false), (&[0, 0, 0, 50], true), (&[0xff; 4], false), (&[], false)] {
            let execute = [b"p\0", rows].concat();
            assert_eq!(request(b'E', &execute), Request::Execute { portal: b"p", limited }, "{rows:?}");
        }
        assert_eq!(request(b'C', b"Ss1\0"), Request::CloseStatement(b"s1"));
        assert_eq!(request(b'C', b"Pp1\0"), Request::ClosePortal(b"p1"));
        assert_eq!(request(b'S', b""), Request::Other);
    }

    #[test]
    fn torn_contents_are_other() {
        for (tag, payload) in
            [(b'Q', &b"no end"[..]), (b'P', b"s1\0no end"), (b'C', b""), (b'C', b"Zx\0"), (b'B', b"p\0s")]
        {
            assert_eq!(request(tag, payload), Request::Other);
        }
    }

    #[test]
    fn parameters_are_found_by_index() {
        // Two formats (text, binary), three... no: two values: "5" and a binary 7.
        let values = [0, 2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 1, b'5', 0, 0, 0, 4, 0, 0, 0, 7];
        assert_eq!(parameter(&values, 0), Some(Parameter { binary: false, value: Some(b"5") }));
        assert_eq!(parameter(&values, 1), Some(Parameter { binary: true, value: Some(&[0, 0, 0, 7]) }));
        assert_eq!(parameter(&values, 2), None);
        let null = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(parameter(&null, 0), Some(Parameter { binary: false, value: None }));
        assert_eq!(parameter(&[0, 0, 0, 1, 0, 0, 0, 9, 1], 0), None);
        assert_eq!(parameter(&[], 0), None);
    }
}
