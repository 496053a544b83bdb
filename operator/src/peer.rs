//! How operator, mirror pod and arm pods speak with each other: over TLS on which both sides show a
//! certificate of the experiment's own authority; HTTP for orders, PostgreSQL for what is played and asked.
//!
//! It knows of no orders and no documents: those are its users'.

pub mod http;
pub mod identity;
pub mod postgres;

#[cfg(test)]
mod tests;
