//! A stock WireGuard peer: wireguard-go in a namespace, configured by wg(8).

use super::{Namespace, Process, World, run, wait_until};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One `[Peer]` of a stock configuration.
#[derive(Clone, Default)]
pub struct WireguardPeer {
    /// Its public key, base64.
    pub public_key: String,
    /// A preshared key, base64.
    pub preshared_key: Option<String>,
    /// What is routed to it and accepted from it.
    pub allowed_ips: Vec<String>,
    /// Where it is, if this side is to begin.
    pub endpoint: Option<String>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
}

/// What `wg show` says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its public key, base64.
    pub public_key: String,
    /// Where it was last heard from.
    pub endpoint: Option<String>,
    /// When the last handshake was completed, in seconds of the system's clock.
    pub handshake_at: Option<u64>,
    /// How long ago that was.
    pub handshake_age: Option<Duration>,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

/// A running wireguard-go.
pub struct WireguardGo {
    interface: String,
    namespace: String,
    process: Process,
}

impl WireguardGo {
    /// Starts it in a namespace with an interface name of its own, without any configuration.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace) -> Self {
        let interface = world.interface("wg");
        let mut command = namespace.command("wireguard-go");
        command.args(["-f", &interface]);
        let process = Process::spawn(world, "wireguard-go", command);
        let socket = format!("/var/run/wireguard/{interface}.sock");
        wait_until("wireguard-go has its socket", Duration::from_secs(30), || Path::new(&socket).exists());
        WireguardGo { interface, namespace: namespace.name().to_owned(), process }
    }

    /// The name of its interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces its configuration by a private key, a port (0: any) and peers.
    #[track_caller]
    pub fn configure(&self, world: &World, private_key: &str, listen_port: u16, peers: &[WireguardPeer]) {
        let file =
            world.secret_file(&format!("{}.conf", self.interface), &configuration(private_key, listen_port, peers));
        self.wg(&["setconf", &self.interface, &file.to_string_lossy()]);
    }

    /// Sets addresses and MTU, brings the interface up and routes `routes` into it.
    #[track_caller]
    pub fn bring_up(&self, namespace: &Namespace, addresses: &[&str], mtu: u32, routes: &[&str]) {
        namespace.addresses(&self.interface, addresses);
        let mut lines = vec![format!("link set {} mtu {mtu} up", self.interface)];
        lines.extend(routes.iter().map(|route| format!("route replace {route} dev {}", self.interface)));
        namespace.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// `wg` with the given arguments, as a person would type it in the namespace.
    #[track_caller]
    pub fn wg(&self, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.namespace, "wg"];
        all.extend(arguments);
        run("ip", &all)
    }

    /// What it says of its peers.
    #[track_caller]
    pub fn peers(&self) -> Vec<PeerState> {
        parse_dump(&self.wg(&["show", &self.interface, "dump"]))
    }

    /// Waits until it has completed a handshake with any peer.
    #[track_caller]
    pub fn wait_for_handshake(&self, limit: Duration) {
        wait_until("a handshake is complete", limit, || self.peers().iter().any(|peer| peer.handshake_age.is_some()));
    }
}

/// The text that `wg setconf` reads.
fn configuration(private_key: &str, listen_port: u16, peers: &[WireguardPeer]) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {private_key}\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key} = {value}").expect("a string takes any line");
    };
    if listen_port != 0 {
        line("ListenPort", &listen_port);
    }
    for peer in peers {
        line("\n[Peer]\nPublicKey", &peer.public_key);
        line("AllowedIPs", &peer.allowed_ips.join(", "));
        if let Some(key) = &peer.preshared_key {
            line("PresharedKey", key);
        }
        if let Some(endpoint) = &peer.endpoint {
            line("Endpoint", endpoint);
        }
        if let Some(seconds) = peer.persistent_keepalive {
            line("PersistentKeepalive", &seconds);
        }
    }
    text
}

/// Parses `wg show INTERFACE dump`: a line of the interface, then a line of eight fields a peer.
pub(super) fn parse_dump(dump: &str) -> Vec<PeerState> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    dump.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let number = |index: usize| fields[index].parse::<u64>().unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert!(fields.len() == 8, "wg printed a line of {} fields: {line:?}", fields.len());
            let handshake = number(4);
            PeerState {
                public_key: fields[0].to_owned(),
                endpoint: (fields[2] != "(none)").then(|| fields[2].to_owned()),
                handshake_at: (handshake != 0).then_some(handshake),
                handshake_age: (handshake != 0).then(|| now.saturating_sub(Duration::from_secs(handshake))),
                received: number(5),
                sent: number(6),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_of_wg_is_read_field_by_field() {
        let dump = "priv\tpub\t51820\toff\nkey=\t(none)\t192.0.2.1:4000\t10.8.0.2/32\t1\t100\t200\toff\nother=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n";
        let peers = parse_dump(dump);
        assert_eq!(peers.len(), 2);
        assert_eq!(peers[0].endpoint.as_deref(), Some("192.0.2.1:4000"));
        assert_eq!((peers[0].received, peers[0].sent), (100, 200));
        assert!(peers[0].handshake_age.is_some());
        assert_eq!((peers[1].endpoint.clone(), peers[1].handshake_age), (None, None));
    }
}
