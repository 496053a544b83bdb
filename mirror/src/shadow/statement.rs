//! What a statement is: what it can do, what it touches, and its identity once its constants are
//! taken out. Decided from the parse tree that PostgreSQL's own parser makes, never from the first
//! word. Slow (tens of µs), so it is cached, and it is never called on the production path.

mod answering;
pub mod catalog;
mod definitions;
mod equality;
pub mod execution;
pub mod footprint;
pub(super) mod functions;
pub mod isolation;
pub mod lexer;
pub mod rows;
mod session;
mod tables;
pub mod template;
pub mod tree;
mod upsert;
