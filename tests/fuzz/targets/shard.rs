#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| verge_tests::fuzz::run("shard", input));
