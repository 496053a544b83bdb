//! The local platform: clones are servers on this machine, started from its own PostgreSQL binaries.
//!
//! Everything it makes is written into a journal first, so that nothing is left behind.

pub mod account;
pub mod arm;
pub mod arm_config;
pub mod base_backup;
pub mod binaries;
pub mod change;
pub mod cut;
pub mod cut_probe;
pub mod direct;
pub mod door;
pub mod experiment;
pub mod facts;
pub mod initdb;
pub mod leftovers;
pub mod lsn;
pub mod parameters;
pub mod place;
pub mod preflight;
pub mod process;
pub mod promotion;
pub mod quarantine;
pub mod recovery;
pub mod server;
pub mod server_log;
pub mod session;
pub mod system_settings;
pub mod verify;
pub mod wal_hold;
pub mod worker;
pub mod worker_check;

pub use experiment::LocalPlatform;
