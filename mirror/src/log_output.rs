//! Where a process that analyses statements writes its log. The parser (libpg_query) points the process's stderr at a
//! pipe of its own while it parses: what any thread wrote there meanwhile would be lost.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Stderr as it is now, whatever becomes of the descriptor later.
pub fn stderr() -> BoxMakeWriter {
    own(io::stderr().as_fd()).map_or_else(|_| BoxMakeWriter::new(io::stderr), BoxMakeWriter::new)
}

fn own(descriptor: BorrowedFd<'_>) -> io::Result<Arc<File>> {
    Ok(Arc::new(File::from(descriptor.try_clone_to_owned()?)))
}
