//! The shadow path: everything between the capture and the arms. It may be slow, fail or fall behind
//! without production noticing; what it can't do it counts.

pub mod arm;
pub mod arm_clock;
pub mod compare;
pub mod entry;
mod id_map;
pub mod ingest;
pub mod log;
pub mod measured;
pub mod order;
pub mod overlap;
pub mod overtaken;
pub mod player;
pub mod prologue;
pub mod schema;
pub mod session_book;
pub mod statement;
pub mod undone;
