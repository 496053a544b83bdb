//! The control plane: experiments, clones, analysis, promotion, and the terminal.

pub mod demo;
pub mod screen;
