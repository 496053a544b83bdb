//! Fuzzes the contents of a client's messages. Decides nothing: the check is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_mirror_fuzz::frontend(data));
