//! The programs that run in the pods which the controller makes: the mirror pod and the arm pods.
//!
//! They have no access to the Kubernetes API; what they need stands in their document.

pub mod arm;
pub mod mirror;
