//! The operator's users on a real cluster: a namespace of their own with three workers and a workload,
//! `kubectl`, and waiting for what should happen.
//!
//! Everything goes the way a person would go: manifests and `kubectl`. Nothing here knows how the operator
//! works inside.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may: what is wrong ends them"
)]

pub mod fixture;
pub mod kubectl;
pub mod ledger;
pub mod scene;
