//! PostgreSQL's frontend/backend protocol, as far as a mirror must know it: where messages begin and
//! end, and what a handful of them say. Nothing here performs I/O, and nothing here trusts a byte.
//!
//! Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

pub mod backend;
pub mod encode;
pub mod frame;
pub mod frontend;
pub mod sasl;
pub mod startup;
