//! The cache in front of the analysis, and the values that a template leaves open.

use std::{collections::HashMap, sync::Arc};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use understudy_crds::experiment::StatementClass;

use super::{
    footprint::{Footprint, TableUse},
    lexer::{self, Lexed},
    rows::{KeyValue, RowKey, Rows},
    template::{
        self, KeySource, Kind, RowsTemplate, Statement, TableTemplate, TableTemplates, Template, Variable,
        VariableSource,
    },
};
use crate::{measure::interval::Fingerprint, wire::frontend};

/// Templates kept; beyond it the cache starts anew.
const MAX_TEMPLATES: usize = 20_000;
/// Texts kept for the report; further statements are measured without a text.
const MAX_TEXTS: usize = 10_000;
/// Longer values are not looked at: they seldom are keys.
const MAX_KEY_BYTES: usize = 64;
const SECRETS: RapidSecrets = RapidSecrets::seed(0x5ead_0000_0000_0003);

/// A cache of analysed templates.
#[derive(Debug, Default)]
pub struct Catalog {
    templates: HashMap<u64, Arc<Template>>,
    texts: HashMap<Fingerprint, (Arc<str>, StatementClass)>,
}

/// A text with its analysis, and the constants that belong to this text alone.
#[derive(Debug, Clone)]
pub struct Analysed {
    /// What is known of all texts like it.
    pub template: Arc<Template>,
    /// Its constants, as far as they may pick rows; `None` for long ones.
    pub literals: Vec<Option<KeyValue>>,
}

impl Catalog {
    /// Analyses a text.
    pub fn analyse(&mut self, sql: &[u8]) -> Analysed {
        let lexed = lexer::lex(sql);
        let template = match self.templates.get(&lexed.template) {
            Some(template) => Arc::clone(template),
            None => self.learn(sql, &lexed),
        };
        let literals = lexed.literals.iter().map(|l| key_value(l.text)).collect();
        Analysed { template, literals }
    }

    fn learn(&mut self, sql: &[u8], lexed: &Lexed<'_>) -> Arc<Template> {
        let template = Arc::new(template::analyse(sql, lexed));
        if self.templates.len() >= MAX_TEMPLATES {
            self.templates.clear();
        }
        self.templates.insert(lexed.template, Arc::clone(&template));
        for statement in &template.statements {
            if self.texts.len() < MAX_TEXTS {
                self.texts
                    .entry(statement.fingerprint)
                    .or_insert_with(|| (Arc::clone(&statement.text), statement.class));
            }
        }
        template
    }

    /// A statement that by its text might have written was found to read.
    pub fn reads(&mut self, fingerprint: Fingerprint) {
        if let Some((_, class)) = self.texts.get_mut(&fingerprint)
            && *class == StatementClass::Write
        {
            *class = StatementClass::Read;
        }
    }

    /// Normalised texts and classes of everything seen.
    pub fn texts(&self) -> &HashMap<Fingerprint, (Arc<str>, StatementClass)> {
        &self.texts
    }
}

/// What one execution of a statement touches. `values` is the part of its Bind message after the
/// names, if it was bound.
pub fn footprint(statement: &Statement, literals: &[Option<KeyValue>], values: Option<&[u8]>) -> Footprint {
    match &statement.tables {
        TableTemplates::Anything => Footprint::Anything,
        TableTemplates::Tables(tables) => {
            Footprint::Tables(tables.iter().map(|table| table_use(table, literals, values)).collect())
        }
    }
}

fn table_use(template: &TableTemplate, literals: &[Option<KeyValue>], values: Option<&[u8]>) -> TableUse {
    let TableTemplate { table, rows, access } = template;
    let rows = rows.as_deref().and_then(|RowsTemplate { keys, all }| {
        let key = |(column, source): &(Arc<str>, KeySource)| {
            Some(RowKey { column: Arc::clone(column), value: given(*source, literals, values)? })
        };
        Rows::picked(keys.iter().filter_map(key), *all && keys.iter().all(|one| key(one).is_some()))
    });
    TableUse { table: Arc::clone(table), rows, access: *access }
}

