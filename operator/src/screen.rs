//! What the terminal shows while something runs: lines that end in a result, one block that stays in
//! place, and at the end what to do next.
//!
//! Nothing is decided and nothing is measured here. Without a terminal there is no block that moves,
//! only lines; with `--output json` standard output carries events and nothing else.

mod closing;
mod comparison;
mod event;
mod failure;
mod line;
mod live;
mod number;
mod region;
#[cfg(test)]
mod samples;
mod state;
mod step;
mod table;
mod watch;

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use understudy_crds::{
    condition::Outcome,
    experiment::Criterion,
    status::{PromotionOutcome, ShadowExperimentStatus, Verdict},
};

pub use self::{
    failure::Failure,
    live::Moment,
    number::{bytes, count, difference, duration, rounded},
    step::{Ending, Progress},
};
use self::{line::Line, state::State};

/// Time between two drawings of what moves.
const TICK: Duration = Duration::from_millis(100);

/// How output is written (`--output`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON event a line.
    Json,
}

/// The screen. Copies draw on the same terminal.
#[derive(Debug, Clone)]
pub struct Screen {
    state: Arc<Mutex<State>>,
}

impl Screen {
    /// A screen on this process's terminal, if it has one. Colour is left out when `NO_COLOR` is set.
    pub fn new(format: Format) -> Self {
        let (state, moves) = State::attach(format);
        let state = Arc::new(Mutex::new(state));
        if moves {
            let watched = Arc::downgrade(&state);
            // Without this thread nothing turns; everything else still works.
            let _ = thread::Builder::new().name("screen".to_owned()).spawn(move || tick(&watched));
        }
        Self { state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first line of all, with an empty one below.
    pub fn title(&self, text: &str) {
        self.state().print(vec![Line::plain(text), Line::default()]);
    }

    /// Begins a step. Its line ends in a result when the handle says so.
    pub fn step(&self, name: &str) -> StepHandle {
        let id = self.state().begin(name);
        StepHandle { screen: self.clone(), id, name: name.to_owned(), started: Instant::now(), open: true }
    }

    /// Shows where a running experiment stands, in place of what was shown before. `criteria` are
    /// those by which it is judged.
    pub fn live(&self, status: &ShadowExperimentStatus, criteria: &[Criterion], moment: Moment) {
        self.state().live(status, criteria, moment);
    }

    /// Takes the block of [`Screen::live`] away.
    pub fn live_clear(&self) {
        self.state().live_end(None);
    }

    /// Ends the block of [`Screen::live`]: its table and its comparisons stay, under a line that
    /// says `name` and `message`.
    pub fn live_done(&self, name: &str, message: &str) {
        self.state().live_end(Some((name, message)));
    }

    /// The verdict, marked by its outcome.
    pub fn verdict(&self, verdict: &Verdict) {
        let (ending, text) = closing::verdict(verdict);
        self.state().end(None, ending, "verdict", &text, Duration::ZERO);
    }

    /// What production did after the promotion, beside what was predicted.
    pub fn outcomes(&self, outcomes: &[PromotionOutcome]) {
        for outcome in outcomes {
            self.state().end(None, Ending::Done, "outcome", &closing::outcome(outcome), Duration::ZERO);
        }
    }

    /// Something worth knowing between two steps.
    pub fn note(&self, text: &str) {
        self.state().note(text);
    }

    /// The one-shot table of an experiment (`understudy watch`).
    pub fn experiment(&self, name: &str, status: &ShadowExperimentStatus, criteria: &[Criterion]) {
        self.state().experiment(name, status, criteria);
    }

    /// Shows an error with its causes, on standard error. Steps that still ran are forgotten.
    pub fn error(&self, error: &dyn Error) {
        self.failure(&Failure::of(error));
    }

    /// Shows an error with everything that is known about it, on standard error.
    pub fn failure(&self, failure: &Failure) {
        self.state().failure(failure);
    }

    /// The last lines: what is where, and what to do next.
    pub fn closing(&self, rows: &[(&str, String)]) {
        self.state().closing(rows);
    }
}

/// Draws what moves until the screen is gone.
fn tick(state: &Weak<Mutex<State>>) {
    loop {
        thread::sleep(TICK);
        let Some(state) = state.upgrade() else { return };
        state.lock().unwrap_or_else(PoisonError::into_inner).tick();
    }
}

/// A verdict's outcome in a word.
pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Better => "Better",
        Outcome::Worse => "Worse",
        Outcome::Equivalent => "Equivalent",
        Outcome::Inconclusive => "Inconclusive",
        Outcome::Invalid => "Invalid",
    }
}

/// What a promotion brought, in a line.
pub fn outcome_line(outcome: &PromotionOutcome) -> String {
    closing::outcome(outcome)
}

/// A step that runs. Dropped without a result, its line disappears.
#[derive(Debug)]
pub struct StepHandle {
    screen: Screen,
    id: u64,
    name: String,
    started: Instant,
    open: bool,
}

impl StepHandle {
    /// Says how far the step is.
    pub fn progress(&self, progress: Progress) {
        self.screen.state().progress(self.id, progress);
    }

    /// Ends the step: what was done.
    pub fn done(self, message: &str) {
        self.end(Ending::Done, message);
    }

    /// Ends the step: what failed. The error itself follows with [`Screen::error`].
    pub fn fail(self, message: &str) {
        self.end(Ending::Failed, message);
    }

    /// Ends the step in any way.
    pub fn end(mut self, ending: Ending, message: &str) {
        self.open = false;
        self.screen.state().end(Some(self.id), ending, &self.name, message, self.started.elapsed());
    }
}

impl Drop for StepHandle {
    fn drop(&mut self) {
        if self.open {
            self.screen.state().forget(self.id);
        }
    }
}
