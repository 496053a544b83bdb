//! What went wrong, in words for the person at the terminal. It must not hide what a command printed.

use std::error::Error;

/// A result of anything here.
pub type Outcome<T> = Result<T, Failure>;

/// What was tried, and why it did not work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Says what was tried when an operation of the system failed.
pub trait Trying<T> {
    /// `what` as in "can't {what}".
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Error> Trying<T> for Result<T, E> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure(format!("can't {}: {error}", what())))
    }
}
