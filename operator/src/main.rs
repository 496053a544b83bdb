//! `understudy`: the command. It reads flags, runs what they ask for, and says how it ended.

use std::process::ExitCode;

use understudy_operator::cli;

fn main() -> ExitCode {
    cli::main()
}
