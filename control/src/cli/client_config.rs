//! `jetway client-config`: a client's configuration for wg-quick and the WireGuard apps.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jetway_config::{Config, Peer, Secret, Tunnel};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{ClientConfigArguments, Global};
use super::{CliError, check, keys, output};

/// Prints the configuration as text or as a QR code.
pub fn client_config(global: &Global, arguments: &ClientConfigArguments) -> Result<ExitCode, CliError> {
    let config = check::load(global)?.0.config;
    let private_key = arguments.private_key_file.as_deref().map(|path| keys::read_key(Some(path))).transpose()?;
    let text = make(&config, arguments, private_key.as_ref())?;
    if arguments.qr {
        if private_key.is_none() {
            return Err(refused("a QR code needs the client's private key: give it with --private-key-file"));
        }
        output::text_line(&draw(&text)?);
    } else if global.json {
        output::json(&json!({ "config": text.as_str() }));
    } else {
        output::text_line(text.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of the configuration.
pub fn make(
    config: &Config,
    arguments: &ClientConfigArguments,
    private_key: Option<&Secret>,
) -> Result<Zeroizing<String>, CliError> {
    let (tunnel, peer) = find(config, arguments)?;
    let addresses = client_addresses(tunnel, peer);
    let endpoint = endpoint(config, tunnel, arguments.endpoint.as_deref())?;
    let server_key = keys::public_key(&tunnel.private_key);
    // Room for everything, so that the text never moves and leaves a copy of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(4_096 + 64 * (addresses.len() + arguments.allowed_ips.len())));
    text.push_str("[Interface]\n");
    match private_key {
        Some(key) => {
            check_key(peer, key)?;
            line(&mut text, "PrivateKey", Zeroizing::new(STANDARD.encode(key.expose())).as_str());
        }
        None => {
            let _ = writeln!(text, "# Put here the private key whose public key is {}", peer.public_key);
            line(&mut text, "PrivateKey", "PASTE_THE_PRIVATE_KEY_HERE");
        }
    }
    line(&mut text, "Address", &join(&addresses));
    line(&mut text, "MTU", &tunnel.mtu.to_string());
    text.push_str("\n[Peer]\n");
    line(&mut text, "PublicKey", &server_key.to_string());
    if let Some(key) = &peer.preshared_key {
        line(&mut text, "PresharedKey", Zeroizing::new(STANDARD.encode(key.expose())).as_str());
    }
    line(&mut text, "Endpoint", &endpoint);
    line(&mut text, "AllowedIPs", &join(&client_allowed_ips(tunnel, &arguments.allowed_ips)));
    if let Some(seconds) = arguments.persistent_keepalive {
        line(&mut text, "PersistentKeepalive", &seconds.to_string());
    }
    Ok(text)
}

fn find<'a>(config: &'a Config, arguments: &'a ClientConfigArguments) -> Result<(&'a Tunnel, &'a Peer), CliError> {
    let is_meant = |(tunnel, _): &(&Tunnel, &Peer)| match &arguments.tunnel {
        Some(name) => tunnel.name.as_str() == name,
        None => true,
    };
    let found: Vec<_> = config.peers_named(&arguments.name).filter(is_meant).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names: Vec<&str> = config.peers().map(|(_, peer)| peer.name.as_str()).take(10).collect();
            let known = if names.is_empty() { "there are no peers".to_owned() } else { names.join(", ") };
            Err(refused(format!("the configuration has no peer {}; it has: {known}", arguments.name)))
        }
        many => {
            let tunnels: Vec<&str> = many.iter().map(|(tunnel, _)| tunnel.name.as_str()).collect();
            let tunnels = tunnels.join(", ");
            Err(refused(format!("several tunnels have a peer {}: {tunnels}; choose one with --tunnel", arguments.name)))
        }
    }
}

fn check_key(peer: &Peer, private: &Secret) -> Result<(), CliError> {
    let public = keys::public_key(private);
    if public == peer.public_key {
        return Ok(());
    }
    Err(refused(format!(
        "this private key belongs to {public}, but the configuration knows {} by {}; give the right key file, or \
         correct the peer's public_key",
        peer.name, peer.public_key
    )))
}

/// A client's own addresses: those of its allowed IPs that are one address; if there are none, all of them.
fn client_addresses(tunnel: &Tunnel, peer: &Peer) -> Vec<IpNet> {
    let is_host = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
    let in_tunnel = |net: &&IpNet| tunnel.addresses.iter().any(|own| own.contains(*net));
    let hosts: Vec<IpNet> = peer.allowed_ips.iter().filter(is_host).copied().collect();
    let inside: Vec<IpNet> = hosts.iter().filter(in_tunnel).copied().collect();
    match (inside.is_empty(), hosts.is_empty()) {
        (false, _) => inside,
        (true, false) => hosts,
        (true, true) => peer.allowed_ips.clone(),
    }
}

fn client_allowed_ips(tunnel: &Tunnel, wanted: &[IpNet]) -> Vec<IpNet> {
    let nets = if wanted.is_empty() { tunnel.addresses.as_slice() } else { wanted };
    nets.iter().map(IpNet::trunc).collect()
}

/// `HOST:PORT` as wg reads it.
fn endpoint(config: &Config, tunnel: &Tunnel, wanted: Option<&str>) -> Result<String, CliError> {
    let port = tunnel.listen_port;
    let Some(wanted) = wanted else {
        let first = config.ports.iter().flat_map(|port| &port.addresses).next();
        let no_address = || refused("no port has an address; say where clients find this node with --endpoint HOST");
        return Ok(SocketAddr::new(first.ok_or_else(no_address)?.addr(), port).to_string());
    };
    if let Ok(address) = wanted.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    if let Ok(address) = wanted.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port).to_string());
    }
    let (host, own_port) = match wanted.split_once(':') {
        Some((host, text)) => (host, text.parse::<u16>().ok().filter(|port| *port != 0)),
        None => (wanted, Some(port)),
    };
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    match own_port.filter(|_| is_name) {
        Some(port) => Ok(format!("{host}:{port}")),
        None => Err(refused(format!("{wanted} is no endpoint; write HOST, HOST:PORT or [IPV6]:PORT"))),
    }
}

fn draw(text: &str) -> Result<String, CliError> {
    let code = QrCode::new(text.as_bytes()).map_err(|error| {
        refused(format!("the configuration does not fit into a QR code ({error}); use fewer allowed IPs"))
    })?;
    // The crate's names are for black ink on paper. Most terminals are dark, and there the ink is the light part: the
    // code's light modules and its margin, without which phones do not find it.
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{key} = {value}");
}

fn join(nets: &[IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn refused(text: impl Into<String>) -> CliError {
    CliError::Refused(text.into())
}
