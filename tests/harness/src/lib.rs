//! Real PostgreSQL servers for tests: quick to start, many at once, gone when dropped.
//!
//! Only for tests: it panics instead of returning errors, so that a test stays readable.

mod cluster;

pub use cluster::{Cluster, ClusterBuilder, wait_until};
