//! Checks of what the shadow path makes of a client's words: the lexer, the analysis of a text, and the book
//! that follows a session through them.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use understudy_mirror::{
    capture::{
        exchange::{Exchange, SessionId, SessionInfo},
        tracker::{Keep, Step, Tracker},
    },
    shadow::{
        entry::{Budget, Entry},
        schema::Schema,
        session_book::{Plan, SessionBook},
        statement::{
            catalog::{self, Catalog},
            footprint::Footprint,
            lexer,
            template::{self, KeySource, Kind, Statement, TableTemplates},
        },
    },
    wire::{frame, startup::Startup},
};

use super::capture::chunks;

/// The lexer takes any bytes; constants lie in the text, in order and apart.
pub fn lexer(data: &[u8]) {
    let lexed = lexer::lex(data);
    let mut from = 0;
    for literal in &lexed.literals {
        assert!(literal.offset >= from && !literal.text.is_empty());
        assert_eq!(data.get(literal.offset..literal.offset + literal.text.len()), Some(literal.text));
        from = literal.offset + literal.text.len();
    }
    assert_eq!(lexer::lex(data).template, lexed.template);
}

/// What is found out about a text holds for every text of its template: that is what the cache relies on. And
/// it makes sense by itself.
pub fn template(data: &[u8]) {
    let lexed = lexer::lex(data);
    let found = template::analyse(data, &lexed);
    assert!(!found.statements.is_empty(), "a text with nothing in it is a statement as well");
    for statement in &found.statements {
        sensible(statement, lexed.literals.len());
    }
    let analysed = Catalog::default().analyse(data);
    assert_eq!(analysed.literals.len(), lexed.literals.len());
    let parses = |text: &[u8]| {
        std::str::from_utf8(text).is_ok_and(|text| pg_query::parse(text, pg_query::ParserOptions::DEFAULT).is_ok())
    };
    let other = with_other_numbers(data, &lexed);
    let relexed = lexer::lex(&other);
    assert_eq!(relexed.template, lexed.template, "constants are no part of a template");
    if parses(data) && parses(&other) {
        let again = template::analyse(&other, &relexed);
        let meaning =
            |one: &template::Template| one.statements.iter().map(|statement| meaning(statement)).collect::<Vec<_>>();
        assert_eq!(meaning(&again), meaning(&found), "two texts of a template mean different things");
    }
}

/// All that decides whether, when and beside what a statement is played.
fn meaning(statement: &Statement) -> String {
    let Statement {
        class,
        kind,
        writes,
        answer,
        skip,
        changes,
        tables,
        beginnings,
        defines,
        deletes,
        isolation,
        functions,
        reading,
        fingerprint: _,
        text: _,
    } = statement;
    let kind = match kind {
        Kind::Prepare(name, inner) => format!("prepare {name} {}", meaning(inner)),
        other => format!("{other:?}"),
    };
    let reading = reading.as_ref().map(|reading| (reading.class, reading.writes, reading.answer, &reading.tables));
    let defined = format!("{beginnings} {defines:?} {deletes} {isolation:?} {functions:?} {reading:?}");
    format!("{class:?} {kind} {writes} {answer:?} {skip:?} {changes} {tables:?} {defined}")
}

fn sensible(statement: &Statement, literals: usize) {
    if let TableTemplates::Tables(tables) = &statement.tables {
        for table in tables {
            for (_, source) in table.rows.iter().flat_map(|rows| &rows.keys) {
                assert!(
                    !matches!(source, KeySource::Literal(index) if *index >= literals),
                    "a key that is no constant"
                );
            }
            assert!(!table.access.changes() || statement.writes);
        }
    }
    // What a statement touches never depends on constants that are not there.
    for values in [None, Some(&[][..]), Some(&[0, 0, 0, 1, 0, 0, 0, 1, b'5'][..])] {
        let touches = catalog::footprint(statement, &[], values);
        conflicts(&touches);
    }
    if let Kind::Prepare(_, inner) = &statement.kind {
        sensible(inner, literals);
    }
}

