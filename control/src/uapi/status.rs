//! What `get=1` answers: the state of a tunnel and its text.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use jetway_config::{PublicKey, Secret};
use zeroize::Zeroizing;

/// How a tunnel is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelStatus {
    /// Its private key.
    pub private_key: Secret,
    /// The UDP port on which it listens.
    pub listen_port: u16,
    /// The mark that somebody set; 0 for none.
    pub fwmark: u32,
    /// Its peers.
    pub peers: Vec<PeerStatus>,
}

/// How a peer is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Its public key.
    pub public_key: PublicKey,
    /// The key mixed into every handshake.
    pub preshared_key: Option<Secret>,
    /// Where it was last heard from, or was set to be.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed, since 1970; `None` for never.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Seconds between keepalives; 0 for none.
    pub persistent_keepalive: u16,
    /// Its inner networks.
    pub allowed_ips: Vec<IpNet>,
}

/// The answer to `get=1`, with `errno=0` and the empty line at its end. It holds secrets.
pub fn write_get(status: &TunnelStatus) -> Zeroizing<String> {
    // Room for everything at once: a text that grew would leave copies of secrets behind.
    let networks: usize = status.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(256 + 512 * status.peers.len() + 64 * networks));
    line_of_key(&mut text, "private_key", status.private_key.expose());
    line(&mut text, format_args!("listen_port={}", status.listen_port));
    if status.fwmark != 0 {
        line(&mut text, format_args!("fwmark={}", status.fwmark));
    }
    for peer in &status.peers {
        write_peer(&mut text, peer);
    }
    text.push_str("errno=0\n\n");
    text
}

fn write_peer(text: &mut String, peer: &PeerStatus) {
    line_of_key(text, "public_key", &peer.public_key.0);
    line_of_key(text, "preshared_key", peer.preshared_key.as_ref().map_or(&[0; 32], Secret::expose));
    line(text, format_args!("protocol_version=1"));
    if let Some(endpoint) = peer.endpoint {
        line(text, format_args!("endpoint={endpoint}"));
    }
    let handshake = peer.last_handshake.unwrap_or_default();
    line(text, format_args!("last_handshake_time_sec={}", handshake.as_secs()));
    line(text, format_args!("last_handshake_time_nsec={}", handshake.subsec_nanos()));
    line(text, format_args!("tx_bytes={}", peer.sent_bytes));
    line(text, format_args!("rx_bytes={}", peer.received_bytes));
    line(text, format_args!("persistent_keepalive_interval={}", peer.persistent_keepalive));
    for net in &peer.allowed_ips {
        line(text, format_args!("allowed_ip={net}"));
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(content);
    text.push('\n');
}

fn line_of_key(text: &mut String, name: &str, key: &[u8; 32]) {
    text.push_str(name);
    text.push('=');
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_as_the_protocol_says() {
        let status = TunnelStatus {
            private_key: Secret::take(&mut [0xa1; 32]),
            listen_port: 51820,
            fwmark: 0,
            peers: vec![PeerStatus {
                public_key: PublicKey([0x0b; 32]),
                preshared_key: None,
                endpoint: Some("[2001:db8::1]:7".parse().unwrap()),
                last_handshake: Some(Duration::new(5, 6)),
                received_bytes: 8,
                sent_bytes: 9,
                persistent_keepalive: 25,
                allowed_ips: vec!["10.8.0.2/32".parse().unwrap(), "fd00::/64".parse().unwrap()],
            }],
        };
        let expected = format!(
            "private_key={}\nlisten_port=51820\npublic_key={}\npreshared_key={}\nprotocol_version=1\n\
             endpoint=[2001:db8::1]:7\nlast_handshake_time_sec=5\nlast_handshake_time_nsec=6\ntx_bytes=9\nrx_bytes=8\n\
             persistent_keepalive_interval=25\nallowed_ip=10.8.0.2/32\nallowed_ip=fd00::/64\nerrno=0\n\n",
            "a1".repeat(32),
            "0b".repeat(32),
            "00".repeat(32),
        );
        assert_eq!(*write_get(&status), expected);
    }
}
