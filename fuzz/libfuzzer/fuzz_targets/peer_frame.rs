//! See qkd_fuzz_targets.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| qkd_fuzz_targets::run("peer_frame", octets));
