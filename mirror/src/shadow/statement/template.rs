//! Analyses a SQL text once for all texts that differ only in constants.

use std::sync::Arc;

use pg_query::{FingerprintOptions, ParserOptions};
use serde_json::Value;
use understudy_crds::{condition::SkipReason, experiment::StatementClass};

use super::{
    answering::answer,
    definitions::{changes_beginnings, defines},
    equality::{Equalities, ValueSource},
    footprint::Access,
    functions::{SERVER_IDENTITY, SIDE_EFFECTS, changes_nothing, draws, takes_advisory_lock, touches_nothing},
    isolation::{self, Isolation},
    lexer::{self, Lexed},
    rows::KeyValue,
    session,
    tables::tables,
    tree::{self, Found},
};
use crate::{
    measure::interval::Fingerprint,
    shadow::{entry::Answer, schema::Defines},
};

/// A constant costs the parser and the walk through its tree some 3 kB; a byte of a text a few bytes. What is larger is
/// not parsed: an INSERT of a million rows in one text would take gigabytes from a machine that production is on.
pub(super) const MOST_LITERALS: usize = 5_000;
const MOST_BYTES: usize = 8 << 20;
/// The same of a text without its constants.
pub(super) const MOST_SKELETON_BYTES: usize = 128 << 10;
/// A longer text is shortened for the report.
const MOST_TEXT_BYTES: usize = 4 << 10;

/// What is known of all texts with the same template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The statements in order.
    pub statements: Vec<Arc<Statement>>,
}

/// One statement of a template.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one statement")]
#[derive(Debug, Clone)]
pub struct Statement {
    /// What its latency counts as. A COMMIT is `Commit` only in a transaction that wrote.
    pub class: StatementClass,
    /// What it is to the transaction and the session.
    pub kind: Kind,
    /// It may change data, lock it, or change the database's objects.
    pub writes: bool,
    /// Whether two servers give the same rows.
    pub answer: Answer,
    /// Why it is not played, if it is not.
    pub skip: Option<SkipReason>,
    /// Not to play it may leave other data or objects behind than playing it.
    pub changes: bool,
    /// What it touches.
    pub tables: TableTemplates,
    /// It may change what sessions begin with.
    pub beginnings: bool,
    /// What may have another meaning behind it.
    pub defines: Option<Defines>,
    /// It deletes rows.
    pub deletes: bool,
    /// It says whether transactions see one moment in all their statements.
    pub isolation: Option<Isolation>,
    /// Functions that it calls and of which nothing is known by their names.
    pub functions: Vec<Arc<str>>,
    /// What it is where those change nothing.
    pub reading: Option<Arc<Statement>>,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Its text with the constants taken out.
    pub text: Arc<str>,
}

/// What a statement is to the transaction and the session.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Neither begins nor ends anything.
    Plain,
    /// BEGIN.
    Begin,
    /// COMMIT, PREPARE TRANSACTION.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// ROLLBACK TO a savepoint.
    RollbackTo,
    /// Sets one variable of the session, for good and whatever it was: SET, RESET, `set_config`.
    Sets(VariableSource),
    /// Changes the session in another way that its text makes again: LISTEN, RESET ALL.
    SessionState,
    /// Leaves something in the session that can't be made again from its text: a temporary table, a setting that was
    /// drawn from data.
    SessionBound,
    /// Opens a cursor that outlives its transaction, and can't be opened again from its text.
    HoldsCursor(Arc<str>),
    /// Closes a cursor; all, without a name.
    ClosesCursor(Option<Arc<str>>),
    /// Takes an advisory lock for the session, which no ROLLBACK gives back.
    SessionLocked,
    /// Gives such locks back and does nothing else.
    Unlocks {
        /// All that the session has.
        all: bool,
    },
    /// DEALLOCATE of a prepared statement; of all, without a name.
    Deallocate(Option<Arc<str>>),
    /// DISCARD ALL.
    DiscardAll,
    /// EXECUTE of a statement prepared by SQL.
    ExecutePrepared(Arc<str>),
    /// PREPARE of such a statement; it is itself session state.
    Prepare(Arc<str>, Arc<Statement>),
}

/// Where the name of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableSource {
    /// The text names it.
    Named(Arc<str>),
    /// It is an argument.
    Given(KeySource),
}

/// A variable of a session. Two that differ may be the same one, named in two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// By its name.
    Named(Arc<str>),
    /// By the argument that names it.
    Given(KeyValue),
}

