#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncledger_fuzz::run("journal_model", bytes));
