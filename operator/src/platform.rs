//! Where experiments run: the local platform now, Kubernetes later.

pub mod local;