/// The tables of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableTemplates {
    /// Nobody knows.
    Anything,
    /// These.
    Tables(Vec<TableTemplate>),
}

/// One table of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableTemplate {
    /// Name without schema.
    pub table: Arc<str>,
    /// How its rows are picked, where they are by equality.
    pub rows: Option<Arc<RowsTemplate>>,
    /// What is done with its rows.
    pub access: Access,
}

/// How rows are picked by equalities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsTemplate {
    /// Columns, and where their values come from.
    pub keys: Vec<(Arc<str>, KeySource)>,
    /// Nothing else is asked of the rows, and all that are so are picked.
    pub all: bool,
}

impl RowsTemplate {
    /// Those of a text's equalities whose values are found in it, if there are any.
    pub(super) fn of(equalities: Equalities, lexed: &Lexed<'_>) -> Option<Arc<Self>> {
        let Equalities { keys, all } = equalities;
        let asked = keys.len();
        let known = keys.into_iter().filter_map(|(column, source)| Some((column.into(), key_source(source, lexed)?)));
        let keys: Vec<_> = known.collect();
        let all = all && keys.len() == asked;
        (!keys.is_empty()).then(|| Arc::new(Self { keys, all }))
    }
}

/// Where a key's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// The n-th constant of the text.
    Literal(usize),
    /// The n-th parameter.
    Parameter(usize),
}

/// Analyses a text. `lexed` is the same text's.
pub fn analyse(sql: &[u8], lexed: &Lexed<'_>) -> Template {
    let literal_bytes: usize = lexed.literals.iter().map(|literal| literal.text.len()).sum();
    let skeleton_bytes = sql.len().saturating_sub(literal_bytes);
    if lexed.literals.len() > MOST_LITERALS || sql.len() > MOST_BYTES || skeleton_bytes > MOST_SKELETON_BYTES {
        let text = "(a text that is too large to be parsed)".into();
        return Template { statements: vec![Arc::new(Statement { text, ..unparsable(lexed.template) })] };
    }
    let text = String::from_utf8_lossy(sql);
    let Ok(parsed) = pg_query::parse(&text, ParserOptions::DEFAULT) else {
        return Template { statements: vec![Arc::new(unparsable(lexed.template))] };
    };
    let mut statements: Vec<Arc<Statement>> = parsed
        .protobuf
        .stmts
        .iter()
        .map(|raw| {
            let start = usize::try_from(raw.stmt_location).unwrap_or(0);
            let length = usize::try_from(raw.stmt_len).unwrap_or(0);
            let end = if length == 0 { text.len() } else { start + length };
            let own = text.get(start..end).unwrap_or(&text).trim();
            let tree = serde_json::to_value(&raw.stmt).unwrap_or(Value::Null);
            Arc::new(statement(&tree, own, lexed))
        })
        .collect();
    if statements.is_empty() {
        // The server answers an empty text as well.
        statements.push(Arc::new(empty(lexed.template)));
    }
    Template { statements }
}

impl Statement {
    /// A statement of which nothing is known.
    pub fn unknown() -> Self {
        unparsable(0)
    }
}

fn empty(template: u64) -> Statement {
    Statement {
        writes: false,
        changes: false,
        answer: Answer::Definite,
        tables: TableTemplates::Tables(Vec::new()),
        beginnings: false,
        deletes: false,
        text: "".into(),
        ..unparsable(template)
    }
}

fn unparsable(template: u64) -> Statement {
    Statement {
        class: StatementClass::Utility,
        kind: Kind::Plain,
        writes: true,
        answer: Answer::Volatile,
        skip: None,
        changes: true,
        tables: TableTemplates::Anything,
        beginnings: true,
        // What defines something can be parsed; what is too large for it is mostly rows.
        defines: None,
        deletes: true,
        isolation: None,
        functions: Vec::new(),
        reading: None,
        fingerprint: Fingerprint(template),
        text: "(a text that does not parse)".into(),
    }
}

