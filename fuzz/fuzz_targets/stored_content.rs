#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_gatehouse::__fuzz::stored_content(data));
