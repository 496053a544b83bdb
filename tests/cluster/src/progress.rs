//! What the terminal shows: one line a step, with the time it took. The only place that prints.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it is for")]

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Instant,
};

use console::style;

use crate::failure::Outcome;

/// Does a step, and says so: before on a terminal, afterwards everywhere.
pub fn step<T>(what: &str, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let live = io::stdout().is_terminal();
    if live {
        print!("  …  {what}");
        let _ = io::stdout().flush();
    }
    let start = Instant::now();
    let outcome = act();
    let mark = if outcome.is_ok() { style("✓").green() } else { style("✗").red() };
    let back = if live { "\r\x1b[2K" } else { "" };
    println!("{back}  {mark}  {what:<52} {:>6.1} s", start.elapsed().as_secs_f64());
    outcome
}

/// A line for people.
pub fn say(text: &str) {
    println!("{text}");
}

/// Something that is not as it should be, though it goes on.
pub fn warn(text: &str) {
    eprintln!("{} {text}", style("warning:").yellow().for_stderr());
}

/// Why it ends here.
pub fn complain(text: &str) {
    eprintln!("{} {text}", style("error:").red().for_stderr());
}
