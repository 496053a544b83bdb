//! What `--output json` prints: one event a line, on standard output, and nothing else there.

use serde::Serialize;
use understudy_crds::status::ShadowExperimentStatus;

use super::{failure::Failure, live::Moment, step::Ending};

/// One event. Times are in seconds; `at` is RFC 3339.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// A step began.
    StepStarted {
        /// Its name.
        step: &'a str,
    },
    /// A step is further than it was. Not more than one a second for each step.
    StepProgress {
        /// Its name.
        step: &'a str,
        /// How far, in words.
        message: &'a str,
    },
    /// A step ended.
    StepEnded {
        /// Its name.
        step: &'a str,
        /// Whether it did what it should.
        ok: bool,
        /// What was done, in words.
        message: &'a str,
        /// How long it took.
        seconds: f64,
    },
    /// Where the experiment stands.
    Status {
        /// Time since the phase began.
        elapsed_seconds: f64,
        /// The status, as everywhere.
        status: &'a ShadowExperimentStatus,
    },
    /// Something worth knowing.
    Note {
        /// The sentence.
        message: &'a str,
    },
    /// It failed.
    Error {
        /// What happened.
        message: &'a str,
        /// Named facts: reasons, and what to do.
        facts: Vec<Fact<'a>>,
        /// What has been changed, and what has not.
        #[serde(skip_serializing_if = "Option::is_none")]
        afterwards: Option<&'a str>,
    },
    /// Where things are, at the end.
    Closing {
        /// Named places and commands.
        facts: Vec<Fact<'a>>,
    },
}

/// A named fact.
#[derive(Debug, Serialize)]
pub struct Fact<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
}

#[derive(Serialize)]
struct Stamped<'a> {
    at: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl<'a> Event<'a> {
    pub(super) fn ended(step: &'a str, ending: Ending, message: &'a str, seconds: f64) -> Self {
        // Less than a millisecond is nothing that anybody has measured here.
        let seconds = (seconds * 1000.0).round() / 1000.0;
        Self::StepEnded { step, ok: ending != Ending::Failed, message, seconds }
    }

    pub(super) fn status(status: &'a ShadowExperimentStatus, moment: Moment) -> Self {
        Self::Status { elapsed_seconds: moment.elapsed.as_secs_f64(), status }
    }

    pub(super) fn error(failure: &'a Failure) -> Self {
        let Failure { what, facts, afterwards } = failure;
        let facts = facts.iter().map(|(name, text)| Fact { name, text }).collect();
        Self::Error { message: what, facts, afterwards: afterwards.as_deref() }
    }

    pub(super) fn closing(rows: &'a [(&'a str, String)]) -> Self {
        Self::Closing { facts: rows.iter().map(|(name, text)| Fact { name, text }).collect() }
    }

    /// The event as a line, without its line break.
    pub fn line(&self, at: jiff::Timestamp) -> String {
        let at = at.round(jiff::Unit::Millisecond).unwrap_or(at);
        let stamped = Stamped { at: at.to_string(), event: self };
        serde_json::to_string(&stamped).unwrap_or_else(|error| {
            // Numbers that JSON has no word for are the only way to get here.
            serde_json::json!({ "event": "error", "message": format!("an event could not be written: {error}") })
                .to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_one_line_of_json_with_a_time() {
        let status = ShadowExperimentStatus::default();
        let failure = Failure::new("it broke\nhere").with("do", "this");
        let events = [
            Event::StepStarted { step: "worker" },
            Event::StepProgress { step: "worker", message: "1 of 2 rows, 50 %" },
            Event::ended("worker", Ending::Failed, "no", 1.5),
            Event::status(&status, Moment::default()),
            Event::Note { message: "so" },
            Event::error(&failure),
        ];
        let at = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let lines: Vec<String> = events.iter().map(|event| event.line(at)).collect();
        for line in &lines {
            assert!(!line.contains('\n'), "{line}");
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["at"], "2027-01-15T08:00:00Z", "{line}");
        }
        assert_eq!(
            lines[2],
            r#"{"at":"2027-01-15T08:00:00Z","event":"stepEnded","step":"worker","ok":false,"message":"no","seconds":1.5}"#
        );
        assert!(
            lines[3].contains(r#""event":"status","elapsedSeconds":0.0,"status":{"phase":"Pending""#),
            "{}",
            lines[3]
        );
    }
}
