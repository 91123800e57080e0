//! A `set=1` request: its text and what it means.

use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;
use jetway_config::{PublicKey, Secret};

use super::UapiError;

/// What a client wants changed of a tunnel. What is `None` stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SetRequest {
    /// The tunnel's private key.
    pub private_key: Option<SecretChange>,
    /// The UDP port; 0 leaves the choice to us.
    pub listen_port: Option<u16>,
    /// A mark for outgoing datagrams; kept and shown, without meaning to an engine that has no kernel sockets.
    pub fwmark: Option<u32>,
    /// Whether all peers go before `peers` are taken in.
    pub replace_peers: bool,
    /// The peers to change, in order.
    pub peers: Vec<PeerSet>,
}

/// What a client wants changed of one peer. What is `None` stays as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSet {
    /// Which peer.
    pub public_key: PublicKey,
    /// Whether to remove it.
    pub remove: bool,
    /// Whether to do nothing if it does not exist; otherwise it is made.
    pub update_only: bool,
    /// The key mixed into every handshake.
    pub preshared_key: Option<SecretChange>,
    /// Where to send to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 switches them off.
    pub persistent_keepalive: Option<u16>,
    /// Whether its allowed IPs go before `allowed_ips` are taken in.
    pub replace_allowed_ips: bool,
    /// Inner networks to give to it or take from it, in order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerSet {
    /// Nothing changed yet of the peer of this key.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// A secret's new value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretChange {
    /// This one.
    Set(Secret),
    /// None (all zeros on the wire).
    Clear,
}

/// An allowed IP given or taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllowedIpChange {
    /// The network is this peer's from now on, and no other peer's.
    Add(IpNet),
    /// The network is not this peer's any more (`allowed_ip=-…`, wireguard-tools 1.0.20250521 and later).
    Remove(IpNet),
}

/// Reads the lines behind `set=1` up to, and without, the empty line. Nothing is taken of a request with an error.
///
/// Keys before the first `public_key` are the tunnel's, those behind are that peer's.
pub fn parse_set(text: &str) -> Result<SetRequest, UapiError> {
    let mut request = SetRequest::default();
    for (number, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once('=') else {
            return Err(UapiError::invalid(format!("line {}: no key=value", number + 2)));
        };
        let understood = match request.peers.last_mut() {
            _ if key == "public_key" => {
                let mut bytes = key_bytes(value);
                bytes.as_mut().map(|bytes| request.peers.push(PeerSet::new(PublicKey(**bytes))))
            }
            None => set_tunnel(&mut request, key, value),
            Some(peer) => set_peer(peer, key, value),
        };
        // The value is not repeated: it may be a key.
        understood.ok_or_else(|| {
            UapiError::invalid(format!(
                "line {}: {} with a value or at a place that is not allowed",
                number + 2,
                name(key)
            ))
        })?;
    }
    Ok(request)
}

/// A key's name as far as it is one: the text comes from outside and goes to the log.
fn name(key: &str) -> &str {
    let is_plain = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_plain { key } else { "an unreadable key" }
}

fn set_tunnel(request: &mut SetRequest, key: &str, value: &str) -> Option<()> {
    match key {
        "private_key" => request.private_key = Some(secret(value)?),
        "listen_port" => request.listen_port = Some(number(value)?),
        "fwmark" => request.fwmark = Some(number(value)?),
        "replace_peers" => request.replace_peers = yes(value)?,
        _ => return None,
    }
    Some(())
}

fn set_peer(peer: &mut PeerSet, key: &str, value: &str) -> Option<()> {
    match key {
        "remove" => peer.remove = yes(value)?,
        "update_only" => peer.update_only = yes(value)?,
        "preshared_key" => peer.preshared_key = Some(secret(value)?),
        "endpoint" => peer.endpoint = Some(value.parse().ok().filter(|endpoint: &SocketAddr| endpoint.port() != 0)?),
        "persistent_keepalive_interval" => peer.persistent_keepalive = Some(number(value)?),
        "replace_allowed_ips" => peer.replace_allowed_ips = yes(value)?,
        "allowed_ip" => peer.allowed_ips.push(match value.strip_prefix('-') {
            Some(net) => AllowedIpChange::Remove(network(net)?),
            None => AllowedIpChange::Add(network(value)?),
        }),
        "protocol_version" => return (value == "1").then_some(()),
        _ => return None,
    }
    Some(())
}

