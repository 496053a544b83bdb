//! What the end-to-end tests share: the shipped commands as child processes, the manifests they get,
//! the load they are put under, and the looks at what they leave.
//!
//! Only for tests: it panics instead of returning errors, so that a test stays readable. It must not
//! reach into the products: what a user can't do is not done here.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that can't have what it needs has failed")]

pub mod application;
pub mod child;
pub mod counted;
pub mod experiment;
pub mod http;
pub mod load;
pub mod pgbench;
pub mod raw;
pub mod recorder;
pub mod scenario;
pub mod scenario_table;
pub mod scene;
pub mod small_disk;
pub mod stage;
pub mod tables;
pub mod talk;
pub mod throttle;
pub mod tls_worker;
pub mod traces;
pub mod transcript;
pub mod turn;
pub mod twins;
pub mod wire;
