//! The production path: bytes in, bytes out. Nothing here waits for the shadow path, takes a lock that
//! it holds, or fails because of it; all it does for it is to hand events to the [`tap`].

pub mod client_tls;
pub mod counters;
pub mod gate;
pub mod greeting;
pub mod held;
pub mod listener;
pub mod login;
pub mod per_thread;
pub mod processors;
pub mod relay;
pub mod renewed;
pub mod run_queue;
pub mod seats;
pub mod session;
pub mod sessions;
pub mod tap;
pub mod worker;
