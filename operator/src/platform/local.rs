//! The local platform: clones are servers on this machine, started from its own PostgreSQL binaries.
//!
//! Everything it makes is written into a journal first, so that nothing is left behind.

pub mod account;
pub mod binaries;
pub mod initdb;
pub mod place;
pub mod process;
pub mod server;
pub mod server_log;