fn statement(tree: &Value, text: &str, lexed: &Lexed<'_>) -> Statement {
    let fingerprint = pg_query::fingerprint(text, ParserOptions::DEFAULT, FingerprintOptions::RANGEVAR_INCLUDE_SCHEMA)
        .map_or(lexed.template, |f| f.value);
    let normalised = pg_query::normalize(text).unwrap_or_else(|_| "(a text that does not parse)".to_owned());
    let (fingerprint, shown) = (Fingerprint(fingerprint), shortened(without_strings(&normalised)).into());
    let found = tree::find(tree);
    let whole = of_found(tree, &found, (fingerprint, shown), (text, lexed));
    let functions: Vec<Arc<str>> = found.functions.iter().filter(|f| is_unknown(f)).map(|f| Arc::from(&**f)).collect();
    if functions.is_empty() {
        return whole;
    }
    let mut known = found.clone();
    known.functions.retain(|function| !is_unknown(function));
    let reading = of_found(tree, &known, (fingerprint, Arc::clone(&whole.text)), (text, lexed));
    Statement { functions, reading: Some(Arc::new(reading)), ..whole }
}

/// A statement, as far as that is found in it which is given.
fn of_found(
    tree: &Value,
    found: &Found,
    (fingerprint, shown): (Fingerprint, Arc<str>),
    (text, lexed): (&str, &Lexed<'_>),
) -> Statement {
    let (node, body) = tree
        .get("node")
        .and_then(Value::as_object)
        .and_then(|node| node.iter().next())
        .map_or(("", &Value::Null), |(name, body)| (name.as_str(), body));
    let calls = |list: &[&str]| found.functions.iter().any(|f| list.contains(&f.as_str()));
    let unknown = || found.functions.iter().filter(|f| !changes_nothing(f));
    let unknown_function = unknown().any(|_| true);
    // What acts elsewhere changes nothing here, but for a file that becomes a large object.
    let elsewhere = [&SIDE_EFFECTS[..], &SERVER_IDENTITY].concat();
    let changes_here = found.changes || unknown().any(|f| f == "lo_import" || !elsewhere.contains(&f.as_str()));
    let (class, kind, writes, changes) = if node == "PrepareStmt" {
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        let inner = statement(body.get("query").unwrap_or(&Value::Null), text, lexed);
        (StatementClass::Utility, Kind::Prepare(name.into(), Arc::new(inner)), false, false)
    } else {
        let query_writes = found.changes || found.locks || unknown_function;
        let (class, kind, writes) = verb(node, body, found, query_writes);
        let (.., changes) = verb(node, body, found, changes_here);
        let kind = match kind {
            Kind::Plain => session::kind(node, found, writes, lexed).unwrap_or(Kind::Plain),
            kind => kind,
        };
        (class, kind, writes, changes)
    };
    let copies_elsewhere = node == "CopyStmt"
        && (body.get("is_program").and_then(Value::as_bool) == Some(true)
            || body.get("filename").and_then(Value::as_str).is_some_and(|f| !f.is_empty()));
    let of_the_server =
        matches!(node, "AlterSystemStmt" | "LoadStmt" | "CreateSubscriptionStmt" | "AlterSubscriptionStmt")
            || matches!(node, "CreatedbStmt" | "DropdbStmt" | "CreateTableSpaceStmt" | "DropTableSpaceStmt");
    let skip = if copies_elsewhere || calls(&SIDE_EFFECTS) || of_the_server {
        Some(SkipReason::SideEffect)
    } else if calls(&SERVER_IDENTITY) || text_names_snapshot(body) {
        Some(SkipReason::ServerIdentity)
    } else {
        None
    };
    Statement {
        class,
        kind,
        writes,
        answer: answer(node, body, found),
        skip,
        changes: changes && !of_the_server,
        tables: tables(node, body, found, writes, lexed),
        beginnings: changes_beginnings(node),
        defines: defines(node, body, found),
        deletes: found.deletes,
        isolation: isolation::set_by(node, body),
        functions: Vec::new(),
        reading: None,
        fingerprint,
        text: shown,
    }
}

/// Whether nothing is known of a function by its name.
fn is_unknown(function: &str) -> bool {
    !changes_nothing(function)
        && !takes_advisory_lock(function)
        && !draws(function)
        && !touches_nothing(function)
        && ![&SIDE_EFFECTS[..], &SERVER_IDENTITY].concat().contains(&function)
}

/// The parser's own normaliser does not look into every kind of statement: of EXECUTE, or of a table's defaults, it
/// leaves the constants. Strings may be anybody's data.
fn without_strings(text: &str) -> String {
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for literal in lexer::lex(text.as_bytes()).literals.iter().filter(|literal| literal.quoted) {
        shown.push_str(text.get(at..literal.offset).unwrap_or_default());
        shown.push_str("'…'");
        at = literal.offset + literal.text.len();
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

fn shortened(mut text: String) -> String {
    if text.len() > MOST_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MOST_TEXT_BYTES));
        text.push('…');
    }
    text
}

