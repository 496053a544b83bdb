//! One execution of a statement: what it is, what it touches and how its answer is compared, with the values that it is
//! given and where the schema of its database is known.

use std::sync::Arc;

use understudy_crds::experiment::StatementClass;

use super::{
    catalog,
    footprint::Footprint,
    rows::KeyValue,
    template::{Statement, Variable},
};
use crate::shadow::{
    entry::Answer,
    schema::{Function, Schema},
};

/// One execution of a statement.
#[derive(Debug, Clone)]
pub struct Execution {
    /// What it is.
    pub statement: Arc<Statement>,
    /// What it touches.
    pub touches: Footprint,
    /// How its rows are compared.
    pub answer: Answer,
    /// The variable that it sets, where it is one that is known.
    pub sets: Option<Variable>,
}

impl Execution {
    /// One of which nothing is known.
    pub fn unknown() -> Self {
        let statement = Arc::new(Statement::unknown());
        let answer = statement.answer;
        Self { statement, touches: Footprint::Anything, answer, sets: None }
    }

    /// One of a view that may do anything.
    fn by_a_view(statement: &Statement, sets: Option<Variable>) -> Self {
        let class = if statement.class == StatementClass::Read { StatementClass::Write } else { statement.class };
        let statement = Arc::new(Statement { class, writes: true, changes: true, ..statement.clone() });
        Self { statement, touches: Footprint::Anything, answer: Answer::Volatile, sets }
    }

    /// With the constants of its text, and `values`, the part of its Bind message after the names, if it was bound.
    pub fn of(
        statement: &Arc<Statement>,
        literals: &[Option<KeyValue>],
        values: Option<&[u8]>,
        schema: &Schema,
    ) -> Self {
        let sets = catalog::variable(statement, literals, values);
        let known = statement.reading.as_ref().zip(schema.functions(&statement.functions));
        let (statement, answer) = match known {
            Some((reading, Function::Computes)) => (reading, reading.answer),
            Some((reading, Function::Aggregates)) => (reading, reading.answer.of_some()),
            // It writes nothing, and what it reads nobody knows.
            Some((reading, Function::Reads)) if !reading.writes => {
                let (statement, answer) = (Arc::clone(reading), statement.answer);
                return Self { statement, touches: Footprint::Anything, answer, sets };
            }
            _ => (statement, statement.answer),
        };
        let (touches, of_views) = match catalog::footprint(statement, literals, values) {
            Footprint::Anything => (Footprint::Anything, Answer::Definite),
            Footprint::Tables(uses) => match schema.touched(uses, statement.deletes) {
                Some(touched) => touched,
                None => return Self::by_a_view(statement, sets),
            },
        };
        let answer = if of_views == Answer::Definite { answer } else { of_views };
        Self { statement: Arc::clone(statement), touches, answer, sets }
    }
}

#[cfg(test)]
mod tests;
