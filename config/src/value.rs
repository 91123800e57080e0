//! Values that stand in the file as text: addresses, networks, durations, names, keys.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use crate::intent::{InterfaceName, Name, NameFault, PublicKey};
use crate::section::Field;
use crate::source::shown;

pub(crate) fn name(field: &Field<'_>) -> Option<Name> {
    let text = field.text("\"edge-1\"")?;
    Name::new(text)
        .map_err(|fault| name_fault(field, text, fault, "use 1 to 63 letters, digits and any of . _ - @ +"))
        .ok()
}

pub(crate) fn interface_name(field: &Field<'_>) -> Option<InterfaceName> {
    let text = field.text("\"jw0\"")?;
    InterfaceName::new(text)
        .map_err(|fault| {
            name_fault(field, text, fault, "Linux allows interface names of 1 to 15 letters, digits, . _ -")
        })
        .ok()
}

fn name_fault(field: &Field<'_>, text: &str, fault: NameFault, hint: &str) {
    field.error(format!("`{}` {fault}: {}", field.mark.key, shown(text)), hint);
}

pub(crate) fn ip_address(field: &Field<'_>) -> Option<IpAddr> {
    let text = field.text("\"192.0.2.1\"")?;
    let address = text.parse().ok();
    if address.is_none() {
        let hint = match text.split_once('/').and_then(|(front, _)| front.parse::<IpAddr>().ok()) {
            Some(front) => format!("write it without a prefix length: \"{front}\""),
            None => "for example \"192.0.2.1\" or \"2001:db8::1\"".to_owned(),
        };
        field.error(format!("`{}` is not an IP address: {}", field.mark.key, shown(text)), hint);
    }
    address
}

/// The node's own address with its network, such as `10.8.0.1/16`.
pub(crate) fn interface_address(field: &Field<'_>) -> Option<IpNet> {
    let net = network(field, PrefixLength::Required)?;
    let text = || format!("\"{net}\"");
    let address = net.addr();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        field.error(format!("{} cannot be an interface's address", text()), "use a unicast address of your network");
        return None;
    }
    if net.prefix_len() + 1 < net.max_prefix_len() {
        let first = net.hosts().next().map_or_else(String::new, |host| format!("\"{host}/{}\"", net.prefix_len()));
        let broadcast = matches!(net, IpNet::V4(net) if net.addr() == net.broadcast());
        if address == net.network() || broadcast {
            let kind =
                if broadcast { "the broadcast address of its network" } else { "a network, not an address in it" };
            field.error(
                format!("{} is {kind}", text()),
                format!("write the node's own address with the prefix length, for example {first}"),
            );
            return None;
        }
    }
    Some(net)
}

/// A network without host bits; a bare address is the network of that one host.
pub(crate) fn allowed_network(field: &Field<'_>) -> Option<IpNet> {
    let net = network(field, PrefixLength::Optional)?;
    if net.trunc() == net {
        return Some(net);
    }
    let host = IpNet::from(net.addr());
    field.error(
        format!("\"{net}\" has bits set beyond its prefix length"),
        format!("write \"{}\" for the whole network or \"{host}\" for the one host", net.trunc()),
    );
    None
}

enum PrefixLength {
    Required,
    Optional,
}

fn network(field: &Field<'_>, prefix: PrefixLength) -> Option<IpNet> {
    let text = field.text("\"10.8.0.1/16\"")?;
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        field.error(
            format!("`{}` is not an address with a prefix length: {}", field.mark.key, shown(text)),
            "for example \"10.8.0.1/16\" or \"2001:db8::1/64\"",
        );
        return None;
    };
    let host = IpNet::from(address);
    match (length, prefix) {
        (None, PrefixLength::Optional) => Some(host),
        (None, PrefixLength::Required) => {
            let usual = if address.is_ipv4() { 24 } else { 64 };
            field.error(
                format!("{} has no prefix length", shown(text)),
                format!("say how large its network is, for example \"{address}/{usual}\", or \"{host}\" for none"),
            );
            None
        }
        (Some(length), PrefixLength::Optional | PrefixLength::Required) => {
            let digits = length.bytes().all(|b| b.is_ascii_digit());
            let net = length.parse().ok().filter(|_| digits).and_then(|length| IpNet::new(address, length).ok());
            if net.is_none() {
                field.error(
                    format!("the prefix length of {} is wrong", shown(text)),
                    format!("it goes from 0 to {}; a netmask is not understood", host.max_prefix_len()),
                );
            }
            net
        }
    }
}

