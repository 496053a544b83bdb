//! Fuzzes the tracker, with bytes of both sides. Decides nothing: the check is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_mirror_fuzz::tracker(data));
