//! Large configurations load in time that grows with their size only.

mod common;

use std::fmt::Write;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetway_config::diff;

fn configuration(peers: u32) -> String {
    let mut text = include_str!("../examples/gateway.toml").split("[[tunnel.peer]]").next().unwrap().to_owned();
    for number in 1..=peers {
        let mut key = [0xab; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let [_, a, b, c] = number.to_be_bytes();
        write!(
            text,
            "[[tunnel.peer]]\nname = \"peer-{number}\"\npublic_key = \"{}\"\nallowed_ips = [\"10.{a}.{b}.{c}/32\", \
             \"fd00::{:x}:{:x}/128\"]\nendpoint = \"203.0.113.9:{}\"\npersistent_keepalive = 25\n\n",
            STANDARD.encode(key),
            number >> 16,
            number & 0xffff,
            1 + number % 65_535,
        )
        .unwrap();
    }
    text
}

/// `JETWAY_PEERS` sets another number, for a measurement in a release build.
fn number_of_peers() -> u32 {
    std::env::var("JETWAY_PEERS").map_or(20_000, |text| text.parse().unwrap())
}

#[test]
fn many_peers_load_and_compare_in_time_that_grows_with_their_number_only() {
    let number = number_of_peers();
    let text = configuration(number);
    let start = Instant::now();
    let config = common::check(&text, "x.toml").unwrap().config;
    let parsed = start.elapsed();
    assert_eq!(config.tunnels[0].peers.len(), number as usize);

    let mut other = config.clone();
    other.tunnels[0].peers.swap_remove(7);
    let start = Instant::now();
    let changes = diff(&config, &other).tunnels.changed.remove(0).peers;
    let compared = start.elapsed();
    assert_eq!((changes.removed.len(), changes.added.len(), changes.changed.len()), (1, 0, 0));
    println!("{number} peers, {} bytes: parsed in {parsed:?}, compared in {compared:?}", text.len());
    // A quadratic check takes minutes; the bound leaves room for a loaded machine and a debug build.
    assert!(parsed < Duration::from_secs(20), "{parsed:?}");
    assert!(compared < Duration::from_secs(5), "{compared:?}");
}

#[test]
fn many_faults_are_all_told_in_time_that_grows_with_their_number_only() {
    let number = 20_000;
    let text = configuration(number).replace("persistent_keepalive", "keepalive");
    let start = Instant::now();
    let problems = common::check(&text, "x.toml").unwrap_err();
    assert_eq!(problems.len(), number as usize);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