fn yes(value: &str) -> Option<bool> {
    (value == "true").then_some(true)
}

/// Digits alone: `parse` would also take a plus sign.
fn number<T: FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn network(value: &str) -> Option<IpNet> {
    value.parse().ok().map(|net: IpNet| net.trunc())
}

fn secret(value: &str) -> Option<SecretChange> {
    let mut bytes = key_bytes(value)?;
    Some(if *bytes == [0; 32] { SecretChange::Clear } else { SecretChange::Set(Secret::take(&mut bytes)) })
}

fn key_bytes(value: &str) -> Option<zeroize::Zeroizing<[u8; 32]>> {
    let digits = value.as_bytes();
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(32)
    }

    #[test]
    fn every_key_of_the_protocol_is_read() {
        let text = format!(
            "private_key={}\nlisten_port=51820\nfwmark=7\nreplace_peers=true\npublic_key={}\nupdate_only=true\n\
             preshared_key={}\nendpoint=[2001:db8::1]:51820\npersistent_keepalive_interval=25\n\
             replace_allowed_ips=true\nallowed_ip=10.8.0.2/32\nallowed_ip=-10.9.0.0/16\nprotocol_version=1\n\
             public_key={}\nremove=true\n",
            hex(1),
            hex(2),
            hex(3),
            hex(4),
        );
        let request = parse_set(&text).unwrap();
        assert_eq!(request.private_key, Some(SecretChange::Set(Secret::take(&mut [1; 32]))));
        assert_eq!((request.listen_port, request.fwmark, request.replace_peers), (Some(51820), Some(7), true));
        let [first, second] = request.peers.as_slice() else { panic!("two peers") };
        assert_eq!(
            *first,
            PeerSet {
                update_only: true,
                preshared_key: Some(SecretChange::Set(Secret::take(&mut [3; 32]))),
                endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
                persistent_keepalive: Some(25),
                replace_allowed_ips: true,
                allowed_ips: vec![
                    AllowedIpChange::Add("10.8.0.2/32".parse().unwrap()),
                    AllowedIpChange::Remove("10.9.0.0/16".parse().unwrap()),
                ],
                ..PeerSet::new(PublicKey([2; 32]))
            }
        );
        assert_eq!(*second, PeerSet { remove: true, ..PeerSet::new(PublicKey([4; 32])) });
    }

    #[test]
    fn a_key_of_zeros_clears() {
        let text = format!("private_key={}\npublic_key={}\npreshared_key={}\n", hex(0), hex(1), hex(0));
        let request = parse_set(&text).unwrap();
        assert_eq!(request.private_key, Some(SecretChange::Clear));
        assert_eq!(request.peers[0].preshared_key, Some(SecretChange::Clear));
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_refused_whole() {
        let peer = format!("public_key={}\n", hex(2));
        for bad in [
            "nonsense",
            "listen_port=65536",
            "listen_port=+1",
            "private_key=00",
            "replace_peers=false",
            "unknown_key=1",
            "remove=true",
            &format!("{peer}listen_port=1"),
            &format!("{peer}endpoint=example.org:51820"),
            &format!("{peer}endpoint=192.0.2.1:0"),
            &format!("{peer}allowed_ip=10.0.0.0/33"),
            &format!("{peer}protocol_version=2"),
            &format!("{peer}persistent_keepalive_interval=70000"),
            &format!("public_key={}", "zz".repeat(32)),
        ] {
            let error = parse_set(bad).unwrap_err();
            assert_eq!(error.errno, libc::EINVAL, "{bad}");
        }
    }

    #[test]
    fn an_error_never_repeats_a_value() {
        let error = parse_set(&format!("private_key={}0", hex(0xab))).unwrap_err();
        assert!(!error.reason.contains("abab"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,200}", key in "[a-z_]{0,20}", value in "[0-9a-f:./%-]{0,70}") {
            let _ = parse_set(&text);
            let _ = parse_set(&format!("public_key={}\n{key}={value}\n", hex(1)));
            let _ = parse_set(&format!("{key}={value}\n"));
        }
    }
}
