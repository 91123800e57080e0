//! Reads the packet that an operator asks about: as hex, or as `tcp 10.8.0.2:1234 > 10.100.0.10:443`.

use std::net::{IpAddr, SocketAddr};

use jetway_config::PublicKey;
use jetway_pipelines::packet::tcp::Flags;
use jetway_pipelines::packet::{Parsed, Protocol, icmp, icmpv6, ipv4, ipv6, tcp, udp};
use jetway_pipelines::time::Instant;
use jetway_pipelines::wireguard::cookie::CookieJar;
use jetway_pipelines::wireguard::message::Initiation;

use crate::api::Failure;

/// Hops of a packet that is made up.
const TTL: u8 = 64;
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// What is written where the packet is not understood.
const HINT: &str = "write it as \"tcp 10.8.0.2:1234 > 10.100.0.10:443\", \"udp [2001:db8::2]:53 > [2001:db8::10]:53\" or \
                    \"icmp 10.8.0.2 > 10.100.0.10\", or as the bytes of an IP packet in hex";

/// A packet that begins with its IP header, and what that says.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their meaning.
    pub parsed: Parsed,
    /// What it carries.
    pub content: Content,
}

/// What a packet carries that is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// What was written.
    AsWritten,
    /// The first message of a handshake with WireGuard gateways, as nothing was written.
    Initiation,
}

/// Reads a packet. `gateways_at` tells the public key of the WireGuard gateways behind a socket: they look into messages, so one
/// to them cannot be judged by its addresses alone.
pub fn read(text: &str, gateways_at: impl Fn(SocketAddr) -> Option<PublicKey>) -> Result<Asked, Failure> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !matches!(*word, ">" | "->" | "to")).collect();
    let (bytes, content) = match words.as_slice() {
        [kind @ ("tcp" | "udp" | "icmp"), from, to] => made_up(kind, from, to, gateways_at)?,
        _ => (from_hex(&words.concat())?, Content::AsWritten),
    };
    let parsed = Parsed::from_ip(&bytes).map_err(|error| Failure::new(error.to_string(), HINT))?;
    Ok(Asked { bytes, parsed, content })
}

/// An initiation to the holder of this key, as far as a dispatcher looks into it. It shows no cookie.
fn initiation(gateways: &PublicKey) -> Vec<u8> {
    let body = Initiation::body(0, &[0; 32], &[0; 48], &[0; 28]);
    CookieJar::default().complete(&gateways.0, &body, Instant::from_nanos(0)).to_vec()
}

fn made_up(
    kind: &str,
    from: &str,
    to: &str,
    gateways_at: impl Fn(SocketAddr) -> Option<PublicKey>,
) -> Result<(Vec<u8>, Content), Failure> {
    let is_mixed = |a: IpAddr, b: IpAddr| a.is_ipv4() != b.is_ipv4();
    let mixed = || Failure::new("the two addresses are of different IP versions", HINT);
    if kind == "icmp" {
        let (from, to): (IpAddr, IpAddr) = (address(from)?, address(to)?);
        if is_mixed(from, to) {
            return Err(mixed());
        }
        let (protocol, echo) = match from {
            IpAddr::V4(_) => (Protocol::ICMP, icmp::Kind::ECHO.0),
            IpAddr::V6(_) => (Protocol::ICMPV6, icmpv6::Kind::ECHO.0),
        };
        let mut message = vec![0; ICMP_HEADER];
        message[0] = echo;
        return Ok((with_header(from, to, protocol, message), Content::AsWritten));
    }
    let (from, to): (SocketAddr, SocketAddr) = (socket(from)?, socket(to)?);
    if is_mixed(from.ip(), to.ip()) {
        return Err(mixed());
    }
    let (protocol, segment, content) = if kind == "tcp" {
        let mut segment = [0; tcp::HEADER_LENGTH];
        let header = tcp::Header {
            source_port: from.port(),
            destination_port: to.port(),
            sequence: 0,
            acknowledgement: 0,
            flags: Flags::SYN,
        };
        header.write(&mut segment);
        (Protocol::TCP, segment.to_vec(), Content::AsWritten)
    } else {
        let (message, content) = match gateways_at(to) {
            Some(gateways) => (initiation(&gateways), Content::Initiation),
            None => (Vec::new(), Content::AsWritten),
        };
        let length = (udp::HEADER_LENGTH + message.len()) as u16;
        let header = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
        (Protocol::UDP, [header, message].concat(), content)
    };
    Ok((with_header(from.ip(), to.ip(), protocol, segment), content))
}

fn address(text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("{text} is no IP address"), HINT))
}

fn socket(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("{text} is no IP address with a port"), HINT))
}

