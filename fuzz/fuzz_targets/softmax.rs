#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toksample_fuzz::check::softmax(bytes));
