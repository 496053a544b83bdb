//! What a player is to play, and what the arm says to it.

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use understudy_mirror::wire::encode;

/// More than these show nothing new.
const MAX_ANSWERS: usize = 24;
const MAX_WANTED: usize = 6;

/// A session of a player.
#[derive(Debug)]
pub struct Script {
    /// It has a state to make again.
    pub prologue: bool,
    /// What it plays then.
    pub wanted: Vec<Wanted>,
    /// What the arm says, each when it was asked for something.
    pub answers: Vec<Answer>,
}

/// An exchange to play.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Wanted {
    pub kind: Kind,
    pub fate: Fate,
}

/// How it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Kind {
    Simple,
    Extended,
    Function,
    /// A COPY of that many messages of data.
    Copy(u8),
}

/// What became of it on production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Fate {
    Well,
    Failed,
    /// For a reason of the moment: on the arm it is undone.
    Cancelled,
    /// Its client vanished.
    Broken,
}

/// What the arm says at once, in pieces.
#[derive(Debug, Arbitrary)]
pub struct Answer {
    pub cut: u8,
    pub said: Vec<Said>,
}

/// A message of a server, whole or not.
#[derive(Debug, Arbitrary)]
pub enum Said {
    LoggedIn,
    Ready(u8),
    Done(u8),
    Key(Vec<u8>),
    Row(Vec<u8>),
    Complete,
    Failed([u8; 5]),
    CopyIn,
    Notification,
    Parameter,
    Notice,
    Any { tag: u8, payload: Vec<u8> },
    Bytes(Vec<u8>),
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let prologue = u.arbitrary()?;
        let wanted = (0..u.int_in_range(0..=MAX_WANTED)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
        let mut answers = Vec::new();
        // Most arms let the mirror in: there is more to see behind that.
        let login: u8 = u.arbitrary()?;
        if !login.is_multiple_of(8) {
            answers.push(Answer { cut: u.arbitrary()?, said: vec![Said::Key(vec![login; 8]), Said::LoggedIn] });
        }
        while !u.is_empty() && answers.len() < MAX_ANSWERS {
            answers.push(u.arbitrary()?);
        }
        Ok(Self { prologue, wanted, answers })
    }
}

impl Wanted {
    /// The request.
    pub fn request(self) -> Bytes {
        match self.kind {
            Kind::Simple => query("update t set a = 1"),
            Kind::Copy(_) => query("copy t from stdin"),
            Kind::Function => encode::message_bytes(b'F', b"\0\0\0\x01\0\0\0\0\0\0").into(),
            Kind::Extended => {
                let parse = encode::message_bytes(b'P', b"\0select 1\0\0\0");
                let bind = encode::message_bytes(b'B', b"\0\0\0\0\0\0\0\0");
                let execute = encode::message_bytes(b'E', b"\0\0\0\0\0");
                [parse, bind, execute, encode::SYNC.to_vec()].concat().into()
            }
        }
    }

    /// What production's client sent of a COPY.
    pub fn copy_in(self) -> Bytes {
        let Kind::Copy(messages) = self.kind else { return Bytes::new() };
        let data = encode::message_bytes(b'd', b"1\tone\n").repeat(usize::from(messages));
        [data, encode::message_bytes(b'c', b"")].concat().into()
    }
}

impl Answer {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.said.iter().flat_map(Said::bytes).collect()
    }
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        let message = encode::message_bytes;
        match self {
            Self::LoggedIn => [message(b'R', &[0; 4]), message(b'Z', b"I")].concat(),
            Self::Ready(status) => ready(*status),
            Self::Done(status) => [message(b'C', b"UPDATE 3\0"), ready(*status)].concat(),
            Self::Key(key) => message(b'K', key),
            Self::Row(row) => message(b'D', row),
            Self::Complete => message(b'C', b"UPDATE 3\0"),
            Self::Failed(sqlstate) => message(b'E', &[b"SERROR\0C", &sqlstate[..], b"\0\0"].concat()),
            Self::CopyIn => message(b'G', b"\0\0\0"),
            Self::Notification => message(b'A', b"\0\0\0\x07news\0told\0"),
            Self::Parameter => message(b'S', b"TimeZone\0UTC\0"),
            Self::Notice => message(b'N', b"SNOTICE\0C00000\0\0"),
            Self::Any { tag, payload } => message(*tag, payload),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

fn ready(status: u8) -> Vec<u8> {
    encode::message_bytes(b'Z', &[*b"ITE".get(usize::from(status % 4)).unwrap_or(&status)])
}

/// A simple query.
pub fn query(sql: &str) -> Bytes {
    encode::query(sql).into()
}
