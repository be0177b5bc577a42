#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| deskbridge_fuzz::split::check(input));
