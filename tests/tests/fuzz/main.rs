//! Every fuzz target for a bounded time: `JETWAY_FUZZ_SECONDS=60 cargo test --release -p jetway-tests --test fuzz`.

use jetway_tests::fuzz::{TARGETS, drive, target};

/// Makes a test of each target.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            drive(target(stringify!($name)).expect("the list of targets has it"));
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tested);
        }
    };
}

targets! { frame ip_packet icmp_error prefix_table wireguard_message handshake config }
