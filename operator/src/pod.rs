//! The programs of the pods that the operator makes: the mirror pod, which runs a whole experiment, and
//! the arm pods, each with an agent beside its PostgreSQL.
//!
//! Neither of them talks to Kubernetes; all they know stands in their document
//! ([`understudy_crds::pods`]). So an operator that is restarted, or away, changes nothing for them.

pub mod arm;
mod document;
pub mod health;
pub mod http;
pub mod mirror;

pub use document::PodError;
