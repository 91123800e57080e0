//! Runs a target of `jetway-tests` under libFuzzer.

/// Makes the entry of libFuzzer for the target of this name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            let target = jetway_tests::fuzz::target($name).expect("the list of targets has it");
            (target.run)(data);
        });
    };
}
