//! What a process that analyses statements logs, and where. The parser (libpg_query) points the process's stderr at a
//! pipe of its own while it parses: what any thread wrote there meanwhile would be lost.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What is logged unless told otherwise. Of connections we say ourselves what there is to say: rustls warns of each client
/// that takes leave as Java's does, with an alert before its goodbye.
pub const DEFAULT_FILTER: &str = "info,rustls=error";

/// Stderr as it is now, whatever becomes of the descriptor later.
pub fn stderr() -> BoxMakeWriter {
    own(io::stderr().as_fd()).map_or_else(|_| BoxMakeWriter::new(io::stderr), BoxMakeWriter::new)
}

fn own(descriptor: BorrowedFd<'_>) -> io::Result<Arc<File>> {
    Ok(Arc::new(File::from(descriptor.try_clone_to_owned()?)))
}
