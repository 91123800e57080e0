//! Every fuzz target for a bounded time: `JETWAY_FUZZ_SECONDS=60 cargo test --workspace --test fuzz`.

use std::path::Path;

use jetway_tests::fuzz::{TARGETS, drive, target};

/// Makes a test of each target.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            drive(target(stringify!($name)).expect("the list of targets has it"));
        })*

        #[test]
        fn every_target_has_a_test_a_corpus_and_a_libfuzzer_binary() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tested);
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("the manifest of the binaries");
            for target in TARGETS {
                let name = target.name;
                assert!(!target.further_corpus.is_empty() || folder.join("corpus").join(name).is_dir(), "{name}");
                let binary = std::fs::read_to_string(folder.join(format!("targets/{name}.rs"))).unwrap_or_default();
                assert!(binary.contains(&format!("fuzz!(\"{name}\")")), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

targets! { frame ip_packet icmp_error prefix_table maglev flow_table fragment_table wireguard_message handshake worker config uapi }