/// The variable that one execution of a statement sets, where it sets one that can be told from others.
pub fn variable(statement: &Statement, literals: &[Option<KeyValue>], values: Option<&[u8]>) -> Option<Variable> {
    match &statement.kind {
        Kind::Sets(VariableSource::Named(name)) => Some(Variable::Named(Arc::clone(name))),
        Kind::Sets(VariableSource::Given(source)) => given(*source, literals, values).map(Variable::Given),
        _ => None,
    }
}

fn given(source: KeySource, literals: &[Option<KeyValue>], values: Option<&[u8]>) -> Option<KeyValue> {
    match source {
        KeySource::Literal(index) => literals.get(index).copied().flatten(),
        KeySource::Parameter(index) => parameter(values?, index),
    }
}

fn parameter(values: &[u8], index: usize) -> Option<KeyValue> {
    let parameter = frontend::parameter(values, index)?;
    let bytes = parameter.value?;
    if !parameter.binary {
        return key_value(bytes);
    }
    // A binary value does not say its type. What could be text is not taken for a number: texts can
    // be equal without looking equal.
    if bytes.iter().all(|b| *b >= 0x20) {
        return uuid(bytes).map(KeyValue::Certain).or_else(|| looks(bytes));
    }
    if let Ok(bytes) = bytes.try_into().map(u128::from_be_bytes)
        && is_uuid(bytes)
        && str::from_utf8(&bytes.to_be_bytes()).is_err()
    {
        return Some(KeyValue::Certain(bytes));
    }
    let int2 = || bytes.try_into().ok().map(i16::from_be_bytes).map(i64::from);
    let int4 = || bytes.try_into().ok().map(i32::from_be_bytes).map(i64::from);
    let whole = int2().or_else(int4).or_else(|| bytes.try_into().ok().map(i64::from_be_bytes));
    whole.map(KeyValue::Whole).or_else(|| looks(bytes))
}

/// A value as text, in quotes or not.
fn key_value(text: &[u8]) -> Option<KeyValue> {
    let text = text.strip_prefix(b"'").and_then(|t| t.strip_suffix(b"'")).unwrap_or(text);
    if let Some(uuid) = uuid(text) {
        return Some(KeyValue::Certain(uuid));
    }
    let digits = text.iter().all(u8::is_ascii_digit).then_some(text);
    let whole = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    whole.map(KeyValue::Whole).or_else(|| looks(text))
}

/// A UUID as nearly everybody writes it. Two that are different are so as texts too.
fn uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let hyphens = [8, 13, 18, 23];
    let mut value = 0;
    for (at, byte) in text.iter().enumerate() {
        if hyphens.contains(&at) {
            (*byte == b'-').then_some(())?;
        } else {
            value = value << 4 | u128::from(char::from(*byte).to_digit(16)?);
        }
    }
    Some(value)
}

/// Whether sixteen bytes have the marks of a UUID (RFC 9562, 4.1 and 4.2). A number in binary, of which there are several
/// that are equal, has a zero where the version is.
fn is_uuid(value: u128) -> bool {
    let (version, variant) = (value >> 76 & 0xf, value >> 62 & 0b11);
    (1..=8).contains(&version) && variant == 0b10
}

fn looks(value: &[u8]) -> Option<KeyValue> {
    let plain = |byte: &u8| matches!(byte, 0x20..0x7f) && !matches!(byte, b'\'' | b'\\' | b'$');
    let digest = || rapidhash_v3_seeded(value, &SECRETS);
    // Blanks at the end are cut off where a text is stored, or padded.
    let plain = value.iter().all(plain) && value.last() != Some(&b' ');
    (value.len() <= MAX_KEY_BYTES).then(|| KeyValue::text(digest(), plain))
}

#[cfg(test)]
mod tests;
