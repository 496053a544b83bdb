//! The data plane of Understudy: relays PostgreSQL traffic, captures it, and plays it to the arms.
//!
//! Three parts that nothing crosses the wrong way: [`production`] forwards bytes and hands what it saw
//! to the tap; [`shadow`] takes it from there and may be slow, fail or fall behind; [`mirror`] is what
//! the control plane holds.

pub mod admin;
pub mod buffer;
pub mod capture;
pub mod clock;
pub mod connection;
pub mod cut;
pub mod huge_pages;
pub mod keepalive;
pub mod log_output;
pub mod measure;
pub mod metrics;
pub mod mirror;
pub mod open_files;
pub mod production;
pub mod reservation;
pub mod shadow;
pub mod stream;
pub mod tls;
pub mod wire;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic on the shadow side ends its arm and nothing else: it has to unwind");

/// What production's threads allocate, the shadow path's free: the system's allocator takes locks and system
/// calls for that. Measured in PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
