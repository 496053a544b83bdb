//! The shadow path: everything between the capture and the arms. It may be slow, fail or fall behind
//! without production noticing; what it can't do it counts.

pub mod statement;
