//! `jetway peers`.

use std::process::ExitCode;

use super::args::{Global, PeersArguments};
use super::output::{self, Align};
use super::{CliError, connect};
use crate::api::{PeerReport, PeersQuery, Request, Response};

/// Prints the peers of the node.
pub fn peers(global: &Global, arguments: PeersArguments) -> Result<ExitCode, CliError> {
    let query = PeersQuery { tunnel: arguments.tunnel, name: arguments.name };
    let Response::Peers { mut peers } = connect::ask(global, &Request::Peers(query))? else {
        return Err(connect::unexpected());
    };
    // Those that the configuration names first, by name.
    let rank =
        |peer: &PeerReport| (peer.tunnel.clone(), peer.name.is_none(), peer.name.clone(), peer.public_key.clone());
    peers.sort_by_cached_key(rank);
    match peers.as_slice() {
        peers if global.json => output::json(&peers),
        [] => output::text_line("no peers"),
        peers => output::text_line(text(peers).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The peers for people.
pub fn text(peers: &[PeerReport]) -> String {
    let columns = [
        ("tunnel", Align::Left),
        ("peer", Align::Left),
        ("endpoint", Align::Left),
        ("last handshake", Align::Right),
        ("received", Align::Right),
        ("sent", Align::Right),
        ("allowed IPs", Align::Left),
    ];
    output::table(&columns, &peers.iter().map(row).collect::<Vec<_>>())
}

fn row(peer: &PeerReport) -> Vec<String> {
    let networks: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    vec![
        peer.tunnel.clone(),
        peer.name.clone().unwrap_or_else(|| peer.public_key.clone()),
        peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string()),
        peer.handshake_age_seconds.map_or_else(|| "never".to_owned(), |age| output::span(age) + " ago"),
        output::bytes(peer.received_bytes),
        output::bytes(peer.sent_bytes),
        networks.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shown_by_name_or_by_key_with_the_age_of_its_handshake() {
        let alice = PeerReport {
            tunnel: "jw0".to_owned(),
            name: Some("alice".to_owned()),
            public_key: "AAAA".to_owned(),
            endpoint: Some("192.0.2.7:51820".parse().unwrap()),
            handshake_age_seconds: Some(65.2),
            received_bytes: 1_536,
            sent_bytes: 0,
            persistent_keepalive: 0,
            allowed_ips: vec!["10.8.0.2/32".parse().unwrap(), "fd00:8::2/128".parse().unwrap()],
        };
        let stranger = PeerReport { name: None, endpoint: None, handshake_age_seconds: None, ..alice.clone() };
        let text = text(&[alice, stranger]);
        let lines: Vec<&str> = text.lines().collect();
        for part in ["alice", "192.0.2.7:51820", "1m 5s ago", "1.50 KiB", "10.8.0.2/32 fd00:8::2/128"] {
            assert!(lines[1].contains(part), "{part} in {text}");
        }
        assert!(lines[2].contains("AAAA") && lines[2].contains("never"), "{text}");
    }
}
