//! The list of fuzz targets.

mod config;
mod flow_table;
mod fragment_table;
mod handshake;
mod icmp_error;
mod maglev;
mod packet;
mod prefix_table;
mod uapi;
mod wireguard_message;
mod worker;

use super::Target;

/// Every target. A libFuzzer binary of the same name stands in `tests/fuzz/`.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: packet::frame, further_corpus: &[] },
    Target { name: "ip_packet", run: packet::ip_packet, further_corpus: &[] },
    Target { name: "icmp_error", run: icmp_error::icmp_error, further_corpus: &["tests/fuzz/corpus/ip_packet"] },
    Target { name: "prefix_table", run: prefix_table::prefix_table, further_corpus: &[] },
    Target { name: "maglev", run: maglev::maglev, further_corpus: &[] },
    Target { name: "flow_table", run: flow_table::flow_table, further_corpus: &[] },
    Target { name: "fragment_table", run: fragment_table::fragment_table, further_corpus: &[] },
    Target { name: "wireguard_message", run: wireguard_message::wireguard_message, further_corpus: &[] },
    Target { name: "handshake", run: handshake::handshake, further_corpus: &[] },
    Target { name: "worker", run: worker::worker, further_corpus: &[] },
    Target { name: "config", run: config::config, further_corpus: &["config/broken", "config/examples"] },
    Target { name: "uapi", run: uapi::uapi, further_corpus: &[] },
];
