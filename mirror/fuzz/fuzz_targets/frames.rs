//! Fuzzes the frame splitter. Decides nothing: the check is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_mirror_fuzz::frames(data));
