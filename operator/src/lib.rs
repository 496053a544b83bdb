//! The control plane: experiments, clones, analysis, promotion, and what people see of them.
//!
//! Decisions are pure functions over plain data ([`plan`], [`analysis`]); what touches servers, files
//! and sockets is thin.

pub mod analysis;
pub mod cli;
pub mod controller;
pub mod demo;
pub mod error;
pub mod hlog;
pub mod peer;
pub mod plan;
pub mod platform;
pub mod pod;
pub mod report;
pub mod run;
pub mod screen;
pub mod store;
