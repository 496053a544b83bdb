//! What a process that analyses statements logs, and where. The parser (libpg_query) points the process's stderr at a
//! pipe of its own while it parses: what any thread wrote there meanwhile would be lost.
//!
//! Lines wait in a queue for a thread that writes them: who reads the log may stand still, and production must not wait for
//! that. What does not fit is lost and counted.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::OnceLock,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// What is logged unless told otherwise. Of connections we say ourselves what there is to say: rustls warns of each client
/// that takes leave as Java's does, with an alert before its goodbye.
pub const DEFAULT_FILTER: &str = "info,rustls=error";
/// So many lines wait to be written.
const QUEUED_LINES: usize = 8 * 1024;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Stderr as it is now, whatever becomes of the descriptor later. What is logged is written while the guard lives, and the
/// last of it when that is dropped.
pub fn stderr() -> (NonBlocking, WorkerGuard) {
    let (writer, guard) = match own(io::stderr().as_fd()) {
        Ok(file) => queued(file),
        Err(_) => queued(io::stderr()),
    };
    // Only the first one is the process's log.
    let _ = LOST.set(writer.error_counter());
    (writer, guard)
}

/// Lines of the log that were lost.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

fn queued(to: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES).thread_name("log").finish(to)
}

fn own(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(descriptor.try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Whoever reads it stands still until told otherwise.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody is there any more at the end of the test.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_counted() {
        let (read, reader) = channel();
        let (mut log, guard) = queued(Stuck(reader));
        for _ in 0..QUEUED_LINES + 10 {
            log.write_all(b"the worker can't be reached\n").unwrap();
        }
        // One may be with the reader, and one on its way.
        assert!((8..=10).contains(&log.error_counter().dropped_lines()), "{}", log.error_counter().dropped_lines());
        drop(read);
        drop(guard);
    }
}
