//! The API of Understudy: the `ShadowExperiment` with its status, the report, and the mirror's
//! configuration document.
//!
//! Types, their schema and the rules that need nothing but the document itself. This crate must not
//! depend on a runtime, a Kubernetes client, or anything that performs I/O.

pub mod condition;
pub mod crd;
pub mod experiment;
pub mod labels;
pub mod manifest;
pub mod mirror_config;
pub mod pods;
pub mod quantity;
pub mod report;
pub mod status;
pub mod support;
pub mod validate;

pub use experiment::{Candidate, ShadowExperiment, ShadowExperimentSpec};
pub use quantity::{ByteSize, Percent, Span};
pub use status::ShadowExperimentStatus;
