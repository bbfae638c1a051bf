#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncledger_fuzz::run("decode_segment", bytes));
