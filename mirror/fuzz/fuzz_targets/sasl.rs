//! Fuzzes the part of a SASL login that the mirror reads. Decides nothing: the check is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| understudy_mirror_fuzz::sasl(data));
