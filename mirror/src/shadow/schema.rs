//! What the names in a statement stand for in its database: functions that only read, tables behind a view, the table that
//! a partition is a part of, rows that go with those that they refer to. A statement's text tells none of that.
//!
//! Pure: whoever may ask a server asks [`QUESTION`] and hands the rows over ([`known`]). What is not known is taken for
//! what it looks like: a table of its own, a function that may do anything. Names are without schema, as in
//! footprints: what stands for two things counts as both.

use std::{collections::VecDeque, sync::Arc};

use rapidhash::{RapidHashMap, RapidHashSet};

use super::{
    entry::Answer,
    statement::{
        footprint::{Access, Footprint, TableUse},
        functions::{self, is_no_table},
    },
};

pub mod known;

/// What is asked, in each database: three columns of text, which [`Schema::of`] understands. It reads catalogs alone, so
/// that it waits for nobody's lock, and nobody for its own.
pub const QUESTION: &str = include_str!("schema/question.sql");
/// A database that answers with more is taken for one of which nothing is known.
pub const MOST_ROWS: usize = 500_000;

/// What a function does that changes nothing. In this order: of two of a name, the later counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// It looks at its arguments alone.
    Computes,
    /// The same of many rows, in the order in which they come.
    Aggregates,
    /// It may read any table.
    Reads,
}

/// What else is touched by whoever names a relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Relation {
    /// What it is a part of, directly and not: its rows are theirs, and its columns have their names.
    wholes: Vec<Arc<str>>,
    /// What it reads, as a view.
    reads: Vec<Arc<str>>,
    view: Option<View>,
}

/// What a view does beside reading tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct View {
    calls: Vec<Arc<str>>,
    /// It leaves some rows out, depends on the clock, or reads catalogs.
    is_volatile: bool,
}

/// What may have another meaning behind a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defines {
    /// Any function.
    pub functions: bool,
    /// Relations of these names.
    pub relations: Vec<Arc<str>>,
}

impl Defines {
    /// Takes in what another statement defines.
    pub fn merge(&mut self, other: &Self) {
        self.functions |= other.functions;
        other.relations.iter().for_each(|name| add(&mut self.relations, name));
    }
}

/// What the names of one database stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    /// Something was defined since: a name that does not stand here may be anything's.
    is_stale: bool,
    /// All names of relations.
    named: RapidHashSet<Arc<str>>,
    functions: RapidHashMap<Arc<str>, Function>,
    relations: RapidHashMap<Arc<str>, Relation>,
    /// Columns of a table whose texts are equal only where each byte of them is.
    exact: RapidHashMap<Arc<str>, Vec<Arc<str>>>,
    /// Tables of which a trigger may change rows before they are added.
    rewritten: RapidHashSet<Arc<str>>,
    /// Tables whose rows refer to those of this one, and go with them.
    going: RapidHashMap<Arc<str>, Vec<Arc<str>>>,
    /// The same that keep them there.
    keeping: RapidHashMap<Arc<str>, Vec<Arc<str>>>,
}

