//! The bytes of what a script says ("Message Formats" of the protocol). Made here and not by the code under
//! test, so that both can't be wrong in the same way.

use super::script::{Answer, Asked, Exchange, First, Request, Said};

const SQL: [&str; 12] = [
    "select 1",
    "update t set a = a + 1 where id = 7",
    "insert into t values ($1, $2)",
    "begin",
    "commit",
    "rollback",
    "copy t from stdin",
    "copy t to stdout",
    "select * from t where id = $1; delete from t",
    "prepare p as select $1::int",
    "",
    "selec \u{fffd}'",
];

/// Who says it, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// What is said by whom, in order.
pub fn said(said: &Said) -> Vec<(Side, Vec<u8>)> {
    match said {
        Said::Client(one) => vec![(Side::Client, request(one))],
        Said::Server(one) => vec![(Side::Server, answer(one))],
        Said::Exchange(one) => exchange(one),
    }
}

/// A request for encryption.
pub fn asked(asked: Asked) -> Vec<u8> {
    let code: u32 = match asked {
        Asked::Tls => 80_877_103,
        Asked::Gss => 80_877_104,
    };
    packet(&code.to_be_bytes())
}

/// The first packet.
pub fn first(first: &First) -> Vec<u8> {
    match first {
        First::Startup { minor, parameters, replication } => {
            let mut body = (196_608 + u32::from(*minor)).to_be_bytes().to_vec();
            body.extend_from_slice(b"user\0ann\0");
            if *replication {
                body.extend_from_slice(b"replication\0database\0");
            }
            body.extend_from_slice(parameters);
            body.push(0);
            packet(&body)
        }
        First::Cancel(secret) => {
            let mut body = 80_877_102_u32.to_be_bytes().to_vec();
            body.extend_from_slice(&[0, 0, 0, 9]);
            body.resize(8 + usize::from(*secret), 7);
            packet(&body)
        }
        First::Packet(body) => packet(body),
        First::Bytes(bytes) => bytes.clone(),
        First::Length(length) => length.to_be_bytes().to_vec(),
        First::Nothing => Vec::new(),
    }
}

/// What a server says to let a client in.
pub fn login() -> Vec<u8> {
    [
        answer(&Answer::Authentication(0)),
        answer(&Answer::ParameterStatus),
        answer(&Answer::BackendKey(4)),
        answer(&Answer::Ready(0)),
    ]
    .concat()
}

/// The client's goodbye.
pub fn terminate() -> Vec<u8> {
    request(&Request::Terminate)
}

fn packet(body: &[u8]) -> Vec<u8> {
    [&length(body.len() + 4)[..], body].concat()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length(body.len() + 4), body].concat()
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

fn sql(number: u8) -> &'static str {
    SQL.get(usize::from(number) % SQL.len()).copied().unwrap_or_default()
}

fn name(number: u8) -> &'static str {
    ["", "s1", "s2", "a longer name"].get(usize::from(number & 3)).copied().unwrap_or_default()
}

fn request(request: &Request) -> Vec<u8> {
    match request {
        Request::Password => message(b'p', b"secret\0"),
        Request::Query(number) => message(b'Q', format!("{}\0", sql(*number)).as_bytes()),
        Request::Parse { name: of, sql: number } => {
            message(b'P', format!("{}\0{}\0\0\0", name(*of), sql(*number)).as_bytes())
        }
        Request::Bind { portal, name: of, values } => {
            let mut body = format!("{}\0{}\0\0\0\0", name(*portal), name(*of)).into_bytes();
            body.push(values & 7);
            (0..values & 7).for_each(|_| body.extend_from_slice(&[0, 0, 0, 1, b'7']));
            body.extend_from_slice(&[0, 0]);
            message(b'B', &body)
        }
        Request::Describe(of) => message(b'D', format!("S{}\0", name(*of)).as_bytes()),
        Request::Execute { portal, rows } => {
            let mut body = format!("{}\0", name(*portal)).into_bytes();
            body.extend_from_slice(&u32::from(*rows).to_be_bytes());
            message(b'E', &body)
        }
        Request::Close { is_portal, name: of } => {
            message(b'C', format!("{}{}\0", if *is_portal { 'P' } else { 'S' }, name(*of)).as_bytes())
        }
        Request::Sync => message(b'S', b""),
        Request::Flush => message(b'H', b""),
        Request::FunctionCall => message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        Request::CopyData(hundreds) => message(b'd', &vec![b'x'; usize::from(*hundreds) * 100]),
        Request::CopyDone => message(b'c', b""),
        Request::CopyFail => message(b'f', b"no more\0"),
        Request::Terminate => message(b'X', b""),
        Request::Any { tag, contents } => message(*tag, &vec![*contents; usize::from(contents >> 3)]),
        Request::Bytes(bytes) => bytes.to_vec(),
    }
}

