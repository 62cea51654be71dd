#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xenoscope_fuzz::perf_data(input));
