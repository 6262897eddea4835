#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toksample_fuzz::check::long_rows(bytes));
