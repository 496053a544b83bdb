//! What is measured: latency histograms by arm, class and fingerprint, in intervals of time.

pub mod interval;
pub mod recorder;
