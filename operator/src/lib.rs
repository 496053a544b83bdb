//! The control plane: experiments, clones, analysis, promotion.
//!
//! Decisions are pure functions over plain data; what touches servers, files and sockets is thin.

pub mod error;
pub mod platform;