/// Whoever touches something conflicts with whoever may touch everything, and whoever writes with itself.
fn conflicts(touches: &Footprint) {
    let everything = Footprint::Anything;
    assert_eq!(touches.conflicts(&everything), *touches != Footprint::NOTHING);
    assert_eq!(everything.conflicts(touches), *touches != Footprint::NOTHING);
    assert!(!touches.conflicts(&Footprint::NOTHING));
    assert_eq!(touches.strictly().conflicts(touches), touches.writes() != Footprint::NOTHING);
    let mut merged = touches.clone();
    merged.merge(touches);
    assert_eq!(merged.conflicts(&everything), touches.conflicts(&everything));
}

/// The text with each digit from 1 to 6 of its plain decimal numbers replaced by the next.
fn with_other_numbers(text: &[u8], lexed: &lexer::Lexed<'_>) -> Vec<u8> {
    let mut other = text.to_vec();
    for literal in lexed.literals.iter().filter(|literal| literal.text.iter().all(u8::is_ascii_digit)) {
        let end = literal.offset + literal.text.len();
        for byte in other.get_mut(literal.offset..end).unwrap_or_default() {
            if matches!(*byte, b'1'..=b'6') {
                *byte += 1;
            }
        }
    }
    other
}

/// A session is followed through any conversation: what publishes something writes, nothing is kept of
/// transactions that are over, and an arm that comes later is given whole messages. The conversation is one of
/// [`super::capture`].
pub fn plan(data: &[u8]) {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    let mut now_ns = 0;
    for (from_server, chunk) in chunks(data) {
        now_ns += 1;
        let taken = if from_server {
            tracker.server(chunk, now_ns, &mut steps)
        } else {
            tracker.client(chunk, now_ns, &mut steps)
        };
        if taken.is_err() {
            break;
        }
    }
    tracker.broken(now_ns, &mut steps);
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let (mut book, mut catalog) = (SessionBook::new(Arc::new(info)), Catalog::default());
    let budget = Budget::new(1 << 20);
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let (mut ended, mut in_block) = (0, false);
    for step in steps {
        match step {
            Step::Begun(exchange) => {
                let id = u64::try_from(entries.len()).unwrap_or(u64::MAX);
                let (entry, settled) = planned(id, exchange, &mut book, &mut catalog, &budget);
                book.begun(Arc::clone(&entry), settled);
                entries.push(entry);
            }
            Step::Ended(exchange) => {
                let Some(entry) = entries.get(ended) else { panic!("what ends has begun") };
                assert_eq!(entry.exchange.sequence, exchange.sequence);
                book.ended(entry);
                in_block = entry.outcome().is_some_and(|outcome| outcome.after.in_block());
                ended += 1;
            }
            Step::LoggedIn | Step::Terminated => {}
        }
    }
    let seed = book.cut(now_ns / 2, now_ns);
    assert!(seed.in_doubt.is_none_or(|index| index < seed.entries.len()));
    for message in &seed.prologue {
        let whole: usize = frame::messages(message).map(|one| one.bytes.len()).sum();
        assert_eq!(whole, message.len(), "the prologue is made of whole messages");
    }
    book.settle(None);
    if !in_block {
        assert_eq!(book.kept(), 0, "kept of transactions that are over");
    }
    drop((entries, seed, book));
    assert_eq!(budget.used_bytes(), 0);
}

fn planned(
    id: u64,
    exchange: Arc<Exchange>,
    book: &mut SessionBook,
    catalog: &mut Catalog,
    budget: &Arc<Budget>,
) -> (Arc<Entry>, understudy_mirror::shadow::prologue::Settled) {
    let Plan { statements, writes, touches, publishes, beginnings, defines: _, skip, settled } =
        book.plan(&exchange, catalog, &Schema::default());
    assert!(writes || publishes == Footprint::NOTHING, "what publishes something writes");
    assert!(!beginnings || publishes == Footprint::Anything, "nobody knows what else that changes");
    conflicts(&touches);
    let charge = budget.charge(exchange.request.len());
    let entry = Entry {
        id,
        exchange,
        statements,
        writes,
        touches,
        publishes,
        beginnings,
        skip,
        overlapped: AtomicBool::new(false),
        charge,
        taken_in: OnceLock::new(),
    };
    (Arc::new(entry), settled)
}