fn answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Authentication(code) => message(b'R', &u32::from(*code % 13).to_be_bytes()),
        Answer::ParameterStatus => message(b'S', b"TimeZone\0UTC\0"),
        Answer::BackendKey(secret) => {
            let mut body = vec![0, 0, 0, 9];
            body.resize(4 + usize::from(*secret), 7);
            message(b'K', &body)
        }
        Answer::Ready(status) => message(b'Z', &[pick(b"ITEI?", *status)]),
        Answer::Rows { rows, hundreds } => {
            let row = message(b'D', &vec![b'r'; 6 + usize::from(*hundreds) * 100]);
            row.repeat(usize::from(*rows & 0x0f))
        }
        Answer::RowDescription => message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
        Answer::ParameterDescription => message(b't', b"\0\x01\0\0\0\x17"),
        Answer::Complete(number) => {
            let tags =
                ["SELECT 1", "UPDATE 3", "INSERT 0 1", "BEGIN", "COMMIT", "COPY 2", "SELECT 9999999999999999999"];
            let tag = tags.get(usize::from(*number) % tags.len()).copied().unwrap_or_default();
            message(b'C', format!("{tag}\0").as_bytes())
        }
        Answer::Short(which) => message(pick(b"123nIs", *which), b""),
        Answer::Copy(which) => message(pick(b"GHW", *which), &[0, 0, 0]),
        Answer::CopyData(hundreds) => message(b'd', &vec![b'y'; usize::from(*hundreds) * 100]),
        Answer::CopyDone => message(b'c', b""),
        Answer::Error(which) => {
            let states = ["23505", "57014", "40001", "XX000", "57P01"];
            let state = states.get(usize::from(*which) % states.len()).copied().unwrap_or_default();
            message(b'E', format!("SERROR\0VERROR\0C{state}\0Mno\0\0").as_bytes())
        }
        Answer::Notice => message(b'N', b"SNOTICE\0C00000\0Mso\0\0"),
        Answer::Notification => message(b'A', b"\0\0\0\x09channel\0payload\0"),
        Answer::FunctionResult => message(b'V', b"\0\0\0\x01\x31"),
        Answer::Any { tag, contents } => message(*tag, &vec![*contents; usize::from(contents >> 3)]),
        Answer::Bytes(bytes) => bytes.to_vec(),
    }
}

fn pick(of: &[u8], number: u8) -> u8 {
    of.get(usize::from(number) % of.len().max(1)).copied().unwrap_or_default()
}

fn exchange(exchange: &Exchange) -> Vec<(Side, Vec<u8>)> {
    let client = |requests: &[Request]| (Side::Client, requests.iter().flat_map(request).collect::<Vec<u8>>());
    let server = |answers: &[Answer]| (Side::Server, answers.iter().flat_map(answer).collect::<Vec<u8>>());
    let rows = |rows: u8| Answer::Rows { rows, hundreds: rows >> 4 };
    let prepared = |sql: u8| {
        [
            Request::Parse { name: 0, sql },
            Request::Bind { portal: 0, name: 0, values: 1 },
            Request::Describe(0),
            Request::Execute { portal: 0, rows: 0 },
            Request::Sync,
        ]
    };
    let executed = |count: u8, status: u8| {
        [
            Answer::Short(0),
            Answer::Short(1),
            Answer::RowDescription,
            rows(count),
            Answer::Complete(0),
            Answer::Ready(status),
        ]
    };
    let end_of_copy = |fails: bool| if fails { Request::CopyFail } else { Request::CopyDone };
    let end_of_answer = |fails: bool| if fails { Answer::Error(0) } else { Answer::Complete(5) };
    match exchange {
        Exchange::Simple { sql, rows: count, status } => vec![
            client(&[Request::Query(*sql)]),
            server(&[Answer::RowDescription, rows(*count), Answer::Complete(*sql), Answer::Ready(*status)]),
        ],
        Exchange::Extended { sql, rows, status } => {
            vec![client(&prepared(*sql)), server(&executed(*rows, *status))]
        }
        Exchange::Pipeline(depth) => {
            let depth = usize::from(depth & 7);
            let requests = (0..depth).map(|_| client(&prepared(1)));
            requests.chain((0..depth).map(|_| server(&executed(2, 0)))).collect()
        }
        Exchange::CopyIn { chunks, fails } => {
            let data = vec![Request::CopyData(*chunks); usize::from(chunks & 7)];
            vec![
                client(&[Request::Query(6)]),
                server(&[Answer::Copy(0)]),
                client(&data),
                client(&[end_of_copy(*fails)]),
                server(&[end_of_answer(*fails), Answer::Ready(0)]),
            ]
        }
        Exchange::CopyInExtended { chunks, fails } => {
            let data = vec![Request::CopyData(*chunks); usize::from(chunks & 7)];
            vec![
                client(&prepared(6)),
                server(&[Answer::Short(0), Answer::Short(1), Answer::Copy(0)]),
                client(&data),
                client(&[end_of_copy(*fails), Request::Sync]),
                server(&[end_of_answer(*fails), Answer::Ready(0)]),
            ]
        }
        Exchange::CopyOut { chunks } => {
            let data = vec![Answer::CopyData(*chunks); usize::from(chunks & 7)];
            vec![
                client(&[Request::Query(7)]),
                server(&[Answer::Copy(1)]),
                server(&data),
                server(&[Answer::CopyDone, Answer::Complete(5), Answer::Ready(0)]),
            ]
        }
        Exchange::Function => {
            vec![client(&[Request::FunctionCall]), server(&[Answer::FunctionResult, Answer::Ready(0)])]
        }
        Exchange::Failure(which) => {
            vec![client(&[Request::Query(1)]), server(&[Answer::Error(*which), Answer::Ready(*which)])]
        }
    }
}
