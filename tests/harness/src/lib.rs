//! Real PostgreSQL servers for tests: quick to start, many at once, gone when dropped.
//!
//! Only for tests: it panics instead of returning errors, so that a test stays readable.

mod arms;
mod cluster;
mod paused;

pub use arms::{arm_spec, arm_spec_of, seed_arm, target, worker};
pub use cluster::{Cluster, ClusterBuilder, server_account, wait_until, wait_until_within};
pub use paused::Paused;
