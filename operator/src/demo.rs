//! The demo's own production: a data set, the traffic of an application on it, and the experiment
//! that is run against both.
//!
//! Everything here stands for somebody else's system. It must not know what a mirror, a clone or a
//! verdict is: to the demo's clients the mirror is just another address.

pub mod dataset;
pub mod experiment;
pub mod place;
pub mod workload;