fn with_header(from: IpAddr, to: IpAddr, protocol: Protocol, payload: Vec<u8>) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut packet = match (from, to) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0; ipv4::HEADER_LENGTH];
            let total_length = length + ipv4::HEADER_LENGTH as u16;
            let fragmentation = ipv4::Fragmentation::Forbidden;
            ipv4::Header { source, destination, protocol, traffic_class: 0, ttl: TTL, fragmentation, total_length }
                .write(&mut header);
            header.to_vec()
        }
        (source, destination) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            let mut header = [0; ipv6::HEADER_LENGTH];
            ipv6::Header {
                source: v6(source),
                destination: v6(destination),
                protocol,
                traffic_class: 0,
                flow_label: 0,
                hop_limit: TTL,
                payload_length: length,
            }
            .write(&mut header);
            header.to_vec()
        }
    };
    packet.extend(payload);
    packet
}

/// The bytes of a packet, without the Ethernet header before it if there is one.
fn from_hex(text: &str) -> Result<Vec<u8>, Failure> {
    const ETHERNET: usize = 14;
    let digits: Option<Vec<u8>> =
        text.chars().filter(|letter| *letter != ':').map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2));
    let Some(digits) = digits else {
        return Err(Failure::new("this is no packet", HINT));
    };
    let mut bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if matches!(bytes.get(12..ETHERNET), Some([0x08, 0x00] | [0x86, 0xdd])) && Parsed::from_ip(&bytes).is_err() {
        bytes.drain(..ETHERNET);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jetway_pipelines::wireguard::cookie::{CookieChecker, CookieSecrets};

    use super::*;

    fn read(text: &str) -> Result<Asked, Failure> {
        super::read(text, |_| None)
    }

    #[test]
    fn a_datagram_in_words_to_gateways_is_an_initiation_that_a_dispatcher_lets_pass() {
        let key = PublicKey([7; 32]);
        let gateways: SocketAddr = "10.100.0.20:51820".parse().unwrap();
        let at = |to| (to == gateways).then_some(key);
        let asked = super::read("udp 198.51.100.3:5000 > 10.100.0.20:51820", at).unwrap();
        assert_eq!(asked.content, Content::Initiation);
        let message = &asked.bytes[ipv4::HEADER_LENGTH + udp::HEADER_LENGTH..];
        let secrets = Arc::new(CookieSecrets::new(Default::default(), Default::default()));
        assert!(CookieChecker::new(&key.0, secrets).has_valid_mac1(message));
        for other in ["udp 198.51.100.3:5000 > 10.100.0.20:51821", "tcp 198.51.100.3:5000 > 10.100.0.20:51820"] {
            assert_eq!(super::read(other, at).unwrap().content, Content::AsWritten, "{other}");
        }
        let hex: String = asked.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(super::read(&hex, at).unwrap().content, Content::AsWritten);
    }

    #[test]
    fn a_packet_in_words_is_the_packet_that_it_says() {
        for (text, protocol, ports) in [
            ("tcp 10.8.0.2:1234 > 10.100.0.10:443", Protocol::TCP, Some((1234, 443))),
            ("udp [2001:db8::2]:5353 -> [2001:db8::10]:53", Protocol::UDP, Some((5353, 53))),
            ("icmp 10.8.0.2 > 10.100.0.10", Protocol::ICMP, None),
            ("icmp 2001:db8::2 2001:db8::10", Protocol::ICMPV6, None),
        ] {
            let parsed = read(text).unwrap().parsed;
            assert_eq!(parsed.protocol, protocol, "{text}");
            assert_eq!(parsed.ports.map(|ports| (ports.source, ports.destination)), ports, "{text}");
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(words[1].contains(&parsed.source.to_string()), "{text}");
            assert!(words.last().unwrap().contains(&parsed.destination.to_string()), "{text}");
        }
    }

    #[test]
    fn a_packet_in_hex_is_read_with_and_without_spaces_colons_and_its_ethernet_header() {
        let bytes = read("udp 10.8.0.2:1234 > 10.100.0.10:53").unwrap().bytes;
        let hex = |between: &str| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between);
        for text in
            [hex(""), hex(" "), hex(":"), hex("").to_uppercase(), format!("020000000001020000000002 0800 {}", hex(""))]
        {
            assert_eq!(read(&text).unwrap().bytes, bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_with_an_example() {
        for text in [
            "",
            "tcp",
            "tcp 10.8.0.2 > 10.100.0.10",
            "tcp 10.8.0.2:1 > [2001:db8::1]:1",
            "icmp a > b",
            "45",
            "4",
            "zz",
            "icmp 10.8.0.2:1 > 10.0.0.1",
            "sctp 10.0.0.1:1 > 10.0.0.2:2",
        ] {
            let failure = read(text).unwrap_err();
            assert!(failure.hint.contains("tcp 10.8.0.2:1234 > 10.100.0.10:443"), "{text}: {failure:?}");
        }
    }
}
