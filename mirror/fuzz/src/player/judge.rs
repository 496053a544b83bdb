//! What must hold whatever an arm says: it is asked for what production was asked for, in order and once, each message
//! whole, and for nothing else; what is said of its answers stands in them.

use understudy_mirror::{
    capture::exchange::Outcome,
    wire::{
        backend::tag,
        encode, frame,
        startup::{CANCEL, First, first},
    },
};

use super::{
    PROLOGUE, Played,
    arm::Asked,
    script::{Fate, Kind, Script, Wanted, query},
    started,
};

/// What an arm was told, of which the rest has not been looked at.
struct Told<'a> {
    rest: &'a [u8],
    /// Everything that it said.
    said: &'a [u8],
    /// What could have come next. Only who has ended in the middle may have sent a part of it.
    missed: Vec<Vec<u8>>,
}

impl Told<'_> {
    /// Whether this comes next, of a simple query.
    fn has(&mut self, bytes: &[u8]) -> bool {
        self.has_of(bytes, Kind::Simple)
    }

    /// Whether this comes next. An arm may ask for the data of a COPY whatever it was told: it is told each time that
    /// there is none.
    fn has_of(&mut self, bytes: &[u8], kind: Kind) -> bool {
        match self.rest.strip_prefix(bytes) {
            Some(rest) if !bytes.is_empty() => {
                let no_data = no_data(kind);
                self.rest = rest;
                while let Some(rest) = self.rest.strip_prefix(&no_data[..]) {
                    assert!(self.said.contains(&tag::COPY_IN), "no data for nobody");
                    self.rest = rest;
                }
                self.missed = vec![no_data];
                true
            }
            _ => {
                self.missed.push(bytes.to_vec());
                false
            }
        }
    }

    /// One exchange, which was played to its end or not.
    fn exchange(&mut self, wanted: Wanted, played: bool) {
        let undone = matches!(wanted.fate, Fate::Cancelled | Fate::Broken) && self.has(&query("BEGIN"));
        assert!(self.has_of(&wanted.request(), wanted.kind) || !played, "it was played and not asked for");
        if self.has_of(&data(wanted), wanted.kind) {
            assert!(self.said.contains(&tag::COPY_IN), "data that nobody asked for");
        }
        if undone {
            assert!(self.has(&query("ROLLBACK")) || !played, "what was undone on production stays on the arm");
        }
    }
}

/// What follows when the arm asks for the data of a COPY.
fn data(wanted: Wanted) -> Vec<u8> {
    match wanted {
        Wanted { kind: Kind::Copy(_), .. } | Wanted { fate: Fate::Well, .. } => wanted.copy_in().to_vec(),
        // Production had none.
        Wanted { kind, .. } => no_data(kind),
    }
}

/// What follows when it asks for more than there is.
fn no_data(kind: Kind) -> Vec<u8> {
    let sync = if kind == Kind::Extended { &encode::SYNC[..] } else { &[] };
    [&encode::copy_fail("the client has gone"), sync].concat()
}

/// Judges what a player and an arm came to.
pub fn judge(script: &Script, said: &[u8], played: &Played, asked: &Asked) {
    let Played { outcomes, error } = played;
    let mut told = Told { rest: &asked.session, said, missed: Vec::new() };
    let began = first(&asked.startup);
    let begins = |parameters: &[_]| started().parameters.iter().all(|parameter| parameters.contains(parameter));
    assert!(matches!(began, Ok(First::Startup(s)) if begins(&s.parameters)), "it begins as on production");
    let opened = error.is_none() || !outcomes.is_empty();
    if script.prologue {
        assert!(told.has(&query(PROLOGUE)) || !opened, "a session without its state");
        // Where the arm says that this began a transaction.
        told.has(&query("COMMIT"));
    }
    for (index, wanted) in script.wanted.iter().take(outcomes.len() + 1).enumerate() {
        told.exchange(*wanted, index < outcomes.len());
    }
    if error.is_none() {
        assert!(told.has(&encode::TERMINATE), "it leaves without a word");
    }
    let cut = |bytes: &Vec<u8>| error.is_some() && bytes.starts_with(told.rest);
    assert!(told.rest.is_empty() || told.missed.iter().any(cut), "it was told {:?}", told.rest);
    rows(outcomes, said);
    cancels(script, said, asked);
}

/// No more rows are counted than came.
fn rows(outcomes: &[Outcome], said: &[u8]) {
    let counted: u64 = outcomes.iter().flat_map(|o| &o.statements).map(|statement| statement.rows).sum();
    let is_row = |message: &frame::Message<'_>| b"DdV".contains(&message.tag);
    let came = frame::messages(said).filter(is_row).count() as u64;
    assert!(counted <= came, "{counted} rows of {came}");
}

/// Who wants something cancelled names the arm's own key, and nobody does where production did not.
fn cancels(script: &Script, said: &[u8], asked: &Asked) {
    let may_be = script.wanted.iter().any(|wanted| matches!(wanted.fate, Fate::Cancelled | Fate::Broken));
    assert!(may_be || asked.cancels.is_empty());
    for cancel in &asked.cancels {
        let Some((head, key)) = cancel.split_first_chunk::<8>() else { panic!("half a cancel request") };
        let length = u32::try_from(cancel.len()).unwrap_or(0).to_be_bytes();
        assert_eq!(*head, *[length, CANCEL.to_be_bytes()].as_flattened());
        let gave = |message: frame::Message<'_>| message.tag == tag::BACKEND_KEY && message.payload.starts_with(key);
        assert!(key.is_empty() || frame::messages(said).any(gave), "a key that the arm did not give");
    }
}
