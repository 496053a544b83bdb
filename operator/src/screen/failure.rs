//! An error as a person reads it: what happened, to what, why, what to do, and what state things are
//! in. Pure.

use std::{borrow::Cow, error::Error};

use super::line::{Line, Meaning, wrapped};
use crate::error::UserError;

/// An error with everything that helps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened, in a sentence without a full stop.
    pub what: String,
    /// Named facts: `worker`, `reason`, `do`.
    pub facts: Vec<(Cow<'static, str>, String)>,
    /// What has been changed, and what has not: `nothing was changed`.
    pub afterwards: Option<String>,
}

impl Failure {
    /// A failure without further facts.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), facts: Vec::new(), afterwards: None }
    }

    /// From an error: its first line says what happened, the rest and the causes say why. What
    /// follows the last `; ` of the first line is what to do.
    pub fn of(error: &dyn Error) -> Self {
        let text = error.to_string();
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let (what, remedy) = match first.rsplit_once("; ") {
            Some((what, remedy)) => (what, Some(remedy.to_owned())),
            None => (first, None),
        };
        let mut failure = Self::new(what);
        let mut said = text.clone();
        let details = rest.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
        let causes = std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
        for reason in details.chain(causes) {
            // Many errors repeat their cause in their own text, and a database's error names its kind
            // before it says anything.
            if reason != "db error" && !said.contains(&reason) {
                said.push_str(&reason);
                failure.facts.push(("reason".into(), reason));
            }
        }
        failure.facts.extend(remedy.map(|remedy| ("do".into(), remedy)));
        failure
    }

    /// The failure with another fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: impl Into<String>) -> Self {
        self.facts.push((name.into(), fact.into()));
        self
    }

    /// The failure with what has become of things.
    #[must_use]
    pub fn afterwards(mut self, text: impl Into<String>) -> Self {
        self.afterwards = Some(text.into());
        self
    }
}

impl From<&UserError> for Failure {
    fn from(error: &UserError) -> Self {
        let UserError { what, facts, remedy, side: _, kind: _, nothing_changed } = error;
        let facts = facts.iter().map(|(name, fact)| (Cow::Owned(name.clone()), fact.clone()));
        Self {
            what: what.clone(),
            facts: facts.chain(remedy.iter().map(|remedy| ("do".into(), remedy.clone()))).collect(),
            afterwards: nothing_changed.then(|| "nothing was changed".to_owned()),
        }
    }
}

/// The block that shows a failure, in `width` columns.
pub fn block(failure: &Failure, width: usize) -> Vec<Line> {
    let Failure { what, facts, afterwards } = failure;
    let width = width.clamp(40, 100);
    let names = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(6);
    let mut lines = Vec::new();
    for (index, text) in wrapped(what, width - 7).into_iter().enumerate() {
        let head = if index == 0 { Line::default().with(Meaning::Bad, "error:") } else { Line::plain("      ") };
        lines.push(head.with(Meaning::Plain, format!(" {text}")));
    }
    let mut previous = "";
    for (name, fact) in facts {
        // A second reason stands below the first without saying so again.
        let name = name.as_ref();
        let mut name = if name == previous { "" } else { name };
        previous = if name.is_empty() { previous } else { name };
        // A fact of several lines keeps them: what stands below what matters.
        for text in fact.lines().flat_map(|line| wrapped(line, width - names - 5)) {
            lines.push(Line::plain(format!("  {name:names$}   {text}")));
            name = "";
        }
    }
    lines.extend(
        afterwards.iter().flat_map(|text| wrapped(text, width - 2)).map(|text| Line::plain(format!("  {text}"))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure, width: usize) -> String {
        block(failure, width).iter().map(Line::text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_fact_of_several_lines_keeps_them_in_its_column() {
        let reason = "2 mistakes in the experiment\n  line 8:3   spec.a\n             unknown";
        assert_eq!(
            text(&Failure::new("bad.yaml: no").with("reason", reason).with("do", "this"), 80),
            "error: bad.yaml: no
  reason   2 mistakes in the experiment
             line 8:3   spec.a
                        unknown
  do       this"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the demo's data could not be loaded (creating tables); start the demo with an empty directory")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("db error")]
    struct Inner(#[source] Cause);

    #[derive(Debug, thiserror::Error)]
    #[error("ERROR: relation \"events\" already exists")]
    struct Cause;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let failure = Failure::new("the worker refuses a base backup")
            .with("worker", "127.0.0.1:5432 (PostgreSQL 15.18), user app")
            .with("reason", "max_wal_senders = 0")
            .with(
                "do",
                "ALTER SYSTEM SET max_wal_senders = 10; and restart the worker, or name a standby in spec.clone.from",
            )
            .afterwards("nothing was changed");
        assert_eq!(
            text(&failure, 80),
            "error: the worker refuses a base backup
  worker   127.0.0.1:5432 (PostgreSQL 15.18), user app
  reason   max_wal_senders = 0
  do       ALTER SYSTEM SET max_wal_senders = 10; and restart the worker, or
           name a standby in spec.clone.from
  nothing was changed"
        );
    }

    #[test]
    fn causes_become_reasons_and_the_last_clause_the_remedy() {
        assert_eq!(
            text(&Failure::of(&Outer(Inner(Cause))), 100),
            "error: the demo's data could not be loaded (creating tables)
  reason   ERROR: relation \"events\" already exists
  do       start the demo with an empty directory"
        );
    }

    #[test]
    fn a_cause_that_has_been_said_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("copying failed: ERROR: relation \"events\" already exists")]
        struct Repeats(#[source] Cause);
        assert_eq!(Failure::of(&Repeats(Cause)).facts, []);
    }
}
