//! The data plane of Understudy: relays PostgreSQL traffic, captures it, and plays it to the arms.

pub mod capture;
pub mod clock;
pub mod measure;
pub mod shadow;
pub mod stream;
pub mod wire;
