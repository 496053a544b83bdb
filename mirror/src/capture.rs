//! From bytes to exchanges: what the production path sees on its way past. Pure; it neither awaits
//! nor decides anything about the arms.

mod copy_in;
pub mod digest;
pub mod exchange;
mod growing;
pub mod moments;
pub mod tracker;
