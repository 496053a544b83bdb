//! The control plane: what an experiment measured, what it says, and where that is kept and shown.

pub mod analysis;
pub mod hlog;
pub mod report;
pub mod store;