/// An address with a port to send to.
pub(crate) fn endpoint(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text("\"203.0.113.9:51820\"")?;
    if let Ok(endpoint) = text.parse::<SocketAddr>() {
        if endpoint.port() != 0 && !endpoint.ip().is_unspecified() && !endpoint.ip().is_multicast() {
            return Some(endpoint);
        }
        field.error(format!("nothing can be sent to {}", shown(text)), "give the peer's unicast address and UDP port");
        return None;
    }
    let (message, hint) = endpoint_fault(text);
    field.error(format!("`{}` {message}: {}", field.mark.key, shown(text)), hint);
    None
}

fn endpoint_fault(text: &str) -> (&'static str, String) {
    let bare = text.trim_matches(|c| c == '[' || c == ']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => return ("has no port", format!("add the port, for example \"{bare}:51820\"")),
        Ok(IpAddr::V6(_)) => return ("has no port", format!("add the port, for example \"[{bare}]:51820\"")),
        Err(_) => {}
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) || host.starts_with('[') {
            return (
                "has a wrong port or address",
                "ports go from 1 to 65535, for example \"203.0.113.9:51820\"".into(),
            );
        }
        let host_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if host_name && host.bytes().any(|b| b.is_ascii_alphabetic()) {
            return (
                "is a host name, which Jetway never looks up",
                format!("write its address, which `getent ahosts {host}` shows, for example \"203.0.113.9:{port}\""),
            );
        }
    }
    ("is not an address with a port", "for example \"203.0.113.9:51820\" or \"[2001:db8::9]:51820\"".into())
}

/// An address with a port to listen on.
pub(crate) fn listen_address(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text("\"127.0.0.1:9590\"")?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if address.is_none() {
        let hint = match text.strip_prefix(':') {
            Some(port) => format!("write \"127.0.0.1:{port}\" for this machine only, \"[::]:{port}\" for everybody"),
            None => "write an address and a port, for example \"127.0.0.1:9590\"".to_owned(),
        };
        field.error(format!("`{}` is not an address with a port: {}", field.mark.key, shown(text)), hint);
    }
    address
}

/// A duration such as `250ms`, `5s` or `1m`, within `low..=high`.
pub(crate) fn duration(field: &Field<'_>, low: Duration, high: Duration) -> Option<Duration> {
    let text = field.text("\"5s\"")?;
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let (number, unit) = text.split_at(text.len() - digits.len());
    let unit_in_milliseconds = match unit.trim() {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let milliseconds = number.parse::<u64>().ok().zip(unit_in_milliseconds).and_then(|(n, unit)| n.checked_mul(unit));
    let Some(duration) = milliseconds.map(Duration::from_millis) else {
        field.error(
            format!("`{}` is not a duration: {}", field.mark.key, shown(text)),
            "write a whole number with its unit: \"250ms\", \"5s\", \"1m\" or \"1h\"",
        );
        return None;
    };
    if duration < low || duration > high {
        field.error(
            format!("`{}` is out of range: {}", field.mark.key, shown(text)),
            format!("write a duration from {low:?} to {high:?}"),
        );
        return None;
    }
    Some(duration)
}

/// A public key in base64.
pub(crate) fn public_key(field: &Field<'_>) -> Option<PublicKey> {
    const HINT: &str = "paste the 44 characters, ending in `=`, that `wg pubkey` or `jetway pubkey` prints";
    let text = field.text("\"base64...\"")?;
    match STANDARD.decode(text).map(<[u8; 32]>::try_from) {
        Ok(Ok([0, rest @ ..])) if rest == [0; 31] => {
            field.error(format!("`{}` is all zeros, which is nobody's key", field.mark.key), HINT);
            None
        }
        Ok(Ok(key)) => Some(PublicKey(key)),
        Ok(Err(bytes)) => {
            field.error(format!("`{}` has {} bytes instead of 32", field.mark.key, bytes.len()), HINT);
            None
        }
        Err(_) => {
            let length = text.chars().count();
            field.error(format!("`{}` is not base64 of 32 bytes ({length} characters)", field.mark.key), HINT);
            None
        }
    }
}
