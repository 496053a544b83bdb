//! What can go wrong with the store. Each error names the file and says what to do; none carries a URL,
//! which may hold a password.

use std::path::PathBuf;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A PostgreSQL URL.
    #[error("a store in PostgreSQL is not supported yet; name a file, like sqlite:understudy.db")]
    PostgresNotSupported,
    /// A URL without a path.
    #[error("the store has no file; name one, like sqlite:understudy.db")]
    NoFile,
    /// The file could not be opened or made.
    #[error("the store {path} can't be opened: {source}; see that its directory exists and is writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The file is no store of this version.
    #[error(
        "the store {path} is none that this version can use: {source}; name another file, or use the version that made it"
    )]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// Something could not be written.
    #[error("the store {path} can't be written: {source}; see that the disk has space; the experiment goes on without")]
    Write {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// Something could not be read.
    #[error("the store {path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// Something in it can't be understood.
    #[error("the store {path} is damaged: {what} can't be understood ({why}); the experiment has to be run again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it is about.
        what: &'static str,
        /// Why it can't be.
        why: String,
    },
    /// Something could not be turned into what the store keeps.
    #[error("{what} can't be stored ({why})")]
    Encode {
        /// What it is about.
        what: &'static str,
        /// Why it can't be.
        why: String,
    },
    /// There is no such experiment.
    #[error("the store {path} has no experiment `{name}`")]
    NoSuchExperiment {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
    },
}
