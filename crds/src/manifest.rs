//! Reads a manifest: the text of a file becomes a [`ShadowExperiment`], or an error that names every
//! field that is wrong, where it stands, and what would be right.
//!
//! Reading is strict: what an API server would prune or warn about is refused. Nothing here opens a
//! file; the caller says which file it was.

mod document;
mod shape;
mod spelling;
mod words;

use std::fmt;

use crate::{
    experiment::ShadowExperiment,
    manifest::document::{Document, Position},
    validate,
};

/// The `apiVersion` that is read.
pub const API_VERSION: &str = "understudy.dev/v1alpha1";
/// The `kind` that is read.
pub const KIND: &str = "ShadowExperiment";

/// Why a manifest can't be used: everything that is wrong with it, at least one thing.
///
/// Printed, it is a first line that says how much is wrong, then for each mistake where it stands and
/// what it is. The caller puts the file's name before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    mistakes: Vec<Mistake>,
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1, where it is known.
    pub line: Option<u64>,
    /// Column, from 1, in characters, where the line is known.
    pub column: Option<u64>,
    /// Path of the field, like `spec.success[0].quantile`; empty when it is the document itself.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Mistake {
    fn new(at: Option<Position>, field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (line, column) = at.map(|at| (at.line, at.column)).unzip();
        Self { line, column, field: field.into(), reason: reason.into() }
    }
}

impl ManifestError {
    /// What is wrong, in the document's order.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    fn of(mut mistakes: Vec<Mistake>) -> Self {
        // What has no place of its own goes last; the order of one line stays.
        mistakes.sort_by_key(|mistake| (mistake.line.unwrap_or(u64::MAX), mistake.column.unwrap_or(u64::MAX)));
        Self { mistakes }
    }
}

impl From<Mistake> for ManifestError {
    fn from(mistake: Mistake) -> Self {
        Self::of(vec![mistake])
    }
}

impl std::error::Error for ManifestError {}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => write!(f, "a mistake in the experiment")?,
            count => write!(f, "{count} mistakes in the experiment")?,
        }
        let places: Vec<String> = self
            .mistakes
            .iter()
            .map(|mistake| match (mistake.line, mistake.column) {
                (Some(line), Some(column)) => format!("line {line}:{column}"),
                _ => String::new(),
            })
            .collect();
        let width = places.iter().map(|place| place.len() + 2).filter(|width| *width > 2).max().unwrap_or_default();
        for (mistake, place) in self.mistakes.iter().zip(&places) {
            if mistake.field.is_empty() {
                write!(f, "\n  {place:width$}{}", mistake.reason)?;
            } else {
                write!(f, "\n  {place:width$}{}\n  {:width$}{}", mistake.field, "", mistake.reason)?;
            }
        }
        Ok(())
    }
}

/// Reads a manifest.
///
/// # Errors
///
/// Everything that is wrong with it. Where a value can't be read at all (a duration that is none), the
/// rules between fields are not looked at, since they need all values.
pub fn read(text: &str) -> Result<ShadowExperiment, ManifestError> {
    let document = Document::parse(text).map_err(|error| Mistake::new(error.position, "", error.reason))?;
    is_an_experiment(&document)?;

    let mut mistakes = shape::mistakes(&document);
    match words::parse(text) {
        Ok(experiment) if mistakes.is_empty() => {
            for validate::Violation { field, reason } in validate::violations(&experiment) {
                mistakes.push(Mistake::new(document.position_of(&field), field, reason));
            }
            if mistakes.is_empty() { Ok(experiment) } else { Err(ManifestError::of(mistakes)) }
        }
        Ok(_) => Err(ManifestError::of(mistakes)),
        Err(error) => {
            // The parser stops at the first thing it dislikes: often one that has been found already.
            let found = words::mistake(&error, &document);
            if mistakes.is_empty()
                || (words::is_about_a_value(&error) && !mistakes.iter().any(|m| m.field == found.field))
            {
                mistakes.push(found);
            }
            Err(ManifestError::of(mistakes))
        }
    }
}

/// Whether the document is of our kind; there is nothing to say about the fields of another.
fn is_an_experiment(document: &Document) -> Result<(), Mistake> {
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match document.scalar(field) {
            Some(found) if found == expected => {}
            Some(found) => {
                let reason = format!("`{found}` can't be read here, only `{expected}`");
                return Err(Mistake::new(document.position_of(field), field, reason));
            }
            None => {
                let reason = format!("missing; a manifest begins with `apiVersion: {API_VERSION}` and `kind: {KIND}`");
                return Err(Mistake::new(document.position_of(field), field, reason));
            }
        }
    }
    Ok(())
}
