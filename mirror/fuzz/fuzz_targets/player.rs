//! Any bytes whatever; what must hold stands beside the check.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_mirror_fuzz::check("player", data));
