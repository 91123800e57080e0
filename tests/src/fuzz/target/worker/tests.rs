//! The kept inputs reach what they are kept for.

use super::*;

/// The ways out that the kept input of this name takes, and what is dropped.
fn run(name: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let path = format!("{}/fuzz/corpus/worker/{name}", env!("CARGO_MANIFEST_DIR"));
    let input = std::fs::read(path).unwrap();
    let mut source = Source::new(&input);
    let mut world = World::new();
    while !source.is_empty() {
        world.step(&mut source);
        world.check();
    }
    let dropped = |reason: &&DropReason| world.pipeline.counters().drops[**reason as usize].get() > 0;
    (world.ways.into_iter().collect(), DropReason::ALL.iter().filter(dropped).map(|reason| reason.name()).collect())
}

#[test]
fn the_kept_inputs_do_what_they_are_named_for() {
    let cases: [(&str, &[&str], &[&str]); 17] = [
        ("client_to_server", &["lan"], &[]),
        ("server_to_client", &["sealed", "wan"], &[]),
        ("too_big_both_ways", &["lan", "sealed", "wan"], &["too_big"]),
        ("fragments", &["sealed", "wan"], &["consumed"]),
        ("syn", &["lan", "sealed", "wan"], &[]),
        ("hops_run_out", &["lan", "sealed", "wan"], &["ttl_exceeded"]),
        ("to_the_node", &["punted"], &[]),
        ("spoofed", &[], &["inner_source_not_allowed", "reverse_path"]),
        ("inner_checksum_wrong", &[], &["ipv4_bad_checksum"]),
        ("replayed_and_broken", &["lan"], &["wireguard_forged", "wireguard_replayed"]),
        ("neighbour_comes_late", &["lan"], &[]),
        ("neighbour_never_comes", &[], &["no_neighbour"]),
        ("from_the_kernel", &["sealed", "wan"], &[]),
        ("unreachable", &["sealed", "wan"], &["no_allowed_ip", "route_blackhole"]),
        ("messages", &[], &["wireguard_malformed"]),
        ("session_expires", &[], &["wireguard_session_expired"]),
        ("congestion_marks", &["lan"], &["ecn_inconsistent"]),
    ];
    for (name, ways, drops) in cases {
        let ran = run(name);
        println!("{name}: {ran:?}");
        assert!(ways.iter().all(|way| ran.0.contains(way)) && drops.iter().all(|drop| ran.1.contains(drop)), "{name}");
    }
}