impl Schema {
    /// From the rows that answer [`QUESTION`]: what it is, whose name, and of what.
    pub fn of<'a>(rows: impl IntoIterator<Item = [&'a str; 3]>) -> Self {
        let mut schema = Self::default();
        for [kind, name, of] in rows {
            let name: Arc<str> = name.into();
            match kind {
                "computes" => schema.function(name, Function::Computes),
                "aggregates" => schema.function(name, Function::Aggregates),
                "reads" => schema.function(name, Function::Reads),
                "table" => {
                    schema.named.insert(name);
                }
                "rewrites" => {
                    schema.rewritten.insert(name);
                }
                "exact" => add(schema.exact.entry(of.into()).or_default(), &name),
                "goes" => add(schema.going.entry(of.into()).or_default(), &name),
                "keeps" => add(schema.keeping.entry(of.into()).or_default(), &name),
                "part" => add(&mut schema.relations.entry(name).or_default().wholes, of),
                "view" => {
                    let relation = schema.relations.entry(name).or_default();
                    relation.view.get_or_insert_default();
                    add(&mut relation.reads, of);
                }
                "calls" => add(&mut schema.view(name).calls, of),
                "volatile" => schema.view(name).is_volatile = true,
                // A question of another version.
                _ => {}
            }
        }
        schema
    }

    /// Where it will be told what names stand for, and has not been yet.
    pub fn untold() -> Self {
        Self { is_stale: true, ..Self::default() }
    }

    /// What is still true of it behind such a statement.
    #[must_use]
    pub fn behind(&self, defines: &Defines) -> Self {
        let functions = if defines.functions { RapidHashMap::default() } else { self.functions.clone() };
        let mut named = self.named.clone();
        named.retain(|name| !defines.relations.contains(name));
        Self {
            is_stale: true,
            named,
            functions,
            relations: self.relations.clone(),
            exact: RapidHashMap::default(),
            rewritten: self.rewritten.clone(),
            going: self.going.clone(),
            keeping: self.keeping.clone(),
        }
    }

    /// Whether that is nothing less than it.
    pub fn is_behind(&self, defines: &Defines) -> bool {
        let forgotten = !defines.relations.iter().any(|name| self.named.contains(name));
        self.is_stale && forgotten && (!defines.functions || self.functions.is_empty())
    }

    fn function(&mut self, name: Arc<str>, function: Function) {
        let known = self.functions.entry(name).or_insert(function);
        *known = function.max(*known);
    }

    fn view(&mut self, name: Arc<str>) -> &mut View {
        self.relations.entry(name).or_default().view.get_or_insert_default()
    }

    /// Whether functions are known.
    pub fn has_functions(&self) -> bool {
        !self.functions.is_empty()
    }

    /// What functions of these names do together; `None`: one of them may do anything.
    pub fn functions<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) -> Option<Function> {
        names.into_iter().try_fold(Function::Computes, |all, name| Some(all.max(*self.functions.get(name)?)))
    }

    /// What is touched by a statement that names these, and how what it reads may be compared; `None`: it may do anything.
    /// `deletes`: rows that refer to its own may go with them.
    pub fn touched(&self, mut uses: Vec<TableUse>, deletes: bool) -> Option<(Footprint, Answer)> {
        // Of a row that is added, or found there, the key is what a trigger makes of it.
        let adds = |one: &TableUse| one.access == Access::Insert && one.rows.is_some();
        let rewrites = uses.iter().any(|one| adds(one) && self.rewritten.contains(&one.table));
        for one in &mut uses {
            one.rows.take_if(|_| rewrites);
            self.pick_exactly(one);
        }
        let refers = |table: &Arc<str>| self.going.contains_key(table) || self.keeping.contains_key(table);
        let known = |one: &TableUse| self.relations.contains_key(&one.table) || deletes && refers(&one.table);
        let is_new = |one: &TableUse| self.is_stale && !self.named.contains(&one.table) && !is_no_table(&one.table);
        let mut answer = if uses.iter().any(is_new) { Answer::Volatile } else { Answer::Definite };
        if !uses.iter().any(known) {
            return Some((Footprint::Tables(uses), answer));
        }
        let mut touched: Vec<TableUse> = Vec::new();
        // With whether its rows may go.
        let mut rest: VecDeque<_> = uses.into_iter().map(|one| (deletes && one.access == Access::Write, one)).collect();
        let mut seen: Vec<(bool, TableUse)> = Vec::new();
        while let Some((go, one)) = rest.pop_front() {
            if seen.iter().any(|(gone, other)| *gone >= go && *other == one) {
                continue;
            }
            seen.push((go, one.clone()));
            if let Some(Relation { wholes, reads, view }) = self.relations.get(&one.table) {
                rest.extend(wholes.iter().map(|whole| (go, TableUse { table: Arc::clone(whole), ..one.clone() })));
                // Its columns may have other names, and a row of it be of several.
                let access = if reads.len() > 1 && one.access == Access::Insert { Access::Write } else { one.access };
                rest.extend(reads.iter().map(|table| (go, TableUse { table: Arc::clone(table), rows: None, access })));
                match view.as_ref().map_or(Some(Answer::Definite), |view| self.answer(view))? {
                    Answer::Definite => {}
                    // What it calls may read anything.
                    Answer::Called => return Some((Footprint::Anything, Answer::Volatile)),
                    other => answer = other,
                }
            }
            if go {
                let any = |table: &Arc<str>| TableUse { table: Arc::clone(table), rows: None, access: Access::Write };
                let of = |by: &RapidHashMap<Arc<str>, Vec<Arc<str>>>, go| {
                    by.get(&one.table).into_iter().flatten().map(|table| (go, any(table))).collect::<Vec<_>>()
                };
                rest.extend(of(&self.going, true));
                rest.extend(of(&self.keeping, false));
            }
            if !touched.contains(&one) {
                touched.push(one);
            }
        }
        Some((Footprint::Tables(touched), answer))
    }

    fn pick_exactly(&self, one: &mut TableUse) {
        let Some((rows, exact)) = one.rows.as_mut().zip(self.exact.get(&one.table)) else { return };
        for key in rows.keys_mut().iter_mut().filter(|key| exact.contains(&key.column)) {
            key.value = key.value.byte_by_byte();
        }
    }

    /// How what a view shows may be compared; `None`: it calls something that may do anything.
    fn answer(&self, view: &View) -> Option<Answer> {
        let unknown = view.calls.iter().filter(|name| !functions::changes_nothing(name));
        match self.functions(unknown)? {
            Function::Reads => Some(Answer::Called),
            _ if view.is_volatile || view.calls.iter().any(|name| functions::answers_vary(name)) => {
                Some(Answer::Volatile)
            }
            Function::Aggregates => Some(Answer::Volatile),
            Function::Computes => Some(Answer::Definite),
        }
    }
}

fn add(to: &mut Vec<Arc<str>>, name: &str) {
    if !to.iter().any(|have| **have == *name) {
        to.push(name.into());
    }
}

#[cfg(test)]
mod tests;