/// What a statement is, by its node: class, kind, and whether it may write.
fn verb(node: &str, body: &Value, found: &Found, query_writes: bool) -> (StatementClass, Kind, bool) {
    use StatementClass::{Commit, Read, Utility, Write};
    let named = |field| -> Arc<str> { body.get(field).and_then(Value::as_str).unwrap_or_default().into() };
    let name = || named("name");
    match node {
        "SelectStmt" if found.into => (Utility, Kind::SessionBound, true),
        "SelectStmt" if !found.settings.is_empty() && found.tables.is_empty() && !query_writes => {
            (Utility, Kind::Plain, false)
        }
        "SelectStmt" if query_writes => (Write, Kind::Plain, true),
        "SelectStmt" | "FetchStmt" => (Read, Kind::Plain, false),
        "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "CallStmt" | "DoStmt" | "LockStmt" => {
            (Write, Kind::Plain, true)
        }
        "CopyStmt" if body.get("is_from").and_then(Value::as_bool) == Some(true) => (Write, Kind::Plain, true),
        "CopyStmt" => (Read, Kind::Plain, query_writes),
        "TransactionStmt" => match body.get("kind").and_then(Value::as_i64) {
            Some(1 | 2) => (Utility, Kind::Begin, false),
            Some(3 | 8) => (Commit, Kind::Commit, true),
            Some(4) => (Utility, Kind::Rollback, false),
            Some(7) => (Utility, Kind::RollbackTo, false),
            Some(9 | 10) => (Commit, Kind::Plain, true),
            _ => (Utility, Kind::Plain, false),
        },
        "VariableSetStmt" => (Utility, session::set(body), false),
        "DeallocateStmt" => (Utility, Kind::Deallocate(Some(name()).filter(|name| !name.is_empty())), false),
        // Target 1 of the grammar is ALL.
        "DiscardStmt" if body.get("target").and_then(Value::as_i64) == Some(1) => (Utility, Kind::DiscardAll, false),
        "DiscardStmt" | "ListenStmt" | "UnlistenStmt" => (Utility, Kind::SessionState, false),
        "ExecuteStmt" => (Utility, Kind::ExecutePrepared(name()), true),
        "ExplainStmt" => (Utility, Kind::Plain, query_writes),
        "DeclareCursorStmt" => {
            // Option 0x20 of the grammar is WITH HOLD.
            let holds = body.get("options").and_then(Value::as_i64).is_some_and(|o| o & 0x20 != 0);
            (Utility, if holds { Kind::HoldsCursor(named("portalname")) } else { Kind::Plain }, query_writes)
        }
        "ClosePortalStmt" => {
            (Utility, Kind::ClosesCursor(Some(named("portalname")).filter(|name| !name.is_empty())), false)
        }
        // VACUUM and ANALYZE change no data. As writes they would begin on an arm when production is done with them, and
        // all that comes behind would wait for them.
        "VacuumStmt" | "VariableShowStmt" | "NotifyStmt" | "CheckPointStmt" | "ConstraintsSetStmt" => {
            (Utility, Kind::Plain, false)
        }
        // It goes with its transaction, which is played whole.
        "CreateStmt" | "CreateTableAsStmt" if found.temporary && goes_at_commit(body) => (Utility, Kind::Plain, true),
        _ if found.temporary => (Utility, Kind::SessionBound, true),
        _ => (Utility, Kind::Plain, true),
    }
}

/// `ON COMMIT DROP`: `ONCOMMIT_DROP` of the grammar's `OnCommitAction`, as the parser's protocol buffers number it.
fn goes_at_commit(body: &Value) -> bool {
    const DROP: i64 = 4;
    let action = body.get("oncommit").or_else(|| body.pointer("/into/on_commit"));
    action.and_then(Value::as_i64) == Some(DROP)
}

fn text_names_snapshot(body: &Value) -> bool {
    body.get("name").and_then(Value::as_str) == Some("TRANSACTION SNAPSHOT")
}

/// The same source, as it is found in each text of the template.
pub(super) fn key_source(source: ValueSource, lexed: &Lexed<'_>) -> Option<KeySource> {
    match source {
        ValueSource::Parameter { index } => Some(KeySource::Parameter(index)),
        ValueSource::Constant { offset } => {
            lexed.literals.iter().position(|literal| literal.offset == offset).map(KeySource::Literal)
        }
    }
}
