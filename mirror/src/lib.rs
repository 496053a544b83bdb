//! The data plane of Understudy: relays PostgreSQL traffic, captures it, and plays it to the arms.

pub mod measure;
