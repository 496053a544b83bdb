//! Drives the terminal: keeps what runs, draws it, and writes what stays. The only part of the screen
//! that writes anything.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use console::Term;
use understudy_crds::{experiment::Criterion, status::ShadowExperimentStatus};

use super::{
    Format,
    closing::closing,
    event::Event,
    failure::{self, Failure},
    line::{Line, wrapped},
    live::{self, Moment},
    region::{Region, Size},
    step::{self, Ending, Progress},
    watch,
};

/// Time between two summaries of an experiment in a log.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);
/// Time between two lines about the progress of one step in a log.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// Time between two events about the progress of one step.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// Width of tables in a log.
const LOG_WIDTH: usize = 110;

/// Where people look.
enum Face {
    /// A terminal: the last lines can be drawn again.
    Terminal { term: Term, colour: bool, region: Region },
    /// A file or a pipe: lines only.
    Log(Box<dyn Write + Send>),
    /// Nobody looks.
    Nobody,
}

/// A step that runs.
struct Running {
    id: u64,
    name: String,
    progress: Option<Progress>,
    started: Instant,
    /// When something about it was last written to a log or as an event.
    told: Instant,
}

/// An experiment that runs.
struct Live {
    status: ShadowExperimentStatus,
    criteria: Vec<Criterion>,
    moment: Moment,
}

pub(super) struct State {
    face: Face,
    events: Option<Box<dyn Write + Send>>,
    steps: Vec<Running>,
    live: Option<Live>,
    next_id: u64,
    frame: usize,
    summarised: Option<Instant>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("running", &self.steps.len()).finish_non_exhaustive()
    }
}

impl State {
    /// The state for this process's streams, and whether anything on it moves.
    pub(super) fn attach(format: Format) -> (Self, bool) {
        let face = match format {
            Format::Text if moves(&io::stdout()) => terminal(Term::stdout()),
            Format::Text => Face::Log(Box::new(io::stdout())),
            Format::Json if moves(&io::stderr()) => terminal(Term::stderr()),
            Format::Json => Face::Nobody,
        };
        let events: Option<Box<dyn Write + Send>> = match format {
            Format::Text => None,
            Format::Json => Some(Box::new(io::stdout())),
        };
        let moving = matches!(face, Face::Terminal { .. });
        (Self::new(face, events), moving)
    }

    fn new(face: Face, events: Option<Box<dyn Write + Send>>) -> Self {
        Self { face, events, steps: Vec::new(), live: None, next_id: 0, frame: 0, summarised: None }
    }

