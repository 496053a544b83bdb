//! The operator on a real cluster. Each file is by itself; what they share is the crate's library.

mod candidates;
mod chart;
mod edited;
mod index;
mod lifecycle;
mod neighbours;
mod operator;
mod people;
mod phases;
mod quota;
mod rollouts;