    /// Columns for what is laid out; `None` where lines may be of any length.
    fn width(&self) -> Option<usize> {
        match &self.face {
            Face::Terminal { term, .. } => Some(size(term).columns.saturating_sub(1)),
            Face::Log(_) | Face::Nobody => None,
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        if let Some(events) = &mut self.events {
            // Whoever read the events has gone; the work goes on.
            let _ = writeln!(events, "{}", event.line(jiff::Timestamp::now())).and_then(|()| events.flush());
        }
    }

    /// Writes lines that stay.
    pub(super) fn print(&mut self, lines: Vec<Line>) {
        self.draw(lines);
    }

    /// Writes `above`, lines that stay, and draws what runs below them.
    fn draw(&mut self, above: Vec<Line>) {
        let width = self.width();
        let Self { face, steps, live, frame, .. } = self;
        match face {
            Face::Terminal { term, colour, region } => {
                let size = size(term);
                let width = width.unwrap_or(size.columns);
                let mut below: Vec<Line> = steps
                    .iter()
                    .map(|it| step::running(&it.name, it.progress.as_ref(), it.started.elapsed(), *frame, width))
                    .collect();
                if let Some(Live { status, criteria, moment }) = live {
                    below.extend(live::block(status, criteria, *moment, *frame, width));
                }
                let drawing = region.replace(&above, &below, size, *colour);
                // A terminal that has gone needs no drawing.
                let _ = term.write_str(&drawing).and_then(|()| term.flush());
            }
            Face::Log(log) => {
                for line in above {
                    let _ = writeln!(log, "{}", line.text());
                }
                let _ = log.flush();
            }
            Face::Nobody => {}
        }
    }

    /// Draws what moves again.
    pub(super) fn tick(&mut self) {
        self.frame = self.frame.wrapping_add(1);
        if !self.steps.is_empty() || self.live.is_some() {
            self.draw(Vec::new());
        }
    }

    pub(super) fn begin(&mut self, name: &str) -> u64 {
        self.event(&Event::StepStarted { step: name });
        let now = Instant::now();
        let id = self.next_id;
        self.next_id += 1;
        self.steps.push(Running { id, name: name.to_owned(), progress: None, started: now, told: now });
        self.draw(Vec::new());
        id
    }

    /// Takes in how far a step is. A terminal shows it with its next tick.
    pub(super) fn progress(&mut self, id: u64, progress: Progress) {
        let every = if self.events.is_some() { EVENT_EVERY } else { PROGRESS_EVERY };
        let Some(running) = self.steps.iter_mut().find(|it| it.id == id) else { return };
        let text = progress.text();
        running.progress = Some(progress);
        if running.told.elapsed() < every {
            return;
        }
        running.told = Instant::now();
        let name = running.name.clone();
        self.event(&Event::StepProgress { step: &name, message: &text });
        if matches!(self.face, Face::Log(_)) {
            self.draw(vec![Line::plain(format!("  ▸ {name:13} {text}"))]);
        }
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.steps.retain(|it| it.id != id);
        self.draw(Vec::new());
    }

    /// Ends a step; without an `id` one that was never shown running.
    pub(super) fn end(&mut self, id: Option<u64>, ending: Ending, name: &str, message: &str, took: Duration) {
        self.event(&Event::ended(name, ending, message, took.as_secs_f64()));
        self.steps.retain(|it| Some(it.id) != id);
        let lines = step::ended(ending, name, message, took, self.width());
        self.draw(lines);
    }

    pub(super) fn live(&mut self, status: &ShadowExperimentStatus, criteria: &[Criterion], moment: Moment) {
        self.event(&Event::status(status, moment));
        let summary =
            matches!(self.face, Face::Log(_)) && self.summarised.is_none_or(|at| at.elapsed() >= SUMMARY_EVERY);
        self.live = Some(Live { status: status.clone(), criteria: criteria.to_vec(), moment });
        if summary {
            self.summarised = Some(Instant::now());
            self.draw(vec![live::compact(status, criteria, moment)]);
        } else {
            self.draw(Vec::new());
        }
    }

    /// Takes the block away; with a step's name and message, its results stay.
    pub(super) fn live_end(&mut self, done: Option<(&str, &str)>) {
        let shown = self.live.take();
        self.summarised = None;
        let mut lines = Vec::new();
        if let Some((name, message)) = done {
            let took = shown.as_ref().map_or(Duration::ZERO, |live| live.moment.elapsed);
            self.event(&Event::ended(name, Ending::Done, message, took.as_secs_f64()));
            lines = step::ended(Ending::Done, name, message, took, self.width());
        }
        if let (Some(Live { status, criteria, .. }), Some(_)) = (shown, done) {
            let width = self.width().unwrap_or(LOG_WIDTH);
            lines.push(Line::default());
            lines.extend(live::results(&status, &criteria, width));
            lines.push(Line::default());
        }
        self.draw(lines);
    }

    pub(super) fn note(&mut self, text: &str) {
        self.event(&Event::Note { message: text });
        let lines = wrapped(text, self.width().map_or(usize::MAX, |width| width.saturating_sub(4)));
        self.draw(lines.into_iter().map(|text| Line::plain(format!("    {text}"))).collect());
    }

    pub(super) fn experiment(&mut self, name: &str, status: &ShadowExperimentStatus, criteria: &[Criterion]) {
        self.event(&Event::status(status, Moment::default()));
        let width = self.width().unwrap_or(LOG_WIDTH);
        self.draw(watch::experiment(name, status, criteria, width));
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        self.event(&Event::error(failure));
        self.steps.clear();
        self.live = None;
        self.draw(Vec::new());
        let stderr = Term::stderr();
        let attended = io::stderr().is_terminal();
        let width = if attended { size(&stderr).columns } else { LOG_WIDTH };
        let mut text = String::new();
        for line in failure::block(failure, width) {
            text.push_str(&line.display(usize::MAX, attended && colour_wanted()));
            text.push('\n');
        }
        // Nobody is left to be told when this fails.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    pub(super) fn closing(&mut self, rows: &[(&str, String)]) {
        self.event(&Event::closing(rows));
        let mut lines = vec![Line::default()];
        lines.extend(closing(rows));
        self.draw(lines);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.steps.clear();
        self.live = None;
        if matches!(self.face, Face::Terminal { .. }) {
            self.draw(Vec::new());
        }
    }
}

fn terminal(term: Term) -> Face {
    Face::Terminal { term, colour: colour_wanted(), region: Region::default() }
}

fn size(term: &Term) -> Size {
    let (rows, columns) = term.size();
    Size { rows: rows.max(2).into(), columns: columns.max(20).into() }
}

/// Whether lines can be drawn again on a stream.
fn moves(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// See <https://no-color.org>.
fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::screen::samples::{criteria, observing};

    /// A stream that can be read afterwards.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// A short run.
    fn play(state: &mut State) {
        let moment = Moment { elapsed: Duration::from_secs(31), ..Moment::default() };
        let id = state.begin("worker");
        state.progress(id, Progress::Bytes { done: 1, total: 2 });
        state.tick();
        state.end(Some(id), Ending::Done, "worker", "it runs", Duration::from_secs(2));
        for _ in 0..50 {
            state.live(&observing(), &criteria(), moment);
            state.tick();
        }
        state.live_end(Some(("observed", "enough")));
        let id = state.begin("given up");
        state.forget(id);
        state.closing(&[("report", "here".to_owned())]);
    }

    #[test]
    fn a_log_gets_lines_that_stay_and_nothing_that_moves() {
        let log = Sink::default();
        play(&mut State::new(Face::Log(Box::new(log.clone())), None));
        let text = log.text();
        assert!(!text.contains(['\x1b', '\r']), "{text}");
        let steps: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  ✓ ")?.split(' ').next()).collect();
        assert_eq!(steps, ["worker", "observed"], "{text}");
        let summaries = text.matches("▸ observing").count();
        assert!((1..50).contains(&summaries), "{summaries} summaries of 50 moments: {text}");
        assert!(text.ends_with("\n  report  here\n"), "{text}");
    }

    #[test]
    fn events_have_standard_output_to_themselves() {
        let events = Sink::default();
        play(&mut State::new(Face::Nobody, Some(Box::new(events.clone()))));
        let kinds: Vec<String> = events
            .text()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds.first().map(String::as_str), Some("stepStarted"));
        assert_eq!(kinds.iter().filter(|kind| *kind == "status").count(), 50);
        assert_eq!(kinds.last().map(String::as_str), Some("closing"));
    }

    #[test]
    fn a_failure_ends_what_was_shown_as_running() {
        let events = Sink::default();
        let mut state = State::new(Face::Nobody, Some(Box::new(events.clone())));
        state.begin("clones");
        state.live(&observing(), &[], Moment::default());
        state.failure(&Failure::new("it broke").with("do", "this"));
        assert!(state.steps.is_empty() && state.live.is_none());
        assert!(events.text().lines().last().unwrap().contains(r#""event":"error","message":"it broke""#));
    }
}
